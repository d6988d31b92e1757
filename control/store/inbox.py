"""The inbox: every open question of a tenant, or those that are somebody's to decide."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from control.core.approval import Approval, Voter, objection
from control.core.predicate import ALWAYS, Predicate
from control.store.sql import read
from control.store.visibility import narrowed
from control.store.votes import approval_of

OLDEST: Final = read("inbox")["open"]
"""The longest open first."""
BY_DEADLINE: Final = OLDEST.replace("/* order */", "a.expires_at,")
"""Those whose time ends first before the others, and those without an end last."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A question in the inbox, with the run that asks. `packet` is the JSON text that is shown to whoever answers."""

    tenant: str
    run_id: UUID
    workflow: str | None
    thread_id: str
    created_by: str
    priority: int
    status: str
    interrupt_id: str
    node: str
    kind: str
    title: str
    packet: str
    opened_at: datetime
    expires_at: datetime | None
    due_at: datetime | None
    assigned_why: str | None
    approval: Approval


async def inbox(
    conn: AsyncConnection[Any],
    tenant: str,
    *,
    limit: int,
    stall_after: timedelta,
    where: Predicate = ALWAYS,
    voters: Iterable[Voter] = (),
    oldest: bool = False,
) -> list[Waiting]:
    """The open questions of the tenant's runs where the condition holds, those whose time ends first before the others;
    with `oldest`, the longest open first.

    With `voters` (a person, alone and in the place of others), only what one of them may decide and what does not lie
    with somebody else.
    """
    found: list[Waiting] = []
    speakers = tuple(voters)
    query, values = narrowed(OLDEST if oldest else BY_DEADLINE, where, tenant)
    params = {"tenant": tenant, "limit": None if speakers else limit, "stall_after": stall_after} | values
    async with conn.cursor(row_factory=dict_row) as cursor:
        async for row in cursor.stream(query, params):
            if len(found) == limit:
                continue  # to stop here would cancel the query, and with it the transaction
            waiting = _waiting(row)
            if not speakers or any(_concerns(waiting, voter) for voter in speakers):
                found.append(waiting)
    return found


def _concerns(waiting: Waiting, voter: Voter) -> bool:
    """Whether it is this person's: given to them, or to nobody while they may decide it."""
    assignee = waiting.approval.assignee
    if assignee is not None:
        return assignee in voter.persons
    return waiting.kind != "approval" or objection(waiting.approval, voter, yes=True) is None


def _waiting(row: dict[str, Any]) -> Waiting:
    named = {field.name: row[field.name] for field in fields(Waiting) if field.name != "approval"}
    return Waiting(**named, approval=approval_of(row, started_by=(row["created_by"], *row["created_via"])))
