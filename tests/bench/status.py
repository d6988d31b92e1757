"""Where one run stands, as `control show` asks: its facts, its derived status and its thread's head, read from rows.

Beside it what a program without the control plane would call, `graph.aget_state` on the stock saver, which reads the
state itself. Each run waits for an approval, so that there is a question to be found.
"""

from __future__ import annotations

import asyncio
import secrets
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypedDict
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph

from control.cli.standing import standing
from control.runtime.commands import Control
from control.runtime.commands.start import start
from control.sdk import approval
from control.testing.stage import staged
from tests.bench.row import Row, at_most
from tests.bench.site import PRODUCTION, Site
from tests.bench.workload import Graph, stock

_MEGABYTES = 5
_CHECKPOINTS = 10_000
_LOOKS = 100  # of ours in a round


class Case(TypedDict):
    text: str
    pages: list[str]
    turn: int
    turns: int


async def _step(state: Case) -> dict[str, Any]:
    return {"turn": state["turn"] + 1}


def _ask(state: Case) -> dict[str, Any]:
    approval("Go on?", action={"turn": state["turn"]}, on_yes="The run ends.", on_no="The run ends.")
    return {}


def waits_for_approval() -> Graph:
    """Steps as often as the input says, then asks."""
    builder = StateGraph(Case)
    builder.add_node("step", _step)
    builder.add_node("ask", _ask)
    builder.add_edge(START, "step")
    builder.add_conditional_edges("step", lambda s: "step" if s["turn"] < s["turns"] else "ask", ["step", "ask"])
    builder.add_edge("ask", END)
    return builder.compile()


def measure(site: Site) -> list[Row]:
    size, steps = site.some(_MEGABYTES * 1024 * 1024), site.some(_CHECKPOINTS, least=10)
    return [
        _look(site, "status of a small run, p50", size=200, steps=1),
        _look(site, f"status with {size / 1024 / 1024:.3g} MB of state, p50", size=size, steps=1),
        _look(site, "the same in one text, which LangGraph keeps in every checkpoint", size=size, steps=1, text=True),
        _look(site, f"status with {steps:,} checkpoints, p50", size=200, steps=steps),
    ]


def _look(site: Site, what: str, *, size: int, steps: int, text: bool = False) -> Row:
    site.say(what)
    graph, looks = waits_for_approval(), site.some(_LOOKS, least=10)
    with site.database("status") as conninfo:
        run_id = asyncio.run(_made(conninfo, graph, size=size, steps=steps, text=text))
        both = site.alternate(
            lambda: asyncio.run(_ours(conninfo, run_id, looks)),
            lambda: asyncio.run(_peer(conninfo, graph, run_id, max(5, looks // 5))),
        )
    return Row(what, "ms", both.ours, both.peer, both.ratio, at_most(2), note="the peer is graph.aget_state")


async def _made(conninfo: str, graph: Graph, *, size: int, steps: int, text: bool) -> UUID:
    """A governed run that has taken these steps and waits."""
    async with staged(conninfo, {"case": graph}, **PRODUCTION) as stage:
        state = secrets.token_hex(size // 2)
        value = {"text": state if text else "", "pages": [] if text else [state], "turn": 0, "turns": steps}
        run = await start(stage.control, "case", value, config={"recursion_limit": steps + 10})
        await stage.until(run.run_id, "awaiting_approval", timeout_s=120 + steps / 20)
        return run.run_id


async def _ours(conninfo: str, run_id: UUID, looks: int) -> float:
    async with staged(conninfo, {}, work=False) as stage:
        assert (await _stands(stage.control, run_id)) == ("awaiting_approval", ("ask",))
        return await _median_ms(looks, lambda: standing(stage.control, run_id))


async def _stands(control: Control, run_id: UUID) -> tuple[str, tuple[str, ...]]:
    seen = await standing(control, run_id)
    return seen.status.word.value, seen.nodes


async def _peer(conninfo: str, graph: Graph, run_id: UUID, looks: int) -> float:
    async with stock(conninfo, graph) as stored:
        config: RunnableConfig = {"configurable": {"thread_id": str(run_id)}}
        assert (await stored.aget_state(config)).next == ("ask",)
        return await _median_ms(looks, lambda: stored.aget_state(config))


async def _median_ms(times: int, look: Callable[[], Awaitable[object]]) -> float:
    took: list[float] = []
    for _ in range(times):
        begun = time.perf_counter()
        await look()
        took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1000
