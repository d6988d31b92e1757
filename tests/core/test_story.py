"""The story: sentences that a person who knows no computer can read, each linked to its entries."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from control.core.ledger import Entry, Kind, Loss
from control.core.phrasing import duration, person, seen_evidence
from control.core.story import TELLERS, Sentence, tell

AT = datetime(2026, 3, 1, 9, tzinfo=UTC)


def story(*told: tuple[str, str, dict[str, Any]], apart: timedelta = timedelta(minutes=1)) -> list[Sentence]:
    return tell(
        Entry(seq, AT + (seq - 1) * apart, Kind(kind), actor, 1, body)
        for seq, (kind, actor, body) in enumerate(told, start=1)
    )


def step(*nodes: str, source: str = "loop") -> tuple[str, str, dict[str, Any]]:
    return "stepped", "worker:7", {"checkpoint_id": "1f0c-66", "step": 1, "source": source, "nodes": list(nodes)}


def asked(kind: str = "approval", title: str = "Pay out 12,000 EUR", **more: Any) -> tuple[str, str, dict[str, Any]]:
    body = {"interrupt_id": "8d4a", "kind": kind, "node": "pay", "title": title, "digest": "ab12", **more}
    return "asked", "worker:7", body


ACCEPTED = ("accepted", "user:ana.lopez@bank.example", {"workflow": "loan_approval", "thread_id": "t-1", "priority": 0})
CLAIMED = ("claimed", "worker:7", {"worker": "7"})
SEEN = ["credit report", "bank statement", "bank statement"]


def test_a_run_reads_as_a_story() -> None:
    told = story(
        ACCEPTED,
        CLAIMED,
        step("__start__", source="input"),
        step("collect_documents"),
        step("score"),
        asked(evidence=SEEN),
        ("ended", "worker:7", {"outcome": "suspended", "execution": "waiting"}),
        ("decided", "Ana", {"interrupt_id": "8d4a", "decision": "approved", "digest": "ab12", "note": "checked twice"}),
        ("claimed", "worker:8", {"worker": "8"}),
        ("effect_began", "worker:8", {"key": "k", "name": "pay_out", "kind": "effect", "call": 1}),
        ("worker_lost", "system", {"worker": "8", "why": "its session ended"}),
        ("claimed", "worker:9", {"worker": "9"}),
        ("effect_began", "worker:9", {"key": "k", "name": "pay_out", "kind": "effect", "call": 2}),
        (
            "effect_ended",
            "worker:9",
            {"key": "k", "name": "pay_out", "kind": "effect", "state": "done", "how": "called"},
        ),
        step("pay"),
        step("notify", "notify", "archive"),
        ("ended", "worker:9", {"outcome": "completed", "execution": "finished"}),
    )
    assert [(sentence.text, sentence.entries) for sentence in told] == [
        ("Ana Lopez started loan approval.", (1, 2)),
        ("It went through collect documents and score.", (3, 4, 5)),
        ("It asked for approval of “Pay out 12,000 EUR”.", (6, 7)),
        (
            "Ana approved “Pay out 12,000 EUR” after 2 minutes, having seen the credit report and 2 bank statements, "
            "and noted: “checked twice”.",
            (8, 9, 10),
        ),
        ("The worker that held it was lost.", (11,)),
        ("Another worker took it over 1 minute later.", (12,)),
        ("It called “pay out” again, since the call before was cut off.", (13,)),
        ("It did “pay out”.", (14,)),
        ("It went through pay, notify (2 times) and archive.", (15, 16)),
        ("It finished.", (17,)),
    ]
    assert told[1].at == AT + timedelta(minutes=2)


ONE_ENTRY: list[tuple[tuple[str, str, dict[str, Any]], str]] = [
    (
        ("accepted", "system", {"workflow": None, "not_before": "2026-03-02T08:05:00+00:00"}),
        "The control plane started a run, not to begin before 2 March 2026 08:05 UTC.",
    ),
    (
        ("accepted", "ana", {"workflow": "refund", "restarted_from": "r0"}),
        "Ana started refund again from its first input.",
    ),
    (asked("input", "Which account?"), "It asked “Which account?”."),
    (
        asked("doubt", "charge the card", expires_at="2026-03-01T12:00:00+00:00"),
        "It could not tell whether “charge the card” had happened, and asked a person, "
        "to be decided by 1 March 2026 12:00 UTC.",
    ),
    (
        (
            "suspended",
            "worker:7",
            {"interrupt_id": "w", "kind": "timer", "node": "cool_off", "due_at": "2026-03-08T09:00:00+00:00"},
        ),
        "Cool off went to wait until 8 March 2026 09:00 UTC.",
    ),
    (
        ("suspended", "worker:7", {"interrupt_id": "w", "kind": "signal", "node": "inbox", "signal": "invoice paid"}),
        "Inbox went to wait for the signal “invoice paid”.",
    ),
    (
        ("decided", "policy:limits", {"interrupt_id": "?", "decision": "rejected", "digest": "d"}),
        "A rule rejected a question.",
    ),
    (("fired", "system", {"interrupt_id": "w", "kind": "timer"}), "The time it waited for came."),
    (
        ("fired", "system", {"interrupt_id": "w", "kind": "signal", "signal": "paid"}),
        "The signal “paid” that it waited for came.",
    ),
    (("woken", "clock", {"why": "retry"}), "The time to try again came."),
    (("woken", "clock", {"why": "start"}), "The time to begin came."),
    (("signalled", "crm_bot", {"name": "paid"}), "Crm Bot sent the signal “paid”."),
    (
        ("superseded", "system", {"interrupt_id": "?", "why": "the run was rewound."}),
        "A question was withdrawn: the run was rewound.",
    ),
    (("ordered", "ana", {"verb": "pause", "reason": "month end."}), "Ana paused it: month end."),
    (("ordered", "ana", {"verb": "resume"}), "Ana let it go on."),
    (("ordered", "ana", {"verb": "cancel"}), "Ana cancelled it."),
    (("ordered", "ana", {"verb": "retry"}), "Ana had it tried again."),
    (("rewound", "ana", {"checkpoint_id": "c2", "to_checkpoint_id": "c1"}), "Ana took it back to an earlier point."),
    (
        ("effect_ended", "w", {"key": "k", "name": "send_mail", "kind": "effect", "state": "done", "how": "probed"}),
        "“send mail” turned out to have been done already.",
    ),
    (
        ("effect_ended", "w", {"key": "k", "name": "send_mail", "kind": "effect", "state": "done", "how": "told"}),
        "A person said that “send mail” had been done.",
    ),
    (
        (
            "effect_ended",
            "w",
            {
                "key": "k",
                "name": "send_mail",
                "kind": "effect",
                "state": "failed",
                "how": "called",
                "error": "SMTPError: mailbox full\nTraceback …",
            },
        ),
        "“send mail” failed: SMTPError: mailbox full.",
    ),
    (("task_failed", "w", {"node": "score", "error": "x" * 300}), f"Score failed: {'x' * 200}…."),
    (("handled", "w", {"node": "enrich"}), "It went on without enrich."),
    (
        ("ended", "w", {"outcome": "failed", "error": "TimeoutError", "retry_at": "2026-03-01T09:05:00+00:00"}),
        "The attempt failed: TimeoutError. It is to be tried again at 1 March 2026 09:05 UTC.",
    ),
    (("ended", "w", {"outcome": "cancelled"}), "It stopped for good."),
    (("ended", "w", {"outcome": "breakpoint"}), "It stopped at a breakpoint."),
    (("adopted", "system", {"digest": "b", "from": "a"}), "It was moved to the workflow's current version."),
    (
        ("unfit", "system", {"digest": "b", "why": "pay is gone"}),
        "The workflow had changed, and the run no longer fitted it: pay is gone.",
    ),
    (
        ("effect_ended", "w", {"key": "k", "name": "llm", "kind": "model", "state": "done", "how": "called"}),
        "The record begins here.",
    ),
]


@pytest.mark.parametrize(("entry", "text"), ONE_ENTRY)
def test_how_an_entry_is_told(entry: tuple[str, str, dict[str, Any]], text: str) -> None:
    assert [sentence.text for sentence in story(entry)] == [text]


def test_a_withdrawn_question_is_named() -> None:
    told = story(asked(), ("superseded", "system", {"interrupt_id": "8d4a", "why": "the order changed"}))
    assert told[-1].text == "“Pay out 12,000 EUR” was withdrawn: the order changed."


def test_silence_is_told_as_silence() -> None:
    decided = {"interrupt_id": "8d4a", "decision": "rejected", "digest": "d", "note": "nobody decided in time"}
    told = story(asked(), ("decided", "clock", decided))
    assert told[-1].text == "Nobody decided “Pay out 12,000 EUR” in time, so it was rejected."


@pytest.mark.parametrize(
    ("why", "told"),
    [
        (Loss.LEFT, "The worker that held it left."),
        (Loss.LAPSED, "The worker that held it was lost."),
        (Loss.CUT_OFF, "The worker that held it was lost."),
        (Loss.GAVE_UP, "The worker that held it gave it up."),
        (Loss.UNHEARD, "The worker that was to have it never heard of it."),
    ],
)
def test_each_way_to_lose_a_claim_is_told_apart(why: Loss, told: str) -> None:
    """And whoever held it before is not called another."""
    lost = ("worker_lost", "system", {"worker": CLAIMED[2]["worker"], "why": why})
    sentences = [sentence.text for sentence in story(ACCEPTED, lost, CLAIMED, apart=timedelta(seconds=3))]
    assert sentences[1:] == [told, "The same one took it up again 3 seconds later."]


def test_an_immediate_takeover_says_so() -> None:
    lost = ("worker_lost", "system", {"worker": "6", "why": "gone"})
    assert story(ACCEPTED, lost, CLAIMED, apart=timedelta(milliseconds=400))[-1].text == "Another took it over at once."


def test_a_failure_and_its_retry_are_told_once() -> None:
    failed = ("task_failed", "w", {"node": "score", "error": 'HTTPError("503 for url\\nFor more information")'})
    ended = ("ended", "w", {"outcome": "failed", "error": "HTTPError: 503", "retry_at": "2026-03-01T09:05:30+00:00"})
    told = [sentence.text for sentence in story(ACCEPTED, CLAIMED, failed, ended, CLAIMED, ended)[1:]]
    assert told == [
        'Score failed: HTTPError("503 for url.',
        "It is to be tried again at 1 March 2026 09:05 UTC.",
        "The attempt failed: HTTPError: 503. It is to be tried again in 30 seconds.",
    ]


def test_what_was_erased_is_said_to_be_erased() -> None:
    erased = Entry(2, AT, Kind.DECIDED, "ana", 1, {}, digest=b"\x01" * 32)
    told = tell([Entry(1, AT, Kind.HANDLED, "w", 1, {"node": "a"}), erased])
    assert told[-1] == Sentence(AT, "What happened here has been erased.", (2,))


def test_every_kind_is_told_and_no_sentence_shows_an_id() -> None:
    assert set(TELLERS) == set(Kind)
    told = story(
        ACCEPTED,
        CLAIMED,
        step("score"),
        asked(),
        ("decided", "ana", {"interrupt_id": "8d4a", "decision": "approved", "digest": "ab12"}),
    )
    assert not any(re.search(r"8d4a|ab12|1f0c|t-1|worker:7", sentence.text) for sentence in told)


def test_people_durations_and_evidence_are_spelled_out() -> None:
    spoken_of = {
        "user:ana": "Ana",
        "Ana McKay": "Ana McKay",
        "bob_smith@x.y": "Bob Smith",
        "agent:scout": "The agent",
        "worker:7": "A worker",
        "script:bob": "A script",
        "policy": "A rule",
        "control": "The control plane",
        "": "Somebody",
    }
    assert {actor: person(actor) for actor in spoken_of} == spoken_of
    spans = [0.4, 1, 59, 61, 7200, 90000, 172800]
    assert [duration(timedelta(seconds=s)) for s in spans] == [
        "less than a second",
        "1 second",
        "59 seconds",
        "1 minute",
        "2 hours",
        "1 day",
        "2 days",
    ]
    assert seen_evidence([]) == ""
    assert seen_evidence(["invoice"]) == ", having seen the invoice"
