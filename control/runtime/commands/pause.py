"""Pause a run at its next step boundary, and let a paused one go on."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from control.core.facts import OutcomeKind
from control.core.lifecycle import Verb
from control.runtime.commands import Control
from control.store.runs import Run


async def pause(control: Control, run_id: UUID, *, reason: str | None = None) -> Run:
    """Order a pause. Raises `no-such-run`, `verb-not-legal`."""
    async with control.changing(run_id, Verb.PAUSE) as change:
        paused = replace(change.run, pause_at=change.at, pause_by=control.by)
        return await change.save(paused, [change.order(Verb.PAUSE, reason)])


async def resume(control: Control, run_id: UUID) -> Run:
    """Let a paused run go on, or one that stopped at a breakpoint. Raises `no-such-run`, `verb-not-legal`."""
    async with control.changing(run_id, Verb.RESUME) as change:
        run = replace(change.run, pause_at=None, pause_by=None, woken_at=change.at)
        if run.outcome == OutcomeKind.BREAKPOINT:
            run = replace(run, outcome=None, outcome_at=None)
        return await change.save(run, [change.order(Verb.RESUME)])
