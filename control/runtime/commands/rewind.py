"""Take a run back to an earlier checkpoint of its own.

The checkpoint is copied to the head of the thread without its pending writes, as LangGraph's own fork does: its tasks
run again and ask again, under new ids. What was answered since then is withdrawn; effects under an explicit key stay
done.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final
from uuid import UUID

from control.core.audit import parts_at
from control.core.execution import Head
from control.core.facts import Fit
from control.core.lifecycle import Verb
from control.core.problem import Problem
from control.runtime.commands import Change, Control
from control.store import questions
from control.store.checkpoints import heads
from control.store.forks import fork
from control.store.listing import entries
from control.store.runs import Run

NO_SUCH_CHECKPOINT: Final = Problem(
    code="no-such-checkpoint",
    status=404,
    title="The run has no such checkpoint",
    next_step="Choose one of those that `control story` lists for the run.",
)


async def rewind(control: Control, run_id: UUID, checkpoint_id: str | None = None) -> Run:
    """Go on from a checkpoint; None: from the head itself, dropping what hangs on it.

    Raises `no-such-run`, `verb-not-legal`, `no-such-checkpoint`, `thread-busy`.
    """
    async with control.changing(run_id, Verb.REWIND) as change:
        origin = checkpoint_id or change.run.head_checkpoint_id or ""
        forked = await fork(change.conn, change.run, origin)
        if forked is None:
            raise NO_SUCH_CHECKPOINT.because(f"{origin or 'None'} is not one of run {run_id}.")
        gone = await questions.withdraw(change.conn, change.run, keep=[], why="the run was rewound", at=change.at)
        head = (await heads(change.conn, [change.run.thread_id]))[change.run.thread_id]
        body = {
            "checkpoint_id": forked,
            "to_checkpoint_id": origin,
            "step": head.step,
            "execution": str(head.state),
        }
        told = [entry async for entry in entries(change.conn, control.tenant, run_id)]
        done = parts_at(told, origin)
        return await change.save(_forked(change, head, done), [*gone, change.entry("rewound", body)])


def _forked(change: Change, head: Head, done: tuple[str, ...]) -> Run:
    return replace(
        change.run.afresh(change.at),
        execution=head.state,
        head_checkpoint_id=head.checkpoint_id,
        head_step=head.step,
        parts=list(done),
        cancel_at=None,
        cancel_by=None,
        fit=Fit.FITS,  # the next worker looks whether its version fits the checkpoint gone back to
        branch=change.run.branch + 1,
    )
