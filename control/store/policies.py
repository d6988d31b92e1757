"""The texts of rules that a tenant has had in force. A version never changes; applying a text adds one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row

from control.core.predicate import Predicate
from control.store.sql import read
from control.store.visibility import narrowed

_SQL: Final = read("policies")


@dataclass(frozen=True, slots=True)
class Stored:
    """One version. `digest` is the sha256 of the text, by which the ledger names it."""

    version: int
    digest: str
    text: str
    note: str | None
    applied_at: datetime
    applied_by: str


@dataclass(frozen=True, slots=True)
class Decided:
    """An entry of a run's ledger that holds the request it answered. `body` is JSON text."""

    run_id: UUID
    seq: int
    at: datetime
    actor: str
    kind: str
    body: str


async def in_force(conn: AsyncConnection[Any], tenant: str) -> str | None:
    """The digest of the text in force; None where the tenant has stored none."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        row = await (await cursor.execute(_SQL["in_force"], {"tenant": tenant})).fetchone()
    return row["digest"] if row else None


async def text_at(conn: AsyncConnection[Any], tenant: str, at: datetime) -> str | None:
    """The text that was in force at an instant; None where the tenant had stored none."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        row = await (await cursor.execute(_SQL["text_at"], {"tenant": tenant, "at": at})).fetchone()
    return row["text"] if row else None


async def history(conn: AsyncConnection[Any], tenant: str, *, limit: int) -> list[Stored]:
    """The versions, newest first."""
    async with conn.cursor(row_factory=class_row(Stored)) as cursor:
        return await (await cursor.execute(_SQL["history"], {"tenant": tenant, "limit": limit})).fetchall()


async def serialise(conn: AsyncConnection[Any], tenant: str) -> None:
    """Wait until nobody else applies a policy of this tenant; nobody will until the transaction ends."""
    await conn.execute(_SQL["serialise"], {"tenant": tenant})


async def add(conn: AsyncConnection[Any], tenant: str, *, text: str, digest: str, note: str | None, by: str) -> Stored:
    """A new version, in force from the commit on."""
    params = {"tenant": tenant, "text": text, "digest": digest, "note": note, "by": by}
    async with conn.cursor(row_factory=class_row(Stored)) as cursor:
        added = await (await cursor.execute(_SQL["add"], params)).fetchone()
    assert added is not None, "an insert returns its row"
    return added


async def decisions(
    conn: AsyncConnection[Any], tenant: str, span: timedelta, *, where: Predicate, stall_after: timedelta
) -> AsyncIterator[Decided]:
    """What was decided within the span before now, on runs where the condition holds, oldest first. An erased body is
    left out.
    """
    query, values = narrowed(_SQL["decisions"], where, tenant)
    params = {"tenant": tenant, "span": span, "stall_after": stall_after} | values
    async with conn.cursor(row_factory=class_row(Decided)) as cursor:
        async for found in cursor.stream(query, params):
            yield found
