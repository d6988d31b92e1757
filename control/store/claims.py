"""Claims: taking runs to work on, and taking them away from workers that are gone."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row

from control.store.database import Address, Database
from control.store.errors import misled, refusal
from control.store.item import Fence
from control.store.sql import read

T = TypeVar("T")
_SQL: Final = {**read("claims"), "tenants": read("doctor")["tenants"]}
_SWEEP: Final = 200  # runs a sweep looks at; the next one sees the rest


@dataclass(frozen=True, slots=True)
class Claimed:
    """A run just claimed, with what an attempt needs to know of it."""

    tenant: str
    run_id: UUID
    thread_id: str
    fresh_thread: bool
    workflow: str
    graph_digest: str | None
    input_type: str
    input: bytes
    config: dict[str, Any]
    epoch: int
    execution: str
    parts: list[str]
    retries: int
    crashes: int
    branch: int
    shortfalls: int
    version: int
    created_at: datetime

    def fence(self, worker_id: UUID) -> Fence:
        return Fence(self.tenant, self.run_id, self.thread_id, self.epoch, worker_id)


@dataclass(frozen=True, slots=True)
class Orphan:
    """A claim whose holder is gone, and what shows it. `crashed`: whether that speaks against the run."""

    tenant: str
    run_id: UUID
    epoch: int
    worker_id: UUID
    why: str
    crashed: bool


class Named(NamedTuple):
    tenant: str
    run_id: UUID


class Tenant(NamedTuple):
    tenant: str


class Unfit(NamedTuple):
    tenant: str
    run_id: UUID
    thread_id: str
    workflow: str
    graph_digest: str


@dataclass(frozen=True, slots=True)
class Mine:
    """A claim of this worker as the database has it."""

    tenant: str
    run_id: UUID
    epoch: int
    version: int
    pause: bool
    cancel: bool
    overdrawn: bool


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a worker offers: its workflows, and the digests of the versions it holds."""

    worker_id: UUID
    workflows: Sequence[str]
    digests: Sequence[str]


class Claims:
    """Finding and keeping claims, over one connection of the claim role that is opened again when it breaks.

    Not for concurrent use. Raises what `store.errors` makes of the driver's errors.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._conn: AsyncConnection[Any] | None = None

    async def claim(
        self, holdings: Holdings, *, free: int, behind: Mapping[str, float], grace: timedelta
    ) -> list[Claimed]:
        """Claim up to `free` runs; see `core.turns` for `behind`, and `orphans` for `grace`. The statement commits by
        itself.
        """
        params = {
            "worker_id": holdings.worker_id,
            "workflows": list(holdings.workflows),
            "digests": list(holdings.digests),
            "free": free,
            "served": list(behind),
            "behind": list(behind.values()),
            "grace": grace,
            "actor": f"worker:{holdings.worker_id}",
        }
        return await self._rows(Claimed, "claim", **params)

    async def orphans(self, worker_id: UUID, *, grace: timedelta) -> list[Orphan]:
        """Claims of others whose holder is gone. `grace`: for workers to come back after the server restarted."""
        return await self._rows(Orphan, "lost", grace=grace, limit=_SWEEP, worker_id=worker_id)

    async def mine(self, worker_id: UUID) -> list[Mine]:
        """The claims of this worker, with the orders that stand against them."""
        return await self._rows(Mine, "mine", worker_id=worker_id)

    async def due(self) -> list[Named]:
        """Idle runs with something to wake for."""
        return await self._rows(Named, "due", limit=_SWEEP)

    async def unfit(self, workflows: Sequence[str], *, known: Collection[UUID]) -> list[Unfit]:
        """Runs of these workflows, but for the `known`, that are blocked for want of a version that fits."""
        return await self._rows(Unfit, "readopt", workflows=list(workflows), known=list(known), limit=_SWEEP)

    async def tenants(self) -> list[str]:
        """Every tenant that has runs."""
        return [found.tenant for found in await self._rows(Tenant, "tenants")]

    async def advertise(self, holdings: Holdings, *, draining: bool) -> None:
        """Say which versions this worker holds, and whether it still takes work."""
        digests = [] if draining else list(holdings.digests)
        async with self._cursor() as cursor:
            params = {"worker_id": holdings.worker_id, "digests": digests, "draining": draining}
            await cursor.execute(_SQL["advertise"], params)

    async def close(self) -> None:
        if self._conn is not None:
            await self._conn.close()

    async def _rows(self, row: type[T], query: str, **params: Any) -> list[T]:
        async with self._cursor() as cursor:
            cursor.row_factory = class_row(row)
            await cursor.execute(_SQL[query], params)
            rows: list[T] = await cursor.fetchall()
            return rows

    @asynccontextmanager
    async def _cursor(self) -> AsyncIterator[Any]:
        try:
            if self._conn is None or self._conn.closed or self._conn.broken:
                self._conn = await self._database.connect("control_claim")
            async with self._conn.cursor() as cursor:
                yield cursor
        except psycopg.Error as error:
            if misled(error):
                await self.close()
            raise refusal(error) or error from error


async def workers(conn: AsyncConnection[Any], *, grace: timedelta) -> list[dict[str, Any]]:
    """Every process that may hold claims and has not signed off, and whether it lives."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        return await (await cursor.execute(_SQL["workers"], {"grace": grace})).fetchall()


def mark_blocking(address: Address, fence: Fence, node: str) -> None:
    """Name the node of a run that holds the event loop; shown until the run makes progress.

    For a thread: it blocks. Where the database does not answer, the mark is not made.
    """
    conninfo = address.session("control_claim")
    with contextlib.suppress(psycopg.Error), psycopg.connect(conninfo, autocommit=True, connect_timeout=5) as conn:
        conn.execute(
            _SQL["mark_blocking"],
            {
                "tenant": fence.tenant,
                "run_id": fence.run_id,
                "epoch": fence.epoch,
                "worker_id": fence.worker_id,
                "node": node,
            },
        )
