"""Whole governed, durable runs with 20 in flight, against plain LangGraph on the stock saver, ungoverned."""

from __future__ import annotations

import asyncio

from tests.bench.row import Row, at_least
from tests.bench.site import Site
from tests.bench.workload import Graph, chat, check_same_rows, governed, plain, three_nodes

_RUNS = 1200  # ours in a round; the slower peer does a third, which takes as long


def measure(site: Site) -> list[Row]:
    return [
        _compare(site, "runs a second, 20 in flight, one process", three_nodes(), promised=True),
        _compare(site, "the same, the start commands inside the clock", three_nodes(), inside=True),
        _compare(site, "the same as the first, with LangChain's chat messages", chat()),
    ]


def _compare(site: Site, what: str, graph: Graph, *, inside: bool = False, promised: bool = False) -> Row:
    site.say(what)
    runs = site.some(_RUNS, least=30)
    with site.database("throughput") as conninfo:
        both = site.alternate(
            lambda: asyncio.run(governed(conninfo, graph, runs, inside=inside)),
            lambda: asyncio.run(plain(conninfo, graph, runs // 3)),
        )
        note = f"{both.spread}; {check_same_rows(conninfo)}"
    goal = at_least(3, "ratio") if promised else None
    return Row(what, "runs/s", both.ours, both.peer, both.ratio, goal, note)
