"""Make, list and revoke API keys. Each asks policy for `manage_keys`, and shows or changes the tenant's own alone."""

from __future__ import annotations

from datetime import datetime
from secrets import token_hex, token_urlsafe
from typing import TYPE_CHECKING, Any

from control.core.action import Action
from control.core.api_key import ApiKey, Wanted, presented, spelled
from control.core.principal import Principal
from control.policy.port import Resource
from control.store import api_keys

if TYPE_CHECKING:
    from control.runtime.commands import Control


async def create_key(control: Control, wanted: Wanted) -> tuple[ApiKey, str]:
    """A new key, and its text, which is nowhere else and cannot be had again.

    Raises `api-key-unfit`, `not-permitted`. Nothing is stored then.
    """
    wanted.check(control.principal)
    text = spelled(token_hex(8), token_urlsafe(32))
    made, holder = presented(text), Principal(wanted.name, control.tenant, wanted.kind)
    assert made is not None
    about = {"owner": holder.actor, "kind": wanted.kind.value, "roles": sorted(wanted.roles)}
    async with control.transaction() as conn:
        await control.require(conn, Action.MANAGE_KEYS, _resource(control, made.key_id, about))
        return await api_keys.add(conn, wanted, made=made, by=control.principal), text


async def list_keys(control: Control, *, ended: bool = False, limit: int = 100) -> list[tuple[ApiKey, datetime]]:
    """The tenant's newest keys, and what time it is for each; `ended`: those too that are valid no more.

    Raises `not-permitted`.
    """
    async with control.transaction() as conn:
        await control.require(conn, Action.MANAGE_KEYS, _resource(control, "*", {"owner": control.by}))
        return await api_keys.listed(conn, control.tenant, ended=ended, limit=limit)


async def revoke_key(control: Control, key_id: str) -> ApiKey:
    """End a key, from its next use on. Raises `no-such-key`, `not-permitted`, `key-revoked`."""
    async with control.transaction() as conn:
        key = await api_keys.get(conn, control.tenant, key_id)
        about = {"owner": key.principal.actor, "kind": key.kind.value, "roles": sorted(key.roles)}
        await control.require(conn, Action.MANAGE_KEYS, _resource(control, key_id, about))
        return await api_keys.revoke(conn, control.tenant, key_id, by=control.by)


def _resource(control: Control, key_id: str, attributes: dict[str, Any]) -> Resource:
    return Resource("Key", key_id, control.tenant, attributes)
