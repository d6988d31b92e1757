"""What governance adds to a durable superstep: the ledger's entry, chained and written, and the run's head, progress
and status indexed.

The peer is the same worker, saver and group commit, with the claim checked and the same round trips and commits, whose
flushes leave that out. So this is the whole price, also where stock LangGraph pays more for less: `overhead` compares
with that. Policy has no part in a superstep: it is asked once for each order, which `policy` measures. A superstep is
measured from one acknowledged commit of a run's head to the next.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, LiteralString, cast
from uuid import UUID

import psycopg

from control.runtime.commands.start import start
from control.store.flush import Flusher
from control.store.item import Batch, Fence, Item
from control.store.sql import Numbered, numbered, read
from control.testing.stage import staged
from tests.bench.overhead import loop
from tests.bench.row import Row, at_most
from tests.bench.site import PRODUCTION, Compared, Site
from tests.bench.workload import Finishes, given

_STEPS: Final = 100
_ROWS, _GOVERNED = "), put_checkpoints as (", "), entry as ("  # where `flush` begins, and ends, LangGraph's own rows


def _bare() -> Numbered:
    """The flush without governance, from what the flush itself writes of LangGraph's rows."""
    flush = read("flush")["flush"]
    rows = flush[flush.index(_ROWS) : flush.index(_GOVERNED)]
    text = (Path(__file__).parent / "bare_flush.sql").read_text(encoding="utf-8")
    return numbered(cast(LiteralString, text.replace("/* rows */", rows, 1)))


def measure(site: Site) -> list[Row]:
    return [
        *_rows(site, "a superstep of one run alone", runs=5, at_once=1),
        *_rows(site, "a superstep with 20 runs in flight", runs=40, at_once=20),
    ]


def _rows(site: Site, what: str, *, runs: int, at_once: int) -> list[Row]:
    """The medians that the goal is about, and the 99th percentiles of all rounds."""
    site.say(what)
    steps, seen = site.some(_STEPS, least=10), {True: list[float](), False: list[float]()}

    def median(governed: bool) -> float:
        found = asyncio.run(_supersteps(conninfo, runs=runs, steps=steps, at_once=at_once, governed=governed))
        seen[governed] += found
        return statistics.median(found)

    with site.database("governance") as conninfo:
        both = site.alternate(lambda: median(True), lambda: median(False))
    high = Compared([(_p99(seen[True]), _p99(seen[False]))])
    return [
        Row(
            f"{what}, governed and not, p50", "ms", both.ours, both.peer, both.ratio, at_most(1.1, "ratio"), both.spread
        ),
        Row(f"{what}, governed and not, p99", "ms", high.ours, high.peer, high.ratio),
    ]


async def _supersteps(conninfo: str, *, runs: int, steps: int, at_once: int, governed: bool) -> list[float]:
    """Milliseconds of each superstep of so many runs."""
    async with staged(conninfo, {"loop": loop(steps)}, worker_slots=at_once, **PRODUCTION) as stage:
        if not governed:
            _strip(stage.app.flusher)
        finishes, heads = Finishes(stage.app.flusher), _heads(stage.app.flusher)
        for batch in range(0, runs, at_once):
            await asyncio.gather(*(
                start(stage.control, "loop", given(), config={"recursion_limit": 2 * steps}) for _ in range(at_once)
            ))  # fmt: skip
            await finishes.until(batch + at_once)
    return [(after - before) * 1000 for times in heads.values() for before, after in pairwise(times)]


def _heads(flusher: Flusher) -> dict[UUID, list[float]]:
    """When each run's heads were acknowledged, as they come."""
    seen: dict[UUID, list[float]] = {}
    write: Callable[[Item], Any] = flusher.write

    async def listen(item: Item) -> int:
        version: int = await write(item)
        if item.head is not None:
            seen.setdefault(item.fence.run_id, []).append(time.perf_counter())
        return version

    setattr(flusher, "write", listen)  # noqa: B010 - an instance's method, which mypy would not have assigned
    return seen


def _strip(flusher: Flusher) -> None:
    """Have it write LangGraph's rows and check the claim, and no more, but where an attempt ends."""
    whole: Callable[..., Any] = flusher._commit
    bare = _bare()

    async def commit(
        conn: psycopg.AsyncConnection[Any], batch: Batch, flush: int
    ) -> dict[Fence, tuple[str, int | None]]:
        items = [item for of in batch.groups.values() for item in of]
        if any(item.ending or item.marks for item in items):
            found: dict[Fence, tuple[str, int | None]] = await whole(conn, batch, flush)
            return found
        for item in items:
            item.entries.clear()
        cursor = psycopg.AsyncRawCursor(conn)
        await cursor.execute(bare.text, bare.values(batch.columns(flush, short=True)), prepare=True)
        assert len(await cursor.fetchall()) == len(batch.groups)
        return dict.fromkeys(batch.groups, ("written", 0))

    setattr(flusher, "_commit", commit)  # noqa: B010 - an instance's method, as above


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]
