"""What a packet states either holds to the letter, or is named as having moved."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.freshness import ANSWER_STALE, Moved, bound, delivered, fact_text, moved, refused
from control.core.packet import digest, packet_of, packet_text
from control.core.problem import Refusal

AT = datetime(2026, 3, 1, tzinfo=UTC)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3) | st.floats(allow_nan=False, width=16),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
facts = st.dictionaries(st.text("abc", min_size=1, max_size=2), values, max_size=3)


def packet(**about: Any) -> Any:
    return packet_of({"type": "control.approval", "title": "t", "action": {"name": "pay"}, **about})


@given(facts, facts)
def test_exactly_the_facts_that_differ_have_moved(stated: Any, known: Any) -> None:
    texts = {name: packet_text(value) for name, value in known.items()}
    found = moved(packet(fresh=stated), texts, opened_at=AT, now=AT)
    differ = {name for name, value in stated.items() if packet_text(value) != texts.get(name)}
    assert {one.name for one in found} == differ and {one.what for one in found} <= {"fact"}
    assert all(name in known or one.now == "unknown" for one in found for name in [one.name])


@given(st.integers(0, 100), st.integers(0, 100))
def test_what_is_shown_holds_until_its_time_is_over(span: int, later: int) -> None:
    found = moved(packet(valid_for_s=span), {}, opened_at=AT, now=AT + timedelta(seconds=later))
    assert bool(found) is (later >= span)


def test_a_packet_that_states_nothing_never_moves() -> None:
    assert moved(packet(), {"a": "1"}, opened_at=AT, now=AT + timedelta(days=9999)) == ()
    assert moved(packet(valid_for_s=1e300), {}, opened_at=AT, now=AT) == ()


def test_a_refusal_names_everything_that_moved() -> None:
    told = refused(ANSWER_STALE, [Moved("fact", "a", "1", "2"), Moved("time", "valid_for", "x", "y")])
    assert told.why == "Fact a: 1 became 2; time valid_for: x became y." and len(told.facts["moved"]) == 2


def test_an_answer_of_the_sdk_is_delivered_with_what_it_was_given_to() -> None:
    asked = packet(evidence=[1], after="q1")
    stamped = delivered(asked, {"decision": "approve"}, "q2")
    assert stamped == {
        "decision": "approve", "question": "q2", "after": "q1", "bound": digest(bound(asked.value)),
    }  # fmt: skip
    assert delivered(packet_of({"question": "?"}), {"decision": "approve"}, "q2") == {"decision": "approve"}


@given(values)
def test_a_fact_is_kept_as_a_packet_spells_it(value: Any) -> None:
    text = fact_text("price", value)
    assert text == packet_text(json.loads(text)) and not moved(
        packet(fresh={"price": value}), {"price": text}, opened_at=AT, now=AT
    )


@pytest.mark.parametrize(("name", "value"), [("", 1), (" ", 1), ("a" * 201, 1), ("a\n", 1), ("a", "b" * 65536)])
def test_what_cannot_be_kept_is_no_fact(name: str, value: Any) -> None:
    with pytest.raises(Refusal, match="no fact that can be kept"):
        fact_text(name, value)
