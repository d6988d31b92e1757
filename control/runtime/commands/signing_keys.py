"""Make, replace and list the keys that sign the ledger. They sign every tenant's, so no tenant's rules give leave."""

from __future__ import annotations

from control.core.action import Action
from control.runtime import signing
from control.runtime.commands import Control
from control.runtime.signing import Keys
from control.store import runs, trees
from control.store.trees import PublicKey


async def create_signing_key(control: Control, keys: Keys) -> PublicKey:
    """The first key. Raises `not-a-tenants`, `signing-key-exists`, `signing-key-unusable`."""
    control.require_operator("make the key that signs")
    async with control.transaction() as conn:
        return await signing.bring_in(conn, keys, by=control.by, at=await runs.now(conn))


async def rotate_signing_key(control: Control, keys: Keys) -> PublicKey:
    """A new key, for which the old one vouches before its private part is destroyed. A setting's is left to be removed.

    Raises `not-a-tenants`, `signing-key-missing`, `signing-key-unusable`.
    """
    control.require_operator("replace the key that signs")
    async with control.transaction() as conn:
        new, old = await signing.rotate(conn, keys, by=control.by, at=await runs.now(conn))
    if old.file is not None:
        old.file.unlink(missing_ok=True)
    return new


async def list_signing_keys(control: Control) -> list[PublicKey]:
    """The public keys, oldest first. Raises `not-permitted`."""
    async with control.transaction() as conn:
        await control.require(conn, Action.READ)
        return await trees.keys(conn)
