"""Questions: one, several, in turn; in subgraphs and in the functional API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt
from pydantic import BaseModel

from tests.store.zoo import INPUT, State, Thread, case, chain, fan, line, wire


@case("waiting", ("b",), 1)
def one_question(t: Thread) -> None:
    line(t, "a", "b", "c", b=t.asks("b"))
    t.go(INPUT)


@case("finished", ())
def one_question_answered(t: Thread) -> None:
    line(t, "a", "b", "c", b=t.asks("b"))
    t.go(INPUT)
    t.go(Command(resume="yes"))


@case("waiting", ("a", "b", "c"), 3)
def several_questions(t: Thread) -> None:
    fan(t, a=t.asks("a"), b=t.asks("b"), c=t.asks("c"))
    t.go(INPUT)


@case("waiting", ("a", "c"), 2)
def one_of_several_answered(t: Thread) -> None:
    fan(t, a=t.asks("a"), b=t.asks("b"), c=t.asks("c"))
    t.go(INPUT)
    answered = next(question.id for question in t.snapshot().interrupts if question.value == "b")
    t.go(Command(resume={answered: "yes"}))


@case("waiting", ("b",), 1)
def second_question(t: Thread) -> None:
    line(t, "a", "b", b=t.asks("b", "first", "second"))
    t.go(INPUT)
    t.go(Command(resume="one"))


@case("waiting", ("b",), 1)
def third_question_by_id(t: Thread) -> None:
    line(t, "a", "b", b=t.asks("b", "first", "second", "third"))
    t.go(INPUT)
    for _ in range(2):
        t.go(Command(resume={t.ids()[0]: "ok"}), strict=True)


@case("finished", ())
def all_sequential_questions_answered(t: Thread) -> None:
    line(t, "a", "b", b=t.asks("b", "first", "second"))
    t.go(INPUT)
    t.go(Command(resume="one"))
    t.go(Command(resume="two"))


@case("waiting", ("b",), 1)
def asked_again_without_an_answer(t: Thread) -> None:
    line(t, "a", "b", b=t.asks("b"))
    t.go(INPUT)
    t.go(None)


@case("waiting", ("a",), 1)
def new_input_over_a_question(t: Thread) -> None:
    line(t, "a", "b", a=t.asks("a"))
    t.go(INPUT)
    t.go(INPUT)


@case("failed", ("a",), misleads=True)
def answered_then_raised(t: Thread) -> None:
    line(t, "a", a=t.breaks("a", after="go?"))
    t.go(INPUT)
    t.go(Command(resume={t.ids()[0]: "yes"}))


@case("failed", ("a",), misleads=True)
def answered_plainly_then_raised(t: Thread) -> None:
    line(t, "a", a=t.breaks("a", after="go?"))
    t.go(INPUT)
    t.go(Command(resume="yes"))


@case("finished", ())
def answered_then_raised_then_retried(t: Thread) -> None:
    line(t, "a", a=t.breaks("a", after="go?"))
    t.go(INPUT)
    t.go(Command(resume="yes"))
    t.broken.clear()
    t.go(None)


@case("waiting", ("a",), 1)
def raised_then_asked(t: Thread) -> None:
    def node(_: Any) -> Any:
        t.ran.append("a")
        if "a" in t.broken:
            raise ValueError("a broke")
        return {"log": [interrupt("now?")]}

    t.broken.add("a")
    line(t, "a", a=node)
    t.go(INPUT)
    t.broken.clear()
    t.go(None)


@case("waiting", ("a",), 1)
def invalid_answer_is_not_taken(t: Thread) -> None:
    class Answer(BaseModel):
        ok: bool

    def node(_: Any) -> Any:
        t.ran.append("a")
        return {"log": [str(interrupt("ok?", response_schema=Answer))]}

    line(t, "a", a=node)
    t.go(INPUT)
    t.go(Command(resume={t.ids()[0]: {"ok": "perhaps"}}))


def inner_graph(nodes: dict[str, Any], edges: Iterable[tuple[Any, Any]], **compiled: Any) -> Any:
    graph = StateGraph(State)
    for name, node in nodes.items():
        graph.add_node(name, node)
    for start, end in edges:
        graph.add_edge(start, end)
    return graph.compile(**compiled)


def two_inner(t: Thread, first: Any, second: Any, **compiled: Any) -> Any:
    return inner_graph({"i": first, "j": second}, chain("i", "j"), **compiled)


@case("waiting", ("s",), 1)
def subgraph_asks(t: Thread) -> None:
    line(t, "a", "s", s=two_inner(t, t.step("i"), t.asks("j")))
    t.go(INPUT)


@case("finished", ())
def subgraph_answered(t: Thread) -> None:
    line(t, "a", "s", s=two_inner(t, t.step("i"), t.asks("j")))
    t.go(INPUT)
    t.go(Command(resume="yes"))


@case("waiting", ("s",), 1)
def subgraph_asks_again(t: Thread) -> None:
    line(t, "a", "s", s=two_inner(t, t.asks("i"), t.asks("j")))
    t.go(INPUT)
    t.go(Command(resume={t.ids()[0]: "yes"}), strict=True)


@case("failed", ("s",), misleads=True)
def subgraph_answered_then_raised(t: Thread) -> None:
    line(t, "a", "s", s=two_inner(t, t.asks("i"), t.breaks("j")))
    t.go(INPUT)
    t.go(Command(resume="yes"))


@case("failed", ("s",), misleads=True)
def subgraph_node_answered_then_raised(t: Thread) -> None:
    line(t, "a", "s", s=two_inner(t, t.step("i"), t.breaks("j", after="go?")))
    t.go(INPUT)
    t.go(Command(resume="yes"))


@case("waiting", ("s",), 1)
def nested_subgraph_asks(t: Thread) -> None:
    line(t, "a", "s", s=two_inner(t, t.step("i"), two_inner(t, t.step("k"), t.asks("l"))))
    t.go(INPUT)


@case("failed", ("s",), misleads=True)
def nested_subgraph_answered_then_raised(t: Thread) -> None:
    line(t, "a", "s", s=two_inner(t, t.step("i"), two_inner(t, t.asks("k"), t.breaks("l"))))
    t.go(INPUT)
    t.go(Command(resume="yes"))


@case("failed", ("s",))
def subgraph_fails(t: Thread) -> None:
    line(t, "a", "s", s=two_inner(t, t.step("i"), t.breaks("j")))
    t.go(INPUT)


@case("waiting", ("s",), 1)
def stateful_subgraph_asks(t: Thread) -> None:
    line(t, "a", "s", s=two_inner(t, t.step("i"), t.asks("j"), checkpointer=True))
    t.go(INPUT)


@case("failed", ("s",), misleads=True)
def stateful_subgraph_answered_then_raised(t: Thread) -> None:
    line(t, "a", "s", s=two_inner(t, t.asks("i"), t.breaks("j"), checkpointer=True))
    t.go(INPUT)
    t.go(Command(resume="yes"))


@case("waiting", ("s",), 1)
def subgraph_called_in_a_node_asks(t: Thread) -> None:
    inner = two_inner(t, t.step("i"), t.asks("j"))

    def node(state: Any) -> Any:
        t.ran.append("s")
        return {"log": inner.invoke(state)["log"]}

    line(t, "a", "s", s=node)
    t.go(INPUT)


@case("waiting", ("s", "s"), 2)
def subgraphs_sent_to_ask(t: Thread) -> None:
    graph = StateGraph(State)
    graph.add_node("s", two_inner(t, t.step("i"), t.asks("j")))
    graph.add_conditional_edges(START, lambda _: [Send("s", INPUT), Send("s", INPUT)], ["s"])
    t.graph = graph.compile(checkpointer=t.saver)
    t.go(INPUT)


@case("failed", ("s",), misleads=True)
def subgraph_sent_to_answered_then_raised(t: Thread) -> None:
    graph = StateGraph(State)
    graph.add_node("s", two_inner(t, t.asks("i"), t.breaks("j")))
    graph.add_conditional_edges(START, lambda _: [Send("s", INPUT)], ["s"])
    t.graph = graph.compile(checkpointer=t.saver)
    t.go(INPUT)
    t.go(Command(resume="yes"))


@case("runnable", ("s",), misleads=True)
def subgraph_answered_then_lost(t: Thread) -> None:
    """The subgraph went on after the answer; the root still shows the question, as its task never came to an end."""
    line(t, "a", "s", s=two_inner(t, t.asks("i"), t.breaks("j")))
    t.go(INPUT)
    t.go(Command(resume="yes"))
    gone = "delete from checkpoint_writes where thread_id = %s and checkpoint_ns = '' and channel = '__error__'"
    with psycopg.connect(t.dsn, autocommit=True) as conn:
        conn.execute(gone, (t.thread_id,))


@case("finished", ())
def subgraph_goes_to_a_parents_node(t: Thread) -> None:
    def leave(_: Any) -> Any:
        t.ran.append("i")
        return Command(graph=Command.PARENT, goto="b", update={"log": ["i"]})

    inner = inner_graph({"i": leave}, [(START, "i")])
    wire(t, {"s": (inner, {"destinations": ("b",)}), "b": t.step("b")}, [(START, "s")])
    t.go(INPUT)


def functional(t: Thread, *children: Any, parallel: bool = False) -> None:
    tasks = [task(child, name=f"child{number}") for number, child in enumerate(children)]

    @entrypoint(checkpointer=t.saver)
    def flow(given: Any) -> Any:
        t.ran.append("flow")
        if parallel:
            return [future.result() for future in [child(given) for child in tasks]]
        return [child(given).result() for child in tasks]

    t.graph = flow


@case("finished", ())
def functional_done(t: Thread) -> None:
    functional(t, t.step("x"), t.step("y"))
    t.go({})


@case("waiting", ("flow",), 1)
def functional_asks(t: Thread) -> None:
    functional(t, t.step("x"), t.asks("y"))
    t.go({})


@case("waiting", ("flow",), 1)
def functional_second_task_asks(t: Thread) -> None:
    functional(t, t.asks("x"), t.asks("y"))
    t.go({})
    t.go(Command(resume={t.ids()[0]: "yes"}), strict=True)


@case("waiting", ("flow",), 2, more=True)
def functional_parallel_tasks_ask(t: Thread) -> None:
    functional(t, t.asks("x"), t.asks("y"), parallel=True)
    t.go({})


@case("failed", ("flow",))
def functional_fails(t: Thread) -> None:
    functional(t, t.step("x"), t.breaks("y"))
    t.go({})


@case("failed", ("flow",), misleads=True)
def functional_answered_then_raised(t: Thread) -> None:
    functional(t, t.step("x"), t.breaks("y", after="go?"))
    t.go({})
    t.go(Command(resume="yes"))


@case("waiting", ("flow",), 1)
def functional_run_again(t: Thread) -> None:
    functional(t, t.asks("x"))
    t.go({})
    t.go(Command(resume="yes"))
    t.go({"second": True})


@case("waiting", ("n",), 1)
def task_called_in_a_node_asks(t: Thread) -> None:
    child = task(t.asks("x"), name="child")

    def node(_: Any) -> Any:
        t.ran.append("n")
        return child({}).result()

    line(t, "n", n=node)
    t.go(INPUT)
