"""What a decision is bound to: whether it still stands, and the one effect that it is spent on.

Every function works inside the caller's transaction, which holds the run's lock. Facts and policy are kept from moving
until that commits (`facts.rest`), so that nothing begins on what somebody has just taken back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from control.core.answer import Said, Word, settle
from control.core.freshness import DECISION_MISSING, DECISION_SPENT, STALE, Moved, moved
from control.core.intent import Intent, intents_of
from control.core.packet import Packet, Shape, read_packet
from control.core.verdict import UNRULED, Verdict
from control.store import facts
from control.store.runs import Run
from control.store.sql import read

_SQL: Final = read("approvals")

Spoken = tuple[str, Mapping[str, Any]]
"""Who spoke, and the body of the ledger's entry: the policy's version, and the request that it answered."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a question is about, and the node that asked it."""

    interrupt_id: str
    packet: Packet
    node: str


class Dissent(Protocol):
    async def __call__(
        self, conn: AsyncConnection[Any], run: Run, subject: Subject, *, spoken: Sequence[Spoken]
    ) -> tuple[Moved, ...]:
        """What policy, as it now is, makes of what was said: each voice that it would no longer hear; and each call
        that was asked about, and that it would no longer let anybody make."""
        ...


@dataclass(frozen=True, slots=True)
class Judged:
    """What policy says of an intent. news: the actor and the body of the ledger's entry, unless it has it already."""

    verdict: Verdict
    news: tuple[str, dict[str, Any]] | None = None


class Judge(Protocol):
    async def __call__(self, conn: AsyncConnection[Any], run: Run, intent: Intent, *, node: str, key: str) -> Judged:
        """What policy, as it now is, says of an intent that a node of the run has."""
        ...


class Terms(Protocol):
    async def __call__(self, conn: AsyncConnection[Any], run: Run, packet: Packet, *, node: str) -> dict[str, Any]:
        """What policy demands of a question about tool calls; see `with_terms` of `core.packet`. Empty for nothing."""
        ...


async def nobody(*_: Any, **__: Any) -> tuple[Moved, ...]:
    """No policy: nobody's voice is taken back."""
    return ()


async def anything(*_: Any, **__: Any) -> Judged:
    """No policy: everything is let through."""
    return Judged(UNRULED)


async def nothing(*_: Any, **__: Any) -> dict[str, Any]:
    """No policy: nothing is demanded of a question but its answer."""
    return {}


@dataclass(frozen=True, slots=True)
class Rules:
    """Policy, as the store asks it inside its own transactions."""

    dissent: Dissent = nobody
    judge: Judge = anything
    terms: Terms = nothing


NO_RULES: Final = Rules()


@dataclass(frozen=True, slots=True)
class Guard:
    """A yes that is to guard an effect."""

    subject: Subject
    opened_at: datetime
    outdated: tuple[Moved, ...]


async def moves(
    conn: AsyncConnection[Any], run: Run, subject: Subject, *, opened_at: datetime, at: datetime, dissent: Dissent
) -> tuple[Moved, ...]:
    """What a yes would rest on that has moved since it was asked: facts, its time, those who said yes before, and what
    the rules let an agent do. It stays so until the transaction ends.
    """
    await facts.rest(conn, run.tenant)
    found = await _unsettled(conn, run, subject.packet, opened_at=opened_at, at=at)
    return found + await _dissenting(conn, run, subject, dissent=dissent)


async def _unsettled(
    conn: AsyncConnection[Any], run: Run, packet: Packet, *, opened_at: datetime, at: datetime
) -> tuple[Moved, ...]:
    """What a packet states and is no more so."""
    if not packet.fresh and packet.valid_for_s is None:
        return ()
    known = {fact.name: fact.value for fact in await facts.known(conn, run.tenant, list(packet.fresh))}
    return moved(packet, known, opened_at=opened_at, now=at)


async def outdate(
    conn: AsyncConnection[Any], run: Run, subject: Subject, *, moves: Sequence[Moved], found: str, at: datetime
) -> tuple[str, dict[str, Any]]:
    """Put on record that a question, decided or not, has to be asked again. Returns the ledger's kind and body; for
    `found` see `core.ledger`. One of another library's shape, which cannot be told that, is told no.
    """
    told, note = [one.as_json() for one in moves], "; ".join(map(str, moves))
    if subject.packet.shape is Shape.APPROVAL:
        answer: Any = {"decision": "reject", "stale": True, "note": note}
    else:
        answer = settle(subject.packet, Said(Word.REJECTED, note=note), by="policy", at=at).value
    text = json.dumps(answer, ensure_ascii=False)
    await conn.execute(
        _SQL["outdate"], run.key(interrupt_id=subject.interrupt_id, moved=Jsonb(told), answer=text, at=at)
    )
    return "stale", {"interrupt_id": subject.interrupt_id, "found": found, "moved": told}


async def guard(conn: AsyncConnection[Any], run: Run, interrupt_id: str, *, key: str) -> Guard:
    """The yes behind an effect. Raises `decision-missing`, `decision-spent`."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        row = await (await cursor.execute(_SQL["guards"], run.key(interrupt_id=interrupt_id))).fetchone()
    if row is None or row["decision"] is None:
        raise DECISION_MISSING.because(f"Nobody has decided the question {interrupt_id} of this run.")
    if row["decision"] not in ("approved", STALE):
        raise DECISION_MISSING.because(f"The question {interrupt_id} was {row['decision']} by {row['decided_by']}.")
    if row["consumed_by"] not in (None, key):
        raise DECISION_SPENT.because(
            f"It was used for {row['consumed_by']!r}; this is {key!r}.", effect=row["consumed_by"]
        )
    packet = read_packet(row["packet"], row["schema"])
    return Guard(
        Subject(interrupt_id, packet, row["node"]), row["opened_at"], tuple(Moved(**one) for one in row["stale"] or ())
    )


async def consume(
    conn: AsyncConnection[Any], run: Run, guard: Guard, *, key: str, at: datetime, dissent: Dissent
) -> tuple[Moved, ...]:
    """Spend an approval on the effect of this key, or say what it rests on that has moved."""
    if guard.outdated:
        return guard.outdated
    if found := await moves(conn, run, guard.subject, opened_at=guard.opened_at, at=at, dissent=dissent):
        return found
    spent = await conn.execute(_SQL["consume"], run.key(interrupt_id=guard.subject.interrupt_id, key=key, at=at))
    assert await spent.fetchone() is not None, "the run is locked, and the approval was free a moment ago"
    return ()


async def _dissenting(conn: AsyncConnection[Any], run: Run, subject: Subject, *, dissent: Dissent) -> tuple[Moved, ...]:
    """Those who have spoken to a question, and whom today's policy would no longer hear; and what it forbids by now."""
    spoken = await _spoken(conn, run, subject.interrupt_id)
    return await dissent(conn, run, subject, spoken=spoken) if spoken or intents_of(subject.packet) else ()


async def _spoken(conn: AsyncConnection[Any], run: Run, interrupt_id: str) -> list[Spoken]:
    async with conn.cursor(row_factory=dict_row) as cursor:
        rows = await (await cursor.execute(_SQL["spoken"], run.key())).fetchall()
    said: list[Spoken] = []
    for row in rows:
        body = json.loads(row["body"])
        if body["interrupt_id"] != interrupt_id:
            continue
        if row["kind"] == "returned":
            said.clear()  # what was said until then came to nothing
        elif "request" in body:
            said.append((row["actor"], body))
    return said
