"""The status of a run: one pure function of its facts.

`derive` is total: every `Facts` has exactly one status, found by the first rule of `RULES` that holds. A rule gives the
word, the sentences that say why, the instant since which it has been so, and the deadline that ends it.

Time passes without a transaction, so a row cannot store the whole status. It stores the *index*: the word, `since` and
`due_at` as the facts alone give them. The clock then changes two words and no others:

- `running` becomes `stalled` when its claim's progress is older than `stall_after`;
- `waiting` becomes `queued` when its `due_at` (a timer, a retry, a start not before) has come.

For every run whose worker lives, `derive(facts, now=...)` equals `index(facts).at(now, ...)`. The same in SQL:

    case when status = 'running' and progress_at + stall_after <= now then 'stalled'
         when status = 'waiting' and due_at <= now then 'queued' else status end,
    case when status = 'running' and progress_at + stall_after <= now then progress_at + stall_after
         when status = 'waiting' and due_at <= now then greatest(since, due_at) else since end

A worker's death is no transaction either: its session lock is gone, and a peer records that within a second. Until
then `derive`, given `Claim.alive` = False, says what the run will be once the claim is taken away (`without_worker`),
and the index still says what the row does. `due_at` of a run that awaits a person is the earliest expiry or timer:
passing it changes nothing by itself, it tells the sweeper to record what follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from control.core import because as why
from control.core.execution import Execution
from control.core.facts import AskKind, Facts, Fit, Outcome, OutcomeKind, Progress
from control.core.failure import FailureClass


class Status(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    AWAITING_APPROVAL = "awaiting_approval"
    AWAITING_INPUT = "awaiting_input"
    PAUSED = "paused"
    STALLED = "stalled"
    CANCELLING = "cancelling"
    COMPENSATING = "compensating"
    BLOCKED = "blocked"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"


TERMINAL: Final = frozenset(
    {Status.SUCCEEDED, Status.PARTIAL, Status.FAILED, Status.CANCELLED, Status.ABANDONED}
)  # fmt: skip
CLAIMED: Final = frozenset({Status.RUNNING, Status.STALLED, Status.CANCELLING, Status.COMPENSATING})
"""The words of a run that a living worker holds. All others have no claim, or a dead one."""


class Facet(StrEnum):
    """What is also true of a run, whatever its status."""

    RESUMED = "resumed"  # a peer took it over from a lost worker
    REPLANNED = "replanned"  # its plan was revised
    IN_DOUBT = "in_doubt"  # nobody knows yet whether one of its effects happened


@dataclass(frozen=True, slots=True)
class Index:
    """The part of a status that a row stores."""

    status: Status
    since: datetime
    due_at: datetime | None

    def at(self, now: datetime, *, progress_at: datetime | None, stall_after: timedelta) -> Index:
        """The index with the clock applied. `progress_at` is the claim's, None without one."""
        if self.status is Status.RUNNING and progress_at is not None and progress_at + stall_after <= now:
            return Index(Status.STALLED, progress_at + stall_after, None)
        if self.status is Status.WAITING and self.due_at is not None and self.due_at <= now:
            return Index(Status.QUEUED, max(self.since, self.due_at), None)
        return self


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The status of a run: the word, why, since when, and until when where a deadline is known."""

    word: Status
    because: tuple[str, ...]
    since: datetime
    until: datetime | None
    facets: frozenset[Facet]
    progress: Progress

    @property
    def terminal(self) -> bool:
        return self.word in TERMINAL


class Rule(NamedTuple):
    status: Status
    holds: Callable[[Facts], bool]
    because: Callable[[Facts], tuple[str, ...]]
    since: Callable[[Facts], datetime]
    due: Callable[[Facts], datetime | None]


STUCK: Final = frozenset({Execution.ROUTING_FAILED, Execution.POISONED})
"""Re-entering such a checkpoint fails again, or ends the graph without routing. No retry helps."""
NEEDS_SOMEBODY: Final = frozenset({FailureClass.HUMAN, FailureClass.INCOMPATIBLE})
"""After such a failure the run can go on once somebody has put something right."""


def let_go_at(facts: Facts) -> datetime:
    """Since when nobody has been working on an idle run. Where the last outcome was removed, since that was done."""
    return facts.outcome.at if facts.outcome else facts.woken_at or facts.created_at


def _held(facts: Facts) -> bool:
    return facts.claim is not None


def _ended(facts: Facts, *kinds: OutcomeKind) -> bool:
    return facts.outcome is not None and facts.outcome.kind in kinds


def _failed_for(facts: Facts, classes: frozenset[FailureClass]) -> bool:
    return facts.outcome is not None and facts.outcome.kind is OutcomeKind.FAILED and facts.outcome.failure in classes


def _finished(facts: Facts) -> bool:
    return facts.execution is Execution.FINISHED and not facts.compensating


def _ends_cancelled(facts: Facts) -> bool:
    return not facts.compensating and (facts.cancel is not None or _ended(facts, OutcomeKind.CANCELLED))


def _misfits(facts: Facts) -> bool:
    """The graph says that nothing is left to do; the checkpoint says that something is."""
    return _ended(facts, OutcomeKind.COMPLETED) and not facts.compensating


def _asked_in_vain(facts: Facts) -> bool:
    """It stopped at a question of which there is no record: running it again would stop there again."""
    stopped = facts.execution is Execution.WAITING and _ended(facts, OutcomeKind.SUSPENDED)
    return stopped and not (facts.asks or facts.waits or facts.ready)


def _can_move(facts: Facts) -> bool:
    """An answer is ready to be delivered, or a failed task to be run again, whatever else is open beside it."""
    return facts.ready > 0 or facts.execution is Execution.FAILED


def _has_asks(facts: Facts, *kinds: AskKind) -> bool:
    return not _can_move(facts) and any(ask.kind in kinds for ask in facts.asks)


def _cancelled_at(facts: Facts) -> datetime:
    return max(facts.cancel.at, let_go_at(facts)) if facts.cancel else let_go_at(facts)


def _paused_at(facts: Facts) -> datetime:
    return max(facts.pause.at, let_go_at(facts)) if facts.pause else let_go_at(facts)


def _claimed_at(facts: Facts) -> datetime:
    return facts.claim.claimed_at if facts.claim else let_go_at(facts)


def _asked_at(facts: Facts) -> datetime:
    return max(let_go_at(facts), min(ask.since for ask in facts.asks))


def _waited_at(facts: Facts) -> datetime:
    return max(let_go_at(facts), min(wait.since for wait in facts.waits))


def _woken_at(facts: Facts) -> datetime:
    return max(let_go_at(facts), facts.woken_at) if facts.woken_at else let_go_at(facts)


def _cancelling_at(facts: Facts) -> datetime:
    return max(facts.cancel.at, _claimed_at(facts)) if facts.cancel else _claimed_at(facts)


def _never(_: Facts) -> None:
    return None


def _next_deadline(facts: Facts) -> datetime | None:
    """The earliest expiry of a question, rung of its ladder, or end of a timer."""
    expiries = (ask.due_at or ask.expires_at for ask in facts.asks)
    timers = (wait.due_at for wait in facts.waits)
    return min((at for at in (*expiries, *timers) if at is not None), default=None)


RULES: Final[tuple[Rule, ...]] = (
    # A worker holds it.
    Rule(Status.COMPENSATING, lambda f: _held(f) and f.compensating, why.undoing, _claimed_at, _never),
    Rule(Status.CANCELLING, lambda f: _held(f) and f.cancel is not None, why.stopping, _cancelling_at, _never),
    Rule(Status.RUNNING, _held, why.working, _claimed_at, _never),
    # Nobody holds it, and nothing will.
    Rule(Status.PARTIAL, lambda f: _finished(f) and f.shortfalls > 0, why.finished_short, let_go_at, _never),
    Rule(Status.SUCCEEDED, _finished, why.finished, let_go_at, _never),
    Rule(Status.CANCELLED, _ends_cancelled, why.cancelled, _cancelled_at, _never),
    Rule(Status.ABANDONED, lambda f: f.crashes >= f.crash_limit, why.abandoned, let_go_at, _never),
    Rule(Status.FAILED, lambda f: f.execution in STUCK and not f.compensating, why.stuck, let_go_at, _never),
    # Nobody holds it until somebody acts.
    Rule(Status.BLOCKED, lambda f: f.fit is Fit.CHANGED, why.graph_changed, let_go_at, _never),
    Rule(Status.BLOCKED, _misfits, why.misfit, let_go_at, _never),
    Rule(Status.BLOCKED, _asked_in_vain, why.asked_in_vain, let_go_at, _never),
    Rule(Status.BLOCKED, lambda f: _failed_for(f, NEEDS_SOMEBODY), why.needs_somebody, let_go_at, _never),
    Rule(Status.FAILED, lambda f: _ended(f, OutcomeKind.FAILED) and not f.retry_at, why.failed, let_go_at, _never),
    Rule(Status.PAUSED, lambda f: f.pause is not None, why.paused, _paused_at, _next_deadline),
    Rule(Status.PAUSED, lambda f: _ended(f, OutcomeKind.BREAKPOINT), why.breakpoint, let_go_at, _next_deadline),
    # Nobody holds it until something comes.
    Rule(Status.WAITING, lambda f: _ended(f, OutcomeKind.FAILED), why.retrying, let_go_at, lambda f: f.retry_at),
    Rule(
        Status.AWAITING_APPROVAL,
        lambda f: _has_asks(f, AskKind.APPROVAL, AskKind.DOUBT),
        why.asking,
        _asked_at,
        _next_deadline,
    ),
    Rule(Status.AWAITING_INPUT, lambda f: _has_asks(f, AskKind.INPUT), why.asking, _asked_at, _next_deadline),
    Rule(Status.WAITING, lambda f: bool(f.waits) and not _can_move(f), why.waiting, _waited_at, _next_deadline),
    Rule(
        Status.WAITING,
        lambda f: f.execution is Execution.NONE and f.not_before is not None,
        why.not_yet,
        let_go_at,
        lambda f: f.not_before,
    ),
    # Any worker may take it.
    Rule(Status.QUEUED, lambda _: True, why.queued, _woken_at, _never),
)
"""In order: the first that holds decides. The last one always holds.

Finished stands above every order: a run whose last step committed before a cancel took hold did all it was asked to,
and saying `cancelled` would be false. A pause stands above a retry and a timer, which would otherwise end it.
"""


def _rule(facts: Facts) -> Rule:
    for rule in RULES:
        if rule.holds(facts):
            return rule
    raise AssertionError("the last rule always holds")


def index(facts: Facts) -> Index:
    """What the row stores, written in the transaction that changed a fact. Takes the claim's worker to be alive."""
    rule = _rule(facts)
    return Index(rule.status, rule.since(facts), rule.due(facts))


def without_worker(facts: Facts, *, at: datetime) -> Facts:
    """The facts once the claim has been taken from a lost worker. Without a claim: unchanged."""
    if facts.claim is None:
        return facts
    return replace(
        facts,
        claim=None,
        outcome=Outcome(OutcomeKind.LOST, at, why=f"The worker {facts.claim.worker_id} was lost."),
        crashes=facts.crashes + 1,
        takeovers=facts.takeovers + 1,
    )


def derive(facts: Facts, *, now: datetime, stall_after: timedelta) -> RunStatus:
    """The status of a run at `now`. A claim whose worker is gone counts as taken away at its last sign of life."""
    orphan = facts.claim if facts.claim is not None and not facts.claim.alive else None
    if orphan:
        facts = without_worker(facts, at=orphan.progress_at)
    rule = _rule(facts)
    stored = Index(rule.status, rule.since(facts), rule.due(facts))
    progress_at = facts.claim.progress_at if facts.claim else None
    shown = stored.at(now, progress_at=progress_at, stall_after=stall_after)
    because = (*rule.because(facts), why.DELETED) if facts.deleted else rule.because(facts)
    if shown is not stored:
        because = (*because, (why.no_progress if shown.status is Status.STALLED else why.time_has_come)(facts))
    return RunStatus(
        shown.status,
        (why.ORPHANED, *because) if orphan else because,
        shown.since,
        _until(shown, facts, stall_after),
        facets_of(facts),
        facts.progress,
    )


def _until(shown: Index, facts: Facts, stall_after: timedelta) -> datetime | None:
    """The next known deadline: when a running one would count as stalled, when one that is held back may go on, or what
    the index says.
    """
    if shown.status is Status.RUNNING and facts.claim:
        return facts.claim.progress_at + stall_after
    return facts.hold.until if shown.status is Status.QUEUED and facts.hold else shown.due_at


_NO_FACETS: Final[frozenset[Facet]] = frozenset()


def facets_of(facts: Facts) -> frozenset[Facet]:
    doubtful = any(ask.kind is AskKind.DOUBT for ask in facts.asks)
    if not (facts.takeovers or facts.replans or doubtful):
        return _NO_FACETS
    held = ((facts.takeovers, Facet.RESUMED), (facts.replans, Facet.REPLANNED), (doubtful, Facet.IN_DOUBT))
    return frozenset(facet for holds, facet in held if holds)
