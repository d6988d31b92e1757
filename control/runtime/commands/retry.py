"""Try a failed or abandoned run again, from the step that failed."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from control.core.lifecycle import Verb
from control.runtime.commands import Control
from control.runtime.commands.cancel import order
from control.store.runs import Run


async def retry(control: Control, run_id: UUID, *, reason: str | None = None) -> Run:
    """Queue the run again; finished steps are kept. Raises `no-such-run`, `verb-not-legal`, `thread-busy`."""
    async with control.changing(run_id, Verb.RETRY) as change:
        again = replace(
            change.run,
            outcome=None,
            outcome_at=None,
            failure=None,
            failure_class=None,
            retry_at=None,
            retries=0,
            crashes=0,
            woken_at=change.at,
        )
        return await change.save(again, [order(control, "retry", reason)])
