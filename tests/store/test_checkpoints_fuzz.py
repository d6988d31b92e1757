"""Random graphs under random histories: rows agree with get_state wherever it is right, and resuming proves the rest.

A seed fixes the graph, the history and the durabilities; it is in the test's name. `pytest -m prove` runs 2,000 more.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Annotated, Any, Final, NotRequired, TypedDict

import psycopg
import pytest
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.config import get_config
from langgraph.errors import EmptyInputError, InvalidUpdateError, UnknownInterruptError
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt
from psycopg.rows import dict_row

from control.core.execution import Execution, Head, Outcome, with_outcome
from control.store.checkpoints import heads_sync

SEEDS: Final = 200
PROOF: Final = 2_000
FOUND: Final = (100_037, 101_108, 101_171, 101_268, 101_328)  # seeds that once failed
INPUT: Final = {"log": []}
PENDING_GOTO: Final = """
select count(*) from checkpoint_writes w where thread_id = %s and checkpoint_ns = '' and checkpoint_id = %s
and task_id = '00000000-0000-0000-0000-000000000000' and (channel ^@ 'branch:to:' or channel = '__pregel_tasks')
"""


class State(TypedDict):
    log: Annotated[list[str], operator.add]
    x: NotRequired[str]


@dataclass
class History:
    """One thread under a random history. `ran` holds node@step of root nodes, whatever was stored of it."""

    random: Random
    saver: PostgresSaver
    conn: psycopg.Connection[Any]
    thread_id: str
    graph: Any = None
    names: list[str] = field(default_factory=list)
    opaque: set[str] = field(default_factory=set)
    deferred: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    ran: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    seen: list[Execution] = field(default_factory=list)

    @property
    def config(self) -> Any:
        return {"configurable": {"thread_id": self.thread_id}, "recursion_limit": 15}

    def head(self) -> Head:
        return heads_sync(self.conn, [self.thread_id])[self.thread_id]

    def go(self, given: Any, *, strict: bool = False, config: Any = None) -> BaseException | None:
        config = config or self.config
        if strict:
            config["configurable"]["__pregel_strict_resume"] = True
        try:
            self.graph.invoke(given, config, durability=self.random.choice(["sync", "async", "exit"]))
        except Exception as error:
            return error
        return None


# --- graphs ---------------------------------------------------------------------------------------------------------


def noted(h: History, name: str) -> None:
    about = get_config()["metadata"]
    if "|" not in about["langgraph_checkpoint_ns"]:
        h.ran.append(f"{name}@{about['langgraph_step']}")


def random_node(h: History, name: str) -> Callable[[Any], Any]:
    """A node that may ask up to twice, break while it is in `broken`, and write to a channel without a reducer."""
    asks = h.random.choice([0, 0, 0, 1, 2])
    update = {"x": name} if h.random.random() < 0.15 else {}
    goto = h.random.choice(h.names) if name in h.names and h.random.random() < 0.1 else None
    if h.random.random() < 0.2:
        h.broken.add(name)

    def node(_: Any) -> Any:
        noted(h, name)
        if name in h.broken and not asks:
            raise ValueError(f"{name} broke")
        answers = [str(interrupt(f"{name}{number}")) for number in range(asks)]
        if name in h.broken:
            raise ValueError(f"{name} broke after {answers}")
        out = {"log": [name], **update}
        return Command(update=out, goto=goto) if goto else out

    return node


def random_subgraph(h: History, name: str) -> Any:
    graph = StateGraph(State)
    for inner in ("i", "j"):
        graph.add_node(inner, random_node(h, f"{name}{inner}"))
    graph.add_edge(START, "i")
    graph.add_edge("i", "j")
    h.opaque.add(name)
    return graph.compile(checkpointer=h.random.choice([None, True]))


def random_graph(h: History) -> None:
    """Three to six nodes, edges mostly forward, with joins, deferred nodes, Sends, handlers and breakpoints."""
    graph, random = StateGraph(State), h.random
    h.names = [*"abcdef"[: random.randint(3, 6)]]
    for name in h.names:
        inner = random.random() < 0.12
        options: dict[str, Any] = {"defer": random.random() < 0.12}
        if options["defer"]:
            h.deferred.add(name)
        if not inner and random.random() < 0.08:
            options["error_handler"] = random_node(h, f"fix_{name}")
        graph.add_node(name, random_subgraph(h, name) if inner else random_node(h, name), **options)
    for name in random.sample(h.names, random.randint(1, 2)):
        graph.add_edge(START, name)
    for start, name in enumerate(h.names):
        random_edges(h, graph, name, h.names[start + 1 :])
    if random.random() < 0.3:
        graph.add_edge(sorted(random.sample(h.names[:-1], 2)), h.names[-1])
    breakpoints = [random.choice(h.names)] if random.random() < 0.15 else []
    h.graph = graph.compile(checkpointer=h.saver, interrupt_before=breakpoints)


def random_edges(h: History, graph: StateGraph, name: str, later: list[str]) -> None:
    kind = h.random.random()
    if kind < 0.2 and later:
        target, count = h.random.choice(later), h.random.randint(1, 3)
        graph.add_conditional_edges(name, lambda _: [Send(target, {"log": []})] * count, [target])
    elif kind < 0.4 and later:
        target = h.random.choice(later)
        h.broken |= {f"router of {name}"} if h.random.random() < 0.3 else set()
        graph.add_conditional_edges(name, routed(h, name, target), [target, END])
    else:
        for target in h.random.sample(later, min(len(later), h.random.choice([0, 1, 1, 2]))):
            graph.add_edge(name, target)


def routed(h: History, name: str, target: str) -> Callable[[Any], str]:
    def router(_: Any) -> str:
        if f"router of {name}" in h.broken:
            raise ValueError("router broke")
        return target

    return router


# --- histories ------------------------------------------------------------------------------------------------------


def op_input(h: History) -> None:
    h.go(INPUT)


def op_again(h: History) -> None:
    h.go(None)


def op_answer_one(h: History) -> None:
    if open_ := h.head().open:
        h.go(Command(resume={h.random.choice(open_).id: "one"}), strict=h.random.random() < 0.5)


def op_answer_all(h: History) -> None:
    if open_ := h.head().open:
        h.go(Command(resume={question.id: "all" for question in open_}), strict=h.random.random() < 0.5)


def op_answer_plainly(h: History) -> None:
    h.go(Command(resume="plain"))


def op_mend_or_break(h: History) -> None:
    for name in h.names:
        if h.random.random() < 0.5:
            h.broken ^= {h.random.choice([name, name, f"router of {name}"])}


def op_goto(h: History) -> None:
    """Not a plain goto at a deferred node: where it was never triggered, rows cannot know that it is one."""
    node = h.random.choice(h.names)
    h.go(Command(goto=Send(node, {"log": []}) if node in h.deferred or h.random.random() < 0.5 else node))


def op_update(h: History) -> None:
    h.go(Command(update={"log": ["given"]}))


def op_edit(h: History) -> None:
    values, node = h.random.choice(
        [({"log": ["edit"]}, h.random.choice(h.names)), (None, END), (None, "__copy__"), (None, None)]
    )
    with suppress(InvalidUpdateError, ValueError):  # a conflict, no single last node to act as, a broken router
        h.graph.update_state(h.config, values, as_node=node)


def op_fork(h: History) -> None:
    if not (states := list(h.graph.get_state_history(h.config))[:6]):
        return
    past = h.random.choice(states)
    if h.random.random() < 0.5:
        h.go(None, config=past.config)
    else:
        with suppress(InvalidUpdateError, ValueError):
            h.graph.update_state(past.config, {"log": ["fork"]}, as_node=h.random.choice(h.names))


def op_lose_the_head(h: History) -> None:
    head = h.head()
    h.conn.execute(
        "delete from checkpoints where thread_id = %s and checkpoint_id = %s", (h.thread_id, head.checkpoint_id)
    )


OPS: Final = (
    op_input, op_again, op_again, op_answer_one, op_answer_one, op_answer_all, op_answer_all, op_answer_plainly,
    op_mend_or_break, op_goto, op_update, op_edit, op_fork, op_lose_the_head,
)  # fmt: skip


# --- what must hold -------------------------------------------------------------------------------------------------


def check_against_get_state(h: History, head: Head) -> None:
    """The same head, tasks, next, questions and errors; less where a goto waits, and questions in error handlers."""
    try:
        state = h.graph.get_state(h.config)
    except Exception as error:
        # Applying the recorded writes raises: only rows have an answer.
        assert head.conflicting_channels or "InvalidUpdate" not in repr(error), repr(error)
        return
    assert head.checkpoint_id == state.config["configurable"].get("checkpoint_id")
    goto = h.conn.execute(PENDING_GOTO, (h.thread_id, head.checkpoint_id)).fetchone()
    if goto and goto[0]:
        return
    assert Counter(task.name for task in head.tasks) == Counter(task.name for task in state.tasks)
    handled_names = {task.name for task in head.tasks if task.handled}
    assert Counter(head.next) - Counter(handled_names) == Counter(state.next) - Counter(handled_names)
    handled = {task.task_id for task in head.tasks if task.handled}
    rows = {question.id for task in head.tasks if not task.handled for question in task.interrupts}
    assert rows == {question.id for task in state.tasks if task.id not in handled for question in task.interrupts}
    errors = {error for t in head.tasks for error in (t.earlier_error, None if t.handled else t.error) if error}
    assert errors == {task.error for task in state.tasks if task.error}


def prove_by_resuming(h: History, head: Head) -> None:
    """Enter the thread once more, answering what is open, and see that it does what rows said it would."""
    before, step = len(h.ran), (head.step if head.step is not None else -2) + 1
    answers = {question.id: "proof" for question in head.open}
    error = h.go(Command(resume=answers) if answers else None, strict=True)
    assert not isinstance(error, UnknownInterruptError), error
    ran = Counter(h.ran[before:])
    for name in {task.name for task in head.tasks} - h.opaque - {START}:
        started, due = ran[f"{name}@{step}"], head.next.count(name)
        handled = any(task.handled for task in head.tasks if task.name == name)
        assert started <= due and (handled or error or started == due), (name, started, due, error)
    if head.state is Execution.FINISHED:
        assert not ran and isinstance(error, EmptyInputError | None) and h.head().state is Execution.FINISHED
    if head.state is Execution.BARRIER:
        after = h.head()
        stuck = after.checkpoint_id == head.checkpoint_id
        assert stuck == (with_outcome(after, Outcome(after.checkpoint_id, repr(error))).state is Execution.POISONED)
        assert not stuck or head.conflicting_channels


# --- runs -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def conn(databases: Any) -> Iterator[psycopg.Connection[Any]]:
    with databases.cloned() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture(scope="module")
def saver(conn: psycopg.Connection[Any]) -> Iterator[PostgresSaver]:
    with psycopg.connect(conn.info.dsn, autocommit=True, prepare_threshold=0, row_factory=dict_row) as other:
        yield PostgresSaver(other)


def live(seed: int, saver: PostgresSaver, conn: psycopg.Connection[Any]) -> History:
    h = History(Random(seed), saver, conn, f"fuzz {seed}")
    random_graph(h)
    for op in (op_input, *h.random.choices(OPS, k=h.random.randint(1, 6))):
        h.done.append(op.__name__)
        op(h)
        h.seen.append((head := h.head()).state)
        check_against_get_state(h, head)
    prove_by_resuming(h, h.head())
    return h


@pytest.mark.parametrize("seed", sorted({*range(SEEDS), *FOUND}))
def test_rows_tell_the_truth_of_a_random_history(
    seed: int, saver: PostgresSaver, conn: psycopg.Connection[Any]
) -> None:
    live(seed, saver, conn)


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_rows_tell_the_truth_of_two_thousand_random_histories(
    saver: PostgresSaver, conn: psycopg.Connection[Any]
) -> None:
    failed, seen = {}, Counter[Execution]()
    for seed in range(100_000, 100_000 + PROOF):
        try:
            seen.update(live(seed, saver, conn).seen)
        except Exception as error:
            failed[seed] = repr(error)
    assert not failed, failed
    print(seen)
