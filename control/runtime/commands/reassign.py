"""Give an open question to somebody else: to whom is named, or to whoever has the skills, the room and the time."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from control.core.action import Action
from control.core.approval import Voter, objection
from control.core.assignment import NO_ASSIGNEE, Candidate, Nobody
from control.core.lifecycle import Verb
from control.core.problem import Problem
from control.runtime.commands import Change, Control
from control.runtime.commands.decide import WHICH_QUESTION
from control.store import assignees, runs, votes
from control.store.runs import Run
from control.store.votes import Held

NO_SUCH_ASSIGNEE: Final = Problem(
    code="no-such-assignee",
    status=404,
    title="Nobody of that name is given questions",
    next_step="List them with `control assignees list`.",
)


async def reassign(control: Control, run_id: UUID, *, to: str | None = None, interrupt_id: str | None = None) -> Run:
    """Give the run's open question to `to`, or to whoever fits best.

    Raises `no-such-run`, `verb-not-legal`, `which-question`, `not-entitled`, `no-assignee`.
    """
    async with control.changing(run_id, Verb.REASSIGN) as change:
        entries = await votes.lapse(change.conn, change.run, at=change.at)
        asked = await _meant(change, interrupt_id)
        if to is not None:
            await _check(change, asked, to)
        given = await votes.assign(change.conn, asked, to=to, by=control.by, at=change.at)
        if isinstance(given, Nobody):
            raise NO_ASSIGNEE.because(given.why)
        kind, _, body = given
        return await change.save(change.run, [*entries, change.entry(kind, body)])


async def set_assignee(control: Control, who: Candidate) -> None:
    """Give questions to somebody from now on, or on other terms. Raises `not-permitted`."""
    async with control.transaction() as conn:
        await control.require(conn, Action.MANAGE_ASSIGNEES)
        await assignees.put(conn, control.tenant, who, by=control.by, at=await runs.now(conn))


async def remove_assignee(control: Control, name: str) -> None:
    """Give somebody no more questions; what lies with them stays there. Raises `no-such-assignee`, `not-permitted`."""
    async with control.transaction() as conn:
        await control.require(conn, Action.MANAGE_ASSIGNEES)
        if not await assignees.remove(conn, control.tenant, name):
            raise NO_SUCH_ASSIGNEE.because(f"{name} is not on the list.", name=name)


async def listed(control: Control) -> list[Candidate]:
    """Everybody whom questions are given to, with how many lie with each. Raises `not-permitted`."""
    async with control.transaction() as conn:
        await control.require(conn, Action.READ)
        return await assignees.candidates(conn, control.tenant)


async def _meant(change: Change, interrupt_id: str | None) -> Held:
    """The open question that is given away."""
    found = await votes.held(change.conn, change.run, interrupt_id)
    if len(found) != 1:
        ids = [asked.interrupt_id for asked in found]
        raise WHICH_QUESTION.because(f"{len(found)} are open that could be given to somebody.", open=ids)
    return found[0]


async def _check(change: Change, asked: Held, to: str) -> None:
    """Refuse to give it to somebody on the list who may not approve it. Nobody knows the roles of others."""
    known = await assignees.candidates(change.conn, change.run.tenant)
    for candidate in known:
        refusal = objection(asked.approval, Voter(candidate.name, candidate.roles), yes=True)
        if candidate.name == to and refusal is not None:
            raise refusal
