"""How long a run stands still when its worker is killed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from statistics import median
from typing import Final

import psycopg
import pytest

from control.app import opened
from control.runtime.commands.start import start
from control.settings import Settings
from control.store.database import Address
from control.testing.chaos import WITNESS, Toll, serve, witnessed, workflows
from control.testing.faults import Fleet, fleet
from tests.chaos.auditor import audit, books, takeovers

GRAPHS: Final = "tests.chaos.graphs:graphs"
RUNS: Final = 3

pytestmark = pytest.mark.alone


@pytest.mark.parametrize("kills", [8, pytest.param(50, marks=pytest.mark.prove)])
async def test_a_killed_workers_runs_go_on_at_once(kills: int, database: str, tmp_path: Path) -> None:
    """From the kill to the next claim, by the database's clock: half of them within 0.5 s, all within 2 s."""
    toll, file = Toll(0), tmp_path / "witness"
    args = (database, GRAPHS, {"crash_limit": 1000})
    with fleet(serve, *args, log=tmp_path / "log", preload=["control.testing.chaos"]) as crew:
        crew.start("worker").until_named()
        await start_runs(database, file)
        for epoch in range(1, kills + 1):
            await until_working(file, epoch)
            await until_registered(database, await asyncio.to_thread(crew.start("worker").until_named))
            await asyncio.to_thread(kill_holder, database, crew, toll)
        await until_working(file, kills + 1)
        found = books(database)
    spans = [span.total_seconds() for span in takeovers(found, toll)]
    print(f"{kills} kills: kill to claim p50 {median(spans):.2f} s, worst {max(spans):.2f} s")
    assert len(spans) == kills * RUNS
    assert not audit(found)
    assert median(spans) <= 0.5
    assert max(spans) <= 2.0


async def start_runs(database: str, file: Path) -> None:
    async with opened(Settings(), Address.of(database, login=True), workflows(GRAPHS)) as app:
        for _ in range(RUNS):
            config = {"configurable": {WITNESS: str(file)}}
            await start(app.control(by="tester", workflows=True), "endless", {"total": 0}, config=config)


def kill_holder(database: str, crew: Fleet, toll: Toll) -> None:
    """Kill the one worker that holds the runs; the clock is read on the connection that is open already."""
    with psycopg.connect(database, autocommit=True) as conn:
        holders = conn.execute("select distinct worker_id::text from control.run").fetchall()
        assert len(holders) == 1, "the peer came when all runs were claimed"
        (holder,) = (member for member in crew.members if member.name == holders[0][0])
        row = conn.execute("select control.clock()").fetchone()
        assert row is not None
        toll.killed[holders[0][0]] = row[0]
        crew.remove(holder)


async def until_registered(database: str, worker_id: str, timeout_s: float = 15) -> None:
    """Wait until a worker has its session: from then on it is a peer."""
    async with asyncio.timeout(timeout_s), await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        while True:
            if await (await conn.execute("select 1 from control.worker where worker_id = %s", (worker_id,))).fetchone():
                return
            await asyncio.sleep(0.02)


async def until_working(file: Path, epoch: int, timeout_s: float = 15) -> None:
    """Wait until every run executes its endless node under this epoch."""
    async with asyncio.timeout(timeout_s):
        while True:
            if sum((one.node, one.epoch) == ("second", epoch) for one in witnessed(file)) == RUNS:
                return
            await asyncio.sleep(0.02)
