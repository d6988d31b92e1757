"""How long a quiet tenant's runs wait to be claimed while a noisy one has thousands queued, against how long they wait
alone, in the same installation.

Two worker processes. A run is one node that sleeps. A quiet tenant starts ten runs at once, now with nothing else to
do, now behind the noisy tenant's queue; each time it is another quiet tenant, so that none has a past. Where ten runs
are more than the slots, they wait for each other even when alone; where there are slots for all of them, waiting alone
is next to nothing, and only a limit on the noisy tenant keeps slots free.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, TypedDict
from uuid import uuid4

import psycopg
from langgraph.graph import START, StateGraph

from control.core.limits import limit
from control.runtime.commands import Control
from control.runtime.commands.limit import set_limits
from control.runtime.commands.start import start
from control.testing.chaos import serve
from control.testing.faults import fleet
from control.testing.stage import staged, tester
from tests.bench.row import Row, at_most
from tests.bench.site import PRODUCTION, Site
from tests.bench.workload import Graph

_QUIET: Final = 10
_NOISY: Final = 10_000
_WORKERS: Final = 2
_PATIENCE_S: Final = 120.0
_WAITS = """
select extract(epoch from min(l.at) - r.created_at)::float
from control.run r left join control.ledger l on l.tenant = r.tenant and l.run_id = r.run_id and l.kind = 'claimed'
where r.tenant = %s group by r.run_id, r.created_at
"""
_AT_WORK = "select count(*) from control.run where tenant = 'noisy' and worker_id is not null"
_QUEUED = "select count(*) from control.run where tenant = 'noisy' and status = 'queued'"


class Nap(TypedDict):
    turn: int


@dataclass(frozen=True, slots=True)
class Crew:
    """Two workers: what they drive, and the slots of each."""

    graphs: str
    slots: int
    sleep_s: float


@dataclass(frozen=True, slots=True)
class Waits:
    """The median waits of the quiet tenants' runs, in seconds, and how many of the noisy were queued to the end."""

    alone: float
    beside: float
    queued: int


_FEW: Final = Crew("tests.bench.fairness:brief", 2, 0.05)
_MANY: Final = Crew("tests.bench.fairness:lengthy", 10, 0.5)


def napping(sleep_s: float) -> dict[str, Graph]:
    """A graph of one node that sleeps."""

    async def sleep(state: Nap) -> dict[str, Any]:
        await asyncio.sleep(sleep_s)
        return {"turn": state["turn"] + 1}

    return {"nap": StateGraph(Nap).add_node("sleep", sleep).add_edge(START, "sleep").compile()}


def brief() -> dict[str, Graph]:
    return napping(_FEW.sleep_s)


def lengthy() -> dict[str, Graph]:
    return napping(_MANY.sleep_s)


def measure(site: Site) -> list[Row]:
    noisy, rows = site.some(_NOISY, least=400), list[Row]()
    with site.database("fairness") as conninfo:
        site.say(f"{noisy:,} runs are queued")
        asyncio.run(_fill(conninfo, noisy))
        first = f"a quiet tenant's median wait beside {noisy:,} queued, against alone: 4 slots, nodes of 50 ms"
        limited = "the same: 20 slots, nodes of 0.5 s, the noisy limited to 10 at once"
        with _working(site, conninfo, _FEW):
            rows.append(_row(first, asyncio.run(_observe(conninfo, _FEW, None, rounds=site.rounds)), promised=True))
        with _working(site, conninfo, _MANY):
            rows.append(_row(limited, asyncio.run(_observe(conninfo, _MANY, 10, rounds=site.rounds)), promised=True))
            rows.append(_row("the same without it", asyncio.run(_observe(conninfo, _MANY, None, rounds=site.rounds))))
    return rows


def _row(what: str, waits: Waits, *, promised: bool = False) -> Row:
    goal, note = at_most(2, "ratio") if promised else None, f"{waits.queued:,} still queued at the end"
    return Row(what, "ms", waits.beside * 1000, waits.alone * 1000, waits.beside / waits.alone, goal, note)


@contextmanager
def _working(site: Site, conninfo: str, crew: Crew) -> Iterator[None]:
    log, settings = site.folder / "fairness.log", {"worker_slots": crew.slots, **PRODUCTION}
    with fleet(serve, conninfo, crew.graphs, settings, log=log, preload=("control.testing.chaos", __name__)) as made:
        for _ in range(_WORKERS):
            made.start("worker").until_named()
        yield


async def _fill(conninfo: str, number: int) -> None:
    """Queue the noisy tenant's runs, and hold them back."""
    async with staged(conninfo, brief(), work=False) as stage:
        await _hold_to(_as(stage.control, "noisy"), "0")
        await _starts(_as(stage.control, "noisy"), number)


async def _observe(conninfo: str, crew: Crew, at_once: int | None, *, rounds: int) -> Waits:
    """The waits where the crew is at work: alone and beside the noisy tenant, in turns. While a tenant is alone, the
    other's queue is held back by a limit of no runs at once.
    """
    lasting, busy = str(at_once or "none"), at_once or crew.slots * _WORKERS
    alone, beside = list[float](), list[float]()
    async with staged(conninfo, brief(), work=False) as stage:
        noisy = _as(stage.control, "noisy")
        await _quiet(stage.control, conninfo, crew)  # what is done for the first time takes longer
        for _ in range(rounds):
            alone += await _quiet(stage.control, conninfo, crew)
            await _hold_to(noisy, lasting)
            await _until(conninfo, lambda at_work: at_work >= busy)
            beside += await _quiet(stage.control, conninfo, crew)
            await _hold_to(noisy, "0")
            await _until(conninfo, lambda at_work: at_work == 0)
    (queued,) = _rows(conninfo, _QUEUED)
    assert queued > 0, "the noisy tenant's queue has run dry"
    return Waits(statistics.median(alone), statistics.median(beside), queued)


async def _hold_to(noisy: Control, at_once: str) -> None:
    operator = replace(noisy, principal=replace(noisy.principal, operates=True))
    await set_limits(operator, {"runs_at_once": limit("runs_at_once", at_once)})


async def _quiet(control: Control, conninfo: str, crew: Crew) -> list[float]:
    """The waits of a quiet tenant's runs, started at once."""
    tenant = f"quiet-{uuid4()}"
    await _starts(_as(control, tenant), _QUIET)
    deadline = asyncio.get_running_loop().time() + _PATIENCE_S
    while None in (waits := _rows(conninfo, _WAITS, tenant)):
        assert asyncio.get_running_loop().time() < deadline, f"{tenant} was never served: {waits}"
        await asyncio.sleep(0.1)
    await asyncio.sleep(crew.sleep_s + 0.1)  # the last of them ends, so that the next round begins as this one did
    return waits


async def _starts(control: Control, number: int) -> None:
    left = iter(range(number))

    async def some() -> None:
        for _ in left:
            await start(control, "nap", {"turn": 0})

    await asyncio.gather(*(some() for _ in range(8)))


def _as(control: Control, tenant: str) -> Control:
    return replace(control, principal=tester(tenant))


async def _until(conninfo: str, enough: Callable[[int], bool]) -> None:
    """Wait for how many of the noisy tenant's runs are at work."""
    deadline = asyncio.get_running_loop().time() + _PATIENCE_S
    while not enough(_rows(conninfo, _AT_WORK)[0]):
        assert asyncio.get_running_loop().time() < deadline, "the noisy tenant was never served, or never held back"
        await asyncio.sleep(0.05)


def _rows(conninfo: str, query: str, *params: Any) -> list[Any]:
    with psycopg.connect(conninfo) as conn:
        return [row[0] for row in conn.execute(query.encode(), params)]
