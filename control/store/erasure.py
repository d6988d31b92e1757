"""Erasing what runs carried, and leaving what happened.

Ledger bodies, inputs, questions and answers, effects' outcomes, signals, and everything LangGraph keeps of the threads
go. Entries, digests, hashes, states and instants stay, and so the chains still verify. Identifiers stay too: of runs,
threads, interrupts and effects. A person's data has no business in them; `run_subject` is where a person is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from control.core.problem import Problem
from control.store.errors import THREAD_BUSY
from control.store.runs import Run, append
from control.store.sql import read

RUN_OPEN: Final = Problem(
    code="run-not-ended",
    status=409,
    title="Only what has ended can be erased",
    next_step="Let the run end, or cancel it, then erase again.",
)
THREAD_SHARED: Final = Problem(
    code="thread-shared",
    status=409,
    title="A later run on the thread cannot be read without this one",
    next_step="Erase the runs of the thread together: `control audit erase --run RUN`.",
)
FLOOR_DAYS: Final = 180
"""No payload is deleted for its age alone before this. The table `retention` has the same floor."""

_SQL: Final = read("erasure")
_THREADS: Final = read("threads")
_EACH: Final = (
    "erase_bodies", "erase_checkpoints", "erase_input", "erase_approvals", "erase_votes", "erase_waits",
    "erase_signals", "erase_effects", "erase_subjects", "erase_runs",
)  # fmt: skip
_GIVEN: Final = ("erase_input", "erase_waits", "erase_signals", "erase_effects")
Conn = AsyncConnection[Any]
Place = tuple[datetime, UUID]
"""Where a run stands among those that have ended: when it did, and its id."""
FIRST: Final[Place] = (datetime.min.replace(tzinfo=UTC), UUID(int=0))


async def about(conn: Conn, tenant: str, subject: str) -> list[UUID]:
    """The runs that are about a person."""
    return [row["run_id"] for row in await _rows(conn, "about", tenant=tenant, subject=subject)]


async def aged(conn: Conn, tenant: str, *, before: datetime, after: Place, limit: int) -> list[Place]:
    """Where runs stand that ended before an instant and still have their payloads: the first behind a place."""
    given = {"before": before, "after_at": after[0], "after_id": after[1], "limit": limit}
    return [(row["closed_at"], row["run_id"]) for row in await _rows(conn, "aged", tenant=tenant, **given)]


async def hold(conn: Conn, tenant: str, run_ids: Sequence[UUID]) -> list[Run]:
    """These runs and all others on their threads, locked. None is started there until the transaction ends."""
    threads = [row["thread_id"] for row in await _rows(conn, "hold", tenant=tenant, runs=list(run_ids))]
    return [Run.of(row) for row in await _rows(conn, "lock", tenant=tenant, threads=threads)]


async def erase(
    conn: Conn, tenant: str, held: Sequence[Run], *, by: str, why: Mapping[UUID, Mapping[str, Any]], at: datetime
) -> list[Run]:
    """Erase runs that are held, which are all on their threads; returns them. Those erased before are not erased again.

    The chain of each gets an entry first that says who, why (with what permits it) and how many bodies. Raises
    `run-not-ended`.
    """
    if still := [str(run.run_id) for run in held if run.closed_at is None]:
        raise RUN_OPEN.because(f"{_listed(still)} {'has' if len(still) == 1 else 'have'} not.", runs=still)
    left = [run for run in held if run.erased_at is None]
    threads = sorted({run.thread_id for run in held})
    given: dict[str, Any] = {"tenant": tenant, "runs": [run.run_id for run in left], "threads": threads, "at": at}
    counted = {row["run_id"]: row["bodies"] for row in await _rows(conn, "bodies", **given)}
    for run in left:
        said = {**why[run.run_id], "bodies": counted.get(run.run_id, 0)}
        await append(conn, run, [("erased", by, said)], at=at)
    for query in _EACH:
        await _execute(conn, query, **given)
    return left


async def delete(conn: Conn, run: Run, *, at: datetime) -> int:
    """Delete what one ended run worked with, and leave the record of it. Returns how many checkpoints went.

    The caller holds its thread (`hold`). What other runs left on the thread stays, and what they had carried on of this
    one. Raises `thread-busy` where one of them has not ended, and `thread-shared` where one cannot stand without this.
    """
    given = {"tenant": run.tenant, "runs": [run.run_id], "threads": [run.thread_id], "at": at, "run_id": run.run_id}
    if still := await _rows(conn, "open", **given):
        other = still[0]
        raise THREAD_BUSY.because(f"Run {other['run_id']} is {other['status']}.", run=str(other["run_id"]))
    gone: int = (await _rows(conn, "delete_own", thread_id=run.thread_id, **given))[0]["checkpoints"]
    await conn.execute(_THREADS["delete_unread"], given)
    for query in (*_GIVEN, "mark_deleted"):
        await _execute(conn, query, **given)
    if await _rows(conn, "patchwork", **given):
        raise THREAD_SHARED.because(f"Thread {run.thread_id} uses a DeltaChannel.", thread=run.thread_id)
    return gone


async def retention(conn: Conn, tenant: str) -> int | None:
    """How many days the tenant itself says that it keeps its payloads."""
    rows = await _rows(conn, "retention", tenant=tenant)
    return rows[0]["days"] if rows else None


async def keep(conn: Conn, tenant: str, days: int, *, by: str, at: datetime) -> None:
    """Let the tenant say so. The database refuses less than the floor."""
    await _execute(conn, "keep", tenant=tenant, days=days, by=by, at=at)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


async def _rows(conn: Conn, query: str, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await (await _execute(conn, query, **params)).fetchall()
    return found


async def _execute(conn: Conn, query: str, **params: Any) -> Any:
    return await conn.cursor(row_factory=dict_row).execute(_SQL[query], params)
