"""What time and death bring about: timers fire, retries come due, and runs are taken from workers that are gone.

Any worker does this for all; each act is a transition under the run's lock, so that two sweeps cannot do it twice. A
sweep that finds a run locked leaves it to whoever holds it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from control.core.execution import Execution
from control.core.facts import Fit, OutcomeKind
from control.store import questions, runs, votes
from control.store.checkpoints import heads
from control.store.claims import Orphan
from control.store.database import Connection, Database
from control.store.runs import Entry, Run
from control.store.writers import left_by_its_script

CLOCK: Final = "clock"
CONTROL: Final = "control"


def _lost(orphan: Orphan, run: Run, delivered: list[str]) -> dict[str, Any]:
    """The body of the ledger's entry for a take-over."""
    body = {"worker": str(orphan.worker_id), "why": orphan.why, "execution": str(run.execution)}
    return body | ({} if orphan.crashed else {"crash": False}) | ({"delivered": delivered} if delivered else {})


class Recovery:
    """The sweeps' transitions. `crash_limit`: how many workers a run may take down before it is abandoned."""

    def __init__(self, database: Database, *, crash_limit: int) -> None:
        self._database, self._crash_limit = database, crash_limit

    async def take_over(self, orphan: Orphan) -> bool:
        """Take a run from a worker that is gone. False where somebody else did, or the worker came back and let go."""
        async with self._database.scope("control_flush", orphan.tenant) as conn:
            run = await runs.lock_run_if_free(conn, orphan.tenant, orphan.run_id)
            if run is None or (run.epoch, run.worker_id) != (orphan.epoch, orphan.worker_id):
                return False
            at = await runs.now(conn)
            head = (await heads(conn, [run.thread_id]))[run.thread_id]
            scripted = run.workflow is None
            begun = scripted or head.metadata.get("run_id") == str(run.run_id)
            free = replace(
                run, worker_id=None, claimed_at=None, outcome_at=at, execution=head.state if begun else Execution.NONE
            )
            if scripted:
                await self._save(conn, *await left_by_its_script(conn, run, head=head, at=at), at=at)
                return True
            delivered = await questions.settle(conn, run, pending=[q.id for q in head.open] if begun else [], at=at)
            crashes = run.crashes + orphan.crashed
            free = replace(free, failure_class=None, failure={"error": orphan.why})
            lost = replace(free, outcome=OutcomeKind.LOST, crashes=crashes, takeovers=run.takeovers + 1)
            entry = ("worker_lost", CONTROL, _lost(orphan, lost, delivered))
            kept = await questions.fire(conn, run, at=at)  # signals that came before the wait that its worker opened
            await self._save(conn, lost, [entry, *kept], at=at)
            return True

    async def wake(self, tenant: str, run_id: UUID) -> bool:
        """Bring about what a run's clock says: fire its timers, escalate, reassign or expire its approvals,
        make its retry or start ready.
        """
        async with self._database.scope("control_flush", tenant) as conn:
            run = await runs.lock_run_if_free(conn, tenant, run_id)
            at = await runs.now(conn)
            if run is None or run.worker_id is not None or run.due_at is None or run.due_at > at:
                return False
            entries = [*await questions.fire(conn, run, at=at), *await votes.lapse(conn, run, at=at)]
            answered = any(kind in ("fired", "decided") for kind, *_ in entries)
            woken = replace(run, woken_at=at) if answered else run
            if run.retry_at and run.retry_at <= at:
                woken = replace(woken, retry_at=None, outcome=None, outcome_at=None, woken_at=at)
                entries.append(("woken", CLOCK, {"why": "retry"}))
            elif run.not_before and run.not_before <= at:
                woken = replace(woken, not_before=None, woken_at=at)
                entries.append(("woken", CLOCK, {"why": "start"}))
            await self._save(conn, woken, entries, at=at)
            return bool(entries)

    async def readopt(self, tenant: str, run_id: UUID, digest: str) -> bool:
        """Unblock a run that fits the version of this digest."""
        async with self._database.scope("control_flush", tenant) as conn:
            run = await runs.lock_run_if_free(conn, tenant, run_id)
            if run is None or run.worker_id is not None or run.fit != Fit.CHANGED:
                return False
            at = await runs.now(conn)
            body = {"digest": digest, "from": run.graph_digest}
            fits = replace(run, fit=Fit.FITS, graph_digest=digest, woken_at=at)
            await self._save(conn, fits, [("adopted", CONTROL, body)], at=at)
            return True

    async def _save(self, conn: Connection, run: Run, entries: list[Entry], *, at: datetime) -> None:
        await runs.save_run(conn, run, entries, at=at, crash_limit=self._crash_limit)
