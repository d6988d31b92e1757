"""The policy in force: the tenant's own text, or the rules that ship.

A transaction asks the database for the digest alone. A text that this process has parsed is not read again, and one
that was applied a moment ago, by whichever process, governs the next transaction.
"""

from __future__ import annotations

from datetime import datetime

from control.core.problem import Refusal
from control.policy.cedar import CedarPolicy, default_text, known, parsed
from control.policy.rules import POLICY_INVALID
from control.store import policies
from control.store.database import Connection


async def in_force(conn: Connection, tenant: str) -> CedarPolicy:
    """Raises `policy-invalid` where the stored text no longer fits the schema of this version."""
    digest = await policies.in_force(conn, tenant)
    if digest is None:
        return parsed(default_text())
    return known(digest) or parsed((await policies.history(conn, tenant, limit=1))[0].text)


async def in_force_at(conn: Connection, tenant: str, at: datetime) -> CedarPolicy:
    """What was in force at an instant. Raises `policy-invalid` as `in_force` does."""
    text = await policies.text_at(conn, tenant, at)
    return parsed(default_text() if text is None else text)


async def to_replace(conn: Connection, tenant: str) -> CedarPolicy:
    """The policy that says who may apply another: the one in force, or the shipped one where that cannot be read."""
    try:
        return await in_force(conn, tenant)
    except Refusal as refusal:
        if refusal.problem is not POLICY_INVALID:
            raise
        return parsed(default_text())
