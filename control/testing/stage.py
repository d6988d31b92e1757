"""A stage for tests of graphs under control: a real database, a real worker, and waiting for what a run becomes.

    async with staged(database, {"loan": graph}) as stage:
        run = await start(stage.control, "loan", {...})
        await stage.until(run.run_id, "awaiting_approval")

The roles log in themselves, as in an installation that gives each its own login, so that nothing works by a superuser's
right. Any setting may be given as a keyword.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import psycopg
from langgraph.pregel import Pregel

from control.app import App, opened
from control.core.ledger import Entry, Kind
from control.core.principal import Principal
from control.core.run_status import RunStatus
from control.runtime.commands import Control
from control.runtime.worker import Worker
from control.runtime.workflows import describe
from control.settings import Settings
from control.store import runs
from control.store.database import Address
from control.store.runs import Run


@dataclass
class Stage:
    """A running installation. `control` gives orders as `tester()`; `worker` is None until `work` starts one."""

    app: App
    control: Control
    conninfo: str
    worker: Worker | None = None
    task: asyncio.Task[None] | None = None

    def acting(self, *roles: str, id: str = "somebody", **about: Any) -> Control:
        """The commands, as given by somebody with these roles; `about` are other fields of `Principal`."""
        return replace(self.control, principal=Principal(id, self.control.tenant, roles=frozenset(roles), **about))

    async def run(self, run_id: UUID) -> Run:
        """The run's row."""
        async with self.control.transaction() as conn:
            return await runs.read_run(conn, self.control.tenant, run_id)

    async def status(self, run_id: UUID) -> RunStatus:
        """The run's derived status, now."""
        async with self.control.transaction() as conn:
            run = await runs.read_run(conn, self.control.tenant, run_id)
            return (await self.control.look(conn, run)).status

    async def until(self, run_id: UUID, *words: str, timeout_s: float = 15) -> RunStatus:
        """Wait until the derived status is one of these words. Fails with what it is instead, and why."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while (status := await self.status(run_id)).word not in words:
            left = deadline - asyncio.get_running_loop().time()
            assert left > 0, f"run {run_id} is {status.word}, not {' or '.join(words)}: {status.because}"
            await asyncio.sleep(0.02)
        return status

    def ledger(self, run_id: UUID) -> list[Entry]:
        """The run's entries in order, read past row security."""
        with psycopg.connect(self.conninfo) as conn:
            return [_entry(row) for row in conn.execute(_ENTRIES, (run_id,))]

    def kinds(self, run_id: UUID) -> list[str]:
        return [str(entry.kind) for entry in self.ledger(run_id)]

    async def worker_stops(self) -> None:
        """Wait until the worker ends by itself; raises what ended it."""
        assert self.task is not None, "there is no worker"
        await asyncio.shield(self.task)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Worker]:
        """A worker, in this process, until the block ends; then it drains. Others may work meanwhile."""
        before, worker = self.worker, self.app.worker()
        self.worker, self.task = worker, (task := asyncio.create_task(worker.run(), name="worker"))
        try:
            yield worker
        finally:
            worker.drain()
            await task
            self.worker = before


@asynccontextmanager
async def staged(
    conninfo: str, graphs: Mapping[str, Pregel[Any, Any, Any, Any]], *, work: bool = True, **settings: Any
) -> AsyncIterator[Stage]:
    """The installation on this database with these compiled graphs; with `work`, a worker too."""
    workflows = {name: describe(name, graph) for name, graph in graphs.items()}
    given: dict[str, Any] = {"poll_s": 0.1, "takeover_poll_s": 0.1, **settings}
    async with AsyncExitStack() as stack:
        if "audit_dir" not in given:  # what was seen of a test's database ends with it
            given["audit_dir"] = stack.enter_context(TemporaryDirectory(prefix="control-audit-"))
        app = await stack.enter_async_context(opened(Settings(**given), Address.of(conninfo, login=True), workflows))
        stage = Stage(app, app.control(principal=tester(app.settings.tenant), workflows=True), conninfo)
        if work:
            await stack.enter_async_context(stage.working())
        yield stage


def tester(tenant: str = "default") -> Principal:
    """A person who may do everything."""
    return Principal("tester", tenant, roles=frozenset({"admin"}))


_ENTRIES = "select seq, at, kind, actor, epoch, body, hash, digest from control.ledger where run_id = %s order by seq"


def _entry(row: tuple[Any, ...]) -> Entry:
    seq, at, kind, actor, epoch, body, link, digest = row
    known = json.loads(body) if body is not None else {}
    return Entry(seq, at, Kind(kind), actor, epoch, known, hash=bytes(link), digest=bytes(digest))
