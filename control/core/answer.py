"""What a person's answer becomes: the value that the waiting graph is resumed with.

`settle` reads what was said in whatever form it came (a word, an edit, a decision for each action, a graph's own
answer shape, or that of another library's client), checks it against the packet, and writes it in exactly the shape
that the asker takes. An answer that does not fit is refused before anything is kept of it.

- The SDK's questions take who answered and when along with the answer; its doubts, which call was doubted.
- A `HITLRequest` takes one decision for each action, in order; a `tool_approval` one; a `HumanInterrupt` a list.
- Anything else takes the answer as it was given.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from control.core.decision import Decision, inbox, invalid, langchain, read_decision
from control.core.packet import Action, Choice, Packet, Shape
from control.core.problem import Refusal


class Word(StrEnum):
    """What was said, and what the decision came to."""

    APPROVED = "approved"
    REJECTED = "rejected"
    ANSWERED = "answered"


@dataclass(frozen=True, slots=True)
class Said:
    """word: the verb it was said with. answer: what was typed, in the shape the graph or its client has for it.

    edit: arguments of the only action to change; the others stay. decisions: one for each action, in order, each a word
    (`"approve"`, `"reject"`) or an object with `type`. At most one of the three is given.
    """

    word: Word
    answer: Any = None
    edit: Mapping[str, Any] | None = None
    decisions: Sequence[Any] | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """What a question was settled with. value: what its graph is resumed with."""

    word: Word
    value: Any


def settle(packet: Packet, said: Said, *, by: str, at: datetime) -> Settled:
    """What was said, in the shape that the asker takes. Raises `answer-invalid`; a schema is left to the caller."""
    _check_json(said)
    if packet.is_approval is (said.word is Word.ANSWERED):
        raise invalid("It is approved or rejected." if packet.is_approval else "It asks for an answer, not for leave.")
    if packet.shape in _RENDERED:
        decisions = _decisions(packet, said)
        return Settled(_verdict(decisions), _RENDERED[packet.shape](packet, decisions))
    if said.edit is not None or said.decisions is not None:
        raise invalid("Its action cannot be changed; what an approver sets is given as the answer.")
    signed = {"note": said.note, "by": by, "at": at.isoformat()}
    match packet.shape:
        case Shape.APPROVAL:
            verb = Choice.REJECT if said.word is Word.REJECTED else Choice.APPROVE
            return Settled(said.word, {"decision": verb.value, "answer": said.answer, **signed})
        case Shape.QUESTION:
            return Settled(said.word, {"answer": said.answer, **signed})
        case Shape.DOUBT if isinstance(said.answer, Mapping) and "call" in packet.value:
            return Settled(said.word, {"call": packet.value["call"], **said.answer})
    return Settled(said.word, said.answer)


def read_back(packet: Packet, value: Any) -> tuple[Decision, ...]:
    """The decisions that a value settled the actions of a packet with; empty where it is none that `settle` makes."""
    try:
        return tuple(_stated(packet, value)) if packet.shape in _RENDERED else ()
    except Refusal:
        return ()


def is_plain_yes(packet: Packet, value: Any) -> bool:
    """Whether the value lets everything happen exactly as it was asked."""
    if packet.shape is Shape.APPROVAL:
        return isinstance(value, Mapping) and value.get("decision") == "approve" and value.get("answer") is None
    decisions = read_back(packet, value)
    return bool(decisions) and all(decision.choice is Choice.APPROVE for decision in decisions)


def _decisions(packet: Packet, said: Said) -> tuple[Decision, ...]:
    """One decision for each action, each of a kind that its action allows."""
    decisions = tuple(_said(packet, said))
    if len(decisions) != (count := len(packet.actions)):
        raise invalid(f"{count} {'action waits' if count == 1 else 'actions wait'} for a decision each, in order;"
                       f" {len(decisions)} came.")  # fmt: skip
    for number, (action, decision) in enumerate(zip(packet.actions, decisions, strict=True), start=1):
        if decision.choice not in action.allowed and not _is_refusal(packet, action, decision):
            allowed = ", ".join(sorted(action.allowed)) or "nothing: it can only be cancelled"
            raise invalid(f"{_which(packet, number)} does not take {decision.choice}; it takes {allowed}.")
    if said.word is Word.REJECTED and any(decision.choice is not Choice.REJECT for decision in decisions):
        raise invalid("A rejection refuses every action; what lets one of them through is an approval.")
    _check_same(packet, decisions)
    return tuple(_with_note(decision, said.note) for decision in decisions)


def takes_no(packet: Packet) -> bool:
    """Whether a no to all that it asks can be given at all: some askers allow none."""
    return all(
        Choice.REJECT in action.allowed or _is_refusal(packet, action, Decision(Choice.REJECT))
        for action in packet.actions
    )


def _is_refusal(packet: Packet, action: Action, decision: Decision) -> bool:
    """A `HumanInterrupt` that cannot be ignored is refused by the text of a response."""
    return packet.shape is Shape.INBOX and decision.choice is Choice.REJECT and Choice.RESPOND in action.allowed


def _check_same(packet: Packet, decisions: Sequence[Decision]) -> None:
    """Refuse a yes and a no to one and the same call: nothing tells the two apart once the graph goes on."""
    if packet.shape is not Shape.BATCH:
        return
    said: dict[str, bool] = {}
    for action, decision in zip(packet.actions, decisions, strict=True):
        lets = decision.choice is Choice.APPROVE
        if said.setdefault(action.digest, lets) is not lets:
            raise invalid(f"Two of the actions are the same call of {action.name}; decide them alike.")


def _verdict(decisions: Sequence[Decision]) -> Word:
    """What the decisions come to: rejected or answered where nothing at all is let through."""
    kinds = {decision.choice for decision in decisions}
    if kinds == {Choice.REJECT}:
        return Word.REJECTED
    return Word.APPROVED if kinds & {Choice.APPROVE, Choice.EDIT} else Word.ANSWERED


def _with_note(decision: Decision, note: str | None) -> Decision:
    unexplained = decision.choice is Choice.REJECT and decision.message is None
    return Decision(decision.choice, message=note) if unexplained else decision


def _said(packet: Packet, said: Said) -> Iterator[Decision]:
    given = [part for part in (said.answer, said.edit, said.decisions) if part is not None]
    if len(given) > 1:
        raise invalid("An answer, an edit and decisions exclude each other.")
    if said.edit is not None:
        yield _edited(packet, said)
    elif said.decisions is not None:
        yield from _each(packet, said.decisions)
    elif said.answer is not None:
        yield from _stated(packet, said.answer)
    else:
        choice = Choice.REJECT if said.word is Word.REJECTED else Choice.APPROVE
        yield from (Decision(choice) for _ in packet.actions)


def _edited(packet: Packet, said: Said) -> Decision:
    if len(packet.actions) != 1:
        raise invalid(f"{len(packet.actions)} actions wait; say in decisions which of them is edited.")
    if not isinstance(said.edit, Mapping):
        raise invalid("An edit is an object of arguments.")
    return Decision(Choice.EDIT, args={**packet.actions[0].args, **said.edit})


def _stated(packet: Packet, value: Any) -> Iterator[Decision]:
    """An answer in the asker's own shape, or in that of a client that took it for another's."""
    if isinstance(value, Mapping) and "decisions" in value:
        if set(value) != {"decisions"} or not isinstance(value["decisions"], list):
            raise invalid("`decisions` is a list, and stands alone.")
        yield from _each(packet, value["decisions"])
    else:
        yield from _each(packet, value if isinstance(value, list) else [value])


def _each(packet: Packet, values: Any) -> Iterator[Decision]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise invalid("Decisions are a list, one for each action.")
    for number, value in enumerate(values, start=1):
        action = packet.actions[number - 1] if number <= len(packet.actions) else None
        yield read_decision(action, value, which=_which(packet, number))


def _which(packet: Packet, number: int) -> str:
    if number > len(packet.actions):
        return f"Decision {number}"
    name = packet.actions[number - 1].name
    return name if len(packet.actions) == 1 else f"Action {number} ({name})"


def _spelled(packet: Packet, decisions: Sequence[Decision], spell: Any) -> list[dict[str, Any]]:
    return [spell(action, decision) for action, decision in zip(packet.actions, decisions, strict=True)]


_RENDERED: Final[Mapping[Shape, Callable[[Packet, Sequence[Decision]], Any]]] = {
    Shape.BATCH: lambda packet, decisions: {"decisions": _spelled(packet, decisions, langchain)},
    Shape.CALL: lambda packet, decisions: _spelled(packet, decisions, langchain)[0],
    Shape.INBOX: lambda packet, decisions: _spelled(packet, decisions, inbox),
}


def _check_json(said: Said) -> None:
    try:
        json.dumps([said.answer, said.edit, said.decisions], allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise invalid(f"It is not JSON: {error}.") from None
