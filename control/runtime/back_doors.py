"""What a graph's own API could do to a thread behind the commands' back: policy has to permit each."""

from __future__ import annotations

from collections.abc import Sequence

from control.core.action import Action
from control.core.principal import Principal
from control.policy.port import Resource
from control.runtime.authority import Authority
from control.runtime.rules_in_force import in_force
from control.store.database import Connection
from control.store.writers import Permitting


def permits(principal: Principal) -> Permitting:
    """Asks policy, as this principal. What is returned raises `not-permitted`, `agreement-needed`, `policy-invalid`."""

    async def permit(conn: Connection, action: Action, threads: Sequence[str]) -> None:
        authority = Authority(await in_force(conn, principal.tenant), principal)
        for thread_id in threads:
            authority.require(action, Resource("Thread", thread_id, principal.tenant, {"thread_id": thread_id}))

    return permit
