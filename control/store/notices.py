"""Notices: what is to be told to which sink, and what came of each try.

They are written by the database itself, in the transaction that appends the ledger entry (migration 0010), together
with the job that delivers them. Here they are read, tried and settled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row

from control.core.notice import Asked, Notice
from control.core.sink import SinkKind
from control.store.sinks import unknown
from control.store.sql import read

_SQL: Final = read("notices")
_PRUNED_AT_ONCE: Final = 50


@dataclass(frozen=True, slots=True)
class Try:
    """One try at delivering a notice. `secrets`: those that are valid, the newest first; none for mail."""

    notice: Notice
    kind: SinkKind
    target: str
    removed: bool
    tries: int
    at: datetime
    secrets: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """A notice as the log has it. Neither delivered nor failed: it is still being tried."""

    notice_id: UUID
    sink_id: str
    kind: str
    target: str
    event: str
    run_id: UUID | None
    seq: int | None
    made_at: datetime
    tries: int
    tried_at: datetime | None
    delivered_at: datetime | None
    failed_at: datetime | None
    error: str | None

    @property
    def condition(self) -> str:
        if self.delivered_at:
            return "delivered"
        return "failed" if self.failed_at else "trying" if self.tries else "waiting"


async def sink_of(conn: AsyncConnection[Any], tenant: str, notice_id: UUID) -> str | None:
    """The id of the sink that the notice is for; None where there is no such notice."""
    given = {"tenant": tenant, "notice_id": notice_id}
    row = await (await conn.cursor(row_factory=dict_row).execute(_SQL["addressed_to"], given)).fetchone()
    return row["sink_id"] if row else None


async def begin(conn: AsyncConnection[Any], tenant: str, notice_id: UUID) -> Try | None:
    """Count a try, and say what is to be told and where. None: it is settled already, or there is no such notice."""
    cursor = conn.cursor(row_factory=dict_row)
    row = await (await cursor.execute(_SQL["begin"], {"tenant": tenant, "notice_id": notice_id})).fetchone()
    if row is None:
        return None
    about = None
    if row["run_id"] is not None:
        given = {"tenant": tenant, "run_id": row["run_id"], "seq": row["seq"]}
        about = await (await cursor.execute(_SQL["about"], given)).fetchone()
    secrets = tuple(bytes(secret) for secret in (row["secret"], row["before"]) if secret is not None)
    told = _notice(row, about)
    return Try(told, SinkKind(row["kind"]), row["target"], row["removed"], row["tries"], row["now"], secrets)


async def settle(
    conn: AsyncConnection[Any],
    tenant: str,
    notice_id: UUID,
    *,
    delivered: bool = False,
    failed: bool = False,
    error: str | None = None,
) -> None:
    """Record what came of a try; neither delivered nor failed means that it is tried again."""
    given = {"tenant": tenant, "notice_id": notice_id, "delivered": delivered, "failed": failed, "error": error}
    await conn.execute(_SQL["settle"], given)


async def prune(conn: AsyncConnection[Any], tenant: str, *, kept: timedelta) -> None:
    """Delete the oldest settled notices of those made longer ago than `kept`: a bounded number, and more than one."""
    await conn.execute(_SQL["prune"], {"tenant": tenant, "kept": kept, "limit": _PRUNED_AT_ONCE})


async def try_out(conn: AsyncConnection[Any], tenant: str, sink_id: str) -> UUID:
    """Have a test delivered to a sink. Raises `no-such-sink`."""
    cursor = conn.cursor(row_factory=dict_row)
    row = await (await cursor.execute(_SQL["try_out"], {"tenant": tenant, "sink_id": sink_id})).fetchone()
    if row is None:
        raise unknown(sink_id)
    notice_id: UUID = row["notice_id"]
    return notice_id


async def listed(conn: AsyncConnection[Any], tenant: str, *, failed: bool = False, limit: int = 100) -> list[Told]:
    """The tenant's newest notices; with `failed`, those that were given up alone."""
    given = {"tenant": tenant, "failed": failed, "limit": limit}
    return await (await conn.cursor(row_factory=class_row(Told)).execute(_SQL["list"], given)).fetchall()


async def read_one(conn: AsyncConnection[Any], tenant: str, notice_id: UUID) -> Told:
    """A notice that is known to be there."""
    given = {"tenant": tenant, "notice_id": notice_id}
    found = await (await conn.cursor(row_factory=class_row(Told)).execute(_SQL["read"], given)).fetchone()
    assert found is not None
    return found


def _notice(row: Mapping[str, Any], about: Mapping[str, Any] | None) -> Notice:
    told = Notice(notice_id=str(row["notice_id"]), event=row["event"], at=row["made_at"], tenant=row["tenant"])
    if about is None:
        return told
    question = None
    if about["interrupt_id"] is not None:
        names = ("interrupt_id", "kind", "title", "node")
        asked = {name: about[name] for name in names} | {"digest": about["packet_digest"]}
        question = Asked(**asked, expires_at=about["expires_at"], open=about["open"])
    return Notice(
        notice_id=told.notice_id,
        event=told.event,
        at=told.at,
        tenant=told.tenant,
        run_id=str(row["run_id"]),
        thread_id=about["thread_id"],
        workflow=about["workflow"],
        status=about["status"],
        seq=row["seq"],
        by=about["actor"],
        entry=json.loads(about["body"]) if about["body"] else None,
        question=question,
    )
