"""Erase what runs carried: for a person who asks for it, for named runs, or because it is old enough.

A person is whoever a run was started about (`start(..., subjects=...)`). What a run read from its thread it may have
carried on, so all runs on a thread are erased together; and only runs that have ended are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from control.core.action import Action
from control.core.problem import Problem
from control.core.run_status import Status
from control.core.verdict import Permit
from control.policy.port import Resource
from control.runtime.authority import Authority, resource
from control.runtime.commands import Control
from control.store import erasure, runs
from control.store.database import Connection
from control.store.erasure import FIRST, FLOOR_DAYS, Place
from control.store.runs import Run

NOBODY: Final = Problem(
    code="no-such-subject",
    status=404,
    title="No run is about this person",
    next_step="Name the runs themselves; a run is about whom it was started with `--subject`.",
)
BELOW_FLOOR: Final = Problem(
    code="retention-below-floor",
    status=422,
    title="Payloads may not be deleted that early",
    next_step=f"Keep them for at least {FLOOR_DAYS} days; what a person wants erased is erased by name.",
)
_PAGE: Final = 100  # runs erased in one transaction


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many runs were erased for their age, and of how many policy keeps what they carried."""

    erased: int
    kept: int


async def erase_person(control: Control, subject: str, *, why: str) -> list[Run]:
    """Erase every run about a person and all on their threads, whole or not at all. Raises `no-such-subject`,
    `run-not-ended`, `not-permitted`."""
    async with control.database.scope("control_flush", control.tenant) as conn:
        await control.require(conn, Action.ERASE)
        found = await erasure.about(conn, control.tenant, subject)
        if not found:
            raise NOBODY.because("Their runs have been erased already, or there never was one.")
        return await _erase(control, conn, await erasure.hold(conn, control.tenant, found), why=why)


async def erase_runs(control: Control, run_ids: Sequence[UUID], *, why: str) -> list[Run]:
    """Erase these runs and all on their threads, whole or not at all. Raises `no-such-run`, `run-not-ended`,
    `not-permitted`."""
    async with control.database.scope("control_flush", control.tenant) as conn:
        held = await erasure.hold(conn, control.tenant, run_ids)
        for missing in set(run_ids).difference(run.run_id for run in held):
            raise runs.unknown(missing)
        return await _erase(control, conn, held, why=why, named=run_ids)


async def prune(control: Control, *, days: int) -> Pruned:
    """Erase what ended longer ago than the tenant's retention, or else `days`. A thread stays of which policy keeps a
    run.

    Page by page, each in a transaction: what was erased when it is interrupted stays erased.
    """
    erased = kept = 0
    place: Place | None = FIRST
    while place is not None:
        async with control.database.scope("control_flush", control.tenant) as conn:
            await control.require(conn, Action.ERASE)
            retained = max(await erasure.retention(conn, control.tenant) or days, FLOOR_DAYS)
            before = await runs.now(conn) - timedelta(days=retained)
            found = await erasure.aged(conn, control.tenant, before=before, after=place, limit=_PAGE)
            ids = [run_id for _, run_id in found]
            held = await erasure.hold(conn, control.tenant, ids)
            authority = await control.authority(conn)
            spared = {run.thread_id for run in held if not _permitted(authority, run)}
            going = [run for run in held if run.thread_id not in spared]
            erased += len(await _erase(control, conn, going, why=f"kept for {retained} days"))
            kept += sum(run.run_id in ids for run in held if run.thread_id in spared)
            place = found[-1] if len(found) == _PAGE else None
    return Pruned(erased, kept)


async def retain(control: Control, days: int) -> None:
    """Set how long the tenant keeps its payloads. Raises `retention-below-floor`."""
    if days < FLOOR_DAYS:
        raise BELOW_FLOOR.because(f"{days} days were asked for.", days=days, floor=FLOOR_DAYS)
    async with control.transaction() as conn:
        await control.require(conn, Action.ERASE)
        await erasure.keep(conn, control.tenant, days, by=control.by, at=await runs.now(conn))


async def _erase(
    control: Control, conn: Connection, held: Sequence[Run], *, why: str, named: Collection[UUID] = ()
) -> list[Run]:
    """Erase runs that are held, each by a permit of its own. Raises `no-such-run`, `run-not-ended`, `not-permitted`."""
    authority = await control.authority(conn)
    said: dict[UUID, dict[str, Any]] = {}
    for run in held:
        thread = None if run.run_id in named else Resource("Thread", run.thread_id, run.tenant)
        grant = authority.require_of(Action.ERASE, run, Status(run.status), part_of=thread)
        said[run.run_id] = {"why": why} | grant.body
    return await erasure.erase(conn, control.tenant, held, by=control.by, why=said, at=await runs.now(conn))


def _permitted(authority: Authority, run: Run) -> bool:
    return isinstance(authority.judge(Action.ERASE, resource(run, Status(run.status))), Permit)
