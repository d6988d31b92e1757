"""Questions that hold a run until a person, or a policy, answers.

Both are LangGraph interrupts with a typed answer: LangGraph validates it before the node sees it and keeps nothing of
one that does not fit, so a wrong answer can be given again. The control plane turns `control.approval` into an approval
with a packet and delivers the binding decision; in plain LangGraph, `Command(resume=...)` delivers it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from langgraph.types import interrupt
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, create_model, model_validator
from pydantic.json_schema import SkipJsonSchema

from control.core.freshness import DECISION_STALE, bound
from control.core.gate import read_gate
from control.sdk.call_site import answers_so_far, effect_port, running_config

A = TypeVar("A", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Decision(Generic[A]):
    """What was decided. `answer` is there when the question had an answer type and was approved. `by` and `at` are the
    control plane's; in plain LangGraph they are what the caller said, or None. `question` is the id under which the
    control plane knows it, and None in plain LangGraph; `renew` asks again in the node that asked."""

    approved: bool
    answer: A | None
    by: str | None
    at: datetime | None
    note: str | None
    question: str | None = None
    renew: Callable[[], None] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Rung:
    """A rung of an escalation ladder: once `after` has gone by without a decision, holders of these roles may decide as
    well, and `notify` is told (addresses, as notifications know them)."""

    after: timedelta
    to: Sequence[str] = ()
    notify: Sequence[str] = ()


def approval(
    title: str,
    *,
    action: Mapping[str, Any],
    on_yes: str,
    on_no: str,
    evidence: Sequence[Mapping[str, Any]] = (),
    answer: type[A] | None = None,
    risk: str | None = None,
    confidence: float | None = None,
    on_silence: str | None = None,
    reversible: bool | None = None,
    expires_in: timedelta | None = None,
    quorum: int = 1,
    roles: Sequence[str] | Mapping[str, int] = (),
    voters: Sequence[str] = (),
    four_eyes: bool | Sequence[str] = False,
    on_timeout: Literal["deny", "escalate", "default"] = "deny",
    default: A | None = None,
    ladder: Sequence[Rung] = (),
    skills: Sequence[str] | None = None,
    reassign_before: timedelta | None = None,
    fresh: Mapping[str, Any] | None = None,
    valid_for: timedelta | None = None,
) -> Decision[A]:
    """Ask whether `action` may happen, and return once a permitted person has decided.

    `action` and `evidence` are what the approver sees and what the decision is bound to by its digest: exact arguments,
    plain JSON values. `on_yes`, `on_no` and `on_silence` are sentences; `confidence` lies in 0..1. `answer` is a model
    for what an approver sets (an amount, a condition); if every field of it has a default, an approval without one
    takes the defaults. Whatever the node did before this line is done again when it is resumed, so put effects behind
    their own `effect(...)`.

    Who must agree, and what silence comes to, is fixed when the question is asked; raises `gate-invalid` where it
    contradicts itself. `quorum` persons must say yes, and one no settles it. `roles` and `voters` say who may vote:
    holders of a role, or persons by name; without either, whoever policy lets. A mapping keeps seats of the quorum for
    a role: `{"finance": 1, "risk": 1}`. `four_eyes`: the run's starter may not approve, nor may those it names. When
    `expires_in` is over, the answer is no (`deny`), or `default`, or the rest of the `ladder` is climbed and the
    question stays open (`escalate`). With `skills` it is given to somebody who has them, and `reassign_before` its end
    to somebody else.

    A yes is bound to what was shown. `fresh` has the facts that it rests on (`control facts`), by name, as the node has
    read them; `valid_for` says how long what is shown holds. A yes that comes after any of them has moved is refused,
    and the question asked again; so it is where the node, resumed, would show another action or evidence, or other
    facts. What a node shows must therefore follow from its state, from facts, and from what it has `recorded`.
    """
    value = {
        "type": "control.approval",
        "title": title,
        "action": dict(action),
        "evidence": [dict(item) for item in evidence],
        "risk": risk,
        "confidence": confidence,
        "on_yes": on_yes,
        "on_no": on_no,
        "on_silence": on_silence,
        "reversible": reversible,
        "expires_in_s": _seconds(expires_in),
    }
    value |= _gate(
        expires_in, quorum=quorum, roles=roles, voters=voters, four_eyes=four_eyes, on_timeout=on_timeout,
        default=default, ladder=ladder, skills=skills, reassign_before=reassign_before,
    )  # fmt: skip
    value |= {"fresh": dict(fresh)} if fresh else {}
    value |= {"valid_for_s": _seconds(valid_for)} if valid_for is not None else {}
    given, renew = _binding(value, verdict_of(answer))
    approved = given.decision == "approve"
    typed = (given.answer or answer()) if approved and answer is not None else None
    return Decision(approved, typed, given.by, given.at, given.note, given.question, renew)


def _binding(value: Mapping[str, Any], schema: type[BaseModel]) -> tuple[Any, Callable[[], None]]:
    """The answer that binds, and how to ask once more. An answer that does not hold is followed by another question,
    which names it: so whoever is resumed again knows that it was passed over, though what had moved may be back.
    """
    asking = value
    while True:
        given: Any = interrupt(asking, response_schema=schema)
        later = _answers_after(given)
        passed_over = any(_of(one, "after") == given.question for one in later)
        if not passed_over and holds(given, asking):
            return given, partial(_renew, value, given, schema)
        asking = _next(value, given, later)


def _renew(value: Mapping[str, Any], given: Any, schema: type[BaseModel]) -> None:
    """Ask again, at the end of what the node has asked."""
    interrupt(_next(value, given, _answers_after(given)), response_schema=schema)


def _next(value: Mapping[str, Any], given: Any, later: Sequence[Any]) -> Mapping[str, Any]:
    """The question that follows an answer which does not hold. LangGraph gives answers by their order in the node, so
    it has to be the next that the node asks. Raises `decision-stale`.
    """
    if later and _of(later[0], "after") != given.question:
        raise DECISION_STALE.because("Its node has asked something else since, so it cannot be asked again there.")
    return {**value, "after": given.question}


def holds(given: Any, asked: Mapping[str, Any]) -> bool:
    """Whether an answer is one to what would be shown now. A no always is."""
    if given.decision != "approve" or given.bound is None:
        return not given.stale
    port = effect_port(running_config())
    return port is None or port.shown(bound(asked)) == given.bound


def _answers_after(given: Any) -> Sequence[Any]:
    """What the node was answered after this; nothing is known of that in plain LangGraph."""
    so_far = answers_so_far()
    mine = next((at for at, one in enumerate(so_far) if _of(one, "question") == given.question), len(so_far))
    return so_far[mine + 1 :] if given.question is not None else ()


def _of(answer: Any, name: str) -> Any:
    return answer.get(name) if isinstance(answer, Mapping) else None


def _rung(rung: Rung) -> dict[str, Any]:
    return {"after_s": rung.after.total_seconds(), "to": list(rung.to), "notify": list(rung.notify)}


def _gate(
    expires_in: timedelta | None,
    *,
    quorum: int,
    roles: Sequence[str] | Mapping[str, int],
    voters: Sequence[str],
    four_eyes: bool | Sequence[str],
    on_timeout: str,
    default: BaseModel | None,
    ladder: Sequence[Rung],
    skills: Sequence[str] | None,
    reassign_before: timedelta | None,
) -> dict[str, Any]:
    """The gate as the approver is shown it, without what goes without saying; nothing for the plainest."""
    named = {} if default is None else {"default": default.model_dump(mode="json")}
    gate = {
        "quorum": quorum,
        "seats": dict(roles) if isinstance(roles, Mapping) else {},
        "roles": [] if isinstance(roles, Mapping) else list(roles),
        "voters": list(voters),
        "four_eyes": bool(four_eyes),
        "not_by": [] if isinstance(four_eyes, bool) else list(four_eyes),
        "on_timeout": on_timeout,
        "ladder": [_rung(rung) for rung in ladder],
        "skills": None if skills is None else list(skills),
        "reassign_before_s": _seconds(reassign_before),
    }
    told = read_gate(gate | named, expires_in).as_json() | named
    return {"gate": told} if told else {}


def ask(
    question: str,
    *,
    answer: type[A],
    evidence: Sequence[Mapping[str, Any]] = (),
) -> A:
    """Ask a person for something the run needs (not for permission) and return it as an `answer`."""
    value = {
        "type": "control.question",
        "title": question,
        "evidence": [dict(item) for item in evidence],
    }
    given: Any = interrupt(value, response_schema=_reply(answer))
    typed: A = given.answer
    return typed


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid")

    note: str | None = Field(None, description="A sentence for the record")
    by: str | None = Field(None, description="Who answered")
    at: AwareDatetime | None = Field(None, description="When it was answered")


class _Verdict(_Given):
    """The last four are the control plane's own, which no form shows. stale: a no that means, ask again."""

    decision: Literal["approve", "reject"]
    answer: BaseModel | None = None
    question: SkipJsonSchema[str | None] = None
    after: SkipJsonSchema[str | None] = None
    bound: SkipJsonSchema[str | None] = None
    stale: SkipJsonSchema[bool] = False


class _VerdictWithAnswer(_Verdict):
    # The same rule twice: for those who validate by JSON Schema, and for LangGraph.
    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"decision": {"const": "approve"}}},
            "then": {"required": ["answer"], "properties": {"answer": {"not": {"type": "null"}}}},
        }
    )

    @model_validator(mode="after")
    def _approval_carries_its_answer(self) -> _VerdictWithAnswer:
        if self.decision == "approve" and self.answer is None:
            raise ValueError("an approval of this question needs an answer")
        return self


def verdict_of(answer: type[BaseModel] | None) -> type[BaseModel]:
    if answer is None:
        return create_model("Verdict", __base__=_Verdict, answer=(None, None))
    needed = any(field.is_required() for field in answer.model_fields.values())
    fields: dict[str, Any] = {"answer": (answer | None, Field(None, description="What the approver sets"))}
    return create_model(f"{answer.__name__}Verdict", __base__=_VerdictWithAnswer if needed else _Verdict, **fields)


def _reply(answer: type[BaseModel]) -> type[BaseModel]:
    return create_model(f"{answer.__name__}Reply", __base__=_Given, answer=(answer, ...))


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()
