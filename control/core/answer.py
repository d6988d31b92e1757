"""What a person's answer becomes: the value that the waiting graph is resumed with.

The SDK's questions take who answered and when along with the answer; its doubts take which call was doubted.
LangChain's approvals take a decision in the shape of the request: one per action of a batched `HITLRequest`, one for a
`tool_approval`, a list of one for a `HumanInterrupt`. Any other question takes the answer as it was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any


class Word(StrEnum):
    """What was said."""

    APPROVED = "approved"
    REJECTED = "rejected"
    ANSWERED = "answered"


def resume_value(packet: Any, word: Word, answer: Any, *, note: str | None, by: str, at: datetime) -> Any:
    """The value to resume with. `packet` is what the interrupt showed; `answer` what was typed beside the word, or
    None.

    An answer given to an approval in LangChain's shapes replaces the plain decision, so that a person can edit.
    """
    kind = packet.get("type") if isinstance(packet, Mapping) else None
    signed = {"note": note, "by": by, "at": at.isoformat()}
    match kind:
        case "control.approval":
            return {"decision": _imperative(word), "answer": answer, **signed}
        case "control.question":
            return {"answer": answer, **signed}
        case "control.doubt" if isinstance(answer, Mapping) and "call" in packet:
            return {"call": packet["call"], **answer}
    if word is Word.ANSWERED or answer is not None:
        return answer
    return _langchain(packet, word, note)


def _imperative(word: Word) -> str:
    return "reject" if word is Word.REJECTED else "approve"


def _langchain(packet: Any, word: Word, note: str | None) -> Any:
    decision: dict[str, Any] = {"type": _imperative(word)}
    if word is Word.REJECTED and note:
        decision["message"] = note
    first = packet[0] if isinstance(packet, list) and packet else packet
    if isinstance(first, Mapping) and "action_requests" in first:
        return {"decisions": [decision for _ in first["action_requests"]]}
    if isinstance(first, Mapping) and "action_request" in first:
        return [{"type": "ignore" if word is Word.REJECTED else "accept", "args": None}]
    return decision
