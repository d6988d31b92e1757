"""Errors, retries, routers that raise, conflicting writes, error handlers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
from langgraph.graph import START, StateGraph
from langgraph.types import RetryPolicy, Send, interrupt

from tests.store.zoo import INPUT, State, Thread, case, fan, line, wire


@case("failed", ("b",))
def error(t: Thread) -> None:
    line(t, "a", "b", "c", b=t.breaks("b"))
    t.go(INPUT)


def after(t: Thread, channel: str, node: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A node that acts once a sibling's row is stored, so that a parallel case always ends the same way."""

    def later(state: Any) -> Any:
        until_stored(t, channel)
        return node(state)

    return later


def until_stored(t: Thread, channel: str) -> None:
    stored = "select 1 from checkpoint_writes where thread_id = %s and channel = %s and task_path like '%%pull, b'"
    with psycopg.connect(t.dsn, autocommit=True) as conn:
        for _ in range(500):
            if conn.execute(stored, (t.thread_id, channel)).fetchone():
                return
            time.sleep(0.01)


@case("failed", ("a",))
def error_beside_a_done_sibling(t: Thread) -> None:
    fan(t, a=after(t, "log", t.breaks("a")), b=t.step("b"))
    t.go(INPUT)


@case("failed", ("a", "b"), 1)
def error_beside_a_question(t: Thread) -> None:
    fan(t, a=after(t, "__interrupt__", t.breaks("a")), b=t.asks("b"))
    t.go(INPUT)


@case("waiting", ("b",), 1)
def error_retried_beside_a_question(t: Thread) -> None:
    error_beside_a_question(t)
    t.broken.clear()
    t.go(None)


@case("barrier", (), misleads=True)
def error_retried_then_barrier(t: Thread) -> None:
    line(t, "a", "b", "c", b=t.breaks("b"))
    t.go(INPUT)
    t.broken.clear()
    t.go(None)
    t.lose_checkpoints_after(1)


@case("finished", ())
def error_retried(t: Thread) -> None:
    line(t, "a", "b", "c", b=t.breaks("b"))
    t.go(INPUT)
    t.broken.clear()
    t.go(None)


@case("finished", ())
def retried_in_process(t: Thread) -> None:
    def node(_: Any) -> Any:
        t.ran.append("a")
        if t.ran.count("a") == 1:
            raise ValueError("first time")
        return {"log": ["a"]}

    policy = RetryPolicy(initial_interval=0.001, jitter=False, retry_on=ValueError)
    wire(t, {"a": (node, {"retry_policy": policy})}, [(START, "a")])
    t.go(INPUT)


@case("waiting", ("a",), 1)
def retried_in_process_then_asks(t: Thread) -> None:
    def node(_: Any) -> Any:
        t.ran.append("a")
        if t.ran.count("a") == 1:
            raise ValueError("first time")
        return {"log": [interrupt("a")]}

    policy = RetryPolicy(initial_interval=0.001, jitter=False, retry_on=ValueError)
    wire(t, {"a": (node, {"retry_policy": policy})}, [(START, "a")])
    t.go(INPUT)


def routing(t: Thread) -> None:
    def router(_: Any) -> str:
        if "router" in t.broken:
            raise ValueError("router broke")
        return "b"

    t.broken.add("router")
    graph = StateGraph(State)
    graph.add_node("a", t.step("a"))
    graph.add_node("b", t.step("b"))
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", router, ["b"])
    t.graph = graph.compile(checkpointer=t.saver)


@case("routing_failed", (), misleads=True)
def router_raises(t: Thread) -> None:
    routing(t)
    t.go(INPUT)


@case("barrier", (), misleads=True)
def parallel_conflict(t: Thread) -> None:
    edges = [(START, "a"), (START, "b"), ("a", "z"), ("b", "z")]
    wire(t, {"a": t.step("a", x="1"), "b": t.step("b", x="2"), "z": t.step("z")}, edges)
    t.go(INPUT)


@case("runnable", ("a",))
def recursion_limit(t: Thread) -> None:
    graph = StateGraph(State)
    graph.add_node("a", t.step("a"))
    graph.add_edge(START, "a")
    graph.add_edge("a", "a")
    t.graph = graph.compile(checkpointer=t.saver)
    t.go(INPUT, config={"recursion_limit": 4})


@case("finished", ())
def handler_ok(t: Thread) -> None:
    wire(t, {"a": (t.breaks("a"), {"error_handler": t.step("fix")}), "b": t.step("b")}, [(START, "a"), ("a", "b")])
    t.go(INPUT)


@case("waiting", ("a",), 1, misleads=True)
def handler_asks(t: Thread) -> None:
    wire(t, {"a": (t.breaks("a"), {"error_handler": t.asks("fix")}), "b": t.step("b")}, [(START, "a"), ("a", "b")])
    t.go(INPUT)


@case("failed", ("a",), misleads=True)
def handler_raises(t: Thread) -> None:
    wire(t, {"a": (t.breaks("a"), {"error_handler": t.breaks("fix")}), "b": t.step("b")}, [(START, "a"), ("a", "b")])
    t.go(INPUT)


@case("waiting", ("a", "b"), 1)
def handler_done_beside_a_question(t: Thread) -> None:
    nodes = {"a": (t.breaks("a"), {"error_handler": t.step("fix")}), "b": t.asks("b")}
    wire(t, nodes, [(START, "a"), (START, "b")])
    t.go(INPUT)


@case("runnable", ("a",))
def handler_done_checkpoint_lost(t: Thread) -> None:
    wire(t, {"a": (t.breaks("a"), {"error_handler": t.step("fix")}), "b": t.step("b")}, [(START, "a"), ("a", "b")])
    t.go(INPUT)
    t.lose_checkpoints_after(0)


@case("waiting", ("w", "w"), 2, misleads=True)
def handlers_of_sends_ask(t: Thread) -> None:
    graph = StateGraph(State)
    graph.add_node("w", t.breaks("w"), error_handler=t.asks("fix"))
    graph.add_conditional_edges(START, lambda _: [Send("w", {}), Send("w", {})], ["w"])
    t.graph = graph.compile(checkpointer=t.saver)
    t.go(INPUT)
