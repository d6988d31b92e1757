"""Delete a run that has ended: its checkpoints, what it was given, and what its effects brought. The record stays.

What stays is what a tenant owes for as long as it keeps its record, and never less than 180 days: the ledger with its
bodies, what was asked, what was answered and by whom. Age alone takes that (`erase.prune`), or an erasure by name. So
deleting a run early loses nothing of it that a reader of the record could miss.

On a thread with other runs only what is this run's goes. They must have ended as well: one that is at work reads what
this one left. The thread stays its tenant's, so that nobody else can take its name.
"""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from control.core.lifecycle import Verb
from control.runtime.commands import Control
from control.store import erasure
from control.store.runs import Run


async def delete(control: Control, run_id: UUID, *, reason: str | None = None) -> Run:
    """Delete what the run worked with. Raises `no-such-run`, `verb-not-legal`, `thread-busy`, `thread-shared`."""
    async with control.changing(run_id, Verb.DELETE, whole_thread=True) as change:
        checkpoints = await erasure.delete(change.conn, change.run, at=change.at)
        body = {"checkpoints": checkpoints} | ({"reason": reason} if reason else {})
        return await change.save(
            replace(change.run, deleted_at=change.at, config={}, blocked_in=None), [change.entry("deleted", body)]
        )
