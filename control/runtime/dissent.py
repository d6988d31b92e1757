"""Whether the policy in force would still hear those who decided."""

from __future__ import annotations

from collections.abc import Sequence

from control.core.freshness import Moved
from control.core.verdict import Permit
from control.runtime.authority import replayed
from control.runtime.rules_in_force import in_force
from control.store.binding import Spoken
from control.store.database import Connection


async def dissent(conn: Connection, tenant: str, spoken: Sequence[Spoken]) -> tuple[Moved, ...]:
    """Each voice that today's policy would refuse, asked with the roles and the run of its time. Raises
    `policy-invalid`.
    """
    policy = await in_force(conn, tenant)
    found = []
    for actor, body in spoken:
        if body["policy"] == policy.version:
            continue
        verdict = policy.decide(replayed(body["request"], tenant))
        if not isinstance(verdict, Permit):
            action = body["request"]["action"]
            found.append(Moved("policy", f"on {action} by {actor}", "permitted", verdict.why))
    return tuple(found)
