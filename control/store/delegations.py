"""Delegations: who may vote in whose place, from when until when, and who arranged it. None is ever edited."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from control.store.runs import Entry
from control.store.sql import read

_SQL: Final = read("delegations")


@dataclass(frozen=True, slots=True)
class Delegation:
    """From one instant to another the taker may vote in the giver's place, with these roles of theirs."""

    delegation_id: UUID
    giver: str
    taker: str
    roles: list[str]
    starts_at: datetime
    ends_at: datetime
    made_by: str
    made_at: datetime
    reason: str | None
    revoked_by: str | None
    revoked_at: datetime | None


async def stands_in(
    conn: AsyncConnection[Any], tenant: str, *, giver: str, taker: str, at: datetime
) -> Delegation | None:
    """The delegation by which `taker` may vote in the place of `giver` now, if there is one."""
    return await _one(conn, "stands_in", tenant=tenant, giver=giver, taker=taker, at=at)


async def lent(conn: AsyncConnection[Any], tenant: str, taker: str, *, at: datetime) -> list[Delegation]:
    """What everybody has lent to `taker` now: of each giver the delegation that `stands_in` finds."""
    async with conn.cursor(row_factory=class_row(Delegation)) as cursor:
        return await (await cursor.execute(_SQL["lent"], {"tenant": tenant, "taker": taker, "at": at})).fetchall()


async def add(conn: AsyncConnection[Any], tenant: str, made: Delegation) -> None:
    """Put a delegation on record."""
    row: dict[str, Any] = {
        "tenant": tenant,
        "delegation_id": made.delegation_id,
        "giver": made.giver,
        "taker": made.taker,
    }
    row |= {"roles": made.roles, "starts_at": made.starts_at, "ends_at": made.ends_at, "reason": made.reason}
    await conn.execute(_SQL["add"], row | {"by": made.made_by, "at": made.made_at})


async def revoke(
    conn: AsyncConnection[Any], tenant: str, delegation_id: UUID, *, by: str, at: datetime
) -> Delegation | None:
    """End a delegation before its time. None where there is none, or it is over already."""
    return await _one(conn, "revoke", tenant=tenant, delegation_id=delegation_id, by=by, at=at)


async def read_one(conn: AsyncConnection[Any], tenant: str, delegation_id: UUID) -> Delegation | None:
    return await _one(conn, "read", tenant=tenant, delegation_id=delegation_id)


async def holding(conn: AsyncConnection[Any], tenant: str, *, at: datetime) -> list[Delegation]:
    """The delegations that hold now or will."""
    async with conn.cursor(row_factory=class_row(Delegation)) as cursor:
        return await (await cursor.execute(_SQL["holding"], {"tenant": tenant, "at": at})).fetchall()


def delegated(interrupt_id: str, used: Delegation) -> Entry:
    """The ledger's entry for a delegation that a vote rests on: the run's own record proves by what right."""
    body = {"interrupt_id": interrupt_id, "giver": used.giver, "taker": used.taker, "roles": sorted(used.roles)}
    span = {"from": used.starts_at.isoformat(), "until": used.ends_at.isoformat()}
    return "delegated", used.taker, body | span | {"by": used.made_by}


async def _one(conn: AsyncConnection[Any], query: str, **params: Any) -> Delegation | None:
    async with conn.cursor(row_factory=class_row(Delegation)) as cursor:
        return await (await cursor.execute(_SQL[query], params)).fetchone()
