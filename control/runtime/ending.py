"""What the end of an attempt comes to: decided on the rows, the run's facts and what the graph raised.

Nothing here reads or writes; `attempt` does both, and asks again if the facts move before the ending is written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from control.core.execution import Execution, Head, with_outcome
from control.core.execution import Outcome as Seen
from control.core.facts import Facts, Fit, Outcome, OutcomeKind
from control.core.failure import FailureClass, classify
from control.core.problem import Refusal
from control.core.retry import Backoff, RetryPolicy, next_retry
from control.core.run_status import TERMINAL, index
from control.runtime.returning import why_returned
from control.store.claims import Claimed
from control.store.errors import NOT_NOW
from control.store.item import Ending
from control.store.runs import Questions, Run, facts_of
from control.store.tenure import DECISION_PASSED_OVER

_RETRY_POLICY: Final = RetryPolicy()
_AWAY_POLICY: Final = RetryPolicy({FailureClass.TRANSIENT: Backoff(attempts=30, initial_s=0.1, factor=1.5, max_s=30)})
"""Patient, but not for ever: a run may itself be what ends the connection."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt came to its end, before the rows are asked. `raised` is the exception's `repr`, as rows keep it.

    certain: the graph itself ran to its end. It raises where it is drained or runs out of steps, so a stream that ends
    without a question, of a graph without breakpoints, has nothing left to do. away: our own database was.
    returned: why the graph did not take an answer, which says nothing of the run.
    """

    kind: OutcomeKind
    failure: FailureClass | None = None
    error: str | None = None
    raised: str | None = None
    fit: Fit = Fit.FITS
    certain: bool = False
    away: bool = False
    returned: str | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """What an ending is decided on: the run as read, its open questions, the answers that lie ready, and its head."""

    run: Run
    asked: Questions
    answered: frozenset[str]
    head: Head
    now: datetime
    crash_limit: int


def failed(error: Exception) -> Ended:
    """The end that an exception makes. Our own database being away, or taking no writes, says nothing of the run."""
    if isinstance(error, Refusal):
        if error.problem in NOT_NOW:
            return Ended(OutcomeKind.FAILED, FailureClass.TRANSIENT, str(error), away=True)
        failure = FailureClass.HUMAN if error.problem is DECISION_PASSED_OVER else FailureClass.PERMANENT
        return Ended(OutcomeKind.FAILED, failure, str(error), repr(error))
    told = f"{type(error).__name__}: {error}"
    return Ended(OutcomeKind.FAILED, classify(error), told, repr(error), returned=why_returned(error))


def finished(claimed: Claimed, shortfalls: int) -> Ending:
    """The ending of a graph that certainly ran to its end, on the facts that the claim returned."""
    done = Facts(
        created_at=claimed.created_at,
        execution=Execution.FINISHED,
        outcome=Outcome(OutcomeKind.COMPLETED, claimed.created_at),
        shortfalls=claimed.shortfalls + shortfalls,
    )
    return Ending(
        version=claimed.version,
        outcome=OutcomeKind.COMPLETED,
        execution=Execution.FINISHED,
        status=index(done).status,
        due_at=None,
        closed=True,
        retries=0,
    )


def conclude(ended: Ended, scene: Scene, *, jitter: float, redact: Callable[[str], str]) -> tuple[Ending, set[str]]:
    """The ending to write, and the answers that the graph has taken in. `jitter` spreads a retry, from 0 to 1."""
    head = _in_the_light_of(scene.head, ended)
    pending = tuple(question.id for question in head.open)
    after = _after(_judge(ended, head), scene, head=head, jitter=jitter, redact=redact)
    asked = replace(scene.asked, ready=len(scene.answered.intersection(pending)))
    indexed = index(facts_of(after, asked, crash_limit=scene.crash_limit))
    ending = Ending(
        version=scene.run.version,
        outcome=str(after.outcome),
        execution=after.execution,
        status=indexed.status,
        due_at=indexed.due_at,
        closed=indexed.status in TERMINAL,
        retries=after.retries,
        failure_class=after.failure_class,
        failure=after.failure,
        retry_at=after.retry_at,
        fit=after.fit,
        pending=pending,
        settles=bool(scene.answered),
    )
    return ending, set(scene.answered.difference(pending))


def told(ending: Ending, delivered: set[str]) -> dict[str, Any]:
    """The body of the ledger's entry."""
    body: dict[str, Any] = {"outcome": ending.outcome, "execution": ending.execution}
    if ending.failure_class:
        body |= {"failure_class": ending.failure_class, "error": (ending.failure or {}).get("error")}
    if ending.fit != Fit.FITS:
        body["fit"] = ending.fit
    if ending.retry_at:
        body["retry_at"] = ending.retry_at.isoformat()
    if delivered:
        body["delivered"] = sorted(delivered)
    return body


def _in_the_light_of(head: Head, ended: Ended) -> Head:
    if ended.raised is None:
        return head
    transient = ended.failure is FailureClass.TRANSIENT
    return with_outcome(head, Seen(head.checkpoint_id, ended.raised, transient=transient))


def _judge(ended: Ended, head: Head) -> Ended:
    """What the rows make of an attempt that ended without an error."""
    if ended.kind not in (OutcomeKind.COMPLETED, OutcomeKind.SUSPENDED):
        return ended
    if head.state is Execution.FINISHED:
        return Ended(OutcomeKind.COMPLETED)
    if head.open:
        return Ended(OutcomeKind.SUSPENDED)
    return Ended(OutcomeKind.BREAKPOINT) if head.state is Execution.RUNNABLE else ended


def _after(ended: Ended, scene: Scene, *, head: Head, jitter: float, redact: Callable[[str], str]) -> Run:
    """The run as it will be once this attempt has let go."""
    run, is_failed, retry_at = scene.run, ended.kind is OutcomeKind.FAILED, None
    if is_failed and ended.failure:
        policy = _AWAY_POLICY if ended.away else _RETRY_POLICY
        retry_at = next_retry(policy, ended.failure, run.retries, now=scene.now, jitter=jitter)
    return replace(
        run,
        worker_id=None,
        claimed_at=None,
        execution=head.state,
        outcome=ended.kind,
        outcome_at=scene.now,
        failure_class=ended.failure if is_failed else None,
        failure={"error": redact(ended.error or "").replace("\0", "\\0")} if is_failed else None,
        retry_at=retry_at,
        retries=run.retries + (retry_at is not None) if is_failed else 0,
        fit=ended.fit,
    )
