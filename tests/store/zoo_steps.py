"""Lines, fans, joins, deferred nodes, Sends and Commands."""

from __future__ import annotations

from typing import Any

import psycopg
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send

from tests.store.zoo import INPUT, State, Thread, case, fan, line, wire


@case("none", ())
def empty_thread(t: Thread) -> None:
    line(t, "a")


@case("finished", ())
def linear(t: Thread) -> None:
    line(t, "a", "b", "c")
    t.go(INPUT)


@case("runnable", ("__start__",))
def input_only(t: Thread) -> None:
    line(t, "a")
    t.go(INPUT)
    t.lose_checkpoints_after(-1)
    with psycopg.connect(t.dsn, autocommit=True) as conn:
        conn.execute("delete from checkpoint_writes where thread_id = %s", (t.thread_id,))


@case("barrier", (), misleads=True)
def input_and_its_writes_only(t: Thread) -> None:
    line(t, "a")
    t.go(INPUT)
    t.lose_checkpoints_after(-1)


@case("finished", ())
def none_output(t: Thread) -> None:
    line(t, "a", a=lambda _: t.ran.append("a"))
    t.go(INPUT)


@case("finished", ())
def finished_twice(t: Thread) -> None:
    line(t, "a", "b")
    t.go(INPUT)
    t.go(INPUT)


@case("finished", ())
def exit_durability(t: Thread) -> None:
    line(t, "a", "b")
    t.go(INPUT, durability="exit")


@case("finished", ())
def async_durability(t: Thread) -> None:
    line(t, "a", "b")
    t.go(INPUT, durability="async")


@case("waiting", ("b",), 1)
def exit_durability_interrupted(t: Thread) -> None:
    line(t, "a", "b", "c", b=t.asks("b"))
    t.go(INPUT, durability="exit")


@case("failed", ("b",))
def exit_durability_failed(t: Thread) -> None:
    line(t, "a", "b", "c", b=t.breaks("b"))
    t.go(INPUT, durability="exit")


@case("finished", ())
def fan_out(t: Thread) -> None:
    fan(t, a=t.step("a"), b=t.step("b"), c=t.step("c"))
    t.go(INPUT)


@case("waiting", ("b",), 1)
def join_waits_for_an_answer(t: Thread) -> None:
    fan(t, a=t.step("a"), b=t.asks("b"))
    t.go(INPUT)


@case("runnable", ("b2",))
def join_half_arrived(t: Thread) -> None:
    edges = [(START, "a"), (START, "b"), ("b", "b2"), (["a", "b2"], "z")]
    wire(t, {n: t.step(n) for n in ("a", "b", "b2", "z")}, edges, interrupt_before=["b2"])
    t.go(INPUT)


@case("runnable", ("z",))
def join_complete(t: Thread) -> None:
    edges = [(START, "a"), (START, "b"), ("b", "b2"), (["a", "b2"], "z")]
    wire(t, {n: t.step(n) for n in ("a", "b", "b2", "z")}, edges, interrupt_before=["z"])
    t.go(INPUT)


@case("runnable", ("z",))
def join_of_odd_names(t: Thread) -> None:
    names = ("a+b, c", "d, 0000000000", "~e+")
    edges = [(START, n) for n in names] + [(list(names), "z")]
    wire(t, {n: t.step(n) for n in (*names, "z")}, edges, interrupt_before=["z"])
    t.go(INPUT)


@case("waiting", ("a+b, c",), 1)
def odd_name_asks(t: Thread) -> None:
    line(t, "a+b, c", "d", **{"a+b, c": t.asks("a+b, c")})
    t.go(INPUT)


@case("failed", ("a, node_error_handler",))
def odd_name_fails(t: Thread) -> None:
    name = "a, node_error_handler"
    line(t, name, **{name: t.breaks(name)})
    t.go(INPUT)


def deferred_graph(t: Thread, **compiled: Any) -> None:
    edges = [(START, "a"), (START, "b"), ("b", "b2"), ("a", "late"), ("b2", "late")]
    nodes: dict[str, Any] = {n: t.step(n) for n in ("a", "b", "b2")}
    wire(t, {**nodes, "late": (t.step("late"), {"defer": True})}, edges, **compiled)


@case("runnable", ("b2",))
def deferred_waits_its_turn(t: Thread) -> None:
    deferred_graph(t, interrupt_before=["b2"])
    t.go(INPUT)


@case("runnable", ("late",))
def deferred_fires(t: Thread) -> None:
    deferred_graph(t, interrupt_before=["late"])
    t.go(INPUT)


@case("finished", ())
def deferred_done(t: Thread) -> None:
    deferred_graph(t)
    t.go(INPUT)


@case("runnable", ("late",))
def deferred_join_fires(t: Thread) -> None:
    edges = [(START, "a"), (START, "b"), ("b", "c"), (["a", "b"], "late")]
    nodes: dict[str, Any] = {n: t.step(n) for n in ("a", "b", "c")}
    wire(t, {**nodes, "late": (t.step("late"), {"defer": True})}, edges, interrupt_before=["late"])
    t.go(INPUT)


@case("runnable", ("c",))
def deferred_join_waits(t: Thread) -> None:
    edges = [(START, "a"), (START, "b"), ("b", "c"), (["a", "b"], "late")]
    nodes: dict[str, Any] = {n: t.step(n) for n in ("a", "b", "c")}
    wire(t, {**nodes, "late": (t.step("late"), {"defer": True})}, edges, interrupt_before=["c"])
    t.go(INPUT)


def sending(t: Thread, count: int, worker: Any, *extra: str, **compiled: Any) -> None:
    graph = StateGraph(State)
    graph.add_node("plan", t.step("plan"))
    graph.add_node("w", worker)
    graph.add_edge(START, "plan")
    for name in extra:
        graph.add_node(name, t.step(name))
    targets = ["w", *extra]
    graph.add_conditional_edges("plan", lambda _: [*(Send("w", {"n": n}) for n in range(count)), *extra], targets)
    t.graph = graph.compile(checkpointer=t.saver, **compiled)


@case("finished", ())
def sends_done(t: Thread) -> None:
    sending(t, 20, t.step("w"))
    t.go(INPUT)


@case("runnable", ("w",) * 20)
def sends_scheduled(t: Thread) -> None:
    sending(t, 20, t.step("w"), interrupt_before=["w"])
    t.go(INPUT)


@case("waiting", ("w",) * 4, 4)
def sends_all_ask(t: Thread) -> None:
    sending(t, 4, t.asks("w"))
    t.go(INPUT)


@case("waiting", ("w",) * 3, 3)
def sends_one_answered(t: Thread) -> None:
    sending(t, 4, t.asks("w"))
    t.go(INPUT)
    t.go(Command(resume={t.ids()[2]: "yes"}))


@case("runnable", ("w", "w", "other"))
def sends_and_a_pull(t: Thread) -> None:
    sending(t, 2, t.step("w"), "other", interrupt_before=["w"])
    t.go(INPUT)


@case("waiting", ("w", "w"), 2)
def sends_ask_beside_a_pull(t: Thread) -> None:
    sending(t, 2, t.asks("w"), "other")
    t.go(INPUT)


@case("failed", ("w",))
def one_send_fails(t: Thread) -> None:
    def worker(given: Any) -> Any:
        t.ran.append("w")
        if given["n"] == 0:
            raise ValueError("first broke")
        return {"log": ["w"]}

    sending(t, 1, worker)
    t.go(INPUT)


@case("finished", ())
def command_goto(t: Thread) -> None:
    wire(
        t,
        {"a": (lambda _: Command(goto="b", update={"log": ["a"]}), {"destinations": ("b",)}), "b": t.step("b")},
        [(START, "a")],
    )
    t.go(INPUT)


@case("waiting", ("b",), 1)
def command_goto_asks(t: Thread) -> None:
    wire(t, {"a": (lambda _: Command(goto="b"), {"destinations": ("b",)}), "b": t.asks("b")}, [(START, "a")])
    t.go(INPUT)


@case("waiting", ("b", "b"), 2)
def node_goes_to_sends(t: Thread) -> None:
    goto = [Send("b", {"n": 0}), Send("b", {"n": 1})]
    wire(t, {"a": (lambda _: Command(goto=goto), {"destinations": ("b",)}), "b": t.asks("b")}, [(START, "a")])
    t.go(INPUT)


@case("waiting", ("b",), 1, misleads=True)
def outside_goto_on_a_finished_thread_asks(t: Thread) -> None:
    wire(t, {"a": t.step("a"), "b": t.asks("b")}, [(START, "a")])
    t.go(INPUT)
    t.go(Command(goto="b"))


@case("failed", ("b",), misleads=True)
def outside_goto_on_a_finished_thread_fails(t: Thread) -> None:
    wire(t, {"a": t.step("a"), "b": t.breaks("b")}, [(START, "a")])
    t.go(INPUT)
    t.go(Command(goto="b"))


@case("waiting", ("b", "b"), 2, misleads=True)
def outside_goto_sends_on_a_finished_thread(t: Thread) -> None:
    wire(t, {"a": t.step("a"), "b": t.asks("b")}, [(START, "a")])
    t.go(INPUT)
    t.go(Command(goto=[Send("b", {}), Send("b", {})]))


@case("waiting", ("b", "c"), 2, misleads=True)
def outside_goto_beside_a_question(t: Thread) -> None:
    wire(t, {"b": t.asks("b"), "c": t.asks("c")}, [(START, "b")])
    t.go(INPUT)
    t.go(Command(goto="c"))


@case("waiting", ("v",), 1, misleads=True)
def outside_sends_replace_sends(t: Thread) -> None:
    graph = StateGraph(State)
    for name in ("w", "v"):
        graph.add_node(name, t.asks(name))
    graph.add_conditional_edges(START, lambda _: [Send("w", {}), Send("w", {})], ["w"])
    t.graph = graph.compile(checkpointer=t.saver)
    t.go(INPUT)
    t.go(Command(goto=Send("v", {})))


@case("finished", ())
def outside_goto_done(t: Thread) -> None:
    wire(t, {"a": t.step("a"), "b": t.step("b")}, [(START, "a")])
    t.go(INPUT)
    t.go(Command(goto="b"))


@case("finished", ())
def outside_update_on_a_finished_thread(t: Thread) -> None:
    line(t, "a")
    t.go(INPUT)
    t.go(Command(update={"x": "new"}))


@case("finished", (), misleads=False)
def outside_goto_at_a_deferred_node(t: Thread) -> None:
    deferred_graph(t)
    t.go(INPUT)
    t.go(Command(goto="late"))
