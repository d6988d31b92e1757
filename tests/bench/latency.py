"""One run alone: from the commit that makes it claimable to the commit that ends it, against one `ainvoke`."""

from __future__ import annotations

import asyncio
import statistics

from tests.bench.row import Row, at_most
from tests.bench.site import Site
from tests.bench.workload import check_same_rows, governed_one_by_one, plain_one_by_one, three_nodes

_RUNS = 150


def measure(site: Site) -> list[Row]:
    graph, runs = three_nodes(), site.some(_RUNS, least=10)
    whole: list[float] = []

    def ours(conninfo: str) -> float:
        timed = asyncio.run(governed_one_by_one(conninfo, graph, runs))
        whole.append(statistics.median(whole_s for _, whole_s in timed) * 1000)
        return statistics.median(run_s for run_s, _ in timed) * 1000

    def peer(conninfo: str) -> float:
        return statistics.median(asyncio.run(plain_one_by_one(conninfo, graph, runs))) * 1000

    with site.database("latency") as conninfo:
        both = site.alternate(lambda: ours(conninfo), lambda: peer(conninfo))
        note = f"{both.spread}; {check_same_rows(conninfo)}"
    ratio = statistics.median(own / theirs for own, (_, theirs) in zip(whole, both.pairs, strict=True))
    goal = at_most(1.1, "ratio")
    return [
        Row("one run alone, claimable to finished, p50", "ms", both.ours, both.peer, both.ratio, goal, note),
        Row("the same, the start command included, p50", "ms", statistics.median(whole), both.peer, ratio),
    ]
