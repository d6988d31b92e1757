"""Limits of a tenant: set them, and see what of them is used.

They hold the tenant, so that its own administrator reads them, and whoever operates the installation sets them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from control.core.action import Action
from control.core.limits import Limits, Quota
from control.runtime.commands import Control
from control.store import limits, runs
from control.store.database import Connection
from control.store.limits import Usage, Version


@dataclass(frozen=True, slots=True)
class Account:
    """A tenant's limits, who set them, and what it uses. `version` is None where nobody ever set any."""

    tenant: str
    limits: Limits
    version: Version | None
    usage: Usage


async def set_limits(control: Control, changes: Mapping[str, int | Quota | None]) -> Account:
    """Change the limits named, by the fields of `Limits`; None takes one away. In force from the commit on.

    What a raised limit lets go on is taken at once. Setting what is in force makes no new version. Raises
    `not-a-tenants`.
    """
    control.require_operator("set what a tenant may use")
    async with control.transaction() as conn:
        await limits.serialise(conn, control.tenant)
        before, _ = await limits.in_force(conn, control.tenant)
        given: dict[str, Any] = dict(changes)
        after = replace(before, **given)
        if after != before:
            await limits.put(conn, control.tenant, after, by=control.by)
            await runs.announce(conn, runs.WORK)
            await runs.announce(conn, runs.ORDERS)
        return await _account(conn, control.tenant)


async def account(control: Control) -> Account:
    """The limits in force, and what is used of them. Raises `not-permitted`, `agreement-needed`."""
    async with control.transaction() as conn:
        await control.require(conn, Action.READ_LIMITS)
        return await _account(conn, control.tenant)


async def history(control: Control, *, limit: int) -> list[Version]:
    """Every set of limits that there was, newest first. Raises `not-permitted`, `agreement-needed`."""
    async with control.transaction() as conn:
        await control.require(conn, Action.READ_LIMITS)
        return await limits.history(conn, control.tenant, limit=limit)


async def accounts(control: Control, tenants: list[str]) -> list[Account]:
    """The accounts of several tenants; others than one's own are for whoever operates the installation.

    Raises `not-a-tenants`, `not-permitted`, `agreement-needed`.
    """
    if any(name != control.tenant for name in tenants):
        control.require_operator("look at other tenants")
    return [await account(replace(control, principal=replace(control.principal, tenant=name))) for name in tenants]


async def _account(conn: Connection, tenant: str) -> Account:
    allowed, at = await limits.in_force(conn, tenant)
    return Account(tenant, allowed, await limits.newest(conn, tenant), await limits.usage(conn, tenant, allowed, at=at))
