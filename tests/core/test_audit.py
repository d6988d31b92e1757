"""The ledger alone leads to the state that was kept beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.audit import CHANGES, Account, parts_at, replay
from control.core.execution import Execution
from control.core.facts import Fit, OutcomeKind
from control.core.ledger import Entry, Kind, verify
from control.core.run_status import Status, derive
from control.core.story import tell
from control.core.transitions import leads
from tests.core.histories import BEGIN, LATER, SECOND, STALL_AFTER, World


@st.composite
def histories(draw: st.DrawFn) -> list[World]:
    """A run's worlds, one after each event."""
    worlds = [World.accepted(not_before=draw(st.none() | st.just(BEGIN + LATER)))]
    for _ in range(draw(st.integers(0, 25))):
        world = worlds[-1].copy()
        draw(st.sampled_from(list(world.events()))).happen(world)
        worlds.append(world)
    return worlds


@given(histories())
def test_replaying_the_ledger_reaches_the_state_that_was_kept(worlds: list[World]) -> None:
    world = worlds[-1]
    account = replay(world.entries)
    assert account.facts == world.facts()
    counted = (account.epoch, account.retries, account.branch, account.head_checkpoint_id, account.head_step)
    assert counted == (world.epoch, world.retries, world.branch, world.head_checkpoint_id, world.head_step)


@given(histories())
def test_a_ledger_is_whole_and_can_be_told(worlds: list[World]) -> None:
    entries = worlds[-1].entries
    assert verify(entries) is None
    linked = [seq for sentence in tell(entries) for seq in sentence.entries]
    assert linked == [entry.seq for entry in entries]


@st.composite
def happenings(draw: st.DrawFn) -> Iterator[tuple[str, World, World]]:
    world = World.accepted()
    steps = []
    for _ in range(draw(st.integers(1, 40))):
        event = draw(st.sampled_from(list(world.events())))
        after = world.copy()
        event.happen(after)
        steps.append((event.cause, world, after))
        world = after
    return iter(steps)


@given(happenings())
def test_no_history_leaves_the_table_of_transitions(steps: Iterator[tuple[Any, World, World]]) -> None:
    for cause, before, after in steps:
        assert leads(cause, before.status(), after.status()), (cause, before.status(), after.status())


class Book:
    """A ledger written by hand, a minute between entries."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.epoch = 0
        self.write("accepted", workflow="refund", thread_id="t", priority=0)

    def write(self, kind: str, /, **body: Any) -> Book:
        at = BEGIN + timedelta(minutes=len(self.entries))
        self.epoch += kind == "claimed"
        self.entries.append(Entry(len(self.entries) + 1, at, Kind(kind), "ana", self.epoch, body))
        return self

    def account(self) -> Account:
        return replay(self.entries)

    def word(self) -> Status:
        now = self.entries[-1].at + SECOND
        return derive(self.account().facts, now=now, stall_after=STALL_AFTER).word


def asked_and_suspended() -> Book:
    book = Book().write("claimed", worker="w1").write("stepped", checkpoint_id="c1", step=1, source="loop", nodes=["a"])
    book.write("asked", interrupt_id="q1", kind="approval", node="pay", title="Pay out", digest="d")
    return book.write("ended", outcome="suspended", execution="waiting")


def answered() -> Book:
    return asked_and_suspended().write("decided", interrupt_id="q1", decision="approved", digest="d")


def test_an_answer_is_ready_until_an_entry_says_it_was_delivered() -> None:
    book = asked_and_suspended()
    assert book.word() is Status.AWAITING_APPROVAL
    book = answered()
    assert (book.word(), book.account().facts.ready) == (Status.QUEUED, 1)
    book.write("claimed", worker="w2").write("stepped", checkpoint_id="c2", step=2, source="loop", nodes=["pay"])
    assert (book.word(), book.account().undelivered) == (Status.RUNNING, {"q1"})
    book.write("ended", outcome="drained", execution="runnable", delivered=["q1"])
    assert (book.word(), book.account().facts.ready) == (Status.QUEUED, 0)


def test_an_answer_survives_the_attempt_that_was_to_deliver_it() -> None:
    book = answered().write("claimed", worker="w2").write("worker_lost", worker="w2", why="gone")
    assert (book.word(), book.account().facts.ready) == (Status.QUEUED, 1)
    failed = {"outcome": "failed", "failure_class": "transient", "execution": "waiting"}
    book.write("claimed", worker="w3").write("ended", **failed, retry_at="2026-03-01T09:30:00+00:00")
    assert (book.word(), book.account().facts.ready, book.account().retries) == (Status.WAITING, 1, 1)
    book.write("woken", why="retry")
    assert (book.word(), book.account().facts.retry_at, book.account().retries) == (Status.QUEUED, None, 1)
    book.write("claimed", worker="w4").write(
        "worker_lost", worker="w4", why="gone", execution="runnable", delivered=["q1"]
    )
    assert (book.word(), book.account().facts.ready) == (Status.QUEUED, 0)


def test_a_step_forgives_the_crashes_and_retries_before_it() -> None:
    book = (
        Book().write("claimed", worker="w1").write("worker_lost", worker="w1", why="gone").write("claimed", worker="w2")
    )
    assert book.account().facts.crashes == 1
    book.write("stepped", checkpoint_id="c1", step=1, source="loop", nodes=["a"])
    assert (book.account().facts.crashes, book.account().facts.takeovers) == (0, 1)


def test_a_start_whose_time_came_no_longer_waits() -> None:
    book = Book()
    book.entries = [replace(book.entries[0], body={"not_before": "2026-03-01T10:00:00+00:00"})]
    assert book.word() is Status.WAITING
    assert (book.write("woken", why="start").word(), book.account().facts.not_before) == (Status.QUEUED, None)


def test_a_lost_worker_leaves_what_its_entry_names_or_what_was_open() -> None:
    book = Book().write("claimed", worker="w1").write("worker_lost", worker="w1", why="gone")
    assert book.account().facts.execution is Execution.NONE
    book.write("claimed", worker="w2").write("worker_lost", worker="w2", why="gone", execution="finished")
    assert (book.word(), book.account().facts.takeovers) == (Status.SUCCEEDED, 2)
    outcome = book.account().facts.outcome
    assert outcome is not None and (outcome.kind, outcome.why) == (OutcomeKind.LOST, "The worker w2 was lost.")


def test_a_rewind_withdraws_everything_that_was_open() -> None:
    book = asked_and_suspended().write("suspended", interrupt_id="w1", kind="signal", node="inbox", signal="paid")
    book.write("decided", interrupt_id="q1", decision="approved", digest="d")
    account = book.write("rewound", checkpoint_id="c9", to_checkpoint_id="c1").account()
    assert (account.facts.asks, account.facts.waits, account.facts.ready) == ((), (), 0)
    assert (account.branch, account.head_checkpoint_id, account.facts.execution) == (1, "c9", Execution.RUNNABLE)


def test_fit_comes_and_goes() -> None:
    book = asked_and_suspended().write("unfit", digest="g2", why="pay is gone")
    assert (book.word(), book.account().facts.fit) == (Status.BLOCKED, Fit.CHANGED)
    assert book.write("adopted", digest="g3", **{"from": "g1"}).word() is Status.AWAITING_APPROVAL


def test_deadlines_and_limits_are_read_from_the_ledger() -> None:
    book = Book()
    book.entries = [replace(book.entries[0], body={"not_before": "2026-03-01T10:00:00+00:00", "crash_limit": 7})]
    facts = book.account().facts
    assert (facts.not_before, facts.crash_limit) == (BEGIN + timedelta(hours=1), 7)
    ask = {"interrupt_id": "q", "kind": "input", "node": "n", "title": "Which?", "digest": "d"}
    book.write("claimed", worker="w").write("asked", **ask, expires_at="2026-03-01T11:00:00+00:00")
    assert book.account().facts.asks[0].expires_at == BEGIN + timedelta(hours=2)
    book.write("suspended", interrupt_id="w", kind="timer", node="nap", due_in_s=90.5)
    assert book.account().facts.waits[0].due_at == book.entries[-1].at + timedelta(seconds=90.5)


def test_entries_that_only_tell_something_change_no_fact() -> None:
    telling = set(Kind) - set(CHANGES)
    assert telling == {
        Kind.ACCEPTED,
        Kind.DELEGATED,
        Kind.SIGNALLED,
        Kind.EFFECT_BEGAN,
        Kind.EFFECT_ENDED,
        Kind.SPENT,
        Kind.TASK_FAILED,
        Kind.REFUSED,
        Kind.JUDGED,
        Kind.ERASED,
        Kind.RESTORED,
    }
    book = asked_and_suspended()
    before = book.account()
    assert book.write("signalled", name="paid").write("task_failed", node="a", error="E").account() == before


def test_a_ledger_that_begins_in_the_middle_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="a ledger begins with accepted, not with claimed"):
        replay(Book().write("claimed", worker="w").entries[1:])


def test_an_order_nobody_knows_is_a_bug() -> None:
    with pytest.raises(ValueError, match="no order is called explode"):
        Book().write("ordered", verb="explode").account()


def test_a_rewind_goes_back_in_progress_too() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)

    def stepped(checkpoint: str, *nodes: str) -> Entry:
        return Entry(1, at, Kind.STEPPED, "w", 1, {"checkpoint_id": checkpoint, "step": 0, "nodes": list(nodes)})

    back = Entry(4, at, Kind.REWOUND, "ana", 1, {"checkpoint_id": "c3", "to_checkpoint_id": "c1"})
    entries = [stepped("c1", "read"), stepped("c2", "score", "read"), back, stepped("c4", "ask")]
    assert parts_at(entries, "c2") == ("read", "score")
    assert parts_at(entries, "c3") == ("read",)
    assert parts_at(entries, "c4") == ("read", "ask")
    assert parts_at(entries, "gone") == ()
