"""Sinks at rest, and the secrets that sign what is sent to them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from control.core.problem import Problem
from control.core.sink import Event, Sink, SinkKind, Wanted
from control.store.sql import read

NO_SUCH_SINK: Final = Problem(
    code="no-such-sink",
    status=404,
    title="There is no such sink",
    next_step="List them with `control notify list`; only a webhook has a secret.",
)
_SQL: Final = read("sinks")


async def add(
    conn: AsyncConnection[Any], tenant: str, wanted: Wanted, *, sink_id: str, secret: bytes | None, by: str
) -> Sink:
    """Store a sink that was checked and permitted; `secret` for a webhook."""
    given = {
        "tenant": tenant, "sink_id": sink_id, "kind": wanted.kind.value, "target": wanted.target, "by": by,
        "events": sorted(wanted.events), "audience": sorted(wanted.audience) or None,
    }  # fmt: skip
    made = await _row(conn, "add", given)
    assert made is not None
    if secret is not None:
        await conn.execute(_SQL["add_secret"], {"tenant": tenant, "sink_id": sink_id, "secret": secret})
    return _sink(made)


async def listed(conn: AsyncConnection[Any], tenant: str, *, removed: bool = False) -> list[Sink]:
    """The tenant's sinks, oldest first; with `removed`, those too that are no more."""
    cursor = await conn.cursor(row_factory=dict_row).execute(_SQL["list"], {"tenant": tenant, "all": removed})
    return [_sink(row) for row in await cursor.fetchall()]


async def remove(conn: AsyncConnection[Any], tenant: str, sink_id: str, *, by: str) -> Sink:
    """End a sink, and forget its secret. Raises `no-such-sink`."""
    row = await _row(conn, "remove", {"tenant": tenant, "sink_id": sink_id, "by": by})
    if row is None:
        raise unknown(sink_id)
    await conn.execute(_SQL["forget"], {"tenant": tenant, "sink_id": sink_id})
    return _sink(row)


async def rotate(
    conn: AsyncConnection[Any], tenant: str, sink_id: str, *, secret: bytes, overlap: timedelta
) -> datetime:
    """Give a webhook another secret. Returns until when the one before stays valid. Raises `no-such-sink`."""
    given = {"tenant": tenant, "sink_id": sink_id, "secret": secret, "overlap": overlap}
    row = await _row(conn, "rotate", given)
    if row is None:
        raise unknown(sink_id)
    until: datetime = row["before_until"]
    return until


def unknown(sink_id: str) -> Exception:
    return NO_SUCH_SINK.because(f"No sink of this tenant that could be meant has the id {sink_id}.")


def _sink(row: Mapping[str, Any]) -> Sink:
    return Sink(
        sink_id=row["sink_id"],
        kind=SinkKind(row["kind"]),
        target=row["target"],
        events=frozenset(map(Event, row["events"])),
        audience=frozenset(row["audience"] or ()),
        made_by=row["made_by"],
        made_at=row["made_at"],
        removed_at=row["removed_at"],
    )


async def _row(conn: AsyncConnection[Any], query: str, given: dict[str, Any]) -> Mapping[str, Any] | None:
    return await (await conn.cursor(row_factory=dict_row).execute(_SQL[query], given)).fetchone()
