"""Erase what runs carried: for a person who asks for it, for named runs, or because it is old enough.

A person is whoever a run was started about (`start(..., subjects=...)`). What a run read from its thread it may have
carried on, so all runs on a thread are erased together; and only runs that have ended are.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from control.core.action import Action
from control.core.problem import Problem
from control.core.run_status import Status
from control.runtime.authority import resource
from control.runtime.commands import Control
from control.store import erasure, runs
from control.store.erasure import FLOOR_DAYS
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


async def erase_person(control: Control, subject: str, *, why: str) -> list[Run]:
    """Erase every run about a person, whole or not at all. Raises `no-such-subject`, `run-not-ended`,
    `not-permitted`."""
    grant = await control.permit(Action.ERASE)
    async with control.database.scope("control_flush", control.tenant) as conn:
        found = await erasure.about(conn, control.tenant, subject)
        if not found:
            raise NOBODY.because("Their runs have been erased already, or there never was one.")
        said, at = {"why": why} | grant.body, await runs.now(conn)
        return await erasure.erase(conn, control.tenant, found, by=control.by, why=said, at=at)


async def erase_runs(control: Control, run_ids: Sequence[UUID], *, why: str) -> list[Run]:
    """Erase these runs and all on their threads, whole or not at all. Raises `no-such-run`, `run-not-ended`,
    `not-permitted`."""
    async with control.transaction() as conn:
        authority, said = await control.authority(conn), {"why": why}
        for run_id in run_ids:
            run = await runs.read_run(conn, control.tenant, run_id)
            said |= authority.require("erase", resource(run, Status(run.status))).body
    async with control.database.scope("control_flush", control.tenant) as conn:
        at = await runs.now(conn)
        return await erasure.erase(conn, control.tenant, run_ids, by=control.by, why=said, at=at)


async def prune(control: Control, *, days: int) -> int:
    """Erase what ended longer ago than the tenant's retention, or else `days`. Returns how many runs.

    Page by page, each in a transaction: what was erased when it is interrupted stays erased.
    """
    grant, erased = await control.permit(Action.ERASE), 0
    while True:
        async with control.database.scope("control_flush", control.tenant) as conn:
            own = await erasure.retention(conn, control.tenant)
            kept, at = max(own or days, FLOOR_DAYS), await runs.now(conn)
            before = at - timedelta(days=kept)
            found = await erasure.aged(conn, control.tenant, before=before, limit=_PAGE)
            if not found:
                return erased
            why = {"why": f"kept for {kept} days"} | grant.body
            erased += len(await erasure.erase(conn, control.tenant, found, by=control.by, why=why, at=at))


async def retain(control: Control, days: int) -> None:
    """Set how long the tenant keeps its payloads. Raises `retention-below-floor`."""
    if days < FLOOR_DAYS:
        raise BELOW_FLOOR.because(f"{days} days were asked for.", days=days, floor=FLOOR_DAYS)
    await control.permit(Action.ERASE)
    async with control.transaction() as conn:
        await erasure.keep(conn, control.tenant, days, by=control.by, at=await runs.now(conn))
