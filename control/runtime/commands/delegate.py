"""Stand in for somebody: from one instant to another, one person votes in another's place."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from control.core.action import Action
from control.core.approval import Voter
from control.core.problem import Problem
from control.runtime.commands import Control
from control.store import delegations as store
from control.store import runs
from control.store.database import Connection
from control.store.delegations import Delegation

DELEGATION_INVALID: Final = Problem(
    code="delegation-invalid",
    status=422,
    title="Nobody can stand in like that",
    next_step="Name two different persons, the roles that are lent, and a time that begins before it ends.",
)
NOT_YOURS_TO_LEND: Final = Problem(
    code="not-yours-to-lend",
    status=403,
    title="Only what is one's own can be lent",
    next_step="Let the person who is away arrange it, with roles of their own.",
)
NO_SUCH_DELEGATION: Final = Problem(
    code="no-such-delegation",
    status=404,
    title="There is no such delegation",
    next_step="List those that hold with `control delegations`; one that is over needs no end.",
)
LONGEST: Final = timedelta(days=366)


async def delegate(
    control: Control,
    taker: str,
    *,
    ends_at: datetime,
    starts_at: datetime | None = None,
    roles: Collection[str] | None = None,
    reason: str | None = None,
) -> Delegation:
    """Let `taker` vote in the caller's place, with these of the caller's roles, or all of them.

    Raises `delegation-invalid`, `not-yours-to-lend`, `not-permitted`.
    """
    principal = control.principal
    lent = principal.roles if roles is None else frozenset(roles)
    if beyond := sorted(lent - principal.roles):
        raise NOT_YOURS_TO_LEND.because(f"{control.by} is not {' or '.join(beyond)}.", roles=beyond)
    async with control.transaction() as conn:
        await control.require(conn, Action.DELEGATE)
        at = await runs.now(conn)
        made = Delegation(
            delegation_id=uuid4(),
            giver=control.by,
            taker=taker,
            roles=sorted(lent),
            starts_at=starts_at or at,
            ends_at=ends_at,
            made_by=control.by,
            made_at=at,
            reason=reason,
            revoked_by=None,
            revoked_at=None,
        )
        _check(made, now=at)
        await store.add(conn, control.tenant, made)
        return made


async def revoke(control: Control, delegation_id: UUID) -> Delegation:
    """End a delegation of the caller's before its time. Raises `no-such-delegation`, `not-yours-to-lend`."""
    async with control.transaction() as conn:
        found = await store.read_one(conn, control.tenant, delegation_id)
        if found is not None and found.giver != control.by:
            raise NOT_YOURS_TO_LEND.because(f"{found.giver} has arranged it.", giver=found.giver)
        at = await runs.now(conn)
        ended = await store.revoke(conn, control.tenant, delegation_id, by=control.by, at=at)
        if ended is None:
            raise NO_SUCH_DELEGATION.because(f"None that still holds has the id {delegation_id}.")
        return ended


async def delegations(control: Control) -> list[Delegation]:
    """The delegations of the tenant that hold now or will. Raises `not-permitted`."""
    async with control.transaction() as conn:
        await control.require(conn, Action.READ)
        return await store.holding(conn, control.tenant, at=await runs.now(conn))


async def voters(control: Control, conn: Connection) -> list[Voter]:
    """The caller as a voter: alone, and in the place of everybody who has arranged it for now."""
    principal, at = control.principal, await runs.now(conn)
    lent = await store.lent(conn, control.tenant, principal.actor, at=at)
    alone = Voter(principal.actor, principal.roles, via=principal.makers)
    return [alone, *(replace(alone, roles=frozenset(one.roles), on_behalf_of=one.giver) for one in lent)]


def _check(made: Delegation, *, now: datetime) -> None:
    if not made.taker.strip() or made.taker == made.giver:
        raise DELEGATION_INVALID.because("Nobody stands in for themselves.")
    if made.ends_at <= max(made.starts_at, now):
        raise DELEGATION_INVALID.because("It would be over before it begins.")
    if made.ends_at - made.starts_at > LONGEST:
        raise DELEGATION_INVALID.because("It would hold for more than a year.")
