"""Gathering the heads of runs into signed trees, and knowing a restored backup by the trees that it lacks.

Any worker does this for all tenants; one at a time makes a tenant's trees. What was seen is written outside the
database after it was committed, so that the memory is never ahead of what is true. When the database is found behind
that memory, nothing is done until somebody brings the newer one back or accepts the loss on record.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from control.core import merkle
from control.core.problem import Problem, Refusal
from control.core.tree import TREE_DOMAIN, Leaf, Mark, Restored, Tree
from control.runtime.high_water import HighWater
from control.runtime.signing import Keys
from control.store import runs, trees
from control.store.database import Connection, Database
from control.store.trees import Stored

DATABASE_RESTORED: Final = Problem(
    code="database-restored",
    status=409,
    title="The database is an earlier copy of itself",
    next_step="Bring the newer one back; or give up what is lost, on record: `control audit accept-restore --reason`.",
)
NOT_RESTORED: Final = Problem(
    code="database-not-restored",
    status=409,
    title="Nothing shows that the database was restored",
    next_step="Carry on; `control doctor` says what was seen of it.",
)
_LATE: Final = timedelta(minutes=1)
"""How long before its commit an entry may have taken its time. Later ones wait for the next look at every run."""
_NOBODY: Final = ""  # no tenant is called so: what is read then belongs to none
Leave = Callable[[Connection], Awaitable[object]]
"""Asks policy, in the transaction that does what it permits; raises where it does not."""


@dataclass(frozen=True, slots=True)
class Behind:
    """A tenant's tree that was seen and is not here; `newest` is the number of the newest that is, 0 for none."""

    tenant: str
    seen: Mark
    newest: int

    def __str__(self) -> str:
        here = f"the newest here is tree {self.newest}" if self.newest else "there is none here"
        if self.newest >= self.seen.number:
            here = f"the tree {self.seen.number} that is here is another one"
        return f"Tree {self.seen.number} of tenant {self.tenant} was seen at {self.seen.at}, and {here}."


@dataclass
class Attestor:
    """See the module. One for a process; `since` remembers how far each tenant has been looked through."""

    database: Database
    keys: Keys
    since: dict[str, datetime] = field(default_factory=dict)

    async def require_newest(self, tenants: Iterable[str] | None = None) -> None:
        """Raise `database-restored` where the database is behind what was seen of these tenants, or of any."""
        if found := await self.behind(tenants):
            raise _restored(found)

    async def behind(self, tenants: Iterable[str] | None = None) -> list[Behind]:
        """The tenants whose newest tree that was seen is not here, and was not given up on record."""
        async with self.database.scope("control_flush", _NOBODY) as conn:
            seen = self._seen(await trees.lineage(conn))
        found = []
        for tenant in sorted(seen if tenants is None else seen.keys() & set(tenants)):
            async with self.database.scope("control_flush", tenant) as conn:
                if (missing := await _missing(conn, tenant, seen[tenant])) is not None:
                    found.append(missing)
        return found

    async def attest(self, tenant: str, *, wait: bool = False, leave: Leave | None = None) -> int:
        """Gather what has moved since the last time into trees, and remember the newest. Returns how many heads.

        With `wait`, whoever makes trees of the tenant now is waited for; without, it is left to them. `leave` is asked
        for where somebody orders it.
        """
        since, count = self.since.get(tenant), 0
        while True:
            async with self.database.scope("control_flush", tenant) as conn:
                if leave is not None:
                    await leave(conn)
                lineage = await trees.lineage(conn)
                if (seen := self._seen(lineage).get(tenant)) and (missing := await _missing(conn, tenant, seen)):
                    raise _restored([missing])
                if not await trees.take_turn(conn, tenant, wait=wait):
                    return count
                at = await runs.now(conn)
                leaves = await trees.moved(conn, tenant, since=since)
                made = await self._grow(conn, tenant, leaves, at=at) if leaves else await trees.latest(conn, tenant)
            self._remember(lineage, tenant, made)
            count += len(leaves)
            if len(leaves) < trees.MOST_LEAVES:
                self.since[tenant] = at - _LATE
                return count

    async def accept_restore(self, tenant: str, *, by: str, reason: str, leave: Leave | None = None) -> Stored:
        """Give up what the database lacks, on record: in a tree, and in the ledger of every run that goes on.

        Raises `database-not-restored`, and what `leave` does.
        """
        async with self.database.scope("control_flush", tenant) as conn:
            if leave is not None:
                await leave(conn)
            await trees.take_turn(conn, tenant, wait=True)
            lineage = await trees.lineage(conn)
            seen = self._seen(lineage).get(tenant)
            lost = await _missing(conn, tenant, seen) if seen else None
            if lost is None:
                raise NOT_RESTORED.because(f"Every tree that was seen of tenant {tenant} is here.")
            at = await runs.now(conn)
            body = {"why": reason, "tree": lost.seen.number, "seen_at": lost.seen.at}
            for run in await runs.lock_open(conn, tenant):
                await runs.append(conn, run, [("restored", by, body)], at=at)
            gone = Restored(by, reason, lost.seen.number, lost.seen.digest)
            leaves = await trees.moved(conn, tenant, since=None)
            made = await self._grow(conn, tenant, leaves, at=at, restored=gone)
        self._remember(lineage, tenant, made)
        return made

    async def _grow(
        self, conn: Connection, tenant: str, leaves: list[Leaf], *, at: datetime, restored: Restored | None = None
    ) -> Stored:
        """One more tree; the caller has the turn."""
        before = await trees.latest(conn, tenant)
        signer = self.keys.active(await trees.keys(conn))
        tree = Tree(
            tenant,
            await trees.lineage(conn),
            1 + max(before.number if before else 0, restored.number if restored else 0),
            at,
            len(leaves),
            merkle.root([leaf.hashed(tenant) for leaf in leaves]),
            before.digest if before else None,
            signer.id if signer else None,
            restored,
        )
        signature = signer.sign(TREE_DOMAIN, tree.text()) if signer else None
        return await trees.add(conn, tree, leaves, signature=signature)

    def _remember(self, lineage: UUID, tenant: str, made: Stored | None) -> None:
        if made is not None:
            mark = Mark(made.number, made.digest.hex(), made.at.isoformat())
            HighWater(self.keys.folder, lineage).rise(tenant, mark)

    def _seen(self, lineage: UUID) -> Mapping[str, Mark]:
        """The newest tree that was seen of each tenant."""
        return HighWater(self.keys.folder, lineage).read()


def _restored(found: Sequence[Behind]) -> Refusal:
    more = f" {len(found) - 1} more tenants are behind as well." if len(found) > 1 else ""
    return DATABASE_RESTORED.because(f"{found[0]}{more}", tenants=[behind.tenant for behind in found])


async def _missing(conn: Connection, tenant: str, seen: Mark) -> Behind | None:
    here = await trees.numbered(conn, tenant, [seen.number])
    if here and here[0].digest.hex() == seen.digest:
        return None
    if await trees.given_up(conn, tenant, number=seen.number, digest=seen.digest):
        return None
    newest = await trees.latest(conn, tenant)
    return Behind(tenant, seen, newest.number if newest else 0)
