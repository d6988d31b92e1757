"""The decision of a question: votes, quorum, time, and the one way out.

`EDGES` is the whole rule. An event has a meaning (`On`) that the approval's own facts give it, a yes that fills the
quorum being another event than one that does not; the pair is looked up, and what has no edge is refused whole. All
edges lead out of `OPEN`: a settled question never changes.

A person counts once, however many roles, delegations or keys: the persons of two yes votes, whoever cast it, in whose
place and with a key of whose making, are never the same. One no settles it, and may come from somebody who said yes
before. A yes that fills no seat is not taken: a rung that calls in its voter's role would make it fill one unheard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from control.core.gate import PLAIN, Gate, OnTimeout
from control.core.phrasing import instant
from control.core.problem import Problem, Refusal

ALREADY_DECIDED: Final = Problem(
    code="already-decided",
    status=409,
    title="The question has been decided",
    next_step="Read the run again; a decision is made once.",
)
ANSWER_LATE: Final = Problem(
    code="answer-late",
    status=409,
    title="The time to decide is over",
    next_step="What silence comes to was fixed when it was asked, and the next worker records it; restart the run to "
    "ask again.",
)
NOT_ENTITLED: Final = Problem(
    code="not-entitled",
    status=403,
    title="You may not decide this question",
    next_step="Ask somebody who may; `control show RUN` says who that is. It is still open.",
)
VOTED_ALREADY: Final = Problem(
    code="voted-already",
    status=409,
    title="This person has been counted",
    next_step="Somebody else has to agree; whoever said yes may still say no.",
)
VOTES_DIFFER: Final = Problem(
    code="votes-differ",
    status=409,
    title="An earlier vote agreed to another answer",
    next_step="Agree to the same answer, or reject the question.",
)


class State(StrEnum):
    OPEN = "open"
    APPROVED = "approved"
    REJECTED = "rejected"
    ANSWERED = "answered"
    DENIED = "denied"  # nobody decided in time, which is a no
    DEFAULTED = "defaulted"  # nobody decided in time, which is the answer fixed for that
    SUPERSEDED = "superseded"


class On(StrEnum):
    """What an event means to the question it meets."""

    YES = "a yes that leaves seats empty"
    QUORUM = "the yes that fills the last seat"
    NO = "a no"
    ANSWER = "an answer"
    RUNG = "a rung of the ladder is due"
    REVIEW = "its assignee is looked at again"
    REASSIGN = "it is given to somebody"
    DENY = "its time ends: no"
    DEFAULT = "its time ends: the default"
    ESCALATE = "its time ends: the rest of the ladder"
    SUPERSEDE = "the head no longer asks it"


EDGES: Final[Mapping[tuple[State, On], State]] = {
    (State.OPEN, On.YES): State.OPEN,
    (State.OPEN, On.QUORUM): State.APPROVED,
    (State.OPEN, On.NO): State.REJECTED,  # one no settles it
    (State.OPEN, On.ANSWER): State.ANSWERED,
    (State.OPEN, On.RUNG): State.OPEN,
    (State.OPEN, On.REVIEW): State.OPEN,
    (State.OPEN, On.REASSIGN): State.OPEN,
    (State.OPEN, On.DENY): State.DENIED,
    (State.OPEN, On.DEFAULT): State.DEFAULTED,
    (State.OPEN, On.ESCALATE): State.OPEN,
    (State.OPEN, On.SUPERSEDE): State.SUPERSEDED,  # the question changed: ask again
}

_EXPIRY: Final = {OnTimeout.DENY: On.DENY, OnTimeout.DEFAULT: On.DEFAULT, OnTimeout.ESCALATE: On.ESCALATE}


@dataclass(frozen=True, slots=True)
class Voter:
    """Who votes: an actor, with the roles that count. In somebody's place, those are the roles that were lent. via:
    others who have had the voter's credential in hand (`Principal.makers`), and so may be who votes.
    """

    name: str
    roles: frozenset[str] = frozenset()
    on_behalf_of: str | None = None
    via: frozenset[str] = frozenset()

    @property
    def persons(self) -> frozenset[str]:
        return self.via | {self.name, self.on_behalf_of or self.name}

    @property
    def seat(self) -> str:
        """The person whose vote it is."""
        return self.on_behalf_of or self.name


@dataclass(frozen=True, slots=True)
class Vote:
    """A vote as it counts. answer: the digest of what was agreed to beside the yes; empty for nothing."""

    voter: Voter
    yes: bool
    at: datetime
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Approval:
    """A question and everything that was said to it. barred: who may not approve, since four eyes are wanted. rung: how
    many rungs were climbed. reviews: how often an assignee was sought because its time had come. overdue: its time is
    over, and whoever the last rung has called in is to decide.
    """

    opened_at: datetime
    gate: Gate = PLAIN
    expires_at: datetime | None = None
    barred: frozenset[str] = frozenset()
    state: State = State.OPEN
    votes: tuple[Vote, ...] = ()
    rung: int = 0
    reviews: int = 0
    overdue: bool = False
    assignee: str | None = None

    @property
    def open(self) -> bool:
        return self.state is State.OPEN

    @property
    def escalated_to(self) -> frozenset[str]:
        """The roles that the climbed rungs have called in."""
        return frozenset(role for rung in self.gate.ladder[: self.rung] for role in rung.to)

    @property
    def roles(self) -> frozenset[str]:
        """The roles that may decide it now. Empty, with no person named either: whoever policy lets."""
        return self.escalated_to.union(self.gate.roles, *self.gate.kept)

    @property
    def yes(self) -> tuple[Vote, ...]:
        return tuple(vote for vote in self.votes if vote.yes)


@dataclass(frozen=True, slots=True)
class Due:
    """Something that the clock brings, and when."""

    at: datetime
    on: On


@dataclass(frozen=True, slots=True)
class Lapse:
    """Something that the time gone by has brought, and the approval after it."""

    due: Due
    after: Approval


def step(approval: Approval, on: On) -> State:
    """The state that follows. Raises `already-decided` where the table has no edge."""
    found = EDGES.get((approval.state, on))
    if found is None:
        raise ALREADY_DECIDED.because(f"It is {approval.state}; {on} changes nothing any more.")
    return found


def cast(approval: Approval, vote: Vote) -> Approval:
    """The approval after a vote. Raises `already-decided`, `answer-late`, `not-entitled`, `voted-already` and
    `votes-differ`; a refused vote leaves no trace.
    """
    step(approval, On.YES if vote.yes else On.NO)
    if (
        approval.expires_at is not None
        and approval.expires_at <= vote.at
        and approval.gate.on_timeout is not OnTimeout.ESCALATE
    ):
        raise ANSWER_LATE.because(f"Its time ended at {instant(approval.expires_at)}.")
    if missing := objection(approval, vote.voter, yes=vote.yes):
        raise missing
    if vote.yes and approval.yes and vote.answer != approval.yes[0].answer:
        first = approval.yes[0].voter.name
        raise VOTES_DIFFER.because(f"{first} agreed at {instant(approval.yes[0].at)}, to another answer.", first=first)
    voted = replace(approval, votes=(*approval.votes, vote))
    on = On.NO if not vote.yes else On.QUORUM if empty_seats(voted) == 0 else On.YES
    return replace(voted, state=step(approval, on))


def objection(approval: Approval, voter: Voter, *, yes: bool) -> Refusal | None:
    """Why this voter may not say this, or None. Whoever may vote at all may say no."""
    if (missing := _unseated(approval, voter)) is not None:
        return NOT_ENTITLED.because(missing, roles=sorted(approval.roles), voters=list(approval.gate.voters))
    if not yes:
        return None
    if barred := sorted(voter.persons & approval.barred):
        why = f"Four eyes are wanted here, and {barred[0]} may not approve.{_hand(barred[0], voter)}"
        return NOT_ENTITLED.because(why, barred=barred)
    for earlier in approval.yes:
        if both := sorted(earlier.voter.persons & voter.persons):
            hand = _hand(both[0], voter) or _hand(both[0], earlier.voter)
            return VOTED_ALREADY.because(
                f"{_named(earlier.voter)} said yes at {instant(earlier.at)}, and {both[0]} counts once.{hand}",
                voted_by=earlier.voter.name,
                voted_at=earlier.at.isoformat(),
            )
    voted = replace(approval, votes=(*approval.votes, Vote(voter, True, approval.opened_at)))
    if empty_seats(voted) == empty_seats(approval):
        why = f"No seat that is empty is for {_named(voter)}, who has {_roles(voter)}."
        return NOT_ENTITLED.because(why, roles=sorted(approval.roles), voters=list(approval.gate.voters))
    return None


def empty_seats(approval: Approval) -> int:
    """How many more yes votes it takes at least: the seats that no seating of the voters can fill."""
    seats = [roles | approval.escalated_to for roles in approval.gate.kept]
    seats += [frozenset[str]()] * (approval.gate.quorum - len(seats))
    return len(seats) - _seated(seats, [vote.voter.roles for vote in approval.yes])


def lapse(approval: Approval, now: datetime) -> Iterator[Lapse]:
    """Everything that has fallen due, each once, in the order of its times, however long nobody looked."""
    while (due := next_due(approval)) is not None and due.at <= now:
        approval = _lapsed(approval, due.on)
        yield Lapse(due, approval)


def next_due(approval: Approval) -> Due | None:
    """What the clock brings next; None where time changes nothing."""
    return min(_dues(approval), key=lambda due: due.at, default=None) if approval.open else None


def barred_of(gate: Gate, *, started_by: Iterable[str]) -> frozenset[str]:
    """Who may not approve: those named; and where four eyes are wanted, whoever may have started the run."""
    return frozenset(gate.not_by).union(started_by if gate.four_eyes else ())


def _lapsed(approval: Approval, on: On) -> Approval:
    after = replace(approval, state=step(approval, on))
    match on:
        case On.RUNG:
            return replace(after, rung=approval.rung + 1)
        case On.REVIEW:
            return replace(after, reviews=approval.reviews + 1)
        case On.ESCALATE:
            return replace(after, rung=len(approval.gate.ladder), overdue=True)
    return after


def _dues(approval: Approval) -> Iterator[Due]:
    """At one instant, an assignee is sought before a rung is climbed, and a rung before the time ends."""
    gate, expires_at = approval.gate, None if approval.overdue else approval.expires_at
    if gate.skills is not None and approval.reviews == 0:
        yield Due(approval.opened_at, On.REVIEW)
    elif gate.skills is not None and approval.reviews == 1 and expires_at is not None:
        yield Due(expires_at - gate.review_before(expires_at - approval.opened_at), On.REVIEW)
    if approval.rung < len(gate.ladder):
        yield Due(approval.opened_at + gate.ladder[approval.rung].after, On.RUNG)
    if expires_at is not None:
        yield Due(expires_at, _EXPIRY[gate.on_timeout])


def _unseated(approval: Approval, voter: Voter) -> str | None:
    """Why no seat is this voter's."""
    gate, wanted = approval.gate, approval.roles
    if not wanted and not gate.voters:
        return None
    if voter.seat in gate.voters or voter.roles & wanted:
        return None
    needs = [f"the role {' or '.join(sorted(wanted))}"] if wanted else []
    needs += [f"to be {' or '.join(gate.voters)}"] if gate.voters else []
    return f"It takes {', or '.join(needs)}; {_named(voter)} has {_roles(voter)}."


def _hand(person: str, voter: Voter) -> str:
    """Why somebody else's vote is this person's too."""
    return f" {person} has had the key in hand with which {voter.name} votes." if person in voter.via else ""


def _roles(voter: Voter) -> str:
    return f"the role {', '.join(sorted(voter.roles))}" if voter.roles else "no role"


def _named(voter: Voter) -> str:
    return f"{voter.name} for {voter.on_behalf_of}" if voter.on_behalf_of else voter.name


def _seated(seats: list[frozenset[str]], voters: list[frozenset[str]]) -> int:
    """The most seats that can be filled, one voter each: a maximum matching, by augmenting paths. A seat without roles
    is for anybody who voted."""
    taken: dict[int, int] = {}

    def find(voter: int, tried: set[int]) -> bool:
        for seat, roles in enumerate(seats):
            if seat in tried or (roles and not roles & voters[voter]):
                continue
            tried.add(seat)
            if seat not in taken or find(taken[seat], tried):
                taken[seat] = voter
                return True
        return False

    return sum(find(voter, set()) for voter in range(len(voters)))
