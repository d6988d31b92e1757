"""Waits are interrupts that name what wakes them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command

from control.core.problem import Refusal
from control.sdk import wait_for, wait_for_signal, wait_until

RUN = {"configurable": {"thread_id": "t1"}}


class State(TypedDict, total=False):
    got: Any


def waits(how: Callable[[], Any]) -> Any:
    builder = StateGraph(State).add_node("node", lambda state: {"got": how()}).add_edge(START, "node")
    return builder.compile(checkpointer=InMemorySaver())


@pytest.mark.parametrize(
    ("how", "value"),
    [
        (
            lambda: wait_until(datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=2)))),
            {"type": "control.wait", "kind": "timer", "due_at": "2026-03-01T10:00:00+00:00"},
        ),
        (lambda: wait_for(timedelta(days=10)), {"type": "control.wait", "kind": "timer", "seconds": 864_000.0}),
        (lambda: wait_for_signal("paid"), {"type": "control.wait", "kind": "signal", "signal": "paid"}),
    ],
)
def test_a_wait_says_what_wakes_it(*, how: Callable[[], Any], value: dict[str, Any]) -> None:
    graph = waits(how)
    graph.invoke({}, RUN)
    assert [question.value for question in graph.get_state(RUN).interrupts] == [value]


def resume(graph: Any, value: Any) -> Any:
    graph.invoke({}, RUN)
    (question,) = graph.get_state(RUN).interrupts
    return graph.invoke(Command(resume={question.id: value}), RUN)


def test_a_signal_brings_its_payload() -> None:
    assert resume(waits(lambda: wait_for_signal("paid")), {"payload": {"amount": 3}}) == {"got": {"amount": 3}}


def test_a_timer_brings_nothing() -> None:
    fired_at = {"fired_at": datetime(2026, 3, 1, tzinfo=UTC).isoformat()}
    assert resume(waits(lambda: wait_for(timedelta(seconds=1))), fired_at) == {"got": None}


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(Refusal, match="An instant needs a time zone"):
        waits(lambda: wait_until(datetime(2026, 3, 1))).invoke({}, RUN)
