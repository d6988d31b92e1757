"""How questions are decided: votes, and what time and assignment do to an open question.

Every function works inside the caller's transition: the run's row is locked, so that two voters are heard one after the
other, and what is returned for the ledger is appended by `runs.save_run` in the same transaction. What follows from a
vote or from an instant is `core.approval`'s to say.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from operator import attrgetter
from typing import Any, Final

from jsonschema import Draft202012Validator
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from control.core import approval as rules
from control.core.answer import Said, Settled, Word, settle
from control.core.approval import Approval, Lapse, On, State, Vote, Voter, next_due
from control.core.assignment import Nobody, Picked, pick
from control.core.gate import PLAIN, read_gate
from control.core.packet import Packet, read_packet
from control.core.problem import Refusal
from control.store import assignees, questions
from control.store.runs import Entry, Run
from control.store.sql import read

CLOCK: Final = "clock"
_TO: Final = attrgetter("to")
_NOTIFY: Final = attrgetter("notify")
_SQL: Final = read("votes")
_SAID: Final = {State.DENIED: "Nobody answered in time.", State.DEFAULTED: "Nobody answered in time: the default."}
_UNFIT: Final = "Nobody answered in time, and the default does not have the shape that was asked for."


@dataclass(frozen=True, slots=True)
class Held:
    """An open question, its run locked. `packet` is the JSON text shown; `gated`: it was asked with a gate."""

    run: Run
    interrupt_id: str
    kind: str
    title: str
    packet: str
    schema: dict[str, Any] | None
    approval: Approval
    gated: bool

    @property
    def asks(self) -> Packet:
        return read_packet(self.packet, self.schema)


@dataclass(frozen=True, slots=True)
class Ballot:
    """A vote as it is put on record. `answer` is the JSON text agreed to beside a yes."""

    vote: Vote
    answer: str | None = None
    note: str | None = None


async def held(conn: AsyncConnection[Any], run: Run, interrupt_id: str | None = None) -> list[Held]:
    """The open questions of a run, or the one of this id, with everything that was said to them."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_SQL["held"], run.key(interrupt_id=interrupt_id))
        return [_held(row, run) for row in await cursor.fetchall()]


async def cast(conn: AsyncConnection[Any], asked: Held, ballot: Ballot) -> tuple[Approval, list[Entry]]:
    """Count a vote. Returns the approval after it, and the ledger's entries; a plain question keeps none.

    Raises what `core.approval.cast` raises; nothing is written then.
    """
    vote, voter = ballot.vote, ballot.vote.voter
    after = rules.cast(asked.approval, vote)
    if not asked.gated and voter.on_behalf_of is None:
        return after, []
    word = "yes" if vote.yes else "no"
    roles = sorted(voter.roles & asked.approval.gate.named_roles)
    params: dict[str, Any] = {"voter": voter.name, "vote": word, "seat": voter.seat, "roles": roles}
    params |= {"answer": ballot.answer, "digest": vote.answer, "note": ballot.note, "at": vote.at}
    params["via"] = via = sorted(voter.via)
    await conn.execute(_SQL["cast"], _of(asked, **params))
    body: dict[str, Any] = {
        "interrupt_id": asked.interrupt_id, "vote": word, "digest": vote.answer, "roles": roles,
    }  # fmt: skip
    body |= {"on_behalf_of": voter.on_behalf_of} if voter.on_behalf_of else {}
    body |= {"via": via} if via else {}
    return after, [("voted", voter.name, body | ({"note": ballot.note} if ballot.note else {}))]


async def lapse(conn: AsyncConnection[Any], run: Run, *, at: datetime) -> list[Entry]:
    """Do to a run's open questions what the clock has brought, each thing once. Returns the ledger's entries."""
    return [entry for asked in await held(conn, run) for entry in await _lapse(conn, asked, at=at)]


async def assign(conn: AsyncConnection[Any], asked: Held, *, to: str | None, by: str, at: datetime) -> Entry | Nobody:
    """Give a question to somebody: to whom is named, or to whoever fits best. Nobody: none fits, nothing changed."""
    await assignees.lock(conn, asked.run.tenant)
    among = await assignees.candidates(conn, asked.run.tenant, before=asked.approval.expires_at)
    picked = pick(asked.approval, among, now=at) if to is None else Picked(to, f"{by} named {to}.")
    if isinstance(picked, Nobody):
        return picked
    after = replace(asked.approval, state=rules.step(asked.approval, On.REASSIGN), assignee=picked.name)
    await _advance(conn, asked, after, why=picked.why)
    return _reassigned(asked, after, picked, by=by)


def approval_of(row: Any, *, started_by: Iterable[str]) -> Approval:
    """The approval that a row of the store stands for; those who may have started the run may be barred from it."""
    expires_at, opened_at = row["expires_at"], row["opened_at"]
    gate = PLAIN
    if row["gate"] is not None:
        gate = read_gate(row["gate"], expires_at - opened_at if expires_at else None)
    return Approval(
        opened_at,
        gate=gate,
        expires_at=expires_at,
        barred=rules.barred_of(gate, started_by=started_by),
        votes=tuple(
            Vote(_voter(name, seat, roles, via=via), yes, datetime.fromisoformat(at), digest)
            for name, seat, roles, via, yes, at, digest in row["votes"] or ()
        ),
        rung=row["rung"],
        reviews=row["reviews"],
        overdue=row["overdue"],
        assignee=row["assignee"],
    )


def _held(row: Any, run: Run) -> Held:
    found = approval_of(row, started_by=run.starters)
    named = {name: row[name] for name in ("interrupt_id", "kind", "title", "packet", "schema")}
    return Held(run=run, **named, approval=found, gated=row["gate"] is not None)


def _voter(name: str, seat: str, roles: Iterable[str], *, via: Iterable[str]) -> Voter:
    return Voter(name, frozenset(roles), None if seat == name else seat, frozenset(via))


async def _lapse(conn: AsyncConnection[Any], asked: Held, *, at: datetime) -> list[Entry]:
    entries: list[Entry] = []
    now = asked.approval
    while due := next(rules.lapse(now, at), None):
        happened, now = await _happened(conn, replace(asked, approval=now), due, at=at)
        entries += happened
    if now is not asked.approval and now.open:
        await _advance(conn, asked, now)
    return entries


async def _happened(
    conn: AsyncConnection[Any], asked: Held, lapsed: Lapse, *, at: datetime
) -> tuple[list[Entry], Approval]:
    """What one lapse comes to: the ledger's entries, and the approval after it."""
    on, after = lapsed.due.on, lapsed.after
    match on:
        case On.REVIEW:
            return await _reviewed(conn, asked, after, at=at)
        case On.RUNG:
            entry = _escalated(asked, after)
            return await _called_in(conn, asked, after, entries=[entry], at=at)
        case On.ESCALATE:
            entries = [_expired(asked.interrupt_id, after), _escalated(asked, after)]
            return await _called_in(conn, asked, after, entries=entries, at=at)
    return [_expired(asked.interrupt_id, after), await _silence(conn, asked, after, at=at)], after


async def _called_in(
    conn: AsyncConnection[Any], asked: Held, after: Approval, *, entries: list[Entry], at: datetime
) -> tuple[list[Entry], Approval]:
    """A question that is somebody's goes, when it is escalated, to one of those whom the rung calls in."""
    to = after.escalated_to - asked.approval.escalated_to
    if after.gate.skills is None or not to:
        return entries, after
    given, after = await _reviewed(conn, asked, after, at=at, among=to)
    return [*entries, *given], after


async def _reviewed(
    conn: AsyncConnection[Any],
    asked: Held,
    after: Approval,
    *,
    at: datetime,
    among: frozenset[str] = frozenset(),
) -> tuple[list[Entry], Approval]:
    """Seek an assignee, of these roles if any are given; where nobody fits, it stays where it is."""
    await assignees.lock(conn, asked.run.tenant)
    everybody = await assignees.candidates(conn, asked.run.tenant, before=after.expires_at)
    picked = pick(after, [c for c in everybody if not among or c.roles & among], now=at)
    if isinstance(picked, Nobody):
        return [_unassigned(asked.interrupt_id, after, picked)], after
    given = replace(after, assignee=picked.name)
    await _advance(conn, asked, given, why=picked.why)
    return [_reassigned(asked, given, picked, by=CLOCK)], given


async def _silence(conn: AsyncConnection[Any], asked: Held, after: Approval, *, at: datetime) -> Entry:
    """Decide a question as its gate says that silence does. A default that does not fit is a no."""
    note, settled = _SAID[after.state], None
    if after.state is State.DEFAULTED:
        settled = _default(asked, note, at=at)
    if settled is None:
        note = _UNFIT if after.state is State.DEFAULTED else note
        settled = settle(asked.asks, Said(Word.REJECTED, note=note), by=CLOCK, at=at)
    text, key = json.dumps(settled.value, ensure_ascii=False), asked.interrupt_id
    await questions.decide(conn, asked.run, key, decision=settled.word, answer=text, note=note, by=CLOCK, at=at)
    return questions.decided(key, settled.word, text, note=note, by=CLOCK)


def _default(asked: Held, note: str, *, at: datetime) -> Settled | None:
    """The answer that the packet names for silence; None where it does not fit."""
    try:
        said = Said(Word.APPROVED, answer=asked.asks.gate.get("default"), note=note)
        settled = settle(asked.asks, said, by=CLOCK, at=at)
    except Refusal:
        return None
    fits = asked.schema is None or Draft202012Validator(asked.schema).is_valid(settled.value)
    return settled if fits else None


async def _advance(conn: AsyncConnection[Any], asked: Held, after: Approval, *, why: str | None = None) -> None:
    due = next_due(after)
    params: dict[str, Any] = {
        "rung": after.rung,
        "reviews": after.reviews,
        "overdue": after.overdue,
        "assignee": after.assignee,
    }
    params |= {"due_at": due.at if due else None, "assigned_why": why}
    await conn.execute(_SQL["advance"], _of(asked, **params))


def _escalated(asked: Held, after: Approval) -> Entry:
    """The entry for the rungs climbed at once: more than one where the time ended before theirs."""
    climbed = after.gate.ladder[asked.approval.rung : after.rung]
    to, notify = ([name for rung in climbed for name in names(rung)] for names in (_TO, _NOTIFY))
    body: dict[str, Any] = {"interrupt_id": asked.interrupt_id, "rung": after.rung, "to": to}
    return "escalated", CLOCK, body | ({"notify": notify} if notify else {}) | _next(after)


def _expired(interrupt_id: str, after: Approval) -> Entry:
    body = {"interrupt_id": interrupt_id, "outcome": after.gate.on_timeout.value}
    return "expired", CLOCK, body | _next(after)


def _reassigned(asked: Held, after: Approval, picked: Picked, *, by: str) -> Entry:
    before = asked.approval
    body = {"interrupt_id": asked.interrupt_id, "assignee": picked.name, "why": picked.why}
    return "reassigned", by, body | ({"from": before.assignee} if before.assignee else {}) | _next(after)


def _unassigned(interrupt_id: str, after: Approval, nobody: Nobody) -> Entry:
    return "reassigned", CLOCK, {"interrupt_id": interrupt_id, "why": nobody.why} | _next(after)


def _next(after: Approval) -> dict[str, str]:
    """What the clock brings next, for the ledger."""
    due = next_due(after)
    return {"due_at": due.at.isoformat()} if due else {}


def _of(asked: Held, **params: Any) -> dict[str, Any]:
    return asked.run.key(interrupt_id=asked.interrupt_id, **params)
