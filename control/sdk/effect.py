"""Changes outside, each made once: the intent is committed before the call, the outcome after it.

An attempt that finds the outcome returns it without calling. One that finds only the intent (its predecessor died in
between) asks the other side (`probe`), or calls again with the same key where that is harmless (`repeatable`), or asks
a person. What the port keeps is said in `control.sdk.ports`. Without a port the call is made, and nothing is recorded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.types import interrupt
from pydantic import BaseModel, ConfigDict

from control.core.failure import FailureClass
from control.core.freshness import DECISION_MISSING, DECISION_STALE, Moved, refused
from control.sdk.approval import Decision
from control.sdk.call_site import default_key, effect_port, running_config, unrecorded_key
from control.sdk.drive import Ask, Call, Script, drive, drive_async
from control.sdk.ports import Begun, EffectPort, Kind

T = TypeVar("T")


class InDoubt(Exception):
    """Raised by a `call` that cannot tell whether it happened (an answer that never came).

    The effect is left in flight: the next attempt probes, repeats or asks, as after a crash. Any other exception says
    that nothing happened, and the next attempt calls again.
    """

    failure_class = FailureClass.TRANSIENT  # another attempt settles it


class Told(BaseModel):
    """A person's word on an effect in doubt."""

    model_config = ConfigDict(extra="forbid")

    happened: bool
    outcome: Any = None
    call: int | None = None  # the `call` of the question; an answer to an earlier question is asked for again


def effect(
    name: str,
    call: Callable[[str], T],
    *,
    key: str | None = None,
    probe: Callable[[str], T | None] | None = None,
    repeatable: bool = False,
    guarded_by: Decision[Any] | str | None = None,
) -> T:
    """Make a change outside once, from a synchronous node; return what `call` returned the time it happened.

    `call(idempotency_key)` makes the change; it raises if nothing happened and `InDoubt` if it cannot tell.
    `probe(idempotency_key)` asks the other side and returns the outcome, or None for "it did not happen"; it is asked
    before any call that is not the first. `repeatable` says that the other side honours the key, so that a second call
    is harmless. With neither, a person is asked after an interruption.
    `key` names the effect within the run: give one that says what it is ("invoice/4711"), so that moving code cannot
    change it. Two effects with one key are one effect, also after a rewind. The default is the place of the call and
    its ordinal there.
    The outcome is stored: return None, bool, int, float, str, bytes and lists or string-keyed dicts of them, or another
    type that strict serialisation gives back unchanged (datetime, Decimal, UUID, LangChain messages).
    `guarded_by` is the decision of `approval`, or its `question` where that was asked in an earlier node. It must be a
    yes, is spent on this effect alone, and must still stand when the effect begins: what it rests on has not moved, and
    policy would still hear who gave it. Where it has gone stale, it is asked again, by the node that asked.
    Problems: `outside-a-run`, `effect-needs-await`, `decision-missing`, `decision-spent`,
    `decision-stale`; besides, whatever `call`, `probe` or the port raises.
    """
    outcome: T = drive(
        effect_script(name, "effect", key, call=call, probe=probe, repeatable=repeatable, guard=guarded_by)
    )
    return outcome


async def aeffect(
    name: str,
    call: Callable[[str], Awaitable[T] | T],
    *,
    key: str | None = None,
    probe: Callable[[str], Awaitable[T | None] | T | None] | None = None,
    repeatable: bool = False,
    guarded_by: Decision[Any] | str | None = None,
) -> T:
    """`effect` for an asynchronous node; `call` and `probe` may be coroutine functions, and must not block."""
    outcome: T = await drive_async(
        effect_script(name, "effect", key, call=call, probe=probe, repeatable=repeatable, guard=guarded_by)
    )
    return outcome


def recorded(name: str, call: Callable[[str], T], *, key: str | None = None) -> T:
    """Ask a model (or another reader of the world) once: its answer is recorded and never asked for again.

    A call that was in flight when the worker died is repeated and counted. `call` receives the idempotency key; `key`
    and what may be returned follow the rules of `effect`.
    """
    outcome: T = drive(effect_script(name, "model", key, call=call, repeatable=True))
    return outcome


async def arecorded(name: str, call: Callable[[str], Awaitable[T] | T], *, key: str | None = None) -> T:
    """`recorded` for an asynchronous node."""
    outcome: T = await drive_async(effect_script(name, "model", key, call=call, repeatable=True))
    return outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class _Effect:
    """One effect and where it is recorded. The methods are the steps of `_script`."""

    name: str
    kind: Kind
    key: str
    config: RunnableConfig
    port: EffectPort
    call: Callable[[str], Any]
    probe: Callable[[str], Any] | None
    repeatable: bool
    guard: Decision[Any] | str | None
    told: Callable[[Any], Any]

    def begin(self, *, again: bool = False) -> Ask:
        more: dict[str, Any] = {"again": True} if again else {}
        if self.guard is not None:
            more["guarded_by"] = _question(self.guard)
        return Ask(
            self.port.loop,
            lambda: self.port.begin(self.config, key=self.key, name=self.name, kind=self.kind, **more),
        )

    def end(self, **what: Any) -> Ask:
        return Ask(self.port.loop, lambda: self.port.end(self.config, key=self.key, **{"error": None} | what))


def effect_script(
    name: str,
    kind: Kind,
    key: str | None,
    *,
    call: Callable[[str], Any],
    probe: Callable[[str], Any] | None = None,
    repeatable: bool,
    guard: Decision[Any] | str | None = None,
    told: Callable[[Any], Any] = lambda outcome: outcome,
) -> Script:
    """The steps of an effect, for another script to go through. Raises and takes what `effect` does. `told` makes an
    outcome of what a person says has come of it.
    """
    if isinstance(guard, Decision) and not guard.approved:
        raise DECISION_MISSING.because(f"{guard.by or 'Somebody'} said no.")
    config = running_config()
    key = default_key(config, name) if key is None else key
    port = effect_port(config)
    if port is None:
        return _unrecorded(call, unrecorded_key(config, key))
    made: dict[str, Any] = {"call": call, "probe": probe, "repeatable": repeatable, "guard": guard, "told": told}
    return _script(_Effect(name=name, kind=kind, key=key, config=config, port=port, **made))


def _unrecorded(call: Callable[[str], Any], idempotency_key: str) -> Script:
    return (yield Call(call, idempotency_key))


def _script(effect: _Effect) -> Script:
    begun: Begun = yield effect.begin()
    if begun.state == "done":
        return begun.outcome
    if begun.state == "stale":
        _ask_again(effect, begun.outcome)
    if effect.probe is not None and (begun.state == "in_flight" or begun.calls > 1):
        found = yield Call(effect.probe, begun.idempotency_key)
        if found is not None:
            yield effect.end(state="done", outcome=found, how="probed")
            return found
    if begun.state == "in_flight":
        if effect.probe is None and not effect.repeatable:
            said = _ask_a_person(effect, begun)
            if said.happened:
                outcome = effect.told(said.outcome)
                yield effect.end(state="done", outcome=outcome, how="told")
                return outcome
        begun = yield effect.begin(again=True)
    return (yield from _called(effect, begun.idempotency_key))


def _called(effect: _Effect, idempotency_key: str) -> Script:
    try:
        outcome = yield Call(effect.call, idempotency_key)
    except InDoubt:
        raise
    except Exception as error:  # not BaseException: a call that was cancelled or killed may have happened
        yield effect.end(state="failed", outcome=None, how="called", error=f"{type(error).__name__}: {error}")
        raise
    yield effect.end(state="done", outcome=outcome, how="called")
    return outcome


def _question(guard: Decision[Any] | str) -> str:
    """The id of the question whose approval guards. Raises `decision-missing` where no control plane asked it."""
    found = guard if isinstance(guard, str) else guard.question
    if found is None:
        raise DECISION_MISSING.because("It was answered past the control plane, which knows of no decision.")
    return found


def _ask_again(effect: _Effect, moved: Any) -> NoReturn:
    """Ask anew in the node that asked; it finds the newer answer when it is resumed. Elsewhere, refuse."""
    if isinstance(effect.guard, Decision) and effect.guard.renew is not None:
        effect.guard.renew()
    raise refused(DECISION_STALE, [Moved(**one) for one in moved])


def _ask_a_person(effect: _Effect, begun: Begun) -> Told:
    """Each round has its own interrupt id, so an answer to an earlier doubt about this key cannot settle this one."""
    question = {
        "type": "control.doubt",
        "title": f"Did “{effect.name}” happen?",
        "name": effect.name,
        "key": begun.idempotency_key,
        "call": begun.calls,
    }
    while True:
        told = interrupt(question, response_schema=Told)
        if told.call in (None, begun.calls):
            return told
