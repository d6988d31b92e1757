"""The same runs as in `throughput`, with a network of 2 ms a round trip between both programs and the database."""

from __future__ import annotations

import asyncio
import statistics
import time

import psycopg

from tests.bench.delay_proxy import delayed
from tests.bench.row import Row, at_least, at_most
from tests.bench.site import Site
from tests.bench.workload import check_same_rows, governed, plain, three_nodes

_RUNS = 600  # ours in a round; the peer does a sixth
_EACH_WAY_S = 0.001


def measure(site: Site) -> list[Row]:
    graph, runs = three_nodes(), site.some(_RUNS, least=30)
    with site.database("slow") as near, delayed(near, each_way_s=_EACH_WAY_S) as far:
        added = (_round_trip(far) - _round_trip(near)) * 1000
        assert added > 1.9, f"the proxy adds {added:.2f} ms to a round trip, not 2"
        both = site.alternate(
            lambda: asyncio.run(governed(far, graph, runs)),
            lambda: asyncio.run(plain(far, graph, runs // 6)),
        )
        note = f"{both.spread}; {check_same_rows(near)}"
    return [
        Row("runs a second, 20 in flight, 2 ms added to each round trip", "runs/s", both.ours, both.peer, both.ratio,
            at_least(6, "ratio"), note),
        Row("what `select 1` took longer, measured", "ms", added, goal=at_most(3)),
    ]  # fmt: skip


def _round_trip(conninfo: str) -> float:
    """Seconds, the median."""
    took: list[float] = []
    with psycopg.connect(conninfo, autocommit=True) as conn:
        for _ in range(200):
            begun = time.perf_counter()
            conn.execute("select 1")
            took.append(time.perf_counter() - begun)
    return statistics.median(took)
