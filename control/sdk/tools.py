"""Tool calls of an agent under the rules: policy is asked before each, and its answer holds.

    ToolNode(tools, **govern_tools({"pay": Declared(effect=True, risk="high", reversible=False)}))

`ToolNode` calls these wrappers around each call; so does LangChain's `AgentMiddleware`, whose methods of the same names
they can be. What the calls of one node come to is settled before the first of them runs, in the order in which the
model made them: LangGraph gives answers by the order of the questions, and runs the whole node again for each.

A call that needed leave is an effect that its approval guards, spent on this one call. So is, unguarded, a call of a
tool that is declared to be an effect. Any other runs as often as its node does.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypedDict
from weakref import WeakKeyDictionary

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import CONFIG_KEY_READ, CONFIG_KEY_RUNTIME
from langgraph.errors import GraphBubbleUp
from langgraph.types import Command, interrupt

from control.core.action import Action
from control.core.freshness import DECISION_MISSING, DECISION_STALE
from control.core.intent import UNDECLARED, Declared, Intent
from control.core.packet import call_digest
from control.core.problem import Refusal
from control.core.verdict import Ask, Deny, Permit, Verdict
from control.sdk.approval import holds, verdict_of
from control.sdk.arguments import ArgumentsUnfit, as_taken, edited_as
from control.sdk.call_site import default_key, effect_port, running_config
from control.sdk.drive import Call, Script, drive, drive_async
from control.sdk.effect import effect_script
from control.sdk.policy import judged

if TYPE_CHECKING:  # whoever has a ToolNode has imported it; who has none need not wait for it
    from langchain_core.messages import ToolCall
    from langgraph.prebuilt.tool_node import ToolCallRequest

_COMMAND: Final = ("graph", "update", "resume", "goto")


class Wrappers(TypedDict):
    """What `ToolNode` takes under these names."""

    wrap_tool_call: Callable[[ToolCallRequest, Callable[[ToolCallRequest], Any]], Any]
    awrap_tool_call: Callable[[ToolCallRequest, Callable[[ToolCallRequest], Awaitable[Any]]], Awaitable[Any]]


def govern_tools(declared: Mapping[str, Declared] | None = None, *, messages_key: str = "messages") -> Wrappers:
    """Wrappers that ask policy before each call of a tool; give `ToolNode` both, since a worker awaits.

    `declared` says of tools, by name, what policy and approvers ought to know. Policy is asked as the run's agent, with
    the arguments as the tool will take them. What it permits, runs. What it denies does not, and the model is told why.
    Where it asks, the run waits for an approval of this very call; an approver may change its arguments, within the
    tool's schema, and policy is asked about these too. A no, an approval that no longer stands and a call that the
    rules forbid by now do not run, whatever else has changed, and the model is told.

    In plain LangGraph there are no rules: calls run, and those of a tool declared with `ask` interrupt first. An effect
    must return a message, or a `Command` of what strict serialisation takes. With several calls in one `Send` to the
    node, one may run before another is settled.
    """
    governor = _Governor(declared or {}, messages_key)
    return Wrappers(wrap_tool_call=governor.call, awrap_tool_call=governor.acall)


@dataclass(frozen=True, slots=True)
class _Leave:
    """A call that may run: with these arguments, where somebody changed them; under the approval of `guard`, where it
    needed one."""

    key: str
    declared: Declared
    args: Mapping[str, Any] | None = None
    guard: str | None = None
    asked: bool = False


@dataclass(frozen=True, slots=True)
class _Refused:
    """A call that may not run, and what the model is told."""

    why: str


@dataclass(slots=True)
class _Batch:
    """The calls of one task: what each comes to; and the question that holds all of them."""

    settled: dict[str, _Leave | _Refused] = field(default_factory=dict)
    held_by: GraphBubbleUp | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


_batches: Final[WeakKeyDictionary[Any, dict[int, _Batch]]] = WeakKeyDictionary()
_making: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Governor:
    declared: Mapping[str, Declared]
    messages_key: str

    def call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        """`wrap_tool_call` of `ToolNode` and of LangChain's middleware."""
        config = running_config()
        batch = _batch(config)
        with batch.lock:
            leave = drive(self._leave(batch, request, config))
        return drive(_carried_out(leave, request, perform=handler, kept=lambda req: _kept(handler(req))))

    async def acall(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]) -> Any:
        """`awrap_tool_call`, likewise."""
        config = running_config()
        batch = _batch(config)

        async def kept(req: ToolCallRequest) -> Any:
            return _kept(await handler(req))

        async with batch.turn:
            leave = await drive_async(self._leave(batch, request, config))
        return await drive_async(_carried_out(leave, request, perform=handler, kept=kept))

    def _leave(self, batch: _Batch, request: ToolCallRequest, config: RunnableConfig) -> Script:
        """What this call comes to; settles every call beside it as well."""
        if batch.held_by is not None:
            raise batch.held_by
        wanted = _named(request.tool_call)
        if wanted not in batch.settled:
            try:
                for call in _beside(request, config, self.messages_key):
                    batch.settled[_named(call)] = yield from self._settled(call, request, config)
            except GraphBubbleUp as question:
                batch.held_by = question
                raise
        return batch.settled[wanted]

    def _settled(self, call: ToolCall, request: ToolCallRequest, config: RunnableConfig) -> Script:
        tools = {tool.name: tool for tool in request.runtime.tools}
        tool = request.tool if call["name"] == request.tool_call["name"] else tools.get(call["name"])
        key = default_key(config, call["name"])
        try:
            args = as_taken(tool, call["args"])
        except ArgumentsUnfit as unfit:
            return _Refused(f"The arguments of `{call['name']}` are not right: {unfit}. Correct them and try again.")
        declared = self.declared.get(call["name"], UNDECLARED)
        intent = Intent(action=Action.CALL_TOOL, name=call["name"], args=args, declared=declared)
        verdict: Verdict = yield from judged(config, intent, key=key)
        match verdict:
            case Deny():
                return _denied(intent, verdict)
            case Permit() if not declared.ask:
                return _Leave(key, declared)
        return (yield from _asked(_Leave(key, declared, asked=True), intent, verdict, edited=edited_as(tool)))


def _asked(leave: _Leave, intent: Intent, verdict: Verdict, *, edited: Any) -> Script:
    """What somebody says of a call. Where they change it so that other rules ask, these ask too."""
    config, agreed = running_config(), set(verdict.rules)
    while True:
        value = _packet(intent, verdict)
        given: Any = interrupt(value, response_schema=verdict_of(edited))
        if (refused := _refusal(intent, given, shown=value, config=config)) is not None:
            return refused
        leave = replace(leave, guard=given.question)
        if given.answer is None or given.answer.args in (None, intent.args):
            return leave
        intent = replace(intent, args=given.answer.args)
        leave = replace(leave, args=intent.args)
        verdict = yield from judged(config, intent, key=f"{leave.key}/{call_digest(intent.name, intent.args)}")
        if isinstance(verdict, Deny):
            return _denied(intent, verdict)
        if isinstance(verdict, Permit) or agreed.issuperset(verdict.rules):
            return leave
        agreed |= set(verdict.rules)


def _refusal(intent: Intent, given: Any, *, shown: Mapping[str, Any], config: RunnableConfig) -> _Refused | None:
    """Why an answer lets nothing through; None where it does."""
    if given.stale or not holds(given, shown):
        return _outdated(intent, given.note or "What was shown is no longer what would be done.")
    if given.decision == "reject":
        reason = f" with reason: {given.note.rstrip('.')}" if given.note else ""
        return _Refused(f"{given.by or 'Somebody'} refused the call of `{intent.name}`{reason}. {_NOT_AGAIN}")
    if effect_port(config) is not None and given.question is None:
        return _outdated(intent, f"{DECISION_MISSING.title}: it was answered past the control plane.")
    return None


_NOT_AGAIN: Final = "It was not executed. Do not retry it unless the user explicitly requests it."


def _denied(intent: Intent, verdict: Deny) -> _Refused:
    rules = f" (rules: {', '.join(verdict.rules)})" if verdict.rules else ""
    return _Refused(f"The rules do not allow this call of `{intent.name}`: {verdict.why}{rules} {_NOT_AGAIN}")


def _outdated(intent: Intent, why: str) -> _Refused:
    return _Refused(
        f"The approval of `{intent.name}` does not stand: {why.rstrip('.')}. It was not executed. Call it again if it "
        "is still wanted; somebody will be asked anew."
    )


def _packet(intent: Intent, verdict: Verdict) -> dict[str, Any]:
    """What the approver is shown, and the decision is bound to."""
    demand = verdict.demanded.as_json() if isinstance(verdict, Ask) else {}
    declared = intent.declared
    return {
        "type": "control.approval",
        "title": f"Call {intent.name}?",
        "action": {"name": intent.name, "args": dict(intent.args)},
        "evidence": [{"kind": "policy", "title": verdict.why, "rules": list(verdict.rules)}],
        "risk": declared.risk,
        "reversible": declared.reversible,
        "cost_usd": declared.cost_usd,
        "on_yes": f"{intent.name} is called once, with exactly these arguments or those you set.",
        "on_no": f"{intent.name} is not called, and the agent is told so.",
        "rules": list(verdict.rules),
        "intent": intent.terms(),
        **demand,
    }


def _carried_out(
    leave: _Leave | _Refused,
    request: ToolCallRequest,
    *,
    perform: Callable[[ToolCallRequest], Any],
    kept: Callable[[ToolCallRequest], Any],
) -> Script:
    """The call's result. `perform` makes the call, and `kept` makes it and returns what the effect ledger keeps."""
    if isinstance(leave, _Refused):
        return _message(request, leave)
    name = request.tool_call["name"]
    if leave.args is not None:
        request = request.override(tool_call={**request.tool_call, "args": dict(leave.args)})
    if not leave.asked and not leave.declared.effect:
        return (yield Call(lambda _: perform(request), leave.key))
    about: dict[str, Any] = {"repeatable": leave.declared.repeatable, "guard": leave.guard}
    about["told"] = partial(_told, request)
    try:
        outcome = yield from effect_script(name, "effect", leave.key, call=lambda _: kept(request), **about)
    except Refusal as refusal:
        if refusal.problem is not DECISION_STALE:
            raise
        return _message(request, _outdated(Intent(action=Action.CALL_TOOL, name=name), refusal.why))
    return _returned(outcome)


def _message(request: ToolCallRequest, refused: _Refused) -> ToolMessage:
    call = request.tool_call
    return ToolMessage(refused.why, name=call["name"], tool_call_id=call["id"], status="error")


def _told(request: ToolCallRequest, outcome: Any) -> ToolMessage:
    """What a person says has come of a call that was made, as the model is told: a message, whatever they wrote."""
    call, said = request.tool_call, outcome if isinstance(outcome, str) else json.dumps(outcome, ensure_ascii=False)
    text = "It was carried out; what came of it is not known." if outcome is None else said
    return ToolMessage(text, name=call["name"], tool_call_id=call["id"])


def _kept(outcome: Any) -> Any:
    """A result as the effect ledger takes it: it knows messages, but no `Command`."""
    if isinstance(outcome, list):
        return [_kept(part) for part in outcome]
    if isinstance(outcome, Command):
        return {"command": {name: getattr(outcome, name) for name in _COMMAND}}
    return outcome


def _returned(kept: Any) -> Any:
    if isinstance(kept, list):
        return [_returned(part) for part in kept]
    return Command(**kept["command"]) if isinstance(kept, dict) else kept


def _batch(config: RunnableConfig) -> _Batch:
    """That of the task that is executing, in this attempt of its node."""
    configurable = config["configurable"]
    info = configurable[CONFIG_KEY_RUNTIME].execution_info
    with _making:
        return _batches.setdefault(configurable[CONFIG_KEY_READ], {}).setdefault(
            info.node_attempt if info else 1, _Batch()
        )


def _named(call: ToolCall) -> str:
    return f"{call['id']}/{call_digest(call['name'], call['args'])}"


def _beside(request: ToolCallRequest, config: RunnableConfig, messages_key: str) -> Sequence[ToolCall]:
    """The calls that the same task makes, in the model's order. A task made by `Send` has been given its own."""
    alone = [request.tool_call]
    if config["metadata"]["langgraph_path"][0] == "__pregel_push":
        return alone
    state = request.state
    found = state.get(messages_key) if isinstance(state, Mapping) else getattr(state, messages_key, state)
    messages = found if isinstance(found, list) else []
    said = next((message for message in reversed(messages) if isinstance(message, AIMessage)), None)
    calls = said.tool_calls if said is not None else []
    return calls if _named(request.tool_call) in map(_named, calls) else alone
