"""What a superstep costs: without a checkpointer, with the stock saver, and governed. Published without a goal."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph

from tests.bench.row import Row
from tests.bench.site import Site
from tests.bench.workload import Graph, governed_one_by_one, plain_one_by_one

_STEPS = 200


class Count(TypedDict):
    messages: list[str]
    turn: int


async def _step(state: Count) -> dict[str, Any]:
    return {"turn": state["turn"] + 1}


def loop(steps: int) -> Graph:
    """One node, again and again."""
    builder = StateGraph(Count)
    builder.add_node("step", _step)
    builder.add_edge(START, "step")
    builder.add_conditional_edges("step", lambda state: "step" if state["turn"] < steps else END, ["step", END])
    return builder.compile()


def measure(site: Site) -> list[Row]:
    steps = site.some(_STEPS, least=10)
    graph, limit = loop(steps), RunnableConfig(recursion_limit=2 * steps)
    with site.database("overhead") as conninfo:
        both = site.alternate(
            lambda: _each([t.run_s for t in asyncio.run(governed_one_by_one(conninfo, graph, 5, config=limit))], steps),
            lambda: _each(asyncio.run(plain_one_by_one(conninfo, graph, 5, config=limit)), steps),
        )
    bare = asyncio.run(_bare(graph, steps))
    return [
        Row("a superstep of one run alone, durability sync", "ms", both.ours, both.peer, both.ratio, note=both.spread),
        Row("a superstep without any checkpointer, for comparison", "ms", bare),
    ]


def _each(took: list[float], steps: int) -> float:
    """Milliseconds a step, of runs given in seconds."""
    return statistics.median(took) * 1000 / steps


async def _bare(graph: Graph, steps: int) -> float:
    took: list[float] = []
    for _ in range(5):
        begun = time.perf_counter()
        await graph.ainvoke({"messages": [], "turn": 0}, RunnableConfig(recursion_limit=2 * steps))
        took.append(time.perf_counter() - begun)
    return _each(took, steps)
