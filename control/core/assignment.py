"""Who is to decide: the assignee with the skills, the roles and the time for it, and why.

Capacity is how many questions somebody takes at once. Among those who may, can and have room, the one wins whose desk
has the fewest questions that are due before this one; then the one with the largest share of room; then, so that every
worker picks the same, the first by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from control.core.approval import Approval, Voter, objection
from control.core.problem import Problem

NO_ASSIGNEE: Final = Problem(
    code="no-assignee",
    status=409,
    title="Nobody is left to take the question",
    next_step="Add somebody with `control assignees set`, raise a capacity, or name one with --to.",
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """Somebody who takes questions. open: how many lie with them; due_sooner: those of them due before this one.
    away_until: back then; None: here."""

    name: str
    roles: frozenset[str]
    skills: frozenset[str]
    capacity: int
    open: int = 0
    due_sooner: int = 0
    away_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Picked:
    """The assignee, and the reason in a sentence."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Nobody:
    """No candidate fits; why says what each group of them lacked."""

    why: str


def pick(approval: Approval, candidates: Iterable[Candidate], *, now: datetime) -> Picked | Nobody:
    """The best candidate who may approve and has not voted; whoever has it already is not picked again."""
    lacking: dict[str, int] = {}
    fitting: list[Candidate] = []
    for candidate in candidates:
        lack = _lack(approval, candidate, now)
        if lack is None:
            fitting.append(candidate)
        else:
            lacking[lack] = lacking.get(lack, 0) + 1
    if not fitting:
        told = "; ".join(f"{count} {lack}" for lack, count in sorted(lacking.items()))
        return Nobody(f"Of those on the list, {told}." if told else "Nobody is on the list of assignees.")
    best = min(fitting, key=lambda c: (c.due_sooner, (c.open + 1) / c.capacity, c.name))
    return Picked(best.name, _why(approval, best, len(fitting)))


def _lack(approval: Approval, candidate: Candidate, now: datetime) -> str | None:
    """What keeps a candidate from taking it, as the predicate of a sentence that counts them."""
    if candidate.name == approval.assignee:
        return "had it already"
    if not candidate.skills.issuperset(approval.gate.skills or ()):
        return "without the skills"
    if objection(approval, Voter(candidate.name, candidate.roles), yes=True) is not None:
        return "may not approve it"
    if candidate.away_until is not None and candidate.away_until > now:
        return "away"
    return "without room" if candidate.open >= candidate.capacity else None


def _why(approval: Approval, best: Candidate, fitting: int) -> str:
    skills = approval.gate.skills
    knows = f"knows {', '.join(skills)}, " if skills else ""
    room = f"has room for {best.capacity - best.open} of {best.capacity}"
    queue = "with nothing due sooner" if best.due_sooner == 0 else f"with {best.due_sooner} due sooner"
    chosen = f"; chosen among {fitting}" if fitting > 1 else ""
    return f"{best.name} {knows}{room} {queue}{chosen}."
