"""What policy said of a run's intents, as the run's own ledger has it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from control.store.runs import Run, append
from control.store.sql import read

_SQL: Final = read("verdicts")
_ONCE_IN: Final = timedelta(hours=1)
_LOOKED_BACK: Final = 200  # entries of a ledger


async def judged(conn: AsyncConnection[Any], run: Run, key: str) -> dict[str, Any] | None:
    """The entry on this intent, if the present step has one: see `judged` in `core.ledger`."""
    return await _body(conn, "judged", run.key(key=key))


async def starter_roles(conn: AsyncConnection[Any], run: Run) -> list[str] | None:
    """The roles that whoever started the run had then; None where that was erased, or a script started it."""
    found = await _body(conn, "starter", run.key())
    request = (found or {}).get("request")
    return request["principal"]["roles"] if request else None


async def put_refusal(conn: AsyncConnection[Any], run: Run, body: dict[str, Any], *, actor: str, at: datetime) -> None:
    """Put it on record in the ledger of a locked run that policy refused something (`Authority.refused`), once an hour
    at most: whoever tries again and again could make the ledger as long as he likes.
    """
    given = {"actor": actor, "action": body["action"], "policy": body["policy"], "since": at - _ONCE_IN}
    cursor = await conn.execute(_SQL["refused_lately"], run.key(**given, limit=_LOOKED_BACK))
    if await cursor.fetchone() is None:
        await append(conn, run, [("refused", actor, body)], at=at)


async def _body(conn: AsyncConnection[Any], name: str, params: dict[str, Any]) -> dict[str, Any] | None:
    async with conn.cursor(row_factory=dict_row) as cursor:
        row = await (await cursor.execute(_SQL[name], params)).fetchone()
    body: dict[str, Any] | None = json.loads(row["body"]) if row and row["body"] else None
    return body
