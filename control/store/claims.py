"""Claims: taking runs to work on, and taking them away from workers that are gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row

from control.store.item import Fence
from control.store.runs import LOCK_CLASS
from control.store.sql import read

_SQL: Final = read("claims")
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
    input: bytes | None
    input_type: str | None
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
    """A claim whose holder is gone, and what shows it."""

    tenant: str
    run_id: UUID
    epoch: int
    worker_id: UUID
    why: str


@dataclass(frozen=True, slots=True)
class Mine:
    """A claim of this worker as the database has it."""

    tenant: str
    run_id: UUID
    epoch: int
    version: int
    pause: bool
    cancel: bool


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a worker offers: its workflows, and the digests of the versions it holds."""

    worker_id: UUID
    workflows: Sequence[str]
    digests: Sequence[str]


async def claim(conn: AsyncConnection[Any], holdings: Holdings, *, free: int) -> list[Claimed]:
    """Claim up to `free` runs. `conn`: the claim role, in autocommit; the statement commits by itself."""
    params = {
        "worker_id": holdings.worker_id,
        "workflows": list(holdings.workflows),
        "digests": list(holdings.digests),
        "free": free,
        "actor": f"worker:{holdings.worker_id}",
    }
    async with conn.cursor(row_factory=class_row(Claimed)) as cursor:
        return await (await cursor.execute(_SQL["claim"], params)).fetchall()


async def orphans(conn: AsyncConnection[Any], *, grace: timedelta) -> list[Orphan]:
    """Claims whose holder is gone. `grace`: how long workers may take to come back after the server restarted."""
    async with conn.cursor(row_factory=class_row(Orphan)) as cursor:
        params = {"class": LOCK_CLASS, "grace": grace, "limit": _SWEEP}
        return await (await cursor.execute(_SQL["lost"], params)).fetchall()


async def mine(conn: AsyncConnection[Any], worker_id: UUID) -> list[Mine]:
    """The claims of this worker, with the orders that stand against them."""
    async with conn.cursor(row_factory=class_row(Mine)) as cursor:
        return await (await cursor.execute(_SQL["mine"], {"worker_id": worker_id})).fetchall()


async def due(conn: AsyncConnection[Any]) -> list[tuple[str, UUID]]:
    """Idle runs with something to wake for, as (tenant, run)."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        rows = await (await cursor.execute(read("waits")["due"], {"limit": _SWEEP})).fetchall()
        return [(row["tenant"], row["run_id"]) for row in rows]


async def unfit(conn: AsyncConnection[Any], digests: Sequence[str]) -> list[tuple[str, UUID]]:
    """Runs blocked for want of a version that this worker holds, as (tenant, run)."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        rows = await (await cursor.execute(_SQL["readopt"], {"digests": list(digests)})).fetchall()
        return [(row["tenant"], row["run_id"]) for row in rows]


async def advertise(conn: AsyncConnection[Any], holdings: Holdings, *, draining: bool) -> None:
    """Say which versions this worker holds, and whether it still takes work."""
    digests = [] if draining else list(holdings.digests)
    await conn.execute(_SQL["advertise"], {"worker_id": holdings.worker_id, "digests": digests, "draining": draining})


async def workers(conn: AsyncConnection[Any]) -> list[dict[str, Any]]:
    """Every process that may hold claims and has not signed off."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        return await (await cursor.execute(_SQL["workers"], {"class": LOCK_CLASS})).fetchall()


def mark_blocking(conninfo: str, fence: Fence, node: str) -> None:
    """Name the node of a run that holds the event loop; shown until the run makes progress. Blocks: for a thread."""
    with psycopg.connect(conninfo, autocommit=True, connect_timeout=5) as conn:
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
