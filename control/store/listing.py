"""Lists for people: pages of runs, a run's ledger and effects, and who works.

Everything is read in the caller's transaction and sees what its role may see. Pages are keyset pages: what a page costs
does not depend on how many came before it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row

from control.core.ledger import Entry, Kind
from control.core.predicate import ALWAYS, Predicate
from control.core.run_status import Status
from control.store.sql import read
from control.store.visibility import narrowed

_RUNS: Final = read("runs")
_LISTING: Final = read("listing")
_BY_CLOCK: Final = {
    Status.WAITING: _LISTING["page_waiting"],
    Status.QUEUED: _LISTING["page_queued"],
    Status.RUNNING: _LISTING["page_running"],
    Status.STALLED: _LISTING["page_stalled"],
}
Place = tuple[datetime, UUID]
"""Where a run stands in a list: when it was created, and its id."""
NEWEST: Final[Place] = (datetime.max.replace(tzinfo=UTC), UUID(int=2**128 - 1))


@dataclass(frozen=True, slots=True)
class Listed:
    """A run in a list, with the clock applied to its status."""

    tenant: str
    run_id: UUID
    thread_id: str
    workflow: str | None
    created_at: datetime
    created_by: str
    epoch: int
    takeovers: int
    parts: list[str]
    parts_total: int | None
    head_step: int | None
    worker_id: UUID | None
    priority: int
    status: str
    since: datetime
    due_at: datetime | None


async def page(
    conn: AsyncConnection[Any],
    tenant: str,
    *,
    limit: int,
    stall_after: timedelta,
    status: Status | None = None,
    before: Place = NEWEST,
    where: Predicate = ALWAYS,
) -> list[Listed]:
    """The newest runs before a place (that of the last one seen), of those where the condition holds; with `status`,
    those that have it now.

    Four words depend on the clock as well as on the row, and have a query each.
    """
    query, params = page_query(tenant, limit=limit, stall_after=stall_after, status=status, before=before, where=where)
    async with conn.cursor(row_factory=class_row(Listed)) as cursor:
        await cursor.execute(query, params)
        return await cursor.fetchall()


def page_query(
    tenant: str,
    *,
    limit: int,
    stall_after: timedelta,
    status: Status | None = None,
    before: Place = NEWEST,
    where: Predicate = ALWAYS,
) -> tuple[LiteralString, dict[str, Any]]:
    """What `page` asks of the database, and with what."""
    params = {"tenant": tenant, "limit": limit, "stall_after": stall_after, "status": str(status)}
    whole = _RUNS["page"] if status is None else _BY_CLOCK.get(status, _RUNS["page_by_status"])
    query, values = narrowed(whole, where, tenant)
    return query, params | values | {"before_at": before[0], "before_id": before[1]}


async def entries(conn: AsyncConnection[Any], tenant: str, run_id: UUID) -> AsyncIterator[Entry]:
    """The run's ledger in order. An erased body is empty, and its digest stays."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        async for row in cursor.stream(_RUNS["entries"], {"tenant": tenant, "run_id": run_id, "after": 0}):
            yield Entry(
                row["seq"],
                row["at"],
                Kind(row["kind"]),
                row["actor"],
                row["epoch"],
                json.loads(row["body"]) if row["body"] is not None else {},
                hash=bytes(row["hash"]),
                digest=bytes(row["digest"]),
            )


async def effects(conn: AsyncConnection[Any], tenant: str, run_id: UUID) -> list[dict[str, Any]]:
    """What the run changed outside, in the order it began: key, name, kind, state, calls, how, error, instants."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        params = {"tenant": tenant, "run_id": run_id}
        return await (await cursor.execute(read("effects")["of_run"], params)).fetchall()
