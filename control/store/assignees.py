"""Assignees: to whom questions are given, and what lies with each."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from control.core.assignment import Candidate
from control.store.sql import read

_SQL: Final = read("assignees")


async def lock(conn: AsyncConnection[Any], tenant: str) -> None:
    """Assign alone in this tenant until the transaction ends, so that no room is given away twice."""
    await conn.execute(_SQL["assigning"], {"tenant": tenant})


async def candidates(conn: AsyncConnection[Any], tenant: str, *, before: datetime | None = None) -> list[Candidate]:
    """Everybody whom questions are given to, with what lies with them; `before` is when the question at hand is due."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_SQL["candidates"], {"tenant": tenant, "before": before})
        return [
            Candidate(
                row["name"],
                frozenset(row["roles"]),
                frozenset(row["skills"]),
                row["capacity"],
                row["open"],
                row["due_sooner"],
                row["away_until"],
            )
            for row in await cursor.fetchall()
        ]


async def put(conn: AsyncConnection[Any], tenant: str, who: Candidate, *, by: str, at: datetime) -> None:
    """Give questions to somebody from now on, or on other terms."""
    params: dict[str, Any] = {
        "tenant": tenant,
        "name": who.name,
        "roles": sorted(who.roles),
        "skills": sorted(who.skills),
    }
    params |= {"capacity": who.capacity, "away_until": who.away_until, "by": by, "at": at}
    await conn.execute(_SQL["set"], params)


async def remove(conn: AsyncConnection[Any], tenant: str, name: str) -> bool:
    """Give somebody no more questions. False where they were given none."""
    cursor = await conn.execute(_SQL["remove"], {"tenant": tenant, "name": name})
    return await cursor.fetchone() is not None
