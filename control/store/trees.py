"""Trees over the heads of a tenant's runs, and the keys that sign them, as the database holds them.

Every function works in the caller's transaction, which sees one tenant. `core.tree` says what a tree states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row

from control.core.tree import Leaf, Tree, digest
from control.store.arrays import Blobs, Texts
from control.store.sql import read

MOST_LEAVES: Final = 10_000
"""A tree gathers no more heads than this; the next one gathers the rest."""

_SQL: Final = read("trees")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stored:
    """A tree as stored. `key_id` and `signature` are None where nobody signed it."""

    number: int
    at: datetime
    text: str
    digest: bytes
    key_id: str | None
    signature: bytes | None
    restored: bool


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that signs, or signed. `text` is the statement that brought it in."""

    key_id: str
    public: bytes
    replaces: str | None
    made_by: str
    since: datetime
    text: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class Placed:
    """The newest leaf of a run: in which tree, and where."""

    number: int
    place: int
    seq: int
    hash: bytes


Conn = AsyncConnection[Any]


async def lineage(conn: Conn) -> UUID:
    """The name of this database, which its copies share."""
    row = await (await _execute(conn, "lineage")).fetchone()
    assert row is not None, "the migration names the database"
    return UUID(str(row["lineage"]))


async def take_turn(conn: Conn, tenant: str, *, wait: bool) -> bool:
    """Whether this transaction may make a tree of the tenant now. Until it ends, no other does, and keys stay."""
    await _execute(conn, "sign")
    if wait:
        await _execute(conn, "turn", tenant=tenant)
        return True
    row = await (await _execute(conn, "alone", tenant=tenant)).fetchone()
    return bool(row and row["alone"])


async def latest(conn: Conn, tenant: str) -> Stored | None:
    return next(iter(await _rows(conn, Stored, "latest", tenant=tenant)), None)


async def numbered(conn: Conn, tenant: str, numbers: Sequence[int]) -> list[Stored]:
    """Those of the tenant's trees that have these numbers, in order."""
    return await _rows(conn, Stored, "numbered", tenant=tenant, numbers=list(numbers))


async def given_up(conn: Conn, tenant: str, *, number: int, digest: str) -> bool:
    """Whether a statement owns up to the loss of this tree."""
    return await (await _execute(conn, "restored", tenant=tenant, number=number, digest=digest)).fetchone() is not None


async def moved(conn: Conn, tenant: str, *, since: datetime | None) -> list[Leaf]:
    """Heads that no tree has gathered, in the order of their runs: of all runs, or those with an entry since then."""
    name, known = ("moved", {}) if since is None else ("moved_since", {"since": since})
    return await _rows(conn, Leaf, name, tenant=tenant, limit=MOST_LEAVES, **known)


async def add(conn: Conn, tree: Tree, leaves: Sequence[Leaf], *, signature: bytes | None) -> Stored:
    """Store a tree that the caller had the turn to make."""
    text = tree.text()
    named = {"tenant": tree.tenant, "number": tree.number}
    stored = Stored(tree.number, tree.at, text, digest(text), tree.key, signature, tree.restored is not None)
    row = {name: getattr(stored, name) for name in ("at", "text", "digest", "key_id", "signature", "restored")}
    await _execute(conn, "add", **named, **row, size=tree.size)
    if leaves:
        runs, seqs = Texts(str(leaf.run_id) for leaf in leaves), Texts(str(leaf.seq) for leaf in leaves)
        await _execute(conn, "add_leaves", **named, runs=runs, seqs=seqs, hashes=Blobs(leaf.hash for leaf in leaves))
    return stored


async def leaves(conn: Conn, tenant: str, number: int) -> list[Leaf]:
    """The leaves of a tree, in their order."""
    return await _rows(conn, Leaf, "leaves", tenant=tenant, number=number)


async def leaf_of(conn: Conn, tenant: str, run_id: UUID) -> Placed | None:
    """The newest leaf of a run."""
    return next(iter(await _rows(conn, Placed, "leaf_of", tenant=tenant, run_id=run_id)), None)


async def keys(conn: Conn) -> list[PublicKey]:
    """The keys, oldest first."""
    return await _rows(conn, PublicKey, "keys")


async def hold_signing(conn: Conn) -> None:
    """Let nobody sign until this transaction ends: the keys change."""
    await _execute(conn, "change_keys")


async def add_key(conn: Conn, key: PublicKey) -> None:
    """Bring a key in. The caller holds signing."""
    await _execute(conn, "add_key", **{name: getattr(key, name) for name in key.__slots__})


async def _rows(conn: Conn, row: type[T], query: str, **params: Any) -> list[T]:
    async with conn.cursor(row_factory=class_row(row)) as cursor:
        return await (await cursor.execute(_SQL[query], params)).fetchall()


async def _execute(conn: Conn, query: str, **params: Any) -> Any:
    return await conn.cursor(row_factory=dict_row).execute(_SQL[query], params)
