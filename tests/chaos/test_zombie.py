"""A worker that is stopped for longer than its lease, and then goes on: whatever it still writes comes too late."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from control.app import opened
from control.runtime.commands.start import start
from control.settings import Settings
from control.store.database import Address
from control.testing.chaos import WITNESS, seed, serve, witnessed, workflows
from control.testing.faults import fleet
from tests.chaos.auditor import audit, books, trespasses
from tests.chaos.graphs import DONE

GRAPHS: Final = "tests.chaos.graphs:graphs"
RUNS: Final = 12
OF_RUN: Final = ("run", "approval", "wait", "signal", "effect", "ledger")
OF_THREAD: Final = ("public.checkpoints", "public.checkpoint_blobs", "public.checkpoint_writes", "control.thread")

pytestmark = pytest.mark.alone


@pytest.mark.parametrize("turn", [0, *(pytest.param(n, marks=pytest.mark.prove) for n in range(1, 20))])
async def test_a_zombie_writes_nothing(turn: int, database: str, tmp_path: Path) -> None:
    chance, file = random.Random(seed() + turn), tmp_path / "witness"
    args = (database, GRAPHS, {"lease_s": 1.5})
    with fleet(serve, *args, log=tmp_path / "log", preload=["control.testing.chaos"]) as crew:
        zombie = crew.start("worker")
        await asyncio.to_thread(zombie.until_named)
        runs = await started(database, file)
        await until(lambda: sum(one.node == "second" for one in witnessed(file)) >= RUNS // 2)
        await asyncio.sleep(chance.uniform(0, 0.5))  # anywhere in the work: waiting, sending, being answered
        zombie.stop()
        crew.start("worker")
        await until(lambda: ended(database) == RUNS)
        lost = [e for chain in books(database).ledgers.values() for e in chain if e.kind == "worker_lost"]
        before = everything(database)
        zombie.resume()
        await until(lambda: any(one.note == DONE and one.pid == zombie.process.pid and one.epoch == 1
                                for one in witnessed(file)))  # fmt: skip
        await asyncio.to_thread(crew.leave)
    assert lost and all(entry.body["why"] == "its lease ran out" for entry in lost)
    assert everything(database) == before
    found = books(database)
    assert set(found.runs) == runs
    assert not audit(found) and not trespasses(found)


async def started(database: str, file: Path) -> set[UUID]:
    async with opened(Settings(), Address.of(database, login=True), workflows(GRAPHS)) as app:
        control = app.control(by="tester", workflows=True)
        config = {"configurable": {WITNESS: str(file)}}
        names = ["slow", "slow_sync"] * (RUNS // 2)
        return {(await start(control, name, {"total": 0}, config=config)).run_id for name in names}


def ended(database: str) -> int:
    with psycopg.connect(database) as conn:
        row = conn.execute("select count(*)::int from control.run where status = 'succeeded'").fetchone()
    assert row is not None
    return int(row[0])


def everything(database: str) -> dict[str, list[Any]]:
    """Every row of every run, with the version of it that the database keeps: a rewritten row is not the same row."""
    tables = [f"control.{name}" for name in OF_RUN] + list(OF_THREAD)
    with psycopg.connect(database) as conn:
        return {name: conn.execute(_ROWS.format(_identifier(name))).fetchall() for name in tables}


_ROWS: Final = sql.SQL("select t.xmin::text, t::text from {} t order by t::text")


def _identifier(name: str) -> sql.Identifier:
    return sql.Identifier(*name.split("."))


async def until(holds: Any, timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while True:
            if await asyncio.to_thread(holds):
                return
            await asyncio.sleep(0.02)
