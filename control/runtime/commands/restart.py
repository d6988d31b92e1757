"""Begin again from the first input, as a new run on a new thread. The old run stays as it is."""

from __future__ import annotations

from typing import Final
from uuid import UUID, uuid4

from control.core.lifecycle import Verb
from control.core.problem import Problem
from control.runtime.commands import Control
from control.runtime.commands.start import start
from control.store import runs
from control.store.runs import Run

NO_INPUT: Final = Problem(
    code="no-input-recorded",
    status=409,
    title="The run has no input to begin again from",
    next_step="Run its script again, on another thread.",
)


async def restart(control: Control, run_id: UUID) -> Run:
    """The new run. Raises `no-such-run`, `verb-not-legal`, and what `start` raises."""
    async with control.changing(run_id, Verb.RESTART) as change:
        old, given = change.run, await runs.input_of(change.conn, change.run)
        subjects = await runs.subjects_of(change.conn, change.run)
    if old.workflow is None or given is None:
        raise NO_INPUT.because("A script drove it, and kept its input to itself.", run=str(run_id))
    value = control.serde.loads_typed(given)
    return await start(
        control,
        old.workflow,
        value,
        thread_id=str(uuid4()),
        priority=old.priority,
        config=old.config,
        restarted_from=old.run_id,
        subjects=subjects,
    )
