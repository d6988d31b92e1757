"""Questions and waits of a run: reading them, deciding them, firing them, and withdrawing those that no longer exist.

Every function works inside the caller's transition: the run's row is locked, and what is returned for the ledger is
appended by `runs.save_run` in the same transaction.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row

from control.core.answer import Word
from control.core.freshness import delivered, is_asked_again
from control.core.packet import Packet, read_packet
from control.core.question import Question, opened, recognise
from control.core.veto import Given
from control.store.arrays import Texts
from control.store.runs import Entry, Run
from control.store.sql import read

_APPROVALS: Final = read("approvals")
_WAITS: Final = read("waits")


@dataclass(frozen=True, slots=True)
class Approval:
    """A question as stored. `packet` is the JSON text that was shown, `answer` the JSON text that was given. returned:
    whose answer its step did not take before, and why."""

    interrupt_id: str
    checkpoint_id: str
    node: str
    kind: str
    title: str
    packet: str
    packet_digest: bytes
    schema: dict[str, Any] | None
    opened_at: datetime
    expires_at: datetime | None
    decision: str | None
    answer: str | None
    note: str | None
    decided_by: str | None
    decided_at: datetime | None
    delivered_at: datetime | None
    returned: str | None

    @property
    def asks(self) -> Packet:
        """The packet, read."""
        return read_packet(self.packet, self.schema)


async def read_approval(conn: AsyncConnection[Any], run: Run, interrupt_id: str) -> Approval | None:
    async with conn.cursor(row_factory=class_row(Approval)) as cursor:
        await cursor.execute(_APPROVALS["read"], run.key(interrupt_id=interrupt_id))
        return await cursor.fetchone()


async def open_approvals(conn: AsyncConnection[Any], run: Run) -> list[Approval]:
    """The questions nobody has answered, oldest first."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        rows = await (await cursor.execute(_APPROVALS["open"], run.key())).fetchall()
    undecided: dict[str, Any] = dict.fromkeys(
        ("decision", "answer", "note", "decided_by", "decided_at", "delivered_at")
    )
    return [Approval(**row, **undecided) for row in rows]


async def last_decided(conn: AsyncConnection[Any], run: Run) -> dict[str, Any] | None:
    """The question that was decided last, by anybody: its interrupt_id, title, decision, decided_by and decided_at."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        return await (await cursor.execute(_APPROVALS["last_decided"], run.key())).fetchone()


async def given(conn: AsyncConnection[Any], run: Run) -> tuple[Given, ...]:
    """What has been decided on the run's approvals, oldest first."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        rows = await (await cursor.execute(_APPROVALS["given"], run.key())).fetchall()
    found = (
        Given(
            row["interrupt_id"],
            read_packet(row["packet"], row["schema"]),
            json.loads(row["answer"]),
            row["by"],
            row["note"],
        )
        for row in rows
        if row["answer"] is not None
    )
    return tuple(given for given in found if not is_asked_again(given.packet, given.value))


async def decide(
    conn: AsyncConnection[Any],
    run: Run,
    interrupt_id: str,
    *,
    decision: str,
    answer: str | None,
    note: str | None,
    by: str,
    at: datetime,
) -> bool:
    """Record the one decision of a question. False where it has one already."""
    params = run.key(interrupt_id=interrupt_id, decision=decision, answer=answer, note=note, by=by, at=at)
    return await (await conn.execute(_APPROVALS["decide"], params)).fetchone() is not None


def decided(interrupt_id: str, word: Word, answer: str, *, note: str | None, by: str) -> Entry:
    """The ledger's entry for a decision; it holds the answer's digest."""
    body = {"interrupt_id": interrupt_id, "decision": str(word), "digest": sha256(answer.encode()).hexdigest()}
    return "decided", by, body | ({"note": note} if note else {})


async def withdraw(conn: AsyncConnection[Any], run: Run, *, keep: Sequence[str], why: str, at: datetime) -> list[Entry]:
    """Close what the head no longer asks or waits for, answered or not: all but `keep`. Returns its entries."""
    gone: list[Entry] = []
    async with conn.cursor(row_factory=dict_row) as cursor:
        for query in (_APPROVALS["supersede"], _WAITS["withdraw"]):
            await cursor.execute(query, run.key(keep=list(keep), at=at))
            gone += [
                ("superseded", "control", {"interrupt_id": row["interrupt_id"], "why": why})
                for row in await cursor.fetchall()
            ]
    return gone


async def settle(conn: AsyncConnection[Any], run: Run, *, pending: Sequence[str], at: datetime) -> list[str]:
    """Mark as delivered what was answered or fired and is no longer pending on the head. Returns the interrupt ids."""
    settled: list[str] = []
    async with conn.cursor(row_factory=dict_row) as cursor:
        for query in (_APPROVALS["settle"], _WAITS["settle"]):
            await cursor.execute(query, run.key(pending=list(pending), at=at))
            settled += [row["interrupt_id"] for row in await cursor.fetchall()]
    return sorted(settled)


async def reopen(
    conn: AsyncConnection[Any], run: Run, interrupts: Sequence[str], *, why: str, by: str, at: datetime
) -> list[Entry]:
    """Ask anew those of these questions that a person has answered and the graph has not taken in. Returns the ledger's
    entries, of which `by` is the actor.
    """
    entries: list[Entry] = []
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_APPROVALS["reopen"], run.key(interrupts=Texts(interrupts), why=why, at=at))
        for row in await cursor.fetchall():
            key = row["interrupt_id"]
            asked = recognise(key, json.loads(row["packet"]), row["schema"])
            assert isinstance(asked, Question), "only a question has an answer"
            if asked.due_in is not None:
                await cursor.execute(_APPROVALS["due"], run.key(interrupt_id=key, due_at=at + asked.due_in))
            kind, body = opened(replace(asked, title=row["title"]), row["node"])
            returned = {"interrupt_id": key, "by": row["decided_by"], "why": why}
            entries += [("returned", by, returned), (kind, by, body)]
    return entries


async def add_signal(conn: AsyncConnection[Any], run: Run, name: str, *, payload: str, by: str, at: datetime) -> None:
    """Keep a signal until a wait of the run takes it."""
    await conn.execute(_WAITS["add_signal"], run.key(name=name, payload=payload, by=by, at=at))


async def fire(conn: AsyncConnection[Any], run: Run, *, at: datetime) -> list[Entry]:
    """Fire the timers that are due and the signal waits for which a signal is kept. Returns the ledger's entries."""
    fired: list[Entry] = []
    async with conn.cursor(row_factory=dict_row) as cursor:
        for query in (_WAITS["fire_timers"], _WAITS["fire_signals"]):
            await cursor.execute(query, run.key(at=at))
            fired += [
                ("fired", "clock" if row["kind"] == "timer" else "control", _fired(row))
                for row in await cursor.fetchall()
            ]
    return fired


async def resume_values(conn: AsyncConnection[Any], run: Run) -> dict[str, Any]:
    """What to resume each answered or fired interrupt with, by its id. An answer was stored as the graph takes it; one
    to the SDK's `approval` says besides which question it answers, and what was shown.
    """
    values: dict[str, Any] = {}
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_APPROVALS["answers"], run.key())
        for row in await cursor.fetchall():
            packet = read_packet(row["packet"], row["schema"])
            values[row["interrupt_id"]] = delivered(packet, json.loads(row["answer"]), row["interrupt_id"])
        await cursor.execute(_WAITS["fired"], run.key())
        for row in await cursor.fetchall():
            values[row["interrupt_id"]] = {"payload": json.loads(row["payload"])}
    return values


def _fired(row: dict[str, Any]) -> dict[str, Any]:
    body = {"interrupt_id": row["interrupt_id"], "kind": row["kind"]}
    return body | ({"signal": row["signal"]} if row["signal"] else {})
