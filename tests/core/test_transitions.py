"""The table of transitions is what the rules make of every short history: no more, no less."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator

from control.core.facts import AskKind
from control.core.failure import FailureClass
from control.core.run_status import TERMINAL, Status
from control.core.transitions import TRANSITIONS, Cause, diagram, leads
from tests.core.histories import BEGIN, LATER, World

DEPTH = 6
"""Events after which no new transition was found; one more finds none either."""

ALIKE = {"failures": (FailureClass.TRANSIENT, FailureClass.HUMAN), "kinds": (AskKind.APPROVAL, AskKind.INPUT)}
"""One failure class and one kind of question of those that lead to the same statuses."""


def likeness(world: World) -> Hashable:
    """Two worlds that are alike here have the same future, as far as statuses go."""
    items = sorted(item.stage(world.epoch, world.now) for item in world.items.values())
    ended = world.outcome and (world.outcome.kind, world.outcome.failure)
    orders = (world.pause is None, world.cancel is None, world.fit, world.retry_at is None, world.not_before is None)
    return world.status(), world.execution, ended, orders, world.crashes, world.shortfalls, tuple(items)


def explored() -> Iterator[tuple[Cause, Status, Status]]:
    """Each transition of every history of up to `DEPTH` events."""
    frontier = [World(recording=False, not_before=begin, **ALIKE) for begin in (None, BEGIN + LATER)]
    seen: set[Hashable] = set()
    for _ in range(DEPTH):
        following = []
        for world in frontier:
            before = world.status()
            for event in world.events():
                after = world.copy()
                event.happen(after)
                yield event.cause, before, after.status()
                if (like := likeness(after)) not in seen:
                    seen.add(like)
                    following.append(after)
        frontier = following


def test_the_table_is_exactly_what_happens() -> None:
    found: dict[Cause, dict[Status | None, set[Status]]] = defaultdict(lambda: defaultdict(set))
    for world in (World(), World(not_before=BEGIN + LATER)):
        found[Cause.ACCEPTED][None].add(world.status())
    for cause, before, after in explored():
        if before is not after:
            found[cause][before].add(after)
    assert found == {cause: dict(moves) for cause, moves in TRANSITIONS.items()}


def test_a_cause_may_always_leave_the_status_as_it_is() -> None:
    assert all(leads(cause, status, status) for cause in Cause for status in Status)
    assert not leads(Cause.TIME, Status.PAUSED, Status.QUEUED)


def test_what_has_ended_is_reopened_by_a_persons_order_only() -> None:
    reopening = {cause for cause, moves in TRANSITIONS.items() if TERMINAL & moves.keys()}
    assert reopening == {Cause.RETRY, Cause.REWIND}
    assert not any(Status.CANCELLED in moves for moves in TRANSITIONS.values())


def test_the_diagram_draws_every_transition() -> None:
    lines = diagram().splitlines()
    pairs = {(b, a) for moves in TRANSITIONS.values() for b, afters in moves.items() for a in afters}
    assert lines[0] == "stateDiagram-v2"
    assert sum(": " in line for line in lines) == len(pairs)
    assert "    [*] --> queued: accepted" in lines
    assert "    running --> stalled: time passes" in lines
    assert "    cancelling --> cancelled: the attempt ends, its worker is lost" in lines
    assert "    cancelled --> [*]" in lines


def test_the_diagram_can_show_some_causes_alone() -> None:
    assert diagram([Cause.TIME]) == (
        "stateDiagram-v2\n    running --> stalled: time passes\n    waiting --> queued: time passes\n"
    )
