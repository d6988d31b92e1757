"""Facts of a tenant: named values that decisions rest on. Each is what it is now; the packets keep what it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import class_row

from control.store.sql import read

_SQL: Final = read("facts")


@dataclass(frozen=True, slots=True)
class Fact:
    """`value` is JSON text."""

    name: str
    value: str
    set_at: datetime
    set_by: str


async def put(conn: AsyncConnection[Any], tenant: str, *, name: str, value: str, by: str) -> Fact:
    """Say what a fact is now. Waits for effects that are beginning on what it was."""
    await conn.execute(_SQL["change"], {"tenant": tenant})
    async with conn.cursor(row_factory=class_row(Fact)) as cursor:
        await cursor.execute(_SQL["put"], {"tenant": tenant, "name": name, "value": value, "by": by})
        found = await cursor.fetchone()
    assert found is not None, "an insert returns its row"
    return found


async def known(conn: AsyncConnection[Any], tenant: str, names: Sequence[str] | None = None) -> list[Fact]:
    """What is known, by name; with `names`, of these alone."""
    given = {"tenant": tenant, "names": None if names is None else list(names)}
    async with conn.cursor(row_factory=class_row(Fact)) as cursor:
        return await (await cursor.execute(_SQL["of_tenant"], given)).fetchall()


async def rest(conn: AsyncConnection[Any], tenant: str) -> None:
    """Let the tenant's facts and policy be as they are until the transaction ends."""
    await conn.execute(_SQL["rest"], {"tenant": tenant})
