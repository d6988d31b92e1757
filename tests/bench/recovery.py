"""From `kill -9` of a worker process to its run's next node being executed by a peer, in another process.

Two workers with the default settings; a run's node writes down when it is executed, and hangs under the first epoch.
The worker is killed there, at a moment that bears no relation to the peer's sweeps.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict
from uuid import UUID, uuid4

import psycopg
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph

from control.runtime.commands.start import start
from control.testing.chaos import serve
from control.testing.faults import Fleet, fleet
from control.testing.stage import Stage, staged
from tests.bench.row import Row, at_most
from tests.bench.site import Site
from tests.bench.workload import Graph

_KILLS = 50
_PATIENCE_S = 60.0
_SECOND_CLAIM = """select extract(epoch from at)::float from control.ledger
                   where run_id = %s and kind = 'claimed' and epoch = 2"""


class Empty(TypedDict):
    turn: int


@dataclass(frozen=True, slots=True)
class Seen:
    """An execution of the node: under which epoch, when by `time.monotonic`, which is one clock for all processes."""

    epoch: int
    at: float
    pid: int


def _begin(state: Empty) -> dict[str, Any]:
    return {"turn": state["turn"] + 1}


async def _hang_once(state: Empty, config: RunnableConfig) -> dict[str, Any]:
    epoch = config["metadata"]["epoch"]
    _note(Path(config["configurable"]["seen"]), f"{epoch} {time.monotonic()} {os.getpid()}\n")
    if epoch == 1:
        await asyncio.sleep(_PATIENCE_S)
    return {"turn": state["turn"] + 1}


def _note(file: Path, line: str) -> None:
    with file.open("a", encoding="utf-8") as seen:
        seen.write(line)


def graphs() -> dict[str, Graph]:
    """What the workers drive."""
    builder = StateGraph(Empty)
    builder.add_node("begin", _begin)
    builder.add_node("hang", _hang_once)
    builder.add_edge(START, "begin")
    builder.add_edge("begin", "hang")
    builder.add_edge("hang", END)
    return {"hangs": builder.compile()}


def measure(site: Site) -> list[Row]:
    kills, chance = site.some(_KILLS, least=1), random.Random(7)
    with site.database("recovery") as conninfo:
        log, preload = site.folder / "recovery.log", ("control.testing.chaos", __name__)
        with fleet(serve, conninfo, "tests.bench.recovery:graphs", {}, log=log, preload=preload) as crew:
            for _ in range(2):
                crew.start("worker").until_named()
            took = [asyncio.run(_kill_one(site, conninfo, crew, after_s=chance.uniform(0, 0.5))) for _ in range(kills)]
    claimed, executed = ([one[part] for one in took] for part in (0, 1))
    times = f"{kills} times"
    return [
        Row(f"kill -9 to the next node executing, p50 of {times}", "s", statistics.median(executed), goal=at_most(0.5)),
        Row("the same, worst", "s", max(executed), goal=at_most(2)),
        Row("kill -9 to claimed by a peer, p50", "s", statistics.median(claimed), note=f"worst {max(claimed):.3f} s"),
    ]


async def _kill_one(site: Site, conninfo: str, crew: Fleet, *, after_s: float) -> tuple[float, float]:
    """Seconds from the kill until the run was claimed again, and until its node was executed again."""
    file = site.folder / f"seen-{uuid4()}"
    async with staged(conninfo, graphs(), work=False) as stage:
        config = {"configurable": {"seen": str(file)}}
        run = await start(stage.control, "hangs", {"turn": 0}, config=config)
        held = await _until_seen(file, 1)
        await asyncio.sleep(after_s)
        victim = next(member for member in crew.members if member.process.pid == held.pid)
        wall, at = time.time(), time.monotonic()
        crew.remove(victim)
        again = await _until_seen(file, 2)
        claimed = await _until_ended(stage, run.run_id)
    assert again.epoch == 2 and again.pid != held.pid, again
    crew.start("worker").until_named()
    return claimed - wall, again.at - at


async def _until_seen(file: Path, times: int) -> Seen:
    deadline = time.monotonic() + _PATIENCE_S
    while len(lines := _lines(file)) < times:
        assert time.monotonic() < deadline, f"the node was not executed {times} times"
        await asyncio.sleep(0.005)
    epoch, at, pid = lines[times - 1].split()
    return Seen(int(epoch), float(at), int(pid))


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


async def _until_ended(stage: Stage, run_id: UUID) -> float:
    """When its second claim was made, by the clock of the wall, which the server shares."""
    await stage.until(run_id, "succeeded")
    with psycopg.connect(stage.conninfo) as conn:
        row = conn.execute(_SECOND_CLAIM, (run_id,)).fetchone()
    assert row is not None
    at: float = row[0]
    return at
