"""The status of a run: one example for each rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from control.core.execution import Execution
from control.core.facts import Facts, Fit, Outcome, OutcomeKind
from control.core.failure import FailureClass
from control.core.run_status import Status
from tests.core.facts import ANA, HELD, NAP, PAID, PAY, SENT, WHICH, M, T, status


def ended(kind: str, failure: str | None = None) -> Outcome:
    why = "ValueError: no account." if failure else None
    return Outcome(OutcomeKind(kind), T + 10 * M, FailureClass(failure) if failure else None, why)


EXAMPLES: list[tuple[str, dict[str, Any], Status, int, int | None, str]] = [
    # what it is about, facts, word, minutes of since and until, a sentence
    ("new", {}, Status.QUEUED, 0, None, "It is ready, and the next free worker takes it."),
    (
        "not yet",
        {"not_before": T + 70 * M},
        Status.WAITING,
        0,
        70,
        "It is not to start before 2026-03-01 10:10:00 UTC.",
    ),
    (
        "its time came",
        {"not_before": T + 50 * M},
        Status.QUEUED,
        50,
        None,
        "That time has come, so the next free worker takes it.",
    ),
    (
        "started long ago",
        {"not_before": T + 5 * M, "execution": "runnable", "outcome": ended("drained")},
        Status.QUEUED,
        10,
        None,
        "It is ready, and the next free worker takes it.",
    ),
    ("held", {"claim": HELD}, Status.RUNNING, 1, 68, "Worker w1 has held it since 2026-03-01 09:01:00 UTC."),
    ("held, to pause", {"claim": HELD, "pause": ANA}, Status.RUNNING, 1, 68, "It stops at the next step boundary."),
    (
        "hangs",
        {"claim": replace(HELD, progress_at=T + 40 * M, node="score")},
        Status.STALLED,
        50,
        None,
        "Its worker lives, but nothing has moved in score since 2026-03-01 09:40:00 UTC.",
    ),
    (
        "held, to stop",
        {"claim": HELD, "cancel": ANA},
        Status.CANCELLING,
        20,
        None,
        "Ana ordered it cancelled at 2026-03-01 09:20:00 UTC: the customer called.",
    ),
    (
        "hangs, to stop",
        {"claim": replace(HELD, progress_at=T + 2 * M), "cancel": ANA},
        Status.CANCELLING,
        20,
        None,
        "The worker that holds it is stopping.",
    ),
    (
        "undoing",
        {"claim": HELD, "cancel": ANA, "compensating": True},
        Status.COMPENSATING,
        1,
        None,
        "A worker is undoing what the run had done.",
    ),
    (
        "to be undone",
        {"cancel": ANA, "compensating": True},
        Status.QUEUED,
        0,
        None,
        "What it had done is to be undone, and no worker holds it yet.",
    ),
    (
        "orphan",
        {"claim": replace(HELD, alive=False), "execution": "runnable"},
        Status.QUEUED,
        58,
        None,
        "The worker that held it is gone; a peer takes it over.",
    ),
    (
        "orphan, once too often",
        {"claim": replace(HELD, alive=False), "crashes": 2},
        Status.ABANDONED,
        58,
        None,
        "3 workers were lost while working on it, and the limit is 3.",
    ),
    (
        "orphan, but done",
        {"claim": replace(HELD, alive=False), "execution": "finished", "crashes": 2},
        Status.SUCCEEDED,
        58,
        None,
        "Every step it had to take is done.",
    ),
    (
        "orphan, to stop",
        {"claim": replace(HELD, alive=False), "cancel": ANA},
        Status.CANCELLED,
        58,
        None,
        "The worker that held it is gone; a peer takes it over.",
    ),
    (
        "done",
        {"execution": "finished", "outcome": ended("completed")},
        Status.SUCCEEDED,
        10,
        None,
        "Every step it had to take is done.",
    ),
    (
        "done, still held",
        {"claim": HELD, "execution": "finished", "shortfalls": 1},
        Status.RUNNING,
        1,
        68,
        "Worker w1 has held it since 2026-03-01 09:01:00 UTC.",
    ),
    (
        "cancelled after crashes",
        {"execution": "runnable", "cancel": ANA, "crashes": 3},
        Status.CANCELLED,
        20,
        None,
        "Ana ordered it cancelled at 2026-03-01 09:20:00 UTC: the customer called.",
    ),
    (
        "crashes at a lost route",
        {"execution": "routing_failed", "crashes": 3},
        Status.ABANDONED,
        0,
        None,
        "3 workers were lost while working on it, and the limit is 3.",
    ),
    (
        "fails while to be paused",
        {"execution": "failed", "outcome": ended("failed", "permanent"), "pause": ANA},
        Status.FAILED,
        10,
        None,
        "It is not tried again by itself.",
    ),
    (
        "fails beside a question, tried again",
        {"execution": "failed", "outcome": ended("failed", "transient"), "retry_at": T + 65 * M, "asks": (PAY,)},
        Status.WAITING,
        10,
        65,
        "It is tried again at 2026-03-01 10:05:00 UTC.",
    ),
    (
        "fails around a question, tried again",
        {"execution": "waiting", "outcome": ended("failed", "transient"), "retry_at": T + 65 * M, "asks": (PAY,)},
        Status.WAITING,
        10,
        65,
        "It is tried again at 2026-03-01 10:05:00 UTC.",
    ),
    (
        "rewound to its end",
        {"execution": "finished", "woken_at": T + 40 * M},
        Status.SUCCEEDED,
        40,
        None,
        "Every step it had to take is done.",
    ),
    (
        "done before the cancel",
        {"execution": "finished", "outcome": ended("completed"), "cancel": ANA},
        Status.SUCCEEDED,
        10,
        None,
        "The order to cancel came too late to stop it.",
    ),
    (
        "done in part",
        {"execution": "finished", "outcome": ended("completed"), "shortfalls": 2},
        Status.PARTIAL,
        10,
        None,
        "It finished, but 2 parts failed and an error handler stood in.",
    ),
    (
        "cancelled while waiting",
        {"execution": "waiting", "asks": (PAY,), "cancel": ANA},
        Status.CANCELLED,
        20,
        None,
        "Ana ordered it cancelled at 2026-03-01 09:20:00 UTC: the customer called.",
    ),
    (
        "fails",
        {"execution": "failed", "outcome": ended("failed", "permanent")},
        Status.FAILED,
        10,
        None,
        "Its last attempt ended with a permanent failure: ValueError: no account.",
    ),
    (
        "fails, tried again",
        {"execution": "failed", "outcome": ended("failed", "transient"), "retry_at": T + 65 * M},
        Status.WAITING,
        10,
        65,
        "It is tried again at 2026-03-01 10:05:00 UTC.",
    ),
    (
        "fails, due again",
        {"execution": "failed", "outcome": ended("failed", "transient"), "retry_at": T + 30 * M},
        Status.QUEUED,
        30,
        None,
        "That time has come, so the next free worker takes it.",
    ),
    (
        "retry of a paused run",
        {"execution": "failed", "outcome": ended("failed", "transient"), "retry_at": T + 30 * M, "pause": ANA},
        Status.PAUSED,
        20,
        None,
        "Ana ordered it paused at 2026-03-01 09:20:00 UTC: the customer called.",
    ),
    (
        "routing failed",
        {"execution": "routing_failed", "outcome": ended("failed", "transient"), "retry_at": T + 65 * M},
        Status.FAILED,
        10,
        None,
        "Its checkpoint cannot advance: entering it again would fail again or lose the way.",
    ),
    (
        "killed after a router raised",
        {"execution": "routing_failed", "outcome": ended("lost")},
        Status.FAILED,
        10,
        None,
        "Its checkpoint cannot advance: entering it again would fail again or lose the way.",
    ),
    (
        "needs a person",
        {"execution": "failed", "outcome": ended("failed", "human")},
        Status.BLOCKED,
        10,
        None,
        "A person has to put something right before it can go on.",
    ),
    (
        "does not fit",
        {"outcome": ended("failed", "incompatible")},
        Status.BLOCKED,
        10,
        None,
        "What it holds does not fit what is deployed.",
    ),
    (
        "graph changed",
        {"execution": "waiting", "fit": Fit.CHANGED, "asks": (PAY,)},
        Status.BLOCKED,
        0,
        None,
        "The deployed graph has changed, and the checkpoint no longer fits it (graph-changed).",
    ),
    (
        "renamed node",
        {"execution": "waiting", "outcome": ended("completed"), "asks": (PAY,)},
        Status.BLOCKED,
        10,
        None,
        "The graph found nothing left to do, but the checkpoint holds unfinished work (graph-changed).",
    ),
    (
        "unknown question",
        {"execution": "waiting", "outcome": ended("suspended")},
        Status.BLOCKED,
        10,
        None,
        "It stopped at a question that is not on record, so nobody can answer it.",
    ),
    (
        "paused, asking",
        {"execution": "waiting", "pause": ANA, "asks": (PAY,)},
        Status.PAUSED,
        20,
        90,
        "“Pay out 12,000 EUR” has waited for an approval since 2026-03-01 09:02:00 UTC.",
    ),
    (
        "breakpoint",
        {"execution": "runnable", "outcome": ended("breakpoint")},
        Status.PAUSED,
        10,
        None,
        "It stopped at a breakpoint of its graph.",
    ),
    (
        "approval",
        {"execution": "waiting", "outcome": ended("suspended"), "asks": (WHICH, PAY)},
        Status.AWAITING_APPROVAL,
        10,
        90,
        "“Pay out 12,000 EUR” has waited for an approval since 2026-03-01 09:02:00 UTC.",
    ),
    (
        "doubt",
        {"execution": "waiting", "outcome": ended("suspended"), "asks": (SENT,)},
        Status.AWAITING_APPROVAL,
        10,
        None,
        "“send the letter” has been in doubt since 2026-03-01 09:03:00 UTC: a person must say whether it happened.",
    ),
    (
        "input",
        {"execution": "waiting", "outcome": ended("suspended"), "asks": (WHICH,), "waits": (NAP,)},
        Status.AWAITING_INPUT,
        10,
        70,
        "“Which account?” has waited for an answer since 2026-03-01 09:03:00 UTC.",
    ),
    (
        "one of two answered",
        {"execution": "waiting", "outcome": ended("suspended"), "asks": (PAY,), "ready": 1, "woken_at": T + 15 * M},
        Status.QUEUED,
        15,
        None,
        "An answer is recorded and about to be delivered.",
    ),
    (
        "failed beside a question, retried",
        {"execution": "failed", "asks": (PAY,), "woken_at": T + 15 * M},
        Status.QUEUED,
        15,
        None,
        "It is ready, and the next free worker takes it.",
    ),
    (
        "timer",
        {"execution": "waiting", "outcome": ended("suspended"), "waits": (NAP,)},
        Status.WAITING,
        10,
        70,
        "nap waits until 2026-03-01 10:10:00 UTC.",
    ),
    (
        "timer due",
        {"execution": "waiting", "outcome": ended("suspended"), "waits": (replace(NAP, due_at=T + 30 * M),)},
        Status.QUEUED,
        30,
        None,
        "That time has come, so the next free worker takes it.",
    ),
    (
        "signal",
        {"execution": "waiting", "outcome": ended("suspended"), "waits": (PAID,)},
        Status.WAITING,
        10,
        None,
        "inbox has waited for the signal “paid” since 2026-03-01 09:01:00 UTC.",
    ),
    (
        "killed with a failed task",
        {"execution": "failed", "outcome": ended("lost")},
        Status.QUEUED,
        10,
        None,
        "The worker that held it was lost.",
    ),
    (
        "barrier",
        {"execution": "barrier", "outcome": ended("lost")},
        Status.QUEUED,
        10,
        None,
        "It is ready, and the next free worker takes it.",
    ),
]


@pytest.mark.parametrize("example", EXAMPLES, ids=[example[0] for example in EXAMPLES])
def test_an_example_of_each_rule(example: tuple[str, dict[str, Any], Status, int, int | None, str]) -> None:
    _, given_facts, word, since, until, sentence = example
    facts = Facts(created_at=T, **{**given_facts, "execution": Execution(given_facts.get("execution", "none"))})
    found = status(facts)
    assert (found.word, found.since, found.until) == (word, T + since * M, None if until is None else T + until * M)
    assert sentence in found.because


def test_every_word_has_an_example() -> None:
    assert {example[2] for example in EXAMPLES} == set(Status)
