"""A gate is read whole or refused, and says what it read."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.gate import PLAIN, Gate, read_gate
from control.core.problem import Refusal
from control.core.question import Question, recognise
from tests.core.test_approval import gates

HOUR: Final = timedelta(hours=1)
FULL: Final[dict[str, Any]] = {
    "quorum": 2,
    "roles": ["finance"],
    "voters": ["ana"],
    "seats": {"risk": 1},
    "four_eyes": True,
    "not_by": ["dan"],
    "on_timeout": "escalate",
    "ladder": [
        {"after_s": 60.0, "to": ["lead"], "notify": ["#desk"]},
        {"after_s": 3600.0, "to": ["cfo"], "notify": []},
    ],
    "skills": ["tax"],
    "reassign_before_s": 600.0,
}


def test_a_gate_says_what_was_read() -> None:
    assert read_gate(FULL, HOUR).as_json() == FULL


@given(gates())
def test_a_gate_is_read_back_as_it_was(made: tuple[Gate, timedelta | None]) -> None:
    gate, expires_in = made
    assert read_gate(gate.as_json(), expires_in) == gate


def test_the_plainest_gate_needs_no_words() -> None:
    assert PLAIN.as_json() == {} and read_gate({}, None) == PLAIN


@pytest.mark.parametrize(
    ("given_", "why"),
    [
        ("two", "It is no object."),
        ({"quorun": 2}, "It has no quorun."),
        ({"quorum": 0}, "quorum counts persons, from 1 to 1000."),
        ({"quorum": True}, "quorum counts persons, from 1 to 1000."),
        ({"quorum": 1.5}, "quorum counts persons, from 1 to 1000."),
        ({"roles": "finance"}, "roles is no list."),
        ({"roles": [" "]}, "roles holds something that is no name."),
        ({"seats": ["risk"]}, "seats is no object."),
        ({"seats": {"risk": 2}}, "More seats are kept for roles than the quorum has."),
        ({"voters": ["ana"], "quorum": 2}, "Fewer voters are named than the quorum needs."),
        ({"voters": ["ana"], "not_by": ["ana"]}, "Fewer voters are named than the quorum needs."),
        ({"four_eyes": ["dan"]}, "four_eyes is yes or no; name others in not_by."),
        ({"on_timeout": "perhaps"}, "on_timeout is deny, escalate or default."),
        ({"on_timeout": "escalate"}, "Its time ends in an escalation, but no rung is left by then."),
        ({"default": {"a": 1}}, "It names a default, but silence does not come to it: on_timeout is not default."),
        ({"ladder": [{"after_s": 60}]}, "A rung of its ladder changes nothing: it names nobody in `to` or `notify`."),
        ({"ladder": [{"to": ["lead"]}]}, "A rung of its ladder is {after_s, to, notify}."),
        ({"ladder": [{"after_s": -1, "to": ["lead"]}]}, "A time is a number of seconds above 0."),
        ({"ladder": [{"after_s": float("nan"), "to": ["lead"]}]}, "A time is a number of seconds above 0."),
        ({"ladder": [{"after_s": 3600, "to": ["lead"]}]}, "A rung of its ladder comes when its time is over."),
        (
            {"ladder": [{"after_s": 9, "to": ["lead"]}, {"after_s": 9, "to": ["cfo"]}]},
            "The rungs of its ladder are not in the order of their times.",
        ),
        ({"reassign_before_s": 60}, "It moves on to another assignee, but seeks none: skills is missing."),
        ({"skills": [], "reassign_before_s": 3600}, "It is to move on before it was asked."),
    ],
)
def test_a_gate_that_contradicts_itself_is_refused(given_: Any, why: str) -> None:
    with pytest.raises(Refusal) as refused:
        read_gate(given_, HOUR)
    assert (refused.value.code, refused.value.why) == ("gate-invalid", why)


def test_what_silence_comes_to_needs_an_end_of_time() -> None:
    with pytest.raises(Refusal, match="its time never ends"):
        read_gate({"on_timeout": "default"}, None)


def test_only_an_approval_has_a_gate_and_a_broken_one_is_never_asked() -> None:
    asked = recognise("i", {"type": "control.approval", "title": "Pay?", "gate": {"quorum": 2}}, None)
    assert isinstance(asked, Question) and asked.gate == Gate(quorum=2)
    question = recognise("i", {"type": "control.question", "title": "How?", "gate": {"quorum": 2}}, None)
    assert isinstance(question, Question) and question.gate is None
    with pytest.raises(Refusal, match="counts persons"):
        recognise("i", {"type": "control.approval", "title": "Pay?", "gate": {"quorum": "2"}}, None)


@given(gates(), st.sampled_from([None, ()]))
def test_the_first_deadline_is_the_first_thing_that_time_brings(
    made: tuple[Gate, timedelta | None], skills: tuple[str, ...] | None
) -> None:
    gate, expires_in = made
    first = gate.first_deadline(expires_in)
    spans = [rung.after for rung in gate.ladder] + ([expires_in] if expires_in else [])
    assert first == (timedelta() if gate.skills is not None else min(spans, default=None))
