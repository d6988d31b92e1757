"""A zoo of thread states: graphs driven through LangGraph's stock savers into every state that rows can show.

A case builds a graph, drives a thread, and says which state the rows must tell. Nodes report each execution to
`Thread.ran`, which no checkpoint holds, so that a test can resume the thread and count what really ran.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, NotRequired, TypedDict

import psycopg
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from control.core.execution import Execution

STRICT: Final = "__pregel_strict_resume"


class State(TypedDict):
    log: Annotated[list[str], operator.add]
    x: NotRequired[str]


@dataclass
class Thread:
    """One thread of a case: a saver, a graph, and what really ran. `loop` is there where the saver is asynchronous."""

    saver: BaseCheckpointSaver[str]
    thread_id: str
    dsn: str
    loop: asyncio.AbstractEventLoop | None = None
    graph: Any = None
    ran: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    error: BaseException | None = None

    @property
    def config(self) -> dict[str, Any]:
        return {"configurable": {"thread_id": self.thread_id}, "recursion_limit": 25}

    def go(self, given: Any = None, *, strict: bool = False, **options: Any) -> Any:
        """Run the graph; an exception is kept in `error`, since a failed run is a state like any other."""
        config = {**self.config, **options.pop("config", {})}
        config["configurable"] = {**config["configurable"], **({STRICT: True} if strict else {})}
        self.error = None
        try:
            if self.loop is None:
                return self.graph.invoke(given, config, **options)
            return self.loop.run_until_complete(self.graph.ainvoke(given, config, **options))
        except Exception as error:
            self.error = error

    def snapshot(self) -> Any:
        if self.loop is None:
            return self.graph.get_state(self.config)
        return self.loop.run_until_complete(self.graph.aget_state(self.config))

    def history(self) -> list[Any]:
        async def gathered() -> list[Any]:
            return [state async for state in self.graph.aget_state_history(self.config)]

        if self.loop is None:
            return list(self.graph.get_state_history(self.config))
        return self.loop.run_until_complete(gathered())

    def update(self, values: Any, as_node: str | None = None, config: Any = None) -> Any:
        if self.loop is None:
            return self.graph.update_state(config or self.config, values, as_node=as_node)
        return self.loop.run_until_complete(self.graph.aupdate_state(config or self.config, values, as_node=as_node))

    def ids(self) -> list[str]:
        return [question.id for question in self.snapshot().interrupts]

    def lose_checkpoints_after(self, step: int) -> None:
        """What a killed process leaves: the writes of a step without the checkpoint that would have held them."""
        gone = "delete from checkpoints where thread_id = %s and checkpoint_ns = '' and (metadata->>'step')::int > %s"
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            conn.execute(gone, (self.thread_id, step))

    # Nodes. Each notes that it ran before it does anything else.

    def step(self, name: str, **update: Any) -> Callable[[Any], Any]:
        def node(_: Any) -> Any:
            self.ran.append(name)
            return {"log": [name], **update}

        return node

    def asks(self, name: str, *questions: str) -> Callable[[Any], Any]:
        def node(_: Any) -> Any:
            self.ran.append(name)
            return {"log": [f"{name}:{interrupt(question)}" for question in questions or (name,)]}

        return node

    def breaks(self, name: str, after: str | None = None) -> Callable[[Any], Any]:
        """Raises while `name` is in `broken`; with `after`, it asks first."""
        self.broken.add(name)

        def node(_: Any) -> Any:
            self.ran.append(name)
            answer = interrupt(after) if after else ""
            if name in self.broken:
                raise ValueError(f"{name} broke")
            return {"log": [name + answer]}

        return node


@dataclass(frozen=True)
class Case:
    name: str
    state: Execution
    drive: Callable[[Thread], None]
    next: tuple[str, ...] | None
    open: int
    misleads: bool
    more: bool
    locked: bool


CASES: Final[dict[str, Case]] = {}


def case(
    state: str,
    next: tuple[str, ...] | None = None,
    open: int = 0,
    *,
    misleads: bool = False,
    more: bool = False,
    locked: bool = False,
) -> Callable[[Callable[[Thread], None]], Callable[[Thread], None]]:
    """Register a case: the state, the unfinished tasks in any order, and the open questions that rows must tell.

    `misleads`: get_state tells another story. `more`: rows show more open questions than get_state. `locked`: payloads
    are encrypted.
    """

    def register(drive: Callable[[Thread], None]) -> Callable[[Thread], None]:
        name = drive.__name__
        assert name not in CASES, name
        CASES[name] = Case(name, Execution(state), drive, next, open, misleads, more, locked)
        return drive

    return register


def build(t: Thread, *edges: tuple[Any, Any], state: Any = State, **nodes: Any) -> StateGraph:
    return wire(t, nodes, edges, state=state)


def wire(
    t: Thread, nodes: dict[str, Any], edges: Iterable[tuple[Any, Any]], *, state: Any = State, **compiled: Any
) -> StateGraph:
    """A graph of nodes and edges, compiled into the thread. A node is a function, or a function and its options."""
    graph = StateGraph(state)
    for name, node in nodes.items():
        function, options = node if isinstance(node, tuple) else (node, {})
        graph.add_node(name, function, **options)
    for start, end in edges:
        graph.add_edge(start, end)
    t.graph = graph.compile(checkpointer=t.saver, **compiled)
    return graph


def chain(*names: str) -> list[tuple[Any, Any]]:
    return list(zip((START, *names), names, strict=False))


def line(t: Thread, *names: str, **special: Any) -> StateGraph:
    return wire(t, {name: special.get(name) or t.step(name) for name in names}, chain(*names))


def fan(t: Thread, **nodes: Any) -> StateGraph:
    """Every node starts at once, and `z` joins them."""
    edges = [(START, name) for name in nodes] + [(list(nodes), "z")]
    return wire(t, {**nodes, "z": t.step("z")}, edges)


INPUT: Final = {"log": []}
