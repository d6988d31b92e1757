"""API keys at rest: digests, and what each key stands for."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from control.core.api_key import ApiKey, Presented, Wanted
from control.core.phrasing import instant
from control.core.principal import Principal, PrincipalKind
from control.core.problem import Problem
from control.store.database import Database
from control.store.sql import read

NO_SUCH_KEY: Final = Problem(
    code="no-such-key",
    status=404,
    title="There is no such key",
    next_step="List the keys with `control keys list --all`; a key of another tenant cannot be seen.",
)
KEY_REVOKED: Final = Problem(
    code="key-revoked",
    status=409,
    title="The key was revoked before",
    next_step="It has not been accepted since; without `--only`, what is still valid of those made with it goes too.",
)
_SQL: Final = read("api_keys")
_NOBODY: Final = ""  # no tenant is called so


async def find(database: Database, sent: Presented) -> tuple[ApiKey, datetime] | None:
    """The key that was sent, of whichever tenant, and what time it is; None where none has this id and this secret.

    Row security shows the row to nobody who did not present its digest, so that no role reads across tenants. Digests
    are compared again here, in constant time. Valid or not is the caller's to ask.
    """
    async with database.scope("control_command", _NOBODY) as conn:
        await conn.execute(_SQL["present"], {"digest": sent.digest})
        row = await (await conn.execute(_SQL["presented"], {"key_id": sent.key_id})).fetchone()
    stored = bytes(row["digest"]) if row else bytes(32)
    if not hmac.compare_digest(stored, sent.digest) or row is None:
        return None
    return _key(row), row["now"]


async def touch(database: Database, key: ApiKey, now: datetime) -> None:
    """Note the day of the key's last use. Writes once a day."""
    if key.used_on != now.date():
        async with database.scope("control_command", key.tenant) as conn:
            await conn.execute(_SQL["touch"], {"tenant": key.tenant, "key_id": key.key_id, "day": now.date()})


async def add(conn: AsyncConnection[Any], wanted: Wanted, *, made: Presented, by: Principal) -> ApiKey | None:
    """Store a key that was checked and permitted, for the tenant of whoever makes it. None: their own was revoked
    meanwhile, and nothing is stored."""
    given = {
        "tenant": by.tenant, "key_id": made.key_id, "digest": made.digest, "name": wanted.name,
        "kind": wanted.kind.value, "roles": sorted(wanted.roles),
        "scopes": None if wanted.scopes is None else sorted(wanted.scopes), "by": by.actor, "via": sorted(by.makers),
        "made_with": by.key, "lifetime": wanted.lifetime,
    }  # fmt: skip
    await conn.execute(_SQL["beside_others"], given)
    row = await (await conn.cursor(row_factory=dict_row).execute(_SQL["add"], given)).fetchone()
    return None if row is None else _key(row)


async def listed(conn: AsyncConnection[Any], tenant: str, *, ended: bool, limit: int) -> list[tuple[ApiKey, datetime]]:
    """The newest keys, each with what time it is; with `ended` those too that are not valid any more."""
    given = {"tenant": tenant, "all": ended, "limit": limit}
    rows = await (await conn.cursor(row_factory=dict_row).execute(_SQL["list"], given)).fetchall()
    return [(_key(row), row["now"]) for row in rows]


async def get(conn: AsyncConnection[Any], tenant: str, key_id: str) -> ApiKey:
    """Raises `no-such-key`."""
    given = {"tenant": tenant, "key_id": key_id}
    row = await (await conn.cursor(row_factory=dict_row).execute(_SQL["get"], given)).fetchone()
    if row is None:
        raise NO_SUCH_KEY.because("No key of this tenant has that id.")
    return _key(row)


async def serialise(conn: AsyncConnection[Any], tenant: str) -> None:
    """Wait until nobody else makes or revokes keys of the tenant; nobody will until the transaction ends."""
    await conn.execute(_SQL["serialise"], {"tenant": tenant})


async def made_with(conn: AsyncConnection[Any], tenant: str, key_id: str) -> list[ApiKey]:
    """The valid keys that were made with this one, or with one that was, however far down."""
    given = {"tenant": tenant, "key_id": key_id}
    rows = await (await conn.cursor(row_factory=dict_row).execute(_SQL["made_with"], given)).fetchall()
    return [_key(row) for row in rows]


async def revoke(conn: AsyncConnection[Any], tenant: str, key_id: str, *, by: str) -> ApiKey:
    """End a key, from the next request on. Raises `no-such-key`, `key-revoked`."""
    given = {"tenant": tenant, "key_id": key_id, "by": by}
    row = await (await conn.cursor(row_factory=dict_row).execute(_SQL["revoke"], given)).fetchone()
    if row is not None:
        return _key(row)
    before = await get(conn, tenant, key_id)
    assert before.revoked_at is not None
    raise KEY_REVOKED.because(
        f"{before.revoked_by} revoked it at {instant(before.revoked_at)}.",
        revoked_by=before.revoked_by,
        revoked_at=before.revoked_at.isoformat(),
    )


def _key(row: Mapping[str, Any]) -> ApiKey:
    return ApiKey(
        tenant=row["tenant"],
        key_id=row["key_id"],
        digest=bytes(row["digest"]),
        name=row["name"],
        kind=PrincipalKind(row["kind"]),
        roles=frozenset(row["roles"]),
        scopes=None if row["scopes"] is None else frozenset(row["scopes"]),
        created_by=row["created_by"],
        via=frozenset(row["via"]),
        made_with=row["made_with"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        used_on=row["used_on"],
        revoked_by=row["revoked_by"],
        revoked_at=row["revoked_at"],
    )
