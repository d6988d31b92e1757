"""What policy is told of an agent's intents."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.action import Action
from control.core.intent import Declared, Intent, arguments, intents_of
from control.core.packet import packet_of

LARGEST = 2**63 - 1


@given(st.floats(allow_nan=True, allow_infinity=True) | st.integers())
def test_a_number_is_never_understated(value: float) -> None:
    found = arguments({"amount": value})[0]["amount"]
    assert -LARGEST <= found <= LARGEST
    if math.isfinite(value):
        assert abs(found) >= min(abs(value), LARGEST) and abs(found) <= abs(value) + 1
    else:
        assert abs(found) == LARGEST


def test_arguments_are_found_by_their_path() -> None:
    given = {"to": "ACME", "dry": True, "none": None, "items": [{"price": 2.5, "name": "pen"}, 7]}
    assert arguments(given) == (
        {"items.0.price": 3, "items.1": 7},
        {"to": "ACME", "dry": "true", "items.0.name": "pen"},
    )


def test_a_packet_tells_the_calls_that_it_asks_leave_for() -> None:
    declared = Declared(risk="high", effect=True, cost_usd=1.5)
    intent = Intent(action=Action.CALL_TOOL, name="pay", args={"amount": 1}, declared=declared)
    value: dict[str, Any] = {"type": "control.approval", "action": {"name": "pay", "args": {"amount": 1}}}
    assert intents_of(packet_of({**value, "intent": intent.terms()})) == (intent,)
    assert intents_of(packet_of(value)) == ()
    batch = {"action_requests": [{"name": "pay", "args": {"amount": 1}}, {"name": "wipe", "args": {}}]}
    assert [each.name for each in intents_of(packet_of(batch))] == ["pay", "wipe"]


@pytest.mark.parametrize(
    "forged", [None, 7, {}, {"action": "fly", "declared": {}}, {"action": "call_tool", "declared": {"x": 1}}]
)
def test_an_intent_that_cannot_be_read_is_none(forged: Any) -> None:
    value = {"type": "control.approval", "action": {"name": "pay", "args": {}}, "intent": forged}
    assert intents_of(packet_of(value)) == ()
