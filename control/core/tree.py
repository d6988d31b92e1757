"""Trees over the heads of a tenant's runs, each signed as a statement, each naming the one before it.

The head of a run is the hash of its ledger's last entry, and so stands for the whole ledger. At intervals the heads
that have moved are gathered as the leaves of a tree; its root goes into a statement, which is signed:

    leaf      = sha256(0x00 || "{tenant}|{run_id}|{seq}|" || hash)
    statement = {"at", "key", "lineage", "number", "previous", "restored"?, "root", "size", "tenant"} as canonical JSON
    signature = Ed25519("langgraph-control tree 1\n" || statement)

`previous` is the sha256 of the statement before: whoever holds one statement holds all that came before it. `lineage`
names the database, copies included. Numbers rise by one; only a statement that owns up to a
restore (`restored`) may leave some out, those that were lost by it. Without a key a tree is a statement that nobody
signed: it shows a restore, and proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from control.core import merkle
from control.core.ledger import canonical, microseconds

TREE_DOMAIN: Final = b"langgraph-control tree 1\n"
KEY_DOMAIN: Final = b"langgraph-control key 1\n"
SEAL_DOMAIN: Final = b"langgraph-control seal 1\n"
"""What stands before each kind of text when it is signed, so that none can be passed off as another."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """Where a run's ledger stood: its last entry and that entry's hash."""

    run_id: UUID
    seq: int
    hash: bytes

    def hashed(self, tenant: str) -> bytes:
        """The leaf as it enters the tree."""
        return merkle.leaf(f"{tenant}|{self.run_id}|{self.seq}|".encode() + self.hash)


@dataclass(frozen=True, slots=True)
class Mark:
    """The newest tree that somebody outside the database has seen."""

    number: int
    digest: str
    at: str


@dataclass(frozen=True, slots=True)
class Restored:
    """Who went on from an earlier copy of the database, why, and which newer tree was given up by it."""

    by: str
    reason: str
    number: int
    digest: str


@dataclass(frozen=True, slots=True)
class Tree:
    """A statement about a tenant's heads. `key` names who signs; `previous` is None in the first tree."""

    tenant: str
    lineage: UUID
    number: int
    at: datetime
    size: int
    root: bytes
    previous: bytes | None
    key: str | None
    restored: Restored | None = None

    def text(self) -> str:
        """The statement, as it is stored and signed."""
        said: dict[str, Any] = {
            "at": microseconds(self.at),
            "key": self.key,
            "lineage": str(self.lineage),
            "number": self.number,
            "previous": self.previous.hex() if self.previous else None,
            "root": self.root.hex(),
            "size": self.size,
            "tenant": self.tenant,
        }
        if gone := self.restored:
            said["restored"] = {"by": gone.by, "digest": gone.digest, "number": gone.number, "reason": gone.reason}
        return canonical(said).decode()


def digest(text: str) -> bytes:
    """What the next statement calls this one."""
    return sha256(text.encode()).digest()


def key_id(public: bytes) -> str:
    """The name of a public key (its 32 raw bytes)."""
    return sha256(public).hexdigest()[:16]


def key_text(public: bytes, *, at: datetime, replaces: str | None) -> str:
    """The statement that brings a key in. The key that it replaces signs it, and is valid until then; the first one
    signs its own.
    """
    said = {"at": microseconds(at), "key": key_id(public), "public": public.hex(), "replaces": replaces}
    return canonical(said).decode()
