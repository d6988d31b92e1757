"""What a graph's own API could do to a thread behind the commands' back: policy has to permit each."""

from __future__ import annotations

from collections.abc import Sequence

from control.core.action import Action
from control.core.principal import Principal
from control.core.problem import Refusal
from control.core.verdict import Permit
from control.policy.port import Resource
from control.runtime.authority import Authority
from control.runtime.rules_in_force import in_force
from control.store import runs, verdicts
from control.store.database import Connection
from control.store.writers import Permitting


def permits(principal: Principal) -> Permitting:
    """Asks policy, as this principal. A refusal is put on record in the ledger of the last run on the thread, ended or
    not; the same one again once an hour at most. What is returned refuses with `not-permitted` or `agreement-needed`,
    and raises `policy-invalid`.
    """

    async def permit(conn: Connection, action: Action, threads: Sequence[str]) -> Refusal | None:
        authority = Authority(await in_force(conn, principal.tenant), principal)
        for thread_id in threads:
            on = Resource("Thread", thread_id, principal.tenant, {"thread_id": thread_id})
            verdict = authority.judge(action, on)
            if not isinstance(verdict, Permit):
                if run := await runs.lock_last_on(conn, principal.tenant, thread_id):
                    body, at = authority.refused(action, on, verdict), await runs.now(conn)
                    await verdicts.put_refusal(conn, run, body, actor=principal.actor, at=at)
                return authority.refusal(action, on, verdict)
        return None

    return permit
