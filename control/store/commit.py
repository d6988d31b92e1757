"""One batch in one transaction: the flush itself, in the form that it needs, and what few flushes have besides."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final, LiteralString

import psycopg

from control.store.errors import told
from control.store.item import Batch, Fence
from control.store.sql import Numbered, numbered, read, without

_SQL: Final = read("flush")
_LONG: Final = numbered(_SQL["flush"])
_SHORT: Final = numbered(without(_SQL["flush"], "long"))
_FATES: Final = numbered(_SQL["fates"])


class Untold(Exception):
    """The flush has been answered, and its question for the rest has failed: what it wrote is committed."""


async def commit(conn: psycopg.AsyncConnection[Any], batch: Batch, flush: int) -> dict[Fence, tuple[str, int | None]]:
    """Write the batch under this flush's number. Returns what became of each run, and its version. Raises what the
    database says of a batch that it did not write, and `Untold`: then only the same number writes nothing twice.
    """
    short = batch.short()
    columns, rare = batch.columns(flush, short=short), _rare(batch, flush)
    async with conn.transaction() if rare else contextlib.nullcontext():
        written = await _rows(conn, _SHORT if short else _LONG, columns)
        for query, params in rare:
            await conn.execute(query, params)
    fates = {i: ("written", version) for i, version in written}
    if len(fates) < len(batch.groups):
        fates = await _fates(conn, columns) | fates
    return {fence: fates[i] for i, fence in enumerate(batch.groups, start=1)}


async def _fates(conn: psycopg.AsyncConnection[Any], columns: Mapping[str, Any]) -> dict[int, tuple[str, int | None]]:
    try:
        return {i: (fate, version) for i, fate, version in await _rows(conn, _FATES, columns)}
    except Exception as error:
        raise Untold(told(error)) from error


async def _rows(conn: psycopg.AsyncConnection[Any], query: Numbered, params: Mapping[str, Any]) -> list[Any]:
    cursor = psycopg.AsyncRawCursor(conn)
    await cursor.execute(query.text, query.values(params), prepare=True)
    return await cursor.fetchall()


def _rare(batch: Batch, flush: int) -> list[tuple[LiteralString, dict[str, Any]]]:
    """What few flushes have besides: it is written in the same transaction, for the runs that the flush admitted."""
    parts = {
        "write_marks": batch.marks(),
        "open_approvals": batch.approvals(),
        "open_waits": batch.waits(),
        "write_effects": batch.effects(),
        "settle": batch.settled(),
        "write_spends": (spends := batch.spends()),
        "halt_overdrawn": spends,
    }
    also = {"flush": flush, "tenants": batch.tenants()}
    return [(_SQL[name], params | also) for name, params in parts.items() if params]
