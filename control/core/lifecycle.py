"""What may be done to a run, in which status, and why not the rest.

`LEGAL` is the whole rule: a verb is legal in a status where the table has an entry and the entry's condition finds no
objection in the facts. Whether *this* person may do it is policy's answer, asked separately. `start` is legal in no
status: it makes a run and is never done to one. `inject` is legal in none either, as long as no workflow can take it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from control.core.execution import Execution
from control.core.facts import AskKind, Facts, Fit, OutcomeKind
from control.core.failure import FailureClass
from control.core.problem import Problem
from control.core.run_status import STUCK, TERMINAL, Status


class Verb(StrEnum):
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    ANSWER = "answer"
    APPROVE = "approve"
    REJECT = "reject"
    CANCEL = "cancel"
    RETRY = "retry"
    RESTART = "restart"
    REWIND = "rewind"
    SIGNAL = "signal"
    INJECT = "inject"
    REASSIGN = "reassign"
    DELETE = "delete"


VERB_NOT_LEGAL: Final = Problem(
    code="verb-not-legal",
    status=409,
    title="The run is not in a status that allows this",
    next_step="Read the run again and choose one of the verbs it lists as legal.",
)

Objection = Callable[[Facts], str | None]
"""A sentence that says why not, or None."""


def _none(_: Facts) -> None:
    return None


def _pause_ordered(facts: Facts) -> str | None:
    return "A pause is ordered already; it takes hold at the next step boundary." if facts.pause else None


def _nothing_to_approve(facts: Facts) -> str | None:
    open_one = any(ask.kind is AskKind.APPROVAL for ask in facts.asks)
    return None if open_one else "No approval is open: none was asked for, or it was decided already."


def _nothing_to_answer(facts: Facts) -> str | None:
    open_one = any(ask.kind is not AskKind.APPROVAL for ask in facts.asks)
    return None if open_one else "No question is open: none was asked, or it was answered already."


def _nothing_asked(facts: Facts) -> str | None:
    return None if facts.asks else "No question is open that somebody else could be asked."


def _no_checkpoint(facts: Facts) -> str | None:
    return "It has no checkpoint yet to go back to." if facts.execution is Execution.NONE else None


def _cannot_go_on(facts: Facts) -> str | None:
    poisoned = facts.outcome is not None and facts.outcome.failure is FailureClass.POISONED
    if facts.execution in STUCK or poisoned:
        return "It cannot advance from its checkpoint, so a retry fails again; rewind or restart it."
    if facts.fit is Fit.CHANGED:
        return "Its checkpoint does not fit the deployed graph; deploy one that fits, rewind or restart it."
    return None


def _no_failed_attempt(facts: Facts) -> str | None:
    failed = facts.outcome is not None and facts.outcome.kind is OutcomeKind.FAILED
    return _cannot_go_on(facts) if failed else "No attempt has failed, so there is nothing to retry."


def _each(objection: Objection, statuses: Iterable[Status]) -> Mapping[Status, Objection]:
    return dict.fromkeys(statuses, objection)


_IDLE: Final = (Status.QUEUED, Status.WAITING, Status.AWAITING_APPROVAL, Status.AWAITING_INPUT)
_ACTIVE: Final = (*_IDLE, Status.RUNNING, Status.STALLED)
_ENDED: Final = tuple(status for status in Status if status in TERMINAL)
_AT_REST: Final = (Status.WAITING, Status.AWAITING_APPROVAL, Status.AWAITING_INPUT, Status.PAUSED, Status.BLOCKED)

LEGAL: Final[Mapping[Verb, Mapping[Status, Objection]]] = {
    Verb.START: {},
    Verb.PAUSE: _each(_pause_ordered, _ACTIVE),
    Verb.RESUME: {Status.PAUSED: _none},
    Verb.ANSWER: _each(_nothing_to_answer, (*_ACTIVE, Status.PAUSED)),
    Verb.APPROVE: _each(_nothing_to_approve, (*_ACTIVE, Status.PAUSED)),
    Verb.REJECT: _each(_nothing_to_approve, (*_ACTIVE, Status.PAUSED)),
    Verb.CANCEL: _each(_none, (*_ACTIVE, Status.PAUSED, Status.BLOCKED)),
    Verb.RETRY: {
        Status.FAILED: _cannot_go_on,
        Status.ABANDONED: _cannot_go_on,
        Status.BLOCKED: _cannot_go_on,
        Status.WAITING: _no_failed_attempt,
    },
    Verb.RESTART: _each(_none, (*_ENDED, Status.BLOCKED)),
    Verb.REWIND: _each(_no_checkpoint, (*_AT_REST, Status.SUCCEEDED, Status.PARTIAL, Status.FAILED, Status.ABANDONED)),
    Verb.SIGNAL: _each(_none, (*_ACTIVE, Status.PAUSED, Status.BLOCKED)),
    Verb.INJECT: {},  # no workflow can say yet what it makes of it
    Verb.REASSIGN: _each(_nothing_asked, (*_ACTIVE, Status.PAUSED)),
    Verb.DELETE: _each(_none, _ENDED),
}

EFFECT: Final[Mapping[Verb, str]] = {
    Verb.START: "A new run begins.",
    Verb.PAUSE: "It stops at its next step boundary and stays there until it is resumed.",
    Verb.RESUME: "It goes on from where it stopped.",
    Verb.ANSWER: "The answer is recorded and handed to the step that asked.",
    Verb.APPROVE: "The approval is recorded, and the step that asked may act.",
    Verb.REJECT: "The rejection is recorded, and the step that asked learns of it.",
    Verb.CANCEL: "It stops for good; what it has done stays done unless its workflow undoes it.",
    Verb.RETRY: "It goes on from the failed step; finished steps are not repeated.",
    Verb.RESTART: "A new run begins from the first input; this one stays as it is.",
    Verb.REWIND: "It goes back to an earlier checkpoint; questions that are open now are withdrawn.",
    Verb.SIGNAL: "A step that waits for the signal wakes; without one, the signal is kept for the next.",
    Verb.INJECT: "What is given is taken into account from its next step on.",
    Verb.REASSIGN: "Somebody else is asked; what was asked stays the same.",
    Verb.DELETE: "Its checkpoints are deleted; what the ledger says of it stays.",
}
"""What a legal verb does, for the person about to choose it."""

_REFUSED: Final[Mapping[Verb, str]] = {
    Verb.START: "A run is started once; start a new one instead.",
    Verb.PAUSE: "Only a run that can still go on by itself is paused.",
    Verb.RESUME: "Only a paused run is resumed.",
    Verb.ANSWER: "Its questions can no longer be answered.",
    Verb.APPROVE: "Its approvals can no longer be decided.",
    Verb.REJECT: "Its approvals can no longer be decided.",
    Verb.CANCEL: "There is nothing left to stop.",
    Verb.RETRY: "Only a run whose attempt failed, or that was abandoned, is retried.",
    Verb.RESTART: "Only a run that has ended or is blocked is restarted; cancel it first.",
    Verb.REWIND: "Only a run that no worker holds or may take is rewound; pause it first.",
    Verb.SIGNAL: "Nothing in it can wait for a signal any more.",
    Verb.INJECT: "Nothing in it will take new context into account.",
    Verb.REASSIGN: "Its questions can no longer be decided by anybody.",
    Verb.DELETE: "Only a run that has ended is deleted; cancel it first.",
}

_REFUSED_IN: Final[Mapping[tuple[Verb, Status], str]] = {
    (Verb.PAUSE, Status.PAUSED): "It stays paused until somebody resumes it.",
    (Verb.CANCEL, Status.CANCELLING): "An order to cancel is being carried out already.",
    (Verb.CANCEL, Status.COMPENSATING): "What it had done is being undone, which has to finish.",
    (Verb.RETRY, Status.CANCELLED): "A cancelled run stays cancelled; restart it instead.",
    (Verb.REWIND, Status.CANCELLED): "A cancelled run stays cancelled; restart it instead.",
    (Verb.REWIND, Status.CANCELLING): "It is being cancelled; restart it once it is.",
    (Verb.REWIND, Status.COMPENSATING): "What it had done is being undone; restart it once that is over.",
    (Verb.RESTART, Status.CANCELLING): "It is still being cancelled; restart it once it is.",
    (Verb.RESTART, Status.COMPENSATING): "What it had done is being undone; restart it once that is over.",
    (Verb.ANSWER, Status.BLOCKED): "An answer could not be delivered while it is blocked.",
    (Verb.APPROVE, Status.BLOCKED): "A decision could not be delivered while it is blocked.",
    (Verb.REASSIGN, Status.BLOCKED): "A decision could not be delivered while it is blocked.",
    (Verb.REJECT, Status.BLOCKED): "A decision could not be delivered while it is blocked.",
}


_SAID: Final[Mapping[Status, str]] = {
    Status.SUCCEEDED: "has succeeded",
    Status.PARTIAL: "has finished in part",
    Status.FAILED: "has failed",
    Status.CANCELLED: "was cancelled",
    Status.ABANDONED: "was abandoned",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a verb is legal now. `why` says what it would do, or why it is refused."""

    verb: Verb
    allowed: bool
    why: str


def judge(verb: Verb, status: Status, facts: Facts) -> Verdict:
    """Whether a verb is legal for a run with this derived status and these facts."""
    objection = LEGAL[verb].get(status)
    if objection is None:
        reason = _REFUSED_IN.get((verb, status), _REFUSED[verb])
        return Verdict(verb, False, f"The run {_SAID.get(status, f'is {spoken(status)}')}. {reason}")
    if facts.erased:
        return Verdict(verb, False, "What it carried has been erased, so there is nothing to go on from.")
    if facts.deleted:
        return Verdict(verb, False, "It has been deleted, so there is nothing to go on from; its record stays.")
    refused = objection(facts)
    return Verdict(verb, False, refused) if refused else Verdict(verb, True, EFFECT[verb])


def next_verbs(status: Status, facts: Facts) -> tuple[Verdict, ...]:
    """What may be done next, and why not the rest: a verdict for each verb, in the order of `Verb`."""
    return tuple(judge(verb, status, facts) for verb in Verb)


def require(verb: Verb, status: Status, facts: Facts) -> None:
    """Raise `verb-not-legal` unless the verb is legal. The refusal carries the verbs that are."""
    verdict = judge(verb, status, facts)
    if not verdict.allowed:
        legal = [other.verb.value for other in next_verbs(status, facts) if other.allowed]
        raise VERB_NOT_LEGAL.because(verdict.why, verb=verb.value, run_status=status.value, legal=legal)


def spoken(status: Status) -> str:
    """The word as people say it."""
    return status.value.replace("_", " ")
