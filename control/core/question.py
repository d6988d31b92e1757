"""What an interrupt asks for: a person's approval, an input, word of an effect in doubt, a clock, or a signal.

The SDK's waits say so themselves (`type: control.wait`). Everything else is for a person, and `packet` reads what.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Literal

from control.core.gate import Gate, read_gate
from control.core.packet import Packet, Shape, packet_of, packet_text, terms_of


@dataclass(frozen=True, slots=True)
class Question:
    """Something only a person may answer. `packet` is the JSON text shown to them, byte for byte what is stored.

    Only an approval expires, since silence can stand for a no, but not for an input; and only an approval has a gate.
    `evidence` names what was shown.
    """

    interrupt_id: str
    kind: Literal["approval", "input", "doubt"]
    title: str
    packet: str
    schema: Mapping[str, Any] | None
    expires_in: timedelta | None = None
    evidence: tuple[str, ...] = ()
    gate: Gate | None = None

    @property
    def due_in(self) -> timedelta | None:
        """How long after its opening the clock first does something for it."""
        return self.gate.first_deadline(self.expires_in) if self.gate else self.expires_in


@dataclass(frozen=True, slots=True)
class Suspension:
    """Something that no person answers: a timer (an instant, or a span from now) or a named signal."""

    interrupt_id: str
    kind: Literal["timer", "signal"]
    due_at: datetime | None = None
    span: timedelta | None = None
    signal: str | None = None


def recognise(interrupt_id: str, value: Any, schema: Mapping[str, Any] | None) -> Question | Suspension:
    """What the interrupt is: one that nothing here understands awaits input. Raises `gate-invalid` alone: the question
    must not be asked of whoever comes along.
    """
    if isinstance(value, Mapping) and value.get("type") == "control.wait":
        return _suspension(interrupt_id, value)
    packet = packet_of(value, schema)
    given: Mapping[str, Any] = value if packet.shape is Shape.APPROVAL else terms_of(packet.value)
    expires_in = _span(given.get("expires_in_s"))
    return Question(
        interrupt_id=interrupt_id,
        kind=_kind(packet),
        title=packet.title,
        packet=packet_text(packet.value),
        schema=schema,
        evidence=_evidence(packet),
        expires_in=expires_in,
        gate=None if given.get("gate") is None else read_gate(given["gate"], expires_in),
    )


def opened(asked: Question | Suspension, node: str) -> tuple[str, dict[str, Any]]:
    """The kind and the body of the ledger's entry for it. Spans count from the entry's own instant."""
    body: dict[str, Any] = {"interrupt_id": asked.interrupt_id, "kind": asked.kind, "node": node}
    if isinstance(asked, Question):
        digest = sha256(asked.packet.encode()).hexdigest()
        body |= {"title": asked.title, "digest": digest, "expires_in_s": _seconds(asked.expires_in)}
        body |= {"evidence": list(asked.evidence)} if asked.evidence else {}
        if asked.gate is not None:
            body |= {"quorum": asked.gate.quorum, "due_in_s": _seconds(asked.due_in)}
        return "asked", _present(body)
    due_at = asked.due_at.isoformat() if asked.due_at else None
    body |= {"due_at": due_at, "due_in_s": _seconds(asked.span), "signal": asked.signal}
    return "suspended", _present(body)


def _seconds(span: timedelta | None) -> float | None:
    return span.total_seconds() if span is not None else None


def _present(body: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if value is not None}


def _kind(packet: Packet) -> Literal["approval", "input", "doubt"]:
    if packet.shape is Shape.DOUBT:
        return "doubt"
    return "approval" if packet.is_approval else "input"


def _suspension(interrupt_id: str, value: Mapping[str, Any]) -> Suspension:
    if value.get("kind") == "signal":
        return Suspension(interrupt_id, "signal", signal=str(value.get("signal")))
    if due_at := value.get("due_at"):
        return Suspension(interrupt_id, "timer", due_at=datetime.fromisoformat(due_at))
    return Suspension(interrupt_id, "timer", span=_span(value.get("seconds")) or timedelta())


def _span(seconds: Any) -> timedelta | None:
    return timedelta(seconds=seconds) if isinstance(seconds, int | float) else None


def _evidence(packet: Packet) -> tuple[str, ...]:
    """What each piece of evidence is called, for the story."""
    named = ((piece.get("kind") or piece.get("title")) for piece in packet.evidence if isinstance(piece, Mapping))
    return tuple(str(name) for name in named if name)
