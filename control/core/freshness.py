"""Whether what a decision rests on still stands: the facts as they were shown, for as long as they were said to hold.

A packet states facts (`fresh`: name and value) and how long it holds from its opening (`valid_for_s`). Both are looked
at when an answer arrives and when an effect begins that the decision guards; so is the policy. What has moved since
makes the decision stale: it is put on record, nothing is done with it, and the question is asked again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from control.core.packet import Packet, Shape, digest, packet_text
from control.core.phrasing import instant
from control.core.problem import Problem, Refusal

ANSWER_STALE: Final = Problem(
    code="answer-stale",
    status=409,
    title="What the answer rests on has moved",
    next_step="Nothing was decided. Read the run again: where its graph can, it asks again with what holds now.",
)
DECISION_STALE: Final = Problem(
    code="decision-stale",
    status=409,
    title="What the decision rests on has moved",
    next_step="The effect was not begun. Rewind the run to before the question; it is asked with what holds then.",
)
DECISION_SPENT: Final = Problem(
    code="decision-spent",
    status=409,
    title="The approval has been used for another effect",
    next_step="Ask for an approval of each effect, or make them one effect under one key.",
)
DECISION_MISSING: Final = Problem(
    code="decision-missing",
    status=409,
    title="No approval stands behind the effect",
    next_step="Guard it by the decision that `approval` returned in this run, and do it only where that is a yes.",
)
FACT_INVALID: Final = Problem(
    code="fact-invalid",
    status=422,
    title="That is no fact that can be kept",
    next_step="Give a name of 1 to 200 characters and a JSON value of at most 64 KiB; keep larger data elsewhere.",
)

STALE: Final = "stale"
"""The word for a question that was never decided, since what it rests on had moved. Its node asks again."""
_BINDS: Final = ("action", "evidence", "fresh")
_NAME: Final = 200  # characters
_LONGEST: Final = 1e9  # seconds; what is said to hold for longer than 30 years is looked at by then
_VALUE: Final = 64 * 1024  # bytes of JSON


@dataclass(frozen=True, slots=True)
class Moved:
    """One thing that is not what it was: a `fact`, the `time`, the `policy` or the `head`. was, now: for people."""

    what: str
    name: str
    was: str
    now: str

    def __str__(self) -> str:
        return f"{self.what} {self.name}: {self.was} became {self.now}"

    def as_json(self) -> dict[str, str]:
        return asdict(self)


def moved(packet: Packet, facts: Mapping[str, str], *, opened_at: datetime, now: datetime) -> tuple[Moved, ...]:
    """What a packet states and is no more so. `facts` has the JSON text of each one known."""
    return tuple(_moved(packet, facts, opened_at=opened_at, now=now))


def _moved(packet: Packet, facts: Mapping[str, str], *, opened_at: datetime, now: datetime) -> Iterator[Moved]:
    for name, value in sorted(packet.fresh.items()):
        was, found = packet_text(value), facts.get(name)
        if found != was:
            yield Moved("fact", name, was, "unknown" if found is None else found)
    if packet.valid_for_s is not None:
        until = opened_at + timedelta(seconds=min(packet.valid_for_s, _LONGEST))
        if until <= now:
            yield Moved("time", "valid_for", f"valid until {instant(until)}", instant(now))


def refused(problem: Problem, found: Iterable[Moved], **facts: Any) -> Refusal:
    """The refusal that names each thing that moved, from what to what."""
    every = tuple(found)
    said = "; ".join(map(str, every))
    return problem.because(f"{said[:1].upper()}{said[1:]}.", moved=[one.as_json() for one in every], **facts)


def bound(value: Mapping[str, Any]) -> dict[str, Any]:
    """The part of what was shown that a yes is bound to: the action, the evidence and the facts."""
    return {name: value.get(name) for name in _BINDS}


def delivered(packet: Packet, answer: Any, interrupt_id: str) -> Any:
    """A stored answer as the graph is resumed with it: one to the SDK's `approval` says what it was given to."""
    if packet.shape is not Shape.APPROVAL or not isinstance(answer, Mapping):
        return answer
    shown = packet.value
    stamp = {"question": interrupt_id, "bound": digest(bound(shown))}
    return {**answer, **stamp} | ({"after": shown["after"]} if isinstance(shown.get("after"), str) else {})


def is_asked_again(packet: Packet, answer: Any) -> bool:
    """Whether an answer decided nothing, and its node asks once more."""
    return packet.shape is Shape.APPROVAL and isinstance(answer, Mapping) and answer.get("stale") is True


def fact_text(name: str, value: Any) -> str:
    """The JSON text that a fact is kept as. Raises `fact-invalid`."""
    if not name.strip() or len(name) > _NAME or not name.isprintable():
        raise FACT_INVALID.because(f"The name {name[:_NAME]!r} has {len(name):,} characters.")
    text = packet_text(value)
    if len(text.encode()) > _VALUE:
        raise FACT_INVALID.because(f"The value has {len(text.encode()):,} bytes.")
    return text
