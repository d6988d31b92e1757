"""Begin again from the first input, as a new run on a new thread. The old run stays as it is."""

from __future__ import annotations

from uuid import UUID, uuid4

from control.core.lifecycle import Verb
from control.runtime.commands import Control
from control.runtime.commands.start import start
from control.store.runs import Run


async def restart(control: Control, run_id: UUID) -> Run:
    """The new run. Raises `no-such-run`, `verb-not-legal`, and what `start` raises."""
    async with control.changing(run_id, Verb.RESTART) as change:
        old = change.run
    assert old.workflow and old.input is not None and old.input_type is not None, (
        "a script's run has no input to repeat"
    )
    value = control.serde.loads_typed((old.input_type, old.input))
    return await start(
        control,
        old.workflow,
        value,
        thread_id=str(uuid4()),
        priority=old.priority,
        config=old.config,
        restarted_from=old.run_id,
    )
