"""Limits of tenants, and what their runs have spent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from control.core.limits import Limits, Per, Quota, Use, admission
from control.store.database import Database
from control.store.sql import read

_SQL: Final = {**read("limits"), "with_runs": read("doctor")["tenants"]}
_QUOTAS: Final = ("starts", "usd", "tokens")
_Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Version:
    """Limits that were set; the newest version is in force."""

    version: int
    limits: Limits
    set_at: datetime
    set_by: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tenant uses now. started: in the span of its limit of starts, or else the last hour. usd, tokens: in the
    window of their budgets, or else this month."""

    at_work: int
    queued: int
    started: int
    usd: Decimal
    tokens: int


async def in_force(conn: AsyncConnection[Any], tenant: str) -> tuple[Limits, datetime]:
    """What the tenant is allowed, and what time it is."""
    row = await _one(conn, "in_force", tenant=tenant)
    return _limits(row), row["at"]


async def newest(conn: AsyncConnection[Any], tenant: str) -> Version | None:
    """The limits in force, and who set them; None where nobody ever did."""
    found = await history(conn, tenant, limit=1)
    return found[0] if found else None


async def history(conn: AsyncConnection[Any], tenant: str, *, limit: int) -> list[Version]:
    """Every set of limits that the tenant has had, newest first."""
    rows = await _rows(conn, "history", tenant=tenant, limit=limit)
    return [Version(row["version"], _limits(row), row["set_at"], row["set_by"]) for row in rows]


async def serialise(conn: AsyncConnection[Any], tenant: str) -> None:
    """Wait until nobody else sets limits of this tenant; nobody will until the transaction ends."""
    await conn.execute(_SQL["serialise"], {"tenant": tenant})


async def put(conn: AsyncConnection[Any], tenant: str, limits: Limits, *, by: str) -> None:
    """New limits, in force from the commit on."""
    quotas: _Row = {}
    for name in _QUOTAS:
        quota: Quota | None = getattr(limits, name)
        quotas |= {name: quota and quota.most, f"{name}_per": quota and quota.per.value}
    await conn.execute(_SQL["add"], {"tenant": tenant, "by": by, "runs_at_once": limits.runs_at_once, **quotas})


async def admit(conn: AsyncConnection[Any], limits: Limits, *, tenant: str, run_id: UUID, at: datetime) -> None:
    """Let the run stay that this transaction has added. Raises `limit-reached`, and then it must not."""
    full_since = None
    if limits.starts is not None and limits.starts.most:
        await conn.execute(_SQL["take_turn"], {"tenant": tenant})
        since, back = at - limits.starts.span, int(limits.starts.most) - 1
        found = await _rows(conn, "nth_start", tenant=tenant, run_id=run_id, since=since, back=back)
        full_since = found[0]["created_at"] if found else None
    if refusal := admission(limits, await _use(conn, tenant, limits, at=at, full_since=full_since), now=at):
        raise refusal


async def use(conn: AsyncConnection[Any], tenant: str, limits: Limits, *, at: datetime) -> Use:
    """What keeps a tenant's ready runs from being taken: how many are at work, and what is spent of its budgets."""
    at_work = 0 if limits.runs_at_once is None else (await _one(conn, "at_work", tenant=tenant))["n"]
    return await _use(conn, tenant, limits, at=at, at_work=at_work)


async def usage(conn: AsyncConnection[Any], tenant: str, limits: Limits, *, at: datetime) -> Usage:
    """What the tenant uses now, limited or not."""
    month, hour = (Quota(Decimal(0), per) for per in (Per.MONTH, Per.HOUR))
    span = (limits.starts or hour).span
    shown = Limits(usd=limits.usd or month, tokens=limits.tokens or month)
    spent = await _use(conn, tenant, shown, at=at)
    return Usage(
        at_work=(await _one(conn, "at_work", tenant=tenant))["n"],
        queued=(await _one(conn, "queued", tenant=tenant))["n"],
        started=(await _one(conn, "starts_since", tenant=tenant, since=at - span))["n"],
        usd=spent.usd,
        tokens=spent.tokens,
    )


async def recorded(conn: AsyncConnection[Any], tenant: str, run_id: UUID, *, key: str) -> bool:
    """Whether this was recorded as spent before."""
    return bool(await _rows(conn, "recorded", tenant=tenant, run_id=run_id, key=key))


async def overdrawn(conn: AsyncConnection[Any], tenant: str) -> bool:
    """Whether a budget of the tenant is used up."""
    return bool((await _one(conn, "overdrawn", tenant=tenant))["overdrawn"])


async def tenants(database: Database) -> list[str]:
    """Every tenant that has runs, or has had limits."""
    async with await database.connect("control_claim") as conn:
        found = [row["tenant"] for name in ("with_runs", "limited") for row in await _rows(conn, name)]
    return sorted(set(found))


async def _use(conn: AsyncConnection[Any], tenant: str, limits: Limits, *, at: datetime, **known: Any) -> Use:
    for name, quota in (("usd", limits.usd), ("tokens", limits.tokens)):
        if quota is not None:
            known[name] = (await _one(conn, "spent", tenant=tenant, since=quota.window(at)[0]))[name]
    return Use(**known)


def _limits(row: _Row) -> Limits:
    quotas = {
        name: None if row[name] is None else Quota(Decimal(row[name]), Per(row[f"{name}_per"])) for name in _QUOTAS
    }
    return Limits(runs_at_once=row["runs_at_once"], **quotas)


async def _one(conn: AsyncConnection[Any], query: str, **params: Any) -> _Row:
    (row,) = await _rows(conn, query, **params)
    return row


async def _rows(conn: AsyncConnection[Any], query: str, **params: Any) -> list[_Row]:
    async with conn.cursor(row_factory=dict_row) as cursor:
        return await (await cursor.execute(_SQL[query], params)).fetchall()
