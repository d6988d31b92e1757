"""What an export reads: heads, entries as stored, and which trees their proofs need, in one snapshot of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import AsyncConnection, IsolationLevel
from psycopg.rows import class_row, dict_row

from control.core.ledger import microseconds
from control.store.database import Database
from control.store.errors import refusal
from control.store.runs import unknown
from control.store.sql import read

_SQL: Final = read("bundles")
_RUNS: Final = read("runs")
_PAGE: Final = 500
_BEFORE_ALL: Final = UUID(int=0)
Conn = AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class Head:
    """Where a run's ledger stands, and what policy is shown of the run; `status` is the word, the clock applied."""

    tenant: str
    run_id: UUID
    thread_id: str
    workflow: str | None
    created_by: str
    priority: int
    status: str
    seq: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which runs to export: one, or all with an entry since then, or all."""

    tenant: str
    run_id: UUID | None
    since: datetime | None
    stall_after: timedelta


@asynccontextmanager
async def snapshot(database: Database, tenant: str) -> AsyncIterator[Conn]:
    """A connection that sees the tenant as it is at one instant. Raises what `store.errors` makes of the driver's."""
    try:
        async with await database.connect("control_command") as conn:
            await conn.set_isolation_level(IsolationLevel.REPEATABLE_READ)
            await conn.set_read_only(True)
            async with conn.transaction():
                await conn.execute(_RUNS["scope"], {"role": "control_command", "tenant": tenant})
                yield conn
    except psycopg.Error as error:
        raise refusal(error) or error from error


async def heads(conn: Conn, chosen: Chosen) -> AsyncIterator[Head]:
    """The heads of the runs, in the order of their ids. Raises `no-such-run`."""
    given: dict[str, Any] = {"tenant": chosen.tenant, "stall_after": chosen.stall_after}
    if chosen.run_id is not None:
        found = await _page(conn, "one", run_id=chosen.run_id, **given)
        if not found:
            raise unknown(chosen.run_id)
        yield found[0]
        return
    name = "all" if chosen.since is None else "since"
    given |= {"limit": _PAGE} if chosen.since is None else {"limit": _PAGE, "since": chosen.since}
    after: UUID | None = _BEFORE_ALL
    while after is not None:
        found = await _page(conn, name, after=after, **given)
        for head in found:
            yield head
        after = found[-1].run_id if len(found) == _PAGE else None


async def trees_of(conn: Conn, chosen: Chosen) -> list[int]:
    """The numbers of the trees that gathered the runs last, and of the newest."""
    given = {"tenant": chosen.tenant, "run_id": chosen.run_id, "since": chosen.since}
    rows = await (await conn.execute(_SQL["trees"], given)).fetchall()
    return [row[0] for row in rows if row[0] is not None]


async def entries(conn: Conn, head: Head) -> AsyncIterator[dict[str, Any]]:
    """The rows of a run's ledger in order, `at` in microseconds."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        given = {"tenant": head.tenant, "run_id": head.run_id, "after": 0}
        async for row in cursor.stream(_RUNS["entries"], given):
            yield row | {"at": microseconds(row["at"])}


async def _page(conn: Conn, query: str, **params: Any) -> list[Head]:
    async with conn.cursor(row_factory=class_row(Head)) as cursor:
        return await (await cursor.execute(_SQL[query], params)).fetchall()
