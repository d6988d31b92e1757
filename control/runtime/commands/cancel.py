"""Cancel a run: at once where nobody works on it, otherwise at its next step boundary or after the grace."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from control.core.lifecycle import Verb
from control.runtime.commands import Control
from control.store.runs import Run


async def cancel(control: Control, run_id: UUID, *, reason: str | None = None) -> Run:
    """Order a cancel. What it has done stays done. Raises `no-such-run`, `verb-not-legal`."""
    async with control.changing(run_id, Verb.CANCEL) as change:
        cancelled = replace(change.run, cancel_at=change.at, cancel_by=control.by)
        return await change.save(cancelled, [change.order(Verb.CANCEL, reason)])
