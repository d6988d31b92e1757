"""What an interrupt asks for: a person's approval, an input, word of an effect in doubt, a clock, or a signal.

The SDK's interrupts say so themselves (`type: control.*`). LangChain's own shapes are recognised as approvals: the
batched `HITLRequest`, the per-call `tool_approval` and the older `HumanInterrupt`, alone or as a list of one. Anything
else is a question that awaits input.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

_TITLE_LENGTH: Final = 200  # characters


@dataclass(frozen=True, slots=True)
class Question:
    """Something only a person may answer. `packet` is the JSON text shown to them, byte for byte what is stored.

    Only an approval expires, since silence can stand for a no, but not for an input. `evidence` names what was shown.
    """

    interrupt_id: str
    kind: Literal["approval", "input", "doubt"]
    title: str
    packet: str
    schema: Mapping[str, Any] | None
    expires_in: timedelta | None = None
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Suspension:
    """Something that no person answers: a timer (an instant, or a span from now) or a named signal."""

    interrupt_id: str
    kind: Literal["timer", "signal"]
    due_at: datetime | None = None
    span: timedelta | None = None
    signal: str | None = None


def recognise(interrupt_id: str, value: Any, schema: Mapping[str, Any] | None) -> Question | Suspension:
    """What the interrupt is. Never raises: an interrupt that nothing here understands awaits input."""
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "control.wait":
        return _suspension(interrupt_id, value)
    asked = _question_kind(kind, value)
    return Question(
        interrupt_id=interrupt_id,
        kind=asked,
        title=_title(value),
        packet=packet_text(value),
        schema=schema,
        evidence=_evidence(value),
        expires_in=_span(value.get("expires_in_s")) if asked == "approval" and isinstance(value, Mapping) else None,
    )


def packet_text(value: Any) -> str:
    """One JSON text for one value, whatever the order of its keys; what JSON lacks is shown by its `repr`."""
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False, default=repr)
    except (TypeError, ValueError):  # keys that do not sort, or a value that contains itself
        return json.dumps({"unshowable": repr(value)}, ensure_ascii=False)


def _question_kind(kind: Any, value: Any) -> Literal["approval", "input", "doubt"]:
    if kind == "control.doubt":
        return "doubt"
    if kind in ("control.approval", "tool_approval"):
        return "approval"
    first = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(first, Mapping) and ("action_requests" in first or {"action_request", "config"} <= first.keys()):
        return "approval"
    return "input"


def _suspension(interrupt_id: str, value: Mapping[str, Any]) -> Suspension:
    if value.get("kind") == "signal":
        return Suspension(interrupt_id, "signal", signal=str(value.get("signal")))
    if due_at := value.get("due_at"):
        return Suspension(interrupt_id, "timer", due_at=datetime.fromisoformat(due_at))
    return Suspension(interrupt_id, "timer", span=_span(value.get("seconds")) or timedelta())


def _span(seconds: Any) -> timedelta | None:
    return timedelta(seconds=seconds) if isinstance(seconds, int | float) else None


def _evidence(value: Any) -> tuple[str, ...]:
    """What each piece of evidence is called, for the story."""
    pieces = value.get("evidence") if isinstance(value, Mapping) else None
    named = ((piece.get("kind") or piece.get("title")) for piece in pieces or () if isinstance(piece, Mapping))
    return tuple(str(name) for name in named if name)


def _title(value: Any) -> str:
    if isinstance(value, Mapping):
        for key in ("title", "question", "description", "name"):
            if isinstance(value.get(key), str):
                return str(value[key])[:_TITLE_LENGTH]
        for request in value.get("action_requests") or ():
            if isinstance(request, Mapping):
                return f"Run {request.get('name', 'a tool')}?"
    return (value if isinstance(value, str) else packet_text(value))[:_TITLE_LENGTH]
