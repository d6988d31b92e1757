"""Forks: a checkpoint copied to the head of its thread, as LangGraph's own `__copy__` does."""

from __future__ import annotations

from typing import Any, Final

from langgraph.checkpoint.base.id import uuid6
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from control.store.runs import Run
from control.store.sql import read

_SQL: Final = read("forks")


async def fork(conn: AsyncConnection[Any], run: Run, origin: str) -> str | None:
    """Copy one of the run's checkpoints without its pending writes, and return the copy's id. None: it has no such."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        named = {"thread_id": run.thread_id, "origin": origin, "run_id": str(run.run_id)}
        found = await (await cursor.execute(_SQL["step"], named)).fetchone()
        if found is None:
            return None
        forked = str(uuid6(clock_seq=found["step"]))
        await cursor.execute(_SQL["fork"], {**named, "forked": forked, "step": found["step"] + 1})
        return forked
