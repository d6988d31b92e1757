"""The facts a run's status follows from. Each has one owner; here they only stand side by side.

A `Facts` is what one transaction read about one run: the claim and the recorded outcome of the last attempt (run row),
the checkpoint's execution state (the saver's rows), standing orders, open questions and open waits. It holds no clock;
`run_status.derive` is given `now`. Every instant is aware and in UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from control.core.execution import Execution
from control.core.failure import FailureClass
from control.core.limits import Hold


class Fit(StrEnum):
    """Whether the head still fits the deployed graph."""

    FITS = "fits"
    CHANGED = "changed"


class OutcomeKind(StrEnum):
    """How an attempt let go of its claim."""

    COMPLETED = "completed"  # the graph returned with nothing left to do
    SUSPENDED = "suspended"  # it stopped at a question or a wait
    DRAINED = "drained"  # it was asked to stop at a step boundary: a pause, a cancel, a worker that leaves
    FAILED = "failed"  # it raised
    CANCELLED = "cancelled"  # a cancel order was carried out
    BREAKPOINT = "breakpoint"  # it stopped at a static breakpoint
    LOST = "lost"  # its worker died; a peer took the claim away


class AskKind(StrEnum):
    """What is asked of a person: leave to act, a typed answer, or whether an effect in doubt happened."""

    APPROVAL = "approval"
    INPUT = "input"
    DOUBT = "doubt"


class WaitKind(StrEnum):
    TIMER = "timer"
    SIGNAL = "signal"


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's tenure. `alive` is what the worker's session lock says; `node` is named when it is known to hang."""

    epoch: int
    worker_id: str
    claimed_at: datetime
    progress_at: datetime
    alive: bool = True
    node: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The recorded end of the last attempt. A new claim, a retry, a resume and a rewind remove it."""

    kind: OutcomeKind
    at: datetime
    failure: FailureClass | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """A standing order to pause or to cancel."""

    by: str
    at: datetime
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """An open question: nobody decided it, and it still exists on the head.

    due_at: when the clock does something for it next, such as the next rung of its ladder; where it does nothing before
    the expiry, None will do. voters: who has said yes so far, of `quorum` that it takes. rung: how often it was
    escalated.
    """

    interrupt_id: str
    kind: AskKind
    title: str
    node: str
    since: datetime
    expires_at: datetime | None = None
    due_at: datetime | None = None
    quorum: int = 1
    voters: tuple[str, ...] = ()
    rung: int = 0
    assignee: str | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """An open wait: it has not fired. A timer has `due_at`, a signal its name."""

    interrupt_id: str
    kind: WaitKind
    node: str
    since: datetime
    due_at: datetime | None = None
    signal: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` parts (None: not known in advance); `parts` names those that are done, if they have names."""

    done: int = 0
    total: int | None = None
    parts: tuple[str, ...] = ()


NO_PROGRESS = Progress()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything the status follows from.

    `execution` is this run's: NONE until its own input is committed, whatever an earlier run left on the thread.
    `ready` counts answers decided and waits fired that no attempt has delivered yet. `crashes` are those that count
    towards `crash_limit`, `takeovers` are all. `woken_at` is when something last made an idle run ready to go on: a
    decision, a timer, a signal, a retry, a resume, a rewind or an adoption. `compensating` says that finished work is
    still to be undone; setting it removes the outcome that led to it. `erased`: what it carried is gone for good.
    `deleted`: what it worked with is gone, and its record stays.
    `hold` is what keeps workers from a run that is ready, where somebody looks: it explains a status and changes none.
    """

    created_at: datetime
    execution: Execution = Execution.NONE
    claim: Claim | None = None
    outcome: Outcome | None = None
    retry_at: datetime | None = None
    crashes: int = 0
    crash_limit: int = 3
    takeovers: int = 0
    pause: Order | None = None
    cancel: Order | None = None
    compensating: bool = False
    asks: tuple[Ask, ...] = ()
    waits: tuple[Wait, ...] = ()
    ready: int = 0
    woken_at: datetime | None = None
    not_before: datetime | None = None
    fit: Fit = Fit.FITS
    shortfalls: int = 0
    replans: int = 0
    erased: bool = False
    deleted: bool = False
    progress: Progress = field(default=NO_PROGRESS)
    hold: Hold | None = None
