"""Where one run stands, as `control show` asks: its facts, its derived status and its thread's head, read from rows.

Each run is looked at twice: while a worker holds it in a node, when the head is read to name that node, and while it
waits for an approval, when its question names it. `heads` alone is a row of its own. The peer is what a program without
the control plane would call, `graph.aget_state` on the stock saver, which reads the state itself.
"""

from __future__ import annotations

import asyncio
import secrets
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypedDict
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph

from control.cli.standing import brief, standing
from control.runtime.commands import Control
from control.runtime.commands.start import start
from control.sdk import approval
from control.store.checkpoints import heads
from control.testing.stage import Stage, staged
from tests.bench.row import Row, at_most
from tests.bench.site import PRODUCTION, Site
from tests.bench.workload import Graph, stock

_MEGABYTES: Final = 5
_CHECKPOINTS: Final = 10_000
_LOOKS: Final = 100  # of ours in a round
_PATIENT: Final = {"stall_after_s": 3600.0}  # a run that is held for the measurement has not stalled


class Case(TypedDict):
    text: str
    pages: list[str]
    turn: int
    turns: int


@dataclass
class Gate:
    """Where a run is held: `reached` once its node runs; the node ends when `opened` is set."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)


class Size(NamedTuple):
    """What a run carries: bytes of state, and steps it has taken. `text`: the state is one text, else a list's."""

    what: str
    size: int = 200
    steps: int = 1
    text: bool = False


class Expected(NamedTuple):
    """What a look must find."""

    word: str
    parts: tuple[str, ...]
    nodes: tuple[str, ...]


HELD: Final = Expected("running", ("step",), ("hold",))
ASKING: Final = Expected("awaiting_approval", ("step", "hold"), ("ask",))


async def _step(state: Case) -> dict[str, Any]:
    return {"turn": state["turn"] + 1}


def _ask(state: Case) -> dict[str, Any]:
    approval("Go on?", action={"turn": state["turn"]}, on_yes="The run ends.", on_no="The run ends.")
    return {}


def holds_then_asks(gate: Gate) -> Graph:
    """Steps as often as the input says, waits at the gate, then asks."""

    async def hold(_: Case) -> dict[str, Any]:
        gate.reached.set()
        await gate.opened.wait()
        return {}

    builder = StateGraph(Case)
    builder.add_node("step", _step)
    builder.add_node("hold", hold)
    builder.add_node("ask", _ask)
    builder.add_edge(START, "step")
    builder.add_conditional_edges("step", lambda s: "step" if s["turn"] < s["turns"] else "hold", ["step", "hold"])
    builder.add_edge("hold", "ask")
    builder.add_edge("ask", END)
    return builder.compile()


def measure(site: Site) -> list[Row]:
    size, steps = site.some(_MEGABYTES * 1024 * 1024), site.some(_CHECKPOINTS, least=10)
    megabytes = f"{size / 1024 / 1024:.3g} MB"
    sizes = (
        Size("a small run"),
        Size(f"{megabytes} of state", size=size),
        Size(f"{megabytes} in one text, which LangGraph keeps in every checkpoint", size=size, text=True),
        Size(f"{steps:,} checkpoints", steps=steps),
    )
    return [row for each in sizes for row in asyncio.run(_rows(site, each))]


async def _rows(site: Site, size: Size) -> list[Row]:
    """One run, looked at while it is held and while it asks."""
    gate = Gate()
    graph = holds_then_asks(gate)
    with site.database("status") as conninfo:
        async with staged(conninfo, {"case": graph}, **PRODUCTION, **_PATIENT) as stage:
            look = Look(site, conninfo, graph, await _held(stage, size, gate))
            held = await look.row(f"status while a node runs, {size.what}, p50", standing, HELD)
            head = await look.row(f"heads() alone, {size.what}, p50", _head, HELD)
            gate.opened.set()
            await stage.until(look.run_id, ASKING.word)
            return [held, head, await look.row(f"status while it asks, {size.what}, p50", standing, ASKING)]


async def _held(stage: Stage, size: Size, gate: Gate) -> UUID:
    """A governed run that has taken these steps, and is held in a node by this process's worker."""
    state = secrets.token_hex(size.size // 2)
    text, pages = (state, []) if size.text else ("", [state])
    value = {"text": text, "pages": pages, "turn": 0, "turns": size.steps}
    run = await start(stage.control, "case", value, config={"recursion_limit": size.steps + 10})
    async with asyncio.timeout(120 + size.steps / 20):
        await gate.reached.wait()
    return run.run_id


async def _head(control: Control, run_id: UUID) -> None:
    async with control.transaction() as conn:
        [head] = (await heads(conn, [str(run_id)])).values()
    assert head.checkpoint_id is not None


class Look(NamedTuple):
    """The run that is looked at, and where. A row is measured in a thread, since the worker holds the loop."""

    site: Site
    conninfo: str
    graph: Graph
    run_id: UUID

    async def row(self, what: str, act: Callable[[Control, UUID], Awaitable[object]], expected: Expected) -> Row:
        self.site.say(what)
        looks = self.site.some(_LOOKS, least=10)
        both = await asyncio.to_thread(
            self.site.alternate,
            lambda: asyncio.run(self.ours(act, expected, looks)),
            lambda: asyncio.run(_peer(self.conninfo, self.graph, self.run_id, expected=expected, looks=looks // 5)),
        )
        return Row(what, "ms", both.ours, both.peer, both.ratio, at_most(2), note="the peer is graph.aget_state")

    async def ours(self, act: Callable[[Control, UUID], Awaitable[object]], expected: Expected, looks: int) -> float:
        async with staged(self.conninfo, {}, work=False, **_PATIENT) as stage:
            await _found(stage.control, self.run_id, expected)
            return await _median_ms(looks, lambda: act(stage.control, self.run_id))


async def _found(control: Control, run_id: UUID, expected: Expected) -> None:
    """Fail unless the rows say what is so: the status, the parts that are done, and the node that runs or asks."""
    seen = brief(await standing(control, run_id))
    progress = seen["progress"]
    found = Expected(seen["status"], tuple(progress["parts"]), tuple(progress["nodes"]))
    assert found == expected and progress["done"] == len(expected.parts), seen
    assert (seen["worker_id"] is not None) == (expected is HELD), seen


async def _peer(conninfo: str, graph: Graph, run_id: UUID, *, expected: Expected, looks: int) -> float:
    async with stock(conninfo, graph) as stored:
        config: RunnableConfig = {"configurable": {"thread_id": str(run_id)}}
        assert (await stored.aget_state(config)).next == expected.nodes
        return await _median_ms(looks, lambda: stored.aget_state(config))


async def _median_ms(times: int, look: Callable[[], Awaitable[object]]) -> float:
    took: list[float] = []
    for _ in range(times):
        begun = time.perf_counter()
        await look()
        took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1000
