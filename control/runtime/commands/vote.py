"""Hear a vote: by what right it is cast, and whether it settles the question.

The clock is looked at first: a rung that is due counts although no sweep has come by yet, and so does an expiry.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from control.core.approval import ANSWER_LATE, NOT_ENTITLED, Vote, Voter
from control.core.phrasing import instant
from control.runtime.commands import Change
from control.store import delegations, votes
from control.store.questions import Approval
from control.store.runs import Entry
from control.store.votes import Ballot, Held


@dataclass(frozen=True, slots=True)
class Hearing:
    """An open question, and who speaks to it. `entries` is what has to be on record before the vote is."""

    asked: Held
    voter: Voter
    entries: tuple[Entry, ...]

    def signature(self, *, yes: bool) -> str:
        """Whose word the decision is, should this vote settle it: of a yes, everybody's who agreed."""
        spoken = [vote.voter for vote in self.asked.approval.yes] if yes else []
        return ", ".join(signed(voter) for voter in (*spoken, self.voter))


async def hear(change: Change, question: Approval, on_behalf_of: str | None) -> Hearing:
    """The question as the clock has it, and the voter. Raises `answer-late`, `not-entitled`."""
    entries = await votes.lapse(change.conn, change.run, at=change.at)
    found = await votes.held(change.conn, change.run, question.interrupt_id)
    if not found:
        assert question.expires_at is not None, "only its own time ends a question inside a command"
        raise ANSWER_LATE.because(f"Its time ended at {instant(question.expires_at)}.")
    principal = change.control.principal
    if on_behalf_of is None or on_behalf_of == principal.actor:
        return Hearing(found[0], Voter(principal.actor, principal.roles, via=principal.makers), tuple(entries))
    lent = await delegations.stands_in(
        change.conn, change.run.tenant, giver=on_behalf_of, taker=principal.actor, at=change.at
    )
    if lent is None:
        raise NOT_ENTITLED.because(
            f"{on_behalf_of} has not arranged that {principal.actor} votes in their place at this time.",
            on_behalf_of=on_behalf_of,
        )
    voter = Voter(principal.actor, frozenset(lent.roles), on_behalf_of, principal.makers)
    return Hearing(found[0], voter, (*entries, delegations.delegated(question.interrupt_id, lent)))


async def count(
    change: Change, heard: Hearing, *, yes: bool, agreed: str | None, note: str | None
) -> tuple[bool, list[Entry]]:
    """Count the vote: whether it settles the question, and the ledger's entries. `agreed` is the JSON text of what was
    said beside a yes. Raises what `core.approval.cast` raises."""
    digest = sha256(agreed.encode()).hexdigest() if agreed is not None and yes else ""
    ballot = Ballot(Vote(heard.voter, yes, change.at, digest), agreed, note)
    after, entries = await votes.cast(change.conn, heard.asked, ballot)
    return not after.open, [*heard.entries, *(change.entry(kind, body) for kind, _, body in entries)]


def signed(voter: Voter) -> str:
    """How a voter is named where a decision says whose it was."""
    return f"{voter.name} for {voter.on_behalf_of}" if voter.on_behalf_of else voter.name
