"""What an export reads: heads, entries as stored, and which trees their proofs need, in one snapshot of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import AsyncConnection, IsolationLevel
from psycopg.rows import class_row, dict_row

from control.core.ledger import microseconds
from control.core.tree import Leaf
from control.store.database import Database
from control.store.errors import refusal
from control.store.runs import unknown
from control.store.sql import read

_SQL: Final = read("bundles")
_RUNS: Final = read("runs")
_PAGE: Final = 500
_BEFORE_ALL: Final = UUID(int=0)
Conn = AsyncConnection[Any]


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


async def heads(conn: Conn, tenant: str, *, run_id: UUID | None, since: datetime | None) -> AsyncIterator[Leaf]:
    """The heads of one run, or of all with an entry since then, in the order of their ids. Raises `no-such-run`."""
    if run_id is not None:
        found = await _page(conn, "one", tenant=tenant, run_id=run_id)
        if not found:
            raise unknown(run_id)
        yield found[0]
        return
    name, chosen = ("all", {}) if since is None else ("since", {"since": since})
    after: UUID | None = _BEFORE_ALL
    while after is not None:
        found = await _page(conn, name, tenant=tenant, after=after, limit=_PAGE, **chosen)
        for head in found:
            yield head
        after = found[-1].run_id if len(found) == _PAGE else None


async def trees_of(conn: Conn, tenant: str, *, run_id: UUID | None, since: datetime | None) -> list[int]:
    """The numbers of the trees that gathered these runs last, and of the newest."""
    given = {"tenant": tenant, "run_id": run_id, "since": since}
    rows = await (await conn.execute(_SQL["trees"], given)).fetchall()
    return [row[0] for row in rows if row[0] is not None]


async def entries(conn: Conn, tenant: str, head: Leaf) -> AsyncIterator[dict[str, Any]]:
    """The rows of a run's ledger in order, `at` in microseconds."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        given = {"tenant": tenant, "run_id": head.run_id, "after": 0}
        async for row in cursor.stream(_RUNS["entries"], given):
            yield row | {"at": microseconds(row["at"])}


async def _page(conn: Conn, query: str, **params: Any) -> list[Leaf]:
    async with conn.cursor(row_factory=class_row(Leaf)) as cursor:
        return await (await cursor.execute(_SQL[query], params)).fetchall()
