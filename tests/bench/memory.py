"""The memory of a worker process: over many runs, and while many are suspended. All are made through the commands."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any, LiteralString, TypedDict
from uuid import UUID, uuid4

import psycopg
from langgraph.graph import END, START, StateGraph

from control.runtime.commands.start import start
from control.sdk import approval, wait_for_signal
from control.testing.chaos import serve
from control.testing.faults import Member, fleet
from control.testing.stage import Stage, staged
from tests.bench.row import Row, at_most
from tests.bench.site import Site
from tests.bench.workload import Graph, given, three_nodes

_WARM, _RUNS = 2_000, 10_000
_SUSPENDED = 100_000
_BACKLOG = 200  # how many runs may be queued before more are started


class Nothing(TypedDict):
    turn: int


def _wait(state: Nothing) -> dict[str, Any]:
    """Half of the runs wait for a person, half for a signal."""
    if state["turn"] % 2:
        wait_for_signal("go")
    else:
        approval("Go on?", action={"turn": state["turn"]}, on_yes="It ends.", on_no="It ends.")
    return {}


def graphs() -> dict[str, Graph]:
    """What the worker drives."""
    builder = StateGraph(Nothing)
    builder.add_node("wait", _wait)
    builder.add_edge(START, "wait")
    builder.add_edge("wait", END)
    return {"three": three_nodes(), "waits": builder.compile()}


def measure(site: Site) -> list[Row]:
    warm, runs, suspended = site.some(_WARM, least=50), site.some(_RUNS, least=100), site.some(_SUSPENDED, least=200)
    with site.database("memory") as conninfo:
        log, preload = site.folder / "memory.log", ("control.testing.chaos", __name__)
        with fleet(serve, conninfo, "tests.bench.memory:graphs", {}, log=log, preload=preload) as crew:
            worker = crew.start("worker")
            worker.until_named()
            after_warm = asyncio.run(_settled(site, conninfo, worker, "three", warm))
            after_runs = asyncio.run(_settled(site, conninfo, worker, "three", runs - warm))
            few = asyncio.run(_settled(site, conninfo, worker, "waits", suspended // 10))
            many = asyncio.run(_settled(site, conninfo, worker, "waits", suspended - suspended // 10))
            crew.leave()
    return [
        _growth(f"memory of a worker, after {warm:,} and {runs:,} runs: growth", after_warm, after_runs),
        _growth(f"the same with {suspended // 10:,} and {suspended:,} runs suspended: growth", few, many),
    ]


def _growth(what: str, before: float, after: float) -> Row:
    return Row(what, "%", (after / before - 1) * 100, goal=at_most(5), note=f"{before:.1f} MB, then {after:.1f} MB")


async def _settled(site: Site, conninfo: str, worker: Member, workflow: str, runs: int) -> float:
    """Start that many more; the worker's resident memory in MB once nothing is queued or running."""
    async with staged(conninfo, graphs(), work=False) as stage, _Backlog(conninfo) as backlog:
        for begun in range(0, runs, _BACKLOG):
            await asyncio.gather(*(_start(stage, workflow, n) for n in range(begun, min(begun + _BACKLOG, runs))))
            await backlog.until_at_most(_BACKLOG)
        await backlog.until_at_most(0)
    assert worker.alive
    size = resident_mb(worker.process.pid)
    site.say(f"{runs:,} more runs of {workflow}: {size:.1f} MB")
    return size


async def _start(stage: Stage, workflow: str, number: int) -> UUID:
    value = given() if workflow == "three" else {"turn": number}
    run = await start(stage.control, workflow, value, run_id=uuid4())
    return run.run_id


class _Backlog:
    """How many runs a worker still has to do with."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo

    async def __aenter__(self) -> _Backlog:
        self._conn = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._conn.close()

    async def until_at_most(self, limit: int) -> None:
        query = """select count(*) from (select from control.run where tenant = 'default' and status = 'queued'
                   union all select from control.run where worker_id is not null) busy"""
        while await self._count(query) > limit:  # noqa: ASYNC110 - another process is waited for
            await asyncio.sleep(0.05)
        wrong = "select status from control.run where status in ('failed', 'abandoned', 'blocked') limit 1"
        assert (await (await self._conn.execute(wrong)).fetchone()) is None, "a run failed"

    async def _count(self, query: LiteralString) -> int:
        row = await (await self._conn.execute(query)).fetchone()
        assert row is not None
        return int(row[0])


def resident_mb(pid: int) -> float:
    """The resident memory of a process, from /proc or else from ps."""
    proc = Path(f"/proc/{pid}/statm")
    if proc.exists():
        return int(proc.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024**2
    said = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True).stdout
    return int(said) / 1024
