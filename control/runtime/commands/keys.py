"""Make, list and revoke API keys. Each asks policy for `manage_keys`, and shows or changes the tenant's own alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from secrets import token_hex, token_urlsafe
from typing import TYPE_CHECKING, Any

from control.core.action import Action
from control.core.api_key import ApiKey, Wanted, presented, spelled
from control.core.principal import Principal
from control.core.verdict import Permit
from control.identity.credential import CREDENTIAL_EXPIRED
from control.policy.port import Resource
from control.store import api_keys

if TYPE_CHECKING:
    from control.runtime.commands import Control


@dataclass(frozen=True, slots=True)
class Revoked:
    """What is revoked: a key, and what was made with it, however far down. `left` was, and is still valid. before: the
    key itself had been revoked.
    """

    key: ApiKey
    before: bool
    besides: list[ApiKey]
    left: list[ApiKey]


async def create_key(control: Control, wanted: Wanted) -> tuple[ApiKey, str]:
    """A new key, and its text, which is nowhere else and cannot be had again.

    Raises `api-key-unfit`, `not-permitted`, and `credential-expired` where the key that it is made with has just been
    revoked. Nothing is stored then.
    """
    wanted.check(control.principal)
    text = spelled(token_hex(8), token_urlsafe(32))
    made, holder = presented(text), Principal(wanted.name, control.tenant, wanted.kind)
    assert made is not None
    about = {"owner": holder.actor, "kind": wanted.kind.value, "roles": sorted(wanted.roles)}
    async with control.transaction() as conn:
        await control.require(conn, Action.MANAGE_KEYS, _resource(control, made.key_id, about))
        added = await api_keys.add(conn, wanted, made=made, by=control.principal)
    if added is None:
        raise CREDENTIAL_EXPIRED.because("The API key was revoked.", check="revocation", key_id=control.principal.key)
    return added, text


async def list_keys(control: Control, *, ended: bool = False, limit: int = 100) -> list[tuple[ApiKey, datetime]]:
    """The tenant's newest keys, and what time it is for each; `ended`: those too that are valid no more.

    Raises `not-permitted`.
    """
    async with control.transaction() as conn:
        await control.require(conn, Action.MANAGE_KEYS, _resource(control, "*", {"owner": control.by}))
        return await api_keys.listed(conn, control.tenant, ended=ended, limit=limit)


async def revoke_key(control: Control, key_id: str, *, only: bool = False) -> Revoked:
    """End a key, from its next use on, and with it what was made with it, unless `only` this one is meant. Of that,
    what the rules keep from being revoked is left. Of one that was revoked before, what is still valid below it goes
    now. Raises `no-such-key`, `not-permitted`, and `key-revoked` where nothing is left to revoke.
    """
    async with control.transaction() as conn:
        await api_keys.serialise(conn, control.tenant)
        key, authority = await api_keys.get(conn, control.tenant, key_id), await control.authority(conn)
        authority.require(Action.MANAGE_KEYS, _about(key))
        before, below = key.revoked_at is not None, await api_keys.made_with(conn, control.tenant, key_id)
        if only or not before or not below:
            key = await api_keys.revoke(conn, control.tenant, key_id, by=control.by)
        besides, left = list[ApiKey](), list[ApiKey]()
        for made in below:
            if only or not isinstance(authority.judge(Action.MANAGE_KEYS, _about(made)), Permit):
                left.append(made)
            else:
                besides.append(await api_keys.revoke(conn, control.tenant, made.key_id, by=control.by))
        return Revoked(key, before, besides, left)


def _about(key: ApiKey) -> Resource:
    about = {"owner": key.principal.actor, "kind": key.kind.value, "roles": sorted(key.roles)}
    return Resource("Key", key.key_id, key.tenant, about)


def _resource(control: Control, key_id: str, attributes: dict[str, Any]) -> Resource:
    return Resource("Key", key_id, control.tenant, attributes)
