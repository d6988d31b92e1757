"""Writing a bundle: ledgers as they are stored, with the proofs and the seal that `core.bundle` describes.

Everything is read in one snapshot, run by run, so that a bundle of any size takes little memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from control.core import merkle
from control.core.action import Action
from control.core.bundle import entry_record, line, seal_text
from control.core.ledger import microseconds
from control.core.problem import Problem
from control.core.run_status import Status
from control.core.tree import SEAL_DOMAIN
from control.runtime.commands import Control
from control.runtime.signing import Keys, PrivateKey
from control.store import bundles, runs, trees
from control.store.bundles import Chosen, Head
from control.store.database import Connection

NOTHING_TO_EXPORT: Final = Problem(
    code="nothing-to-export",
    status=404,
    title="There is nothing to export",
    next_step="Name another run, or an earlier instant.",
)


@dataclass(slots=True)
class Export:
    """One bundle in the making."""

    conn: Connection
    chosen: Chosen
    keys: Keys
    levels: dict[int, Sequence[Sequence[bytes]]] = field(default_factory=dict)
    heads: list[bytes] = field(default_factory=list)
    signed_by: str | None = None

    async def lines(self) -> AsyncIterator[bytes]:
        """The lines of the bundle. Raises `no-such-run`, `nothing-to-export`, `signing-key-unusable`."""
        frame, opening = sha256(), await self._opening()
        signer = self.keys.active(await trees.keys(self.conn))
        self.signed_by = signer.id if signer else None
        async for record in self._framing(opening):
            frame.update(written := line(record))
            yield written
        async for head in bundles.heads(self.conn, self.chosen):
            async for entry in bundles.entries(self.conn, head):
                yield line(entry_record(head.run_id, entry))
            written = line(await self._head(head))
            self.heads.append(merkle.leaf(written))
            yield written
        if not self.heads:
            raise NOTHING_TO_EXPORT.because(f"Tenant {self.chosen.tenant} has no run with an entry since then.")
        yield line(_sealed(opening, frame.digest(), self.heads, signer=signer))

    async def _opening(self) -> dict[str, Any]:
        at = await runs.now(self.conn)
        lineage = await trees.lineage(self.conn)
        return {
            "record": "bundle", "version": 1, "at": microseconds(at), "lineage": str(lineage),
            "tenant": self.chosen.tenant,
        }  # fmt: skip

    async def _framing(self, opening: Mapping[str, Any]) -> AsyncIterator[Mapping[str, Any]]:
        yield opening
        for key in await trees.keys(self.conn):
            yield {"record": "key", "text": key.text, "signature": key.signature.hex()}
        needed = await bundles.trees_of(self.conn, self.chosen)
        for tree in await trees.numbered(self.conn, self.chosen.tenant, needed):
            signature = tree.signature.hex() if tree.signature else None
            yield {"record": "tree", "text": tree.text, "signature": signature}

    async def _head(self, head: Head) -> dict[str, Any]:
        return {
            "record": "head", "run": str(head.run_id), "seq": head.seq, "hash": head.hash.hex(),
            "proof": await self._proof(head.run_id),
        }  # fmt: skip

    async def _proof(self, run_id: UUID) -> dict[str, Any] | None:
        tenant = self.chosen.tenant
        leaf = await trees.leaf_of(self.conn, tenant, run_id)
        if leaf is None:
            return None
        if leaf.number not in self.levels:
            found = await trees.leaves(self.conn, tenant, leaf.number)
            self.levels[leaf.number] = merkle.levels([one.hashed(tenant) for one in found])
        path = [step.hex() for step in merkle.path(self.levels[leaf.number], leaf.place)]
        return {"tree": leaf.number, "place": leaf.place, "seq": leaf.seq, "hash": leaf.hash.hex(), "path": path}


@asynccontextmanager
async def exporting(
    control: Control, keys: Keys, *, run_id: UUID | None = None, since: datetime | None = None
) -> AsyncIterator[Export]:
    """An export, on a connection and a snapshot of its own, of one run, or of all with an entry since then, or of all.

    Policy is asked of every run before anything is written, and of the tenant unless one run is named: a bundle leaves
    out no run that was meant. Raises `not-permitted`, `no-such-run`.
    """
    chosen = Chosen(control.tenant, run_id, since, control.stall_after)
    async with bundles.snapshot(control.database, control.tenant) as conn:
        authority = await control.authority(conn)
        whole = None if run_id else control.whole
        if whole is not None:
            authority.require(Action.EXPORT, whole)
        async for head in bundles.heads(conn, chosen):
            authority.require_of(Action.EXPORT, head, Status(head.status), part_of=whole)
        yield Export(conn, chosen, keys)


def _sealed(
    opening: Mapping[str, Any], frame: bytes, heads: list[bytes], *, signer: PrivateKey | None
) -> dict[str, Any]:
    text = seal_text(opening, frame=frame, heads=heads, key=signer.id if signer else None)
    return {"record": "seal", "text": text, "signature": signer.sign(SEAL_DOMAIN, text).hex() if signer else None}
