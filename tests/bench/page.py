"""A page of 50 out of a million runs of 20 tenants, read as the restricted role, under row security and policy.

A page is a whole command: a connection from the pool, a transaction, the role and the tenant set, what the reader may
see compiled from the policy in force, the query narrowed by it, the rows.
The rows are made by INSERT, since no page depends on how they came; making them is kept out of the clock.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg

from control.cli.observe import Asked, listed
from control.core.principal import Principal
from control.core.run_status import Status
from control.runtime.commands import Control
from control.runtime.commands.policy import apply
from control.store import listing
from control.store.database import Connection
from control.store.visibility import narrowed
from control.testing.stage import staged, tester
from tests.bench.row import Row, at_most
from tests.bench.site import Site

_RUNS = 1_000_000
_LOOKS = 100
_PAGE = 50
_MAKE = Path(__file__).with_name("page.sql").read_bytes()  # bytes, since a file of ours is no LiteralString


@dataclass(frozen=True, slots=True)
class Look:
    """A list that somebody of this role asks for. deep: from a random place instead of from the newest."""

    what: str
    tenant: str
    status: Status | None = None
    deep: bool = False
    role: str = "viewer"

    def reader(self, control: Control) -> Control:
        """The commands, as given by who asks for it: `page.sql` has runs that "person-1" started."""
        return replace(control, principal=Principal("person-1", self.tenant, roles=frozenset({self.role})))


_RULES = """
@id("admins") permit (principal in Role::"admin", action, resource);
@id("all") permit (principal in Role::"viewer", action == Action::"read", resource);
@id("some") permit (principal in Role::"desk", action == Action::"read", resource is Run)
when { resource has workflow && (resource.workflow == "workflow-1" || resource.workflow like "*-4") };
@id("own") permit (principal in Role::"clerk", action == Action::"read", resource is Run)
when { resource.created_by == principal.actor };
"""
_LARGEST, _MIDDLE = "tenant-01", "tenant-10"
_LOOKING: Sequence[Look] = (
    Look("the newest of the largest tenant", _LARGEST),
    Look("any page of the largest tenant", _LARGEST, deep=True),
    Look("the newest that succeeded, largest tenant", _LARGEST, Status.SUCCEEDED),
    Look("any page of those that succeeded, largest tenant", _LARGEST, Status.SUCCEEDED, deep=True),
    Look("any page of those that failed, largest tenant", _LARGEST, Status.FAILED, deep=True),
    Look("any page of those that failed, a middling tenant", _MIDDLE, Status.FAILED, deep=True),
    Look("the newest that wait, largest tenant", _LARGEST, Status.WAITING),
    Look("any page of two workflows of seven, by policy", _LARGEST, deep=True, role="desk"),
    Look("any page of those that failed, of two workflows", _LARGEST, Status.FAILED, deep=True, role="desk"),
    Look("the newest of one's own, one of 50, by policy", _LARGEST, role="clerk"),
)
_ANYWHERE: LiteralString = """
select r.created_at, r.run_id from control.run r
where r.tenant = %(tenant)s and (%(status)s::text is null or r.status = %(status)s) and (/* visible */ true)
order by random() limit %(times)s"""


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
        for tenant in (_LARGEST, _MIDDLE):
            await apply(replace(stage.control, principal=tester(tenant)), _RULES)
        rows = [await _look(look.reader(stage.control), look, times) for look in _LOOKING]
        rows.append(await _command(_LOOKING[-1].reader(stage.control), _LOOKING[-1], times))
    return [replace(row, what=f"page of {_PAGE} of {runs:,}: {row.what}, p50") for row in rows]


async def _look(reader: Control, look: Look, times: int) -> Row:
    places = await _places(reader, look, times) if look.deep else [listing.NEWEST] * times
    took: list[float] = []
    for place in places:
        begun = time.perf_counter()
        async with reader.transaction() as conn:
            found = await listing.page(conn, look.tenant, **await _asked(reader, conn, look, place))
        took.append(time.perf_counter() - begun)
        assert len(found) == _PAGE or look.deep
        assert {run.tenant for run in found} <= {look.tenant}
        assert {run.status for run in found} <= {look.status} or look.status is None
    note = await _plan(reader, look, places[-1])
    return Row(look.what, "ms", statistics.median(took) * 1000, goal=at_most(10), note=note)


async def _asked(reader: Control, conn: Connection, look: Look, place: listing.Place) -> dict[str, Any]:
    """What `listing.page` is asked for, narrowed to what the reader may see."""
    where = (await reader.authority(conn)).visible().where
    paged = {"limit": _PAGE, "before": place, "where": where}
    return paged | {"stall_after": reader.stall_after, "status": look.status}


async def _command(reader: Control, look: Look, times: int) -> Row:
    """The whole of `control runs`, which asks policy about each run once more before it shows it."""
    took: list[float] = []
    for _ in range(times):
        begun = time.perf_counter()
        page = await listed(reader, Asked(look.status, _PAGE, None))
        took.append(time.perf_counter() - begun)
        assert len(page.runs) == _PAGE
    what = f"{look.what}, each run judged once more"
    return Row(what, "ms", statistics.median(took) * 1000)


async def _places(reader: Control, look: Look, times: int) -> list[listing.Place]:
    """Keys of runs anywhere in the list."""
    async with reader.transaction() as conn:
        query, values = narrowed(_ANYWHERE, (await reader.authority(conn)).visible().where, look.tenant)
        given = {"tenant": look.tenant, "status": look.status, "times": times, "stall_after": reader.stall_after}
        return [
            (row["created_at"], row["run_id"]) for row in await (await conn.execute(query, given | values)).fetchall()
        ]


async def _plan(reader: Control, look: Look, place: listing.Place) -> str:
    """Which index was used, and how many buffers were touched: what the figure rests on."""
    async with reader.transaction() as conn:
        query, params = listing.page_query(look.tenant, **await _asked(reader, conn, look, place))
        explained = await conn.execute("explain (analyze, buffers, format json) " + query, params)
        row = await explained.fetchone()
    assert row is not None
    plan = next(iter(cast(Any, row).values()))
    plan = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]
    indexes = sorted({node["Index Name"] for node in _nodes(plan) if "Index Name" in node})
    assert not any(node["Node Type"] == "Seq Scan" for node in _nodes(plan)), plan
    return f"{', '.join(indexes)}; {plan['Shared Hit Blocks'] + plan['Shared Read Blocks']} buffers"


def _nodes(plan: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", ()) for node in _nodes(child))]
