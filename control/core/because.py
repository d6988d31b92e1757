"""Why a run has its status, in sentences built from the facts: one function for each rule of `run_status.RULES`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from control.core.facts import Ask, AskKind, Facts, Order, OutcomeKind, WaitKind
from control.core.failure import FailureClass
from control.core.ledger import Loss
from control.core.phrasing import instant

Sentences = tuple[str, ...]

ORPHANED: Final = "The worker that held it is gone; a peer takes it over."
DELETED: Final = "It has been deleted since; its record stays, and says by whom."
WORKER_LOST: Final = "The worker that held it was lost."
OWN_LOSSES: Final[Mapping[str, str]] = {
    Loss.LEFT: "The worker that held it left.",
    Loss.GAVE_UP: "The worker that held it gave it up.",
    Loss.UNHEARD: "The worker that was to have it never heard of it.",
}
"""Losses that are told otherwise than as `WORKER_LOST`."""


def undoing(facts: Facts) -> Sentences:
    return ("A worker is undoing what the run had done.", *_cancel(facts))


def stopping(facts: Facts) -> Sentences:
    return (*_cancel(facts), "The worker that holds it is stopping.")


def working(facts: Facts) -> Sentences:
    assert facts.claim is not None
    held = f"Worker {facts.claim.worker_id} has held it since {instant(facts.claim.claimed_at)}."
    stops = ("It stops at the next step boundary.",) if facts.pause else ()
    return (held, *_pause(facts), *stops, *_questions(facts))


def no_progress(facts: Facts) -> str:
    assert facts.claim is not None
    where = f" in {facts.claim.node}" if facts.claim.node else ""
    return f"Its worker lives, but nothing has moved{where} since {instant(facts.claim.progress_at)}."


def finished(facts: Facts) -> Sentences:
    return ("Every step it had to take is done.", *_too_late(facts))


def finished_short(facts: Facts) -> Sentences:
    parts = "1 part" if facts.shortfalls == 1 else f"{facts.shortfalls} parts"
    return (f"It finished, but {parts} failed and an error handler stood in.", *_too_late(facts))


def cancelled(facts: Facts) -> Sentences:
    return _cancel(facts) or ("Its last attempt was cancelled.",)


def abandoned(facts: Facts) -> Sentences:
    return (f"{facts.crashes} workers were lost while working on it, and the limit is {facts.crash_limit}.",)


def stuck(facts: Facts) -> Sentences:
    return ("Its checkpoint cannot advance: entering it again would fail again or lose the way.", *_error(facts))


def graph_changed(_: Facts) -> Sentences:
    return ("The deployed graph has changed, and the checkpoint no longer fits it (graph-changed).",)


def misfit(_: Facts) -> Sentences:
    return ("The graph found nothing left to do, but the checkpoint holds unfinished work (graph-changed).",)


def asked_in_vain(_: Facts) -> Sentences:
    return ("It stopped at a question that is not on record, so nobody can answer it.",)


def needs_somebody(facts: Facts) -> Sentences:
    human = facts.outcome is not None and facts.outcome.failure is FailureClass.HUMAN
    need = "A person has to put something right before it can go on."
    return (*_error(facts), need if human else "What it holds does not fit what is deployed.")


def failed(facts: Facts) -> Sentences:
    return (*_error(facts), "It is not tried again by itself.")


def paused(facts: Facts) -> Sentences:
    return (*_pause(facts), *_ready(facts), *_questions(facts), *_waits(facts))


def breakpoint(facts: Facts) -> Sentences:
    return ("It stopped at a breakpoint of its graph.", *_ready(facts), *_questions(facts), *_waits(facts))


def retrying(facts: Facts) -> Sentences:
    assert facts.retry_at is not None
    return (*_error(facts), f"It is tried again at {instant(facts.retry_at)}.")


def asking(facts: Facts) -> Sentences:
    return (*_questions(facts), *_waits(facts))


def waiting(facts: Facts) -> Sentences:
    return _waits(facts)


def not_yet(facts: Facts) -> Sentences:
    assert facts.not_before is not None
    return (f"It is not to start before {instant(facts.not_before)}.",)


def queued(facts: Facts) -> Sentences:
    if facts.compensating:
        return ("What it had done is to be undone, and no worker holds it yet.",)
    taken = facts.hold.why if facts.hold else "It is ready, and the next free worker takes it."
    return (*_lost(facts), *_ready(facts), taken, *_questions(facts))


def time_has_come(facts: Facts) -> str:
    """Of a run that waited for a time which is past."""
    if facts.hold:
        return f"That time has come. {facts.hold.why}"
    return "That time has come, so the next free worker takes it."


def _pause(facts: Facts) -> Sentences:
    return (_ordered(facts.pause, "paused"),) if facts.pause else ()


def _cancel(facts: Facts) -> Sentences:
    return (_ordered(facts.cancel, "cancelled"),) if facts.cancel else ()


def _ordered(order: Order, done: str) -> str:
    said = f"{order.by} ordered it {done} at {instant(order.at)}"
    return f"{said}: {order.reason.rstrip('.')}." if order.reason else f"{said}."


def _too_late(facts: Facts) -> Sentences:
    return ("The order to cancel came too late to stop it.",) if facts.cancel else ()


def lost(why: str | None) -> str:
    """How it is told that a claim was taken from its worker."""
    return OWN_LOSSES.get(why or "", WORKER_LOST)


def _lost(facts: Facts) -> Sentences:
    outcome = facts.outcome
    return (lost(outcome.why),) if outcome is not None and outcome.kind is OutcomeKind.LOST else ()


def _error(facts: Facts) -> Sentences:
    outcome = facts.outcome
    if outcome is None or outcome.kind is not OutcomeKind.FAILED:
        return ()
    kind = f"a {outcome.failure} failure" if outcome.failure else "a failure"
    said = f"Its last attempt ended with {kind}"
    return (f"{said}: {outcome.why.rstrip('.')}." if outcome.why else f"{said}.",)


def _ready(facts: Facts) -> Sentences:
    if not facts.ready:
        return ()
    return ("An answer is recorded and about to be delivered." if facts.ready == 1
            else f"{facts.ready} answers are recorded and about to be delivered.",)  # fmt: skip


def _questions(facts: Facts) -> Sentences:
    return tuple([_question(ask) for ask in facts.asks]) if facts.asks else ()


def _question(ask: Ask) -> str:
    if ask.kind is AskKind.DOUBT:
        return f"“{ask.title}” has been in doubt since {instant(ask.since)}: a person must say whether it happened."
    what = "approval" if ask.kind is AskKind.APPROVAL else "answer"
    return f"“{ask.title}” has waited for an {what} since {instant(ask.since)}{_votes(ask)}{_desk(ask)}."


def _votes(ask: Ask) -> str:
    """How far the quorum is filled, and by whom."""
    if ask.quorum == 1 and not ask.voters:
        return ""
    said = f", from {', '.join(ask.voters)}" if ask.voters else ""
    return f": {len(ask.voters)} of {ask.quorum} votes{said}"


def _desk(ask: Ask) -> str:
    """Where it lies, and how far up it has gone."""
    desk = f"; it lies with {ask.assignee}" if ask.assignee else ""
    times = "once" if ask.rung == 1 else f"{ask.rung} times"
    return f"{desk}; it was escalated {times}" if ask.rung else desk


def _waits(facts: Facts) -> Sentences:
    return tuple(
        f"{wait.node} has waited for the signal “{wait.signal}” since {instant(wait.since)}."
        if wait.kind is WaitKind.SIGNAL or wait.due_at is None
        else f"{wait.node} waits until {instant(wait.due_at)}."
        for wait in facts.waits
    )
