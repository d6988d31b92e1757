"""A page of 50 out of a million runs of 20 tenants, read as the restricted role, under row security.

A page is a whole command: a connection from the pool, a transaction, the role and the tenant set, the query, the rows.
The rows are made by INSERT, since no page depends on how they came; making them is kept out of the clock.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString, cast
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from control.core.run_status import Status
from control.runtime.commands import Control
from control.store import listing
from control.store.sql import read
from control.testing.stage import staged
from tests.bench.row import Row, at_most
from tests.bench.site import Site

_RUNS = 1_000_000
_LOOKS = 100
_PAGE = 50
_MAKE = Path(__file__).with_name("page.sql").read_bytes()  # bytes, since a file of ours is no LiteralString
_QUERIES = read("runs")


@dataclass(frozen=True, slots=True)
class Look:
    """A list that somebody asks for. deep: from a random place instead of from the newest."""

    what: str
    tenant: str
    status: str | None = None
    deep: bool = False

    @property
    def query(self) -> LiteralString:
        return _QUERIES["page_by_status" if self.status else "page"]

    def params(self, after: tuple[datetime, UUID]) -> Mapping[str, Any]:
        named = {"status": self.status} if self.status else {}
        return named | {
            "tenant": self.tenant,
            "limit": _PAGE,
            "stall_after": timedelta(seconds=120),
            "before_at": after[0],
            "before_id": after[1],
        }


_LARGEST, _MIDDLE = "tenant-01", "tenant-10"
_LOOKING: Sequence[Look] = (
    Look("the newest of the largest tenant", _LARGEST),
    Look("any page of the largest tenant", _LARGEST, deep=True),
    Look("the newest that succeeded, largest tenant", _LARGEST, "succeeded"),
    Look("any page of those that succeeded, largest tenant", _LARGEST, "succeeded", deep=True),
    Look("any page of those that failed, largest tenant", _LARGEST, "failed", deep=True),
    Look("any page of those that failed, a middling tenant", _MIDDLE, "failed", deep=True),
)


def measure(site: Site) -> list[Row]:
    runs = site.some(_RUNS, least=20_000)
    with site.database("page") as conninfo:
        _make(site, conninfo, runs)
        return asyncio.run(_measure(site, conninfo, runs))


def _make(site: Site, conninfo: str, runs: int) -> None:
    begun = time.perf_counter()
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute(_MAKE, {"runs": runs})
        made = time.perf_counter()
        conn.execute("vacuum analyze control.run")
    site.say(f"{runs:,} runs made in {made - begun:.0f} s, vacuumed in {time.perf_counter() - made:.0f} s")


async def _measure(site: Site, conninfo: str, runs: int) -> list[Row]:
    times = site.some(_LOOKS, least=20)
    async with staged(conninfo, {}, work=False) as stage:
        rows = [await _look(stage.control, look, conninfo, times) for look in _LOOKING]
        waiting = await _by_clock(_of(stage.control, _LARGEST), times)
    return [replace(row, what=f"page of {_PAGE} of {runs:,}: {row.what}, p50") for row in [*rows, waiting]]


def _of(control: Control, tenant: str) -> Control:
    """The commands, as given in this tenant."""
    return replace(control, principal=replace(control.principal, tenant=tenant))


async def _look(control: Control, look: Look, conninfo: str, times: int) -> Row:
    command = _of(control, look.tenant)
    places = _places(conninfo, look, times) if look.deep else [listing.NEWEST] * times
    took: list[float] = []
    for place in places:
        begun = time.perf_counter()
        async with command.transaction() as conn:
            found = await (await conn.cursor(row_factory=dict_row).execute(look.query, look.params(place))).fetchall()
        took.append(time.perf_counter() - begun)
        assert len(found) == _PAGE or look.deep
        assert {row["tenant"] for row in found} <= {look.tenant}
    note = await _plan(command, look, places[-1])
    return Row(look.what, "ms", statistics.median(took) * 1000, goal=at_most(10), note=note)


def _places(conninfo: str, look: Look, times: int) -> list[tuple[datetime, UUID]]:
    """Keys of runs anywhere in the list."""
    query = """select created_at, run_id from control.run where tenant = %(tenant)s
               and (%(status)s::text is null or status = %(status)s) order by random() limit %(times)s"""
    with psycopg.connect(conninfo) as conn:
        return conn.execute(query, {"tenant": look.tenant, "status": look.status, "times": times}).fetchall()


async def _plan(control: Control, look: Look, place: tuple[datetime, UUID]) -> str:
    """Which index was used, and how many buffers were touched: what the figure rests on."""
    async with control.transaction() as conn:
        explained = await conn.execute("explain (analyze, buffers, format json) " + look.query, look.params(place))
        row = await explained.fetchone()
    assert row is not None
    plan = next(iter(cast(Any, row).values()))
    plan = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]
    indexes = sorted({node["Index Name"] for node in _nodes(plan) if "Index Name" in node})
    assert not any(node["Node Type"] == "Seq Scan" for node in _nodes(plan)), plan
    return f"{', '.join(indexes)}; {plan['Shared Hit Blocks'] + plan['Shared Read Blocks']} buffers"


def _nodes(plan: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", ()) for node in _nodes(child))]


async def _by_clock(control: Control, times: int) -> Row:
    """A status that time alone changes: what is waiting may be queued by now."""
    took: list[float] = []
    for _ in range(times):
        begun = time.perf_counter()
        async with control.transaction() as conn:
            found = await listing.page(
                conn, control.tenant, limit=_PAGE, stall_after=control.stall_after, status=Status.WAITING
            )
        took.append(time.perf_counter() - begun)
        assert all(row.status == "waiting" for row in found)
    return Row("the newest that wait, largest tenant", "ms", statistics.median(took) * 1000, goal=at_most(10))
