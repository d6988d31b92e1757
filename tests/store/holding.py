"""What the saver's tests hold: an opened installation, runs claimed by hand, and everything a database holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID, uuid4

import psycopg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from psycopg import sql

from control.app import App, opened
from control.core.ledger import START, Entry, Kind
from control.settings import Settings
from control.store.database import Address
from control.store.item import Fence
from control.store.tenure import TENURE, Tenure

TABLES: Final = (
    "checkpoints", "checkpoint_blobs", "checkpoint_writes", "control.thread", "control.run", "control.approval",
    "control.wait", "control.signal", "control.effect", "control.ledger",
)  # fmt: skip
_CLAIMED: Final = """
with thread as (insert into control.thread (tenant, thread_id) values (%(tenant)s, %(thread)s))
insert into control.run (tenant, run_id, thread_id, workflow, created_at, created_by, epoch, worker_id, claimed_at,
                         progress_at, status, since)
values (%(tenant)s, %(run)s, %(thread)s, 'w', control.clock(), 'tester', 1, %(worker)s, control.clock(),
        control.clock(), 'running', control.clock())
"""


@asynccontextmanager
async def installation(conninfo: str, *, login: bool = True, **settings: Any) -> AsyncIterator[App]:
    """The parts of one process on this database, without workflows; the roles log in themselves."""
    async with opened(Settings(**settings), Address.of(conninfo, login=login), {}) as app:
        yield app


def claimed(conninfo: str, *, tenant: str = "default", thread: str | None = None, run_id: UUID | None = None) -> Fence:
    """A run that a worker holds under epoch 1, made past row security."""
    fence = Fence(tenant, run_id or uuid4(), thread or f"thread-{uuid4()}", 1, uuid4())
    row = {"tenant": tenant, "run": fence.run_id, "thread": fence.thread_id, "worker": fence.worker_id}
    execute(conninfo, _CLAIMED, row)
    return fence


def under(fence: Fence, **configurable: Any) -> RunnableConfig:
    """A configuration whose writes are made under this claim."""
    given = {"thread_id": fence.thread_id, "checkpoint_ns": "", TENURE: Tenure(fence, actor="worker:test")}
    return {"configurable": given | configurable}


def checkpoint(**values: Any) -> tuple[Checkpoint, dict[str, str]]:
    """A checkpoint with these channel values, and their versions."""
    made, versions = empty_checkpoint(), dict.fromkeys(values, "1")
    made["channel_values"], made["channel_versions"] = values, dict(versions)
    return made, versions


async def put(app: App, config: RunnableConfig, *, step: int = 0, **values: Any) -> RunnableConfig:
    """Put a checkpoint with these values, and return the configuration that names it under the same claim."""
    made, versions = checkpoint(**values)
    stored = await app.saver.aput(config, made, {"source": "loop", "step": step, "parents": {}}, versions)
    return {"configurable": config["configurable"] | stored["configurable"]}


def execute(conninfo: str, query: str, params: Mapping[str, Any] | tuple[Any, ...] = ()) -> list[Any]:
    """Run a statement as the superuser; returns its rows, if it has any."""
    with psycopg.connect(conninfo, autocommit=True) as conn:
        cursor = conn.execute(sql.SQL(query), params or None)  # type: ignore[arg-type]  # a test's own text
        return cursor.fetchall() if cursor.description else []


def contents(conninfo: str) -> dict[str, list[str]]:
    """Every row of every table that a run's writes can touch, in a stable order."""
    return {table: sorted(row for (row,) in execute(conninfo, f"select t::text from {table} t")) for table in TABLES}


def ledger(conninfo: str, run_id: UUID) -> list[Entry]:
    """A run's entries as the offline verifier takes them: each names the hash before it, as its neighbour states it."""
    rows = execute(
        conninfo,
        "select seq, at, kind, actor, epoch, body, digest, hash from control.ledger where run_id = %s order by seq",
        (run_id,),
    )
    entries, prev = [], START
    for seq, at, kind, actor, epoch, body, digest, link in rows:
        entries.append(Entry(seq, at, Kind(kind), actor, epoch, json.loads(body), prev, bytes(link), bytes(digest)))
        prev = bytes(link)
    return entries


def head_of(conninfo: str, run_id: UUID) -> bytes:
    """The last hash of a run's ledger as the run's row keeps it."""
    return bytes(execute(conninfo, "select ledger_hash from control.run where run_id = %s", (run_id,))[0][0])


async def until_blocked(conninfo: str, *, by: str = "Lock", sessions: int = 1) -> None:
    """Wait until this many sessions of the database wait for something of this kind (see pg_stat_activity)."""
    query = "select count(*) from pg_stat_activity where wait_event_type = %s and datname = current_database()"
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as conn:
        async with asyncio.timeout(20):
            while True:
                row = await (await conn.execute(query, (by,))).fetchone()
                if row and row[0] >= sessions:
                    return
                await asyncio.sleep(0.01)
