"""What the waiting graph is resumed with, in the shape of what it asked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from control.core.answer import Word, resume_value

AT = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
SIGNED = {"note": "seen", "by": "ada", "at": AT.isoformat()}
DOUBT = {"type": "control.doubt", "title": "Did “charge” happen?", "name": "charge", "key": "run/4711", "call": 2}
BATCH = {"action_requests": [{"name": "mail", "args": {}}, {"name": "wipe", "args": {}}]}


def resumed(packet: Any, word: str, answer: Any = None) -> Any:
    return resume_value(packet, Word(word), answer, note="seen", by="ada", at=AT)


@pytest.mark.parametrize(
    ("packet", "word", "answer", "expected"),
    [
        ({"type": "control.approval"}, "approved", {"eur": 5}, {"decision": "approve", "answer": {"eur": 5}, **SIGNED}),
        ({"type": "control.approval"}, "rejected", None, {"decision": "reject", "answer": None, **SIGNED}),
        ({"type": "control.question"}, "answered", {"n": 1}, {"answer": {"n": 1}, **SIGNED}),
        (BATCH, "approved", None, {"decisions": [{"type": "approve"}, {"type": "approve"}]}),
        (BATCH, "rejected", None, {"decisions": [{"type": "reject", "message": "seen"}] * 2}),
        (BATCH, "approved", {"decisions": ["edited"]}, {"decisions": ["edited"]}),
        ([{"action_request": {}}], "approved", None, [{"type": "accept", "args": None}]),
        ("Which one?", "answered", "the second", "the second"),
    ],
)
def test_an_answer_takes_the_shape_of_the_question(packet: Any, word: str, answer: Any, expected: Any) -> None:
    assert resumed(packet, word, answer) == expected


def test_an_answer_to_a_doubt_says_which_call_was_doubted() -> None:
    assert resumed(DOUBT, "answered", {"happened": True}) == {"happened": True, "call": 2}
    assert resumed(DOUBT, "answered", {"happened": True, "call": 1}) == {"happened": True, "call": 1}


def test_a_shapeless_answer_to_a_doubt_is_left_to_the_schema_to_refuse() -> None:
    assert resumed(DOUBT, "answered", "yes") == "yes"
