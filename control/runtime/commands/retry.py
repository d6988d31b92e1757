"""Try a failed or abandoned run again, from the step that failed."""

from __future__ import annotations

from uuid import UUID

from control.core.lifecycle import Verb
from control.runtime.commands import Control
from control.store.runs import Run


async def retry(control: Control, run_id: UUID, *, reason: str | None = None) -> Run:
    """Queue the run again; finished steps are kept. Raises `no-such-run`, `verb-not-legal`, `thread-busy`."""
    async with control.changing(run_id, Verb.RETRY) as change:
        return await change.save(change.run.afresh(change.at), [change.order(Verb.RETRY, reason)])
