"""A run in miniature, for random histories: columns changed as a store would, and the ledger beside them.

It shares no code with `control.core.audit`, so that the two can be held against each other. `World.events` are the
things that may legally happen next; each changes the columns and appends its entry.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from control.core.execution import Execution
from control.core.facts import Ask, AskKind, Claim, Facts, Fit, Order, Outcome, OutcomeKind, Wait, WaitKind
from control.core.failure import FailureClass
from control.core.ledger import START, Entry, Kind, chained
from control.core.lifecycle import Verb, judge
from control.core.run_status import TERMINAL, Status, derive, index
from control.core.transitions import Cause

BEGIN = datetime(2026, 3, 1, 9, tzinfo=UTC)
SECOND = timedelta(seconds=1)
STALL_AFTER = timedelta(minutes=10)
LATER = timedelta(minutes=30)
ANSWERS = {AskKind.APPROVAL: Verb.APPROVE, AskKind.INPUT: Verb.ANSWER, AskKind.DOUBT: Verb.ANSWER}
DECISIONS = {Verb.APPROVE: "approved", Verb.REJECT: "rejected", Verb.ANSWER: "answered"}


@dataclass(frozen=True)
class Event:
    """Something that may happen: what it is called, the cause it counts as, and the change."""

    name: str
    cause: Cause
    happen: Callable[[World], None]


@dataclass
class Item:
    """A row of the approval or wait table."""

    id: str
    kind: AskKind | WaitKind
    opened_at: datetime
    due_at: datetime | None = None
    decided_in: int | None = None  # the epoch when the answer was recorded; the next claim is given it
    voters: tuple[str, ...] = ()
    rung: int = 0
    assignee: str | None = None

    @property
    def open(self) -> bool:
        return self.decided_in is None

    def stage(self, epoch: int, now: datetime) -> tuple[str, bool, bool, bool]:
        """What matters of it: its kind, whether it is open, given to the attempt, and due."""
        given = self.decided_in is not None and self.decided_in < epoch
        return self.kind, self.open, given, self.due_at is not None and self.due_at <= now


@dataclass
class World:
    """The columns of one run, its questions and waits, and its ledger."""

    crash_limit: int = 2
    now: datetime = BEGIN
    entries: list[Entry] = field(default_factory=list)
    items: dict[str, Item] = field(default_factory=dict)
    epoch: int = 0
    working: bool = False
    claimed_at: datetime | None = None
    progress_at: datetime | None = None
    execution: Execution = Execution.NONE
    outcome: Outcome | None = None
    retry_at: datetime | None = None
    not_before: datetime | None = None
    crashes: int = 0
    takeovers: int = 0
    retries: int = 0
    branch: int = 0
    shortfalls: int = 0
    pause: Order | None = None
    cancel: Order | None = None
    fit: Fit = Fit.FITS
    woken_at: datetime | None = None
    head_checkpoint_id: str | None = None
    head_step: int | None = None
    made: int = 0
    recording: bool = True
    failures: tuple[FailureClass, ...] = tuple(FailureClass)
    kinds: tuple[AskKind, ...] = tuple(AskKind)

    @classmethod
    def accepted(cls, *, not_before: datetime | None = None) -> World:
        world = cls(not_before=not_before)
        late = {"not_before": not_before.isoformat()} if not_before else {}
        world._record(
            Kind.ACCEPTED, workflow="refund", thread_id="t", priority=0, crash_limit=world.crash_limit, **late
        )
        return world

    def copy(self) -> World:
        twin = copy.copy(self)
        twin.entries = list(self.entries)
        twin.items = {key: copy.copy(item) for key, item in self.items.items()}
        return twin

    def status(self) -> Status:
        return derive(self.facts(), now=self.now, stall_after=STALL_AFTER).word

    def facts(self) -> Facts:
        claim = None
        if self.working:
            assert self.claimed_at and self.progress_at
            claim = Claim(self.epoch, "w", self.claimed_at, self.progress_at)
        return Facts(
            created_at=BEGIN,
            execution=self.execution,
            claim=claim,
            outcome=self.outcome,
            retry_at=self.retry_at,
            crashes=self.crashes,
            crash_limit=self.crash_limit,
            takeovers=self.takeovers,
            pause=self.pause,
            cancel=self.cancel,
            asks=tuple(self._asks()),
            waits=tuple(self._waits()),
            ready=sum(not item.open for item in self.items.values()),
            woken_at=self.woken_at,
            not_before=self.not_before,
            fit=self.fit,
            shortfalls=self.shortfalls,
        )

    def events(self) -> Iterator[Event]:
        """What may happen next."""
        status = self.status()
        yield Event("time passes", Cause.TIME, lambda w: w._pass())
        if self.working:
            yield from self._attempt()
        due = self.retry_at or self.not_before
        if status is Status.QUEUED and due and due <= self.now and index(self.facts()).status is Status.WAITING:
            yield Event("wake", Cause.NOTICED, lambda w: w._wake())
        if status is Status.QUEUED:
            yield Event("claim", Cause.CLAIMED, lambda w: w._claim())
        if status not in TERMINAL:
            yield from self._outside(status)
        yield from self._verbs(status)

    def _attempt(self) -> Iterator[Event]:
        yield Event("step", Cause.MOVED, lambda w: w._step())
        yield Event("worker lost", Cause.LOST, lambda w: w._lose(None))
        for found in (Execution.FAILED, Execution.ROUTING_FAILED, *(() if self.items else (Execution.FINISHED,))):
            yield Event(f"worker lost, {found}", Cause.LOST, lambda w, found=found: w._lose(found))
        if len(self.items) < 2:
            for kind in self.kinds:
                yield Event(f"ask {kind}", Cause.MOVED, lambda w, kind=kind: w._ask(kind))
            for wait in WaitKind:
                yield Event(f"suspend {wait}", Cause.MOVED, lambda w, wait=wait: w._suspend(wait))
        if self.shortfalls == 0:
            yield Event("part handled", Cause.MOVED, lambda w: w._handle())
        for kind, execution in self._endings():
            yield Event(f"end {kind} {execution}", Cause.LET_GO, lambda w, k=kind, e=execution: w._end(k, e))
        if self.items:
            yield Event("end suspended", Cause.LET_GO, lambda w: w._end(OutcomeKind.SUSPENDED, Execution.WAITING))
        else:
            yield Event("end asked in vain", Cause.LET_GO, lambda w: w._end(OutcomeKind.SUSPENDED, Execution.WAITING))
        yield Event("end unfit", Cause.LET_GO, lambda w: w._end(OutcomeKind.DRAINED, Execution.RUNNABLE, Fit.CHANGED))
        if self.cancel:
            yield Event("end cancelled", Cause.LET_GO, lambda w: w._end(OutcomeKind.CANCELLED, Execution.RUNNABLE))
        for failure in self.failures:
            yield Event(f"fail {failure}", Cause.LET_GO, lambda w, f=failure: w._fail(f))
            yield Event(f"fail {failure} outside a task", Cause.LET_GO, lambda w, f=failure: w._fail(f, in_task=False))
        yield Event("fail, try again", Cause.LET_GO, lambda w: w._fail(FailureClass.TRANSIENT, retry=True))
        yield Event(
            "fail outside a task, try again",
            Cause.LET_GO,
            lambda w: w._fail(FailureClass.TRANSIENT, retry=True, in_task=False),
        )

    def _endings(self) -> Iterator[tuple[OutcomeKind, Execution]]:
        yield OutcomeKind.DRAINED, Execution.RUNNABLE
        yield OutcomeKind.BREAKPOINT, Execution.RUNNABLE
        yield OutcomeKind.COMPLETED, Execution.RUNNABLE
        if not self.items:
            yield OutcomeKind.COMPLETED, Execution.FINISHED

    def _outside(self, status: Status) -> Iterator[Event]:
        for item in self.items.values():
            yield Event("withdraw", Cause.WITHDRAWN, lambda w, i=item.id: w._supersede(i))
            if item.open and item.kind is WaitKind.TIMER and item.due_at and item.due_at <= self.now:
                yield Event("timer fires", Cause.ANSWERED, lambda w, i=item.id: w._fire(i))
            if item.open and item.kind is WaitKind.SIGNAL and judge(Verb.SIGNAL, status, self.facts()).allowed:
                yield Event("signal", Cause.ANSWERED, lambda w, i=item.id: w._fire(i))
        if not self.working and self.fit is Fit.FITS:
            yield Event("graph changes", Cause.UNFIT, lambda w: w._refit(Fit.CHANGED))
        if not self.working and self.fit is Fit.CHANGED:
            yield Event("adopt", Cause.ADOPTED, lambda w: w._refit(Fit.FITS))

    def _verbs(self, status: Status) -> Iterator[Event]:
        facts = self.facts()
        for verb in (Verb.PAUSE, Verb.RESUME, Verb.CANCEL, Verb.RETRY):
            if judge(verb, status, facts).allowed:
                yield Event(verb, Cause(verb), lambda w, verb=verb: w._order(verb))
        if judge(Verb.REWIND, status, facts).allowed:
            yield Event("rewind", Cause.REWIND, lambda w: w._rewind())
        for item in self.items.values():
            if item.open and isinstance(item.kind, AskKind) and judge(ANSWERS[item.kind], status, facts).allowed:
                yield Event("decide", Cause.ANSWERED, lambda w, i=item.id: w._decide(i))
                if item.kind is AskKind.APPROVAL and item.rung < 2:
                    yield from self._towards(item)

    def _towards(self, item: Item) -> Iterator[Event]:
        """What happens to an approval and leaves it open."""
        yield Event("vote", Cause.ANSWERED, lambda w, i=item.id: w._vote(i))
        yield Event("escalate", Cause.ANSWERED, lambda w, i=item.id: w._escalate(i))
        yield Event("reassign", Cause.ANSWERED, lambda w, i=item.id: w._reassign(i))

    # What each event does to the columns.

    def _pass(self) -> None:
        self.now += LATER

    def _claim(self) -> None:
        self.now += SECOND
        self.epoch += 1
        self.working, self.claimed_at, self.progress_at = True, self.now, self.now
        self.outcome = self.retry_at = None
        self._record(Kind.CLAIMED, worker="w")

    def _step(self) -> None:
        self.now += SECOND
        self.progress_at, self.execution = self.now, Execution.RUNNABLE
        self.crashes = self.retries = 0
        self.head_step = 0 if self.head_step is None else self.head_step + 1
        self.head_checkpoint_id = self._fresh("c")
        self._record(
            Kind.STEPPED, checkpoint_id=self.head_checkpoint_id, step=self.head_step, source="loop", nodes=["work"]
        )

    def _ask(self, kind: AskKind) -> None:
        self.now += SECOND
        item = Item(self._fresh("q"), kind, self.now)
        self.items[item.id] = item
        self._record(Kind.ASKED, interrupt_id=item.id, kind=kind, node="gate", title="Pay out", digest="d")

    def _suspend(self, kind: WaitKind) -> None:
        self.now += SECOND
        item = Item(self._fresh("w"), kind, self.now, self.now + LATER if kind is WaitKind.TIMER else None)
        self.items[item.id] = item
        what = {"due_at": item.due_at.isoformat()} if item.due_at else {"signal": "paid"}
        self._record(Kind.SUSPENDED, interrupt_id=item.id, kind=kind, node="nap", **what)

    def _handle(self) -> None:
        self.now += SECOND
        self.shortfalls += 1
        self._record(Kind.HANDLED, node="work")

    def _end(self, kind: OutcomeKind, execution: Execution, fit: Fit | None = None) -> None:
        self.now += SECOND
        delivered = self._deliver() if kind is not OutcomeKind.CANCELLED else []
        self.working, self.execution, self.retries = False, execution, 0
        self.outcome, self.fit = Outcome(kind, self.now), fit or self.fit
        named = ({"fit": fit} if fit else {}) | ({"delivered": delivered} if delivered else {})
        self._record(Kind.ENDED, outcome=kind, execution=execution, **named)

    def _fail(self, failure: FailureClass, *, retry: bool = False, in_task: bool = True) -> None:
        """A task raised, or something around the tasks did."""
        self.now += SECOND
        self.working = False
        around = Execution.WAITING if self.items else Execution.RUNNABLE
        inside = Execution.POISONED if failure is FailureClass.POISONED else Execution.FAILED
        self.execution = inside if in_task else around
        self.outcome = Outcome(OutcomeKind.FAILED, self.now, failure, "it broke")
        self.retry_at = self.now + LATER if retry else None
        self.retries += retry
        again = {"retry_at": self.retry_at.isoformat()} if self.retry_at else {}
        self._record(
            Kind.ENDED, outcome="failed", execution=self.execution, failure_class=failure, error="it broke", **again
        )

    def _lose(self, found: Execution | None) -> None:
        self.now += SECOND
        self.working = False
        self.crashes += 1
        self.takeovers += 1
        self.outcome = Outcome(OutcomeKind.LOST, self.now, why="The worker w was lost.")
        delivered = self._deliver() if found else []
        self.execution = found or (Execution.WAITING if self.items else self.execution)
        named = {"execution": found, "delivered": delivered} if found else {}
        self._record(Kind.WORKER_LOST, worker="w", why="its session ended", **named)

    def _decide(self, name: str) -> None:
        self._settle(name)
        verb = ANSWERS[AskKind(self.items[name].kind)]
        self._record(Kind.DECIDED, interrupt_id=name, decision=DECISIONS[verb], digest="d")

    def _fire(self, name: str) -> None:
        self._settle(name)
        self._record(Kind.FIRED, interrupt_id=name, kind=self.items[name].kind)

    def _vote(self, name: str) -> None:
        self.now += SECOND
        self.items[name].voters += ("ana",)
        self._record(Kind.VOTED, interrupt_id=name, vote="yes", digest="", roles=[])

    def _escalate(self, name: str) -> None:
        """The ladder's next rung; the one after it is due later."""
        self.now += SECOND
        item = self.items[name]
        item.rung, item.due_at = item.rung + 1, self.now + LATER
        self._record(Kind.ESCALATED, interrupt_id=name, rung=item.rung, to=["lead"], due_at=item.due_at.isoformat())

    def _reassign(self, name: str) -> None:
        self.now += SECOND
        item = self.items[name]
        item.assignee, item.due_at = self._fresh("ben"), None
        self._record(Kind.REASSIGNED, interrupt_id=name, assignee=item.assignee, why="It was time.")

    def _settle(self, name: str) -> None:
        self.now += SECOND
        self.items[name].decided_in, self.woken_at = self.epoch, self.now

    def _supersede(self, name: str) -> None:
        self.now += SECOND
        del self.items[name]
        if self.execution is Execution.WAITING and not self.items:
            self.execution = Execution.RUNNABLE
        self._record(Kind.SUPERSEDED, interrupt_id=name, why="the question is gone")

    def _order(self, verb: Verb) -> None:
        self.now += SECOND
        if verb is Verb.PAUSE:
            self.pause = Order("ana", self.now)
        elif verb is Verb.CANCEL:
            self.cancel = Order("ana", self.now)
        elif verb is Verb.RESUME:
            self.pause, self.woken_at = None, self.now
            if self.outcome and self.outcome.kind is OutcomeKind.BREAKPOINT:
                self.outcome = None
        else:
            self.outcome = self.retry_at = None
            self.crashes = self.retries = 0
            self.woken_at = self.now
        self._record(Kind.ORDERED, verb=verb)

    def _rewind(self) -> None:
        self.fit = Fit.FITS
        self.now += SECOND
        self.outcome = self.retry_at = self.cancel = None
        self.crashes = self.retries = 0
        self.items.clear()
        self.branch, self.execution, self.woken_at = self.branch + 1, Execution.RUNNABLE, self.now
        self.head_checkpoint_id, self.head_step = self._fresh("c"), 1
        self._record(Kind.REWOUND, checkpoint_id=self.head_checkpoint_id, to_checkpoint_id="c0", step=1)

    def _refit(self, fit: Fit) -> None:
        self.now += SECOND
        self.fit = fit
        if fit is Fit.FITS:
            self.woken_at = self.now
            self._record(Kind.ADOPTED, digest="g2", **{"from": "g1"})
        else:
            self._record(Kind.UNFIT, digest="g2", why="a node is gone")

    def _deliver(self) -> list[str]:
        """The graph took in the answers that the attempt was given."""
        given = [i.id for i in self.items.values() if i.decided_in is not None and i.decided_in < self.epoch]
        for name in given:
            del self.items[name]
        return given

    def _wake(self) -> None:
        """The clock is noticed: a retry or a start that is due is made ready."""
        self.now += SECOND
        self.woken_at = self.now
        if self.retry_at:
            self.retry_at = self.outcome = None
            self._record(Kind.WOKEN, why="retry")
        else:
            self.not_before = None
            self._record(Kind.WOKEN, why="start")

    def _asks(self) -> Iterator[Ask]:
        for item in self.items.values():
            if item.open and isinstance(item.kind, AskKind):
                yield Ask(
                    item.id, item.kind, "Pay out", "gate", item.opened_at, due_at=item.due_at, voters=item.voters,
                    rung=item.rung, assignee=item.assignee,
                )  # fmt: skip

    def _waits(self) -> Iterator[Wait]:
        for item in self.items.values():
            if item.open and isinstance(item.kind, WaitKind):
                signal = None if item.due_at else "paid"
                yield Wait(item.id, item.kind, "nap", item.opened_at, item.due_at, signal)

    def _fresh(self, prefix: str) -> str:
        self.made += 1
        return f"{prefix}{self.made}"

    def _record(self, kind: Kind, /, **body: Any) -> None:
        if not self.recording:
            return
        prev = self.entries[-1].hash if self.entries else START
        people = (Kind.ACCEPTED, Kind.ORDERED, Kind.DECIDED, Kind.REWOUND, Kind.VOTED, Kind.REASSIGNED)
        actor = "ana" if kind in people else "system"
        entry = Entry(len(self.entries) + 1, self.now, kind, actor, self.epoch, body)
        self.entries.append(chained(entry, prev=prev))
