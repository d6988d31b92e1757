"""The same graph under control and on plain LangGraph: three nodes that each add a message of 200 to 400 characters.

`governed` drives whole governed runs through a worker; `plain` drives the graph with the stock saver, which is given a
pool. Both run in a fresh event loop, so that neither inherits the other's threads.
"""

from __future__ import annotations

import asyncio
import operator
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, NamedTuple, TypedDict
from uuid import uuid4

import psycopg
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.pregel import Pregel
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from control.runtime.commands.start import start
from control.store.flush import Flusher
from control.store.item import Item
from control.testing.stage import Stage, staged
from tests.bench.site import PRODUCTION

Graph = Pregel[Any, Any, Any, Any]
_WARM: Final = 3
_CHANCE: Final = random.Random(1)


class Texts(TypedDict):
    messages: Annotated[list[str], operator.add]
    turn: int


class Chat(TypedDict):
    messages: Annotated[list[Any], add_messages]
    turn: int


def text() -> str:
    """A message of 200 to 400 characters that does not compress to nothing."""
    return "".join(_CHANCE.choices("abcdefghijklmnopqrstuvwxyz ", k=_CHANCE.randint(200, 400)))


def three_nodes(schema: type[Any] = Texts, message: Callable[[], Any] = text) -> Graph:
    """`one`, `two`, `three`, in a row, all asynchronous."""

    async def work(state: Any) -> dict[str, Any]:
        return {"messages": [message()], "turn": state["turn"] + 1}

    builder = StateGraph(schema)
    builder.add_sequence([(name, work) for name in ("one", "two", "three")])
    builder.add_edge(START, "one")
    builder.add_edge("three", END)
    return builder.compile()


def chat() -> Graph:
    """The same with LangChain's messages, as a chat agent keeps them."""
    return three_nodes(Chat, lambda: AIMessage(text()))


def given() -> dict[str, Any]:
    """The input. A plain text is a message for `add_messages` too."""
    return {"messages": [text()], "turn": 0}


# --- ours ----------------------------------------------------------------------------------------------------------


async def governed(conninfo: str, graph: Graph, runs: int, *, slots: int = 20, inside: bool = False) -> float:
    """Whole governed runs a second, in one process: from before the worker's start to the last run's end.

    inside: the start commands are given while the clock runs.
    """
    async with staged(conninfo, {"three": graph}, work=False, worker_slots=slots, **PRODUCTION) as stage:
        finishes = Finishes(stage.app.flusher)
        if not inside:
            await start_all(stage, runs)
        begun = time.perf_counter()
        async with stage.working():
            if inside:
                await start_all(stage, runs)
            took = await finishes.until(runs) - begun
    return runs / took


async def start_all(stage: Stage, runs: int, *, at_once: int = 20) -> None:
    """Start this many through the command."""
    left = iter(range(runs))

    async def some() -> None:
        for _ in left:
            await start(stage.control, "three", given(), thread_id=f"ours-{uuid4()}")

    await asyncio.gather(*(some() for _ in range(at_once)))


class Finishes:
    """When the last commits of runs were acknowledged, by `time.perf_counter`, as the flusher hears it."""

    def __init__(self, flusher: Flusher) -> None:
        self._last, self._count, self._heard = 0.0, 0, asyncio.Event()
        self._write: Callable[[Item], Awaitable[int]] = flusher.write
        setattr(flusher, "write", self._listen)  # noqa: B010 - an instance's method, which mypy would not have assigned

    async def _listen(self, item: Item) -> int:
        version = await self._write(item)
        if item.ending is not None:
            self._last, self._count = time.perf_counter(), self._count + 1
            self._heard.set()
        return version

    async def until(self, count: int) -> float:
        """Wait for this many in all; when the last of them came."""
        while self._count < count:
            self._heard.clear()
            await self._heard.wait()
        return self._last


class Timed(NamedTuple):
    """Seconds from claimable to finished, and from the start command to finished."""

    run_s: float
    whole_s: float


async def governed_one_by_one(
    conninfo: str, graph: Graph, runs: int, *, config: RunnableConfig | None = None
) -> list[Timed]:
    """Runs that are alone, one after another; the first ones, which warm everything up, are left out."""
    timed: list[Timed] = []
    async with staged(conninfo, {"three": graph}, **PRODUCTION) as stage:
        finishes = Finishes(stage.app.flusher)
        for number in range(_WARM + runs):
            before = time.perf_counter()
            await start(stage.control, "three", given(), thread_id=f"ours-{uuid4()}", config={**(config or {})})
            claimable = time.perf_counter()
            ended = await finishes.until(number + 1)
            timed.append(Timed(ended - claimable, ended - before))
    return timed[_WARM:]


# --- the peer ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def stock(conninfo: str, graph: Graph) -> AsyncIterator[Graph]:
    """The graph on the stock saver with a pool, set up as its documentation says."""
    kwargs: dict[str, Any] = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    kind = AsyncConnection[DictRow]
    async with AsyncConnectionPool(conninfo, connection_class=kind, min_size=4, max_size=20, kwargs=kwargs) as pool:
        await pool.wait()
        yield graph.copy(update={"checkpointer": AsyncPostgresSaver(pool)})


async def plain(conninfo: str, graph: Graph, runs: int, *, slots: int = 20) -> float:
    """Runs a second, this many at once."""
    left = iter(range(runs))
    async with stock(conninfo, graph) as stored:

        async def some() -> None:
            for _ in left:
                await invoke(stored)

        begun = time.perf_counter()
        await asyncio.gather(*(some() for _ in range(slots)))
        return runs / (time.perf_counter() - begun)


async def plain_one_by_one(
    conninfo: str, graph: Graph, runs: int, *, config: RunnableConfig | None = None
) -> list[float]:
    """Seconds that each run took, one after another, the first ones left out."""
    took: list[float] = []
    async with stock(conninfo, graph) as stored:
        for _ in range(_WARM + runs):
            begun = time.perf_counter()
            await invoke(stored, config)
            took.append(time.perf_counter() - begun)
    return took[_WARM:]


async def invoke(graph: Graph, config: RunnableConfig | None = None) -> None:
    own: RunnableConfig = {**(config or {}), "configurable": {"thread_id": f"stock-{uuid4()}"}}
    await graph.ainvoke(given(), own, durability="sync")


def check_same_rows(conninfo: str) -> str:
    """Says how much a run writes. Fails if the two do not write the same, or a run of ours did not succeed."""
    with psycopg.connect(conninfo) as conn:
        otherwise = conn.execute("select status from control.run where status <> 'succeeded' limit 1").fetchone()
        seen = {kind: rows for kind, *rows in conn.execute(_ROWS)}
        ledger = conn.execute("select count(*)::float / count(distinct run_id) from control.ledger").fetchone()
    assert otherwise is None, f"a run ended otherwise: {otherwise}"
    assert seen["ours"] == seen["stock"], f"checkpoints, blobs and writes a run differ: {seen}"
    assert ledger is not None
    checkpoints, blobs, writes = seen["ours"]
    return f"each run: {checkpoints:g} checkpoints, {blobs:g} blobs, {writes:g} writes; ours also {ledger[0]:g} entries"


_ROWS = """
select split_part(t.thread_id, '-', 1), avg(t.n)::float,
       avg((select count(*) from checkpoint_blobs b where b.thread_id = t.thread_id))::float,
       avg((select count(*) from checkpoint_writes w where w.thread_id = t.thread_id))::float
from (select thread_id, count(*) as n from checkpoints group by thread_id) t group by 1
"""
