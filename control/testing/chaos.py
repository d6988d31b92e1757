"""Chaos: many runs while workers are killed and stopped and the database restarts, by a seeded schedule.

    campaign = Campaign(seed=seed(), work=[Work("line", {"total": 1}), ...], graphs="tests.chaos.graphs:graphs")
    toll = await rage(campaign, conninfo, folder)

Any graphs will do. A node that calls `witness(config)` before it does anything leaves a line on the disk, outside the
database, of who executes what under which epoch: an account of what really happened that does not depend on what is
under test. `Toll` says what was done to the workers, so that what the ledger says of them can be compared.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import psycopg
from langchain_core.runnables import RunnableConfig

from control.app import App, opened
from control.core.answer import Word
from control.core.problem import Refusal
from control.core.run_status import TERMINAL
from control.runtime.commands import Control
from control.runtime.commands.decide import decide
from control.runtime.commands.start import start
from control.runtime.workflows import Workflow, describe
from control.settings import Settings
from control.store.database import Address
from control.store.errors import DATABASE_AWAY, refusal
from control.testing.faults import Fleet, Member, fleet
from control.testing.load import Idleness, burning, measured

SEED: Final = "CONTROL_CHAOS_SEED"
RESTARTS: Final = "restarts"
WITNESS: Final = "witness"
"""The key of a run's `configurable` that names its witness file."""
_STARTING: Final = 16  # runs started at once
_LOOK_S: Final = 0.25
_ANSWER_S: Final = 0.05
_ASKED: Final = "select run_id, interrupt_id from control.approval where decision is null limit 100"

Restart = Callable[[str], None]
"""Restarts the database in a mode, "fast" or "immediate", and returns when it answers again."""


def seed() -> int:
    """The seed of this test run: a fresh one, or the one that the environment repeats. Printed, for then."""
    chosen = int(os.environ.get(SEED) or random.SystemRandom().randrange(1_000_000))
    print(f"{SEED}={chosen}")
    return chosen


# --- the witness ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """One execution of a node. `task` tells parallel tasks of one node apart, and is the same when it is repeated."""

    run_id: UUID
    node: str
    step: int
    epoch: int
    pid: int
    task: str
    note: str


def witness(config: RunnableConfig, note: str = "") -> None:
    """Record on the disk that this node is about to be executed. A run without a witness file has none."""
    path, about = config["configurable"].get(WITNESS), config["metadata"]
    if path is None:
        return
    line = "\t".join(str(part) for part in (
        about["run_id"], about["langgraph_node"], about["langgraph_step"], about["epoch"], os.getpid(),
        about["langgraph_checkpoint_ns"], note,
    ))  # fmt: skip
    to = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(to, f"{line}\n".encode())  # one write of less than a page: never mixed with another's
        os.fsync(to)
    finally:
        os.close(to)


async def awitness(config: RunnableConfig, note: str = "") -> None:
    """The same for an asynchronous node: the disk does not hold up the event loop."""
    await asyncio.to_thread(witness, config, note)


def witnessed(path: Path) -> list[Seen]:
    """What a witness file says, in order."""
    return list(_read(path)) if path.exists() else []


def _read(path: Path) -> Iterator[Seen]:
    for line in path.read_text(encoding="utf-8").splitlines():
        run_id, node, step, epoch, pid, task, note = line.split("\t")
        yield Seen(UUID(run_id), node, int(step), int(epoch), int(pid), task, note)


# --- the processes -------------------------------------------------------------------------------------------------


def workflows(graphs: str) -> dict[str, Workflow]:
    """The workflows of a function that returns compiled graphs by name, itself named as `package.module:function`."""
    module, _, function = graphs.partition(":")
    return {name: describe(name, graph) for name, graph in getattr(importlib.import_module(module), function)().items()}


def serve(says: Connection, *given: Any) -> None:
    """The life of a process: a "worker" until SIGTERM drains it, or an "approver".

    given: the conninfo, the graphs (see `workflows`), the settings, and which of the two it is.
    """
    conninfo, graphs, settings, role = given
    live, held = _work if role == "worker" else _approve, workflows(graphs)
    while True:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # it leaves in order before it begins, too
        if asyncio.run(live(says, _app(conninfo, settings, held))):
            return
        time.sleep(_LOOK_S)


async def _work(says: Connection, opening: AbstractAsyncContextManager[App]) -> bool:
    """False where the database was away before it could begin: what looks after processes would start it again."""
    began = asyncio.Event()
    try:
        async with opening as app:
            worker = app.worker()
            began = worker.swept
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.drain)
            says.send(str(worker.worker_id))
            await worker.run()
    except (Refusal, psycopg.OperationalError) as error:
        if began.is_set() or not _is_away(error):
            raise
        return False
    return True


def _is_away(error: Exception) -> bool:
    told = error if isinstance(error, Refusal) else refusal(error)
    return told is not None and told.problem is DATABASE_AWAY


async def _approve(says: Connection, opening: AbstractAsyncContextManager[App]) -> bool:
    """Answer every question: yes to a run whose id is even, no to an odd one. False as in `_work`."""
    leaving = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leaving.set)
    with suppress(Refusal, psycopg.OperationalError):
        async with opening as app:
            says.send("approver")
            while not leaving.is_set():
                with suppress(Refusal):  # the database is away, or it was answered before the last kill
                    await _answer_all(app.control(by="approver"))
                await asyncio.sleep(_ANSWER_S)
    return leaving.is_set()


async def _answer_all(control: Control) -> None:
    async with control.transaction() as conn:
        cursor = await conn.execute(_ASKED)
        asked = await cursor.fetchall()
    for row in asked:
        with suppress(Refusal):
            await decide(control, row["run_id"], word_for(row["run_id"]), interrupt_id=row["interrupt_id"])


def word_for(run_id: UUID) -> Word:
    """What the approver says to a run."""
    return Word.REJECTED if run_id.int % 2 else Word.APPROVED


def _app(conninfo: str, settings: Mapping[str, Any], given: Mapping[str, Workflow]) -> AbstractAsyncContextManager[App]:
    return opened(Settings(**settings), Address.of(conninfo, login=True), given)


# --- the campaign --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Work:
    """A run to start."""

    workflow: str
    value: Any
    run_id: UUID


@dataclass(frozen=True, slots=True)
class Campaign:
    """What is to be run, and what is to be done to it.

    graphs: see `workflows`. every_s: the shortest and the longest pause between two faults. stopped_s: how long a
    process is stopped at most, which must be less than the lease. restart_share: how many of the faults restart the
    database, between 0 and 1. per_s: how many runs are started in a second at most; None: as many as can be. burners:
    how many processes only keep a core busy meanwhile; None: one for each core.
    """

    seed: int
    work: Sequence[Work]
    graphs: str
    workers: int = 3
    every_s: tuple[float, float] = (0.3, 1.2)
    stopped_s: float = 1.0
    restart_share: float = 0.0
    per_s: float | None = None
    limit_s: float = 120.0
    burners: int | None = 0
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Toll:
    """What was done. killed: when each worker was killed, by the database's clock; None where that was away.

    idle: how much of the cores was left.
    """

    seed: int
    killed: dict[str, datetime | None] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    took_s: float = 0.0
    idle: Idleness = field(default_factory=Idleness)

    @property
    def restarts(self) -> int:
        """How often the database was restarted."""
        return sum(count for fault, count in self.faults.items() if fault.startswith(RESTARTS))


def ids(chance: random.Random) -> Iterator[UUID]:
    """Run ids that a seed repeats."""
    while True:
        yield UUID(int=chance.getrandbits(128), version=4)


async def rage(campaign: Campaign, conninfo: str, folder: Path, *, restart: Restart | None = None) -> Toll:
    """Start the runs, and do harm until every one of them has ended; then let the processes leave in order.

    `folder` gets the witness file and the log of all processes. Fails if the runs have not ended within `limit_s`.
    """
    toll, begun = Toll(campaign.seed), time.monotonic()
    args = (conninfo, campaign.graphs, {"pool_limit": 4, **campaign.settings})
    preload = ("control.testing.chaos", campaign.graphs.partition(":")[0])
    with fleet(serve, *args, log=folder / "log", preload=preload) as crew:
        for role in (*["worker"] * campaign.workers, "approver"):
            crew.start(role)
        with burning(log=folder / "log", cores=campaign.burners), measured() as toll.idle:
            async with _app(conninfo, {}, workflows(campaign.graphs)) as app, asyncio.TaskGroup() as group:
                over = asyncio.Event()
                group.create_task(_start_all(app, campaign, folder / "witness"))
                group.create_task(_Harm(campaign, crew, toll, conninfo, restart).do_until(over))
                await _until_ended(conninfo, campaign)
                over.set()
        await asyncio.to_thread(crew.leave)
    toll.took_s = time.monotonic() - begun
    return toll


async def _until_ended(conninfo: str, campaign: Campaign) -> None:
    deadline, states = time.monotonic() + campaign.limit_s, Counter[str]()
    while sum(states[status] for status in TERMINAL) < len(campaign.work):
        assert time.monotonic() < deadline, f"after {campaign.limit_s:g} s the runs are {dict(states)}"
        await asyncio.sleep(_LOOK_S)
        with suppress(psycopg.OperationalError):  # it is being restarted
            async with await psycopg.AsyncConnection.connect(conninfo) as conn:
                cursor = await conn.execute("select status, count(*)::int from control.run group by status")
                states = Counter(dict(await cursor.fetchall()))


async def _start_all(app: App, campaign: Campaign, file: Path) -> None:
    control, waiting = app.control(by="chaos", workflows=True), iter(campaign.work)

    async def some() -> None:
        for work in waiting:
            await _start_one(control, work, file)
            if campaign.per_s:
                await asyncio.sleep(_STARTING / campaign.per_s)

    async with asyncio.TaskGroup() as group:
        for _ in range(_STARTING):
            group.create_task(some())


async def _start_one(control: Control, work: Work, file: Path) -> None:
    """Start it; again where the database was away, which a client cannot tell from an answer that was lost."""
    config = {"configurable": {WITNESS: str(file)}}
    while True:
        try:
            await start(control, work.workflow, work.value, run_id=work.run_id, config=config)
            return
        except Refusal as refusal:
            if refusal.problem is not DATABASE_AWAY:
                raise
            await asyncio.sleep(_LOOK_S)


@dataclass
class _Harm:
    """The faults, one after another, drawn from the campaign's seed."""

    campaign: Campaign
    crew: Fleet
    toll: Toll
    conninfo: str
    restart: Restart | None

    async def do_until(self, over: asyncio.Event) -> None:
        chance = random.Random(self.campaign.seed)
        while not await _within(over, chance.uniform(*self.campaign.every_s)):
            share, victim, span = chance.random(), chance.randrange(1 << 30), chance.random() * self.campaign.stopped_s
            member = self.crew.members[victim % len(self.crew.members)]
            if share < self.campaign.restart_share and self.restart:
                await self._restart(chance.choice(("fast", "immediate")))
            elif share > 0.8:
                await self._stop(member, span)
            else:
                await self._kill(member)

    async def _restart(self, mode: str) -> None:
        assert self.restart is not None
        await asyncio.to_thread(self.restart, mode)
        self.toll.faults[f"{RESTARTS}, {mode}"] += 1

    async def _stop(self, member: Member, span_s: float) -> None:
        member.stop()
        try:
            await asyncio.sleep(span_s)
        finally:
            member.resume()
        self.toll.faults["stops"] += 1

    async def _kill(self, member: Member) -> None:
        at = await asyncio.to_thread(_clock, self.conninfo)
        self.crew.remove(member)
        self.crew.start(*member.given)
        role, name = member.given[0], member.name
        if role == "worker" and name:
            self.toll.killed[name] = at
        self.toll.faults[f"kills, {role}"] += 1


async def _within(event: asyncio.Event, span_s: float) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), span_s)
    return event.is_set()


def _clock(conninfo: str) -> datetime | None:
    try:
        with psycopg.connect(conninfo, connect_timeout=2) as conn:
            row = conn.execute("select control.clock()").fetchone()
    except psycopg.OperationalError:
        return None
    assert row is not None
    at: datetime = row[0]
    return at
