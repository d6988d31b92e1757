"""Start a run: an input is accepted, and from then on is somebody's business."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from control.core.lifecycle import Verb
from control.core.run_status import Status
from control.runtime.authority import resource_of
from control.runtime.commands import Control, check_size
from control.runtime.workflows import pick
from control.store import limits, runs
from control.store.runs import Run


async def start(
    control: Control,
    workflow: str,
    value: Any,
    *,
    thread_id: str | None = None,
    priority: int = 0,
    not_before: datetime | None = None,
    config: dict[str, Any] | None = None,
    run_id: UUID | None = None,
    restarted_from: UUID | None = None,
    subjects: Iterable[str] = (),
) -> Run:
    """Accept an input; the run is queued when this returns. A `run_id` given twice starts one run.

    `subjects` are the persons it is about, under the names by which they may ask for erasure.

    Raises `not-permitted`, `agreement-needed`, `unknown-workflow`, `invalid-input`, `input-too-large`, `thread-busy`,
    `state-not-serialisable`, `type-not-allowed`, `limit-reached`.
    """
    described = pick(control.workflows, workflow)
    kind, data = control.serde.dumps_typed(described.check_input(value))
    check_size(control, len(data))
    run_id = run_id or uuid4()
    async with control.transaction() as conn:
        allowed, at = await limits.in_force(conn, control.tenant)
        row = {
            "tenant": control.tenant,
            "run_id": run_id,
            "thread_id": thread_id or str(run_id),
            "workflow": workflow,
            "config": config or {},
            "priority": priority,
            "at": at,
            "created_by": control.by,
            "created_via": sorted(control.principal.makers),
            "restarted_from": restarted_from,
            "not_before": not_before,
            "parts_total": described.parts_total,
        }
        grant = (await control.authority(conn)).require(Verb.START, resource_of(row, Status.QUEUED))
        run = await runs.add_run(conn, row, (kind, data))
        if run is None:
            before = await runs.read_run(conn, control.tenant, run_id)
            return before if before.created_by == control.by else (await control.read(conn, run_id)).run
        await limits.admit(conn, allowed, tenant=control.tenant, run_id=run_id, at=at)
        await runs.add_subjects(conn, run, subjects)
        entry = ("accepted", control.by, _accepted(run, control) | grant.body)
        return await runs.save_run(conn, run, [entry], at=at, crash_limit=control.crash_limit)


def _accepted(run: Run, control: Control) -> dict[str, Any]:
    body: dict[str, Any] = {
        "workflow": run.workflow,
        "thread_id": run.thread_id,
        "priority": run.priority,
        "crash_limit": control.crash_limit,
    }
    if run.not_before:
        body["not_before"] = run.not_before.isoformat()
    if run.restarted_from:
        body["restarted_from"] = str(run.restarted_from)
    return body
