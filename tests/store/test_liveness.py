"""Who counts as alive: the commands, the scripts' writers and the workers' sweep give one answer."""

from __future__ import annotations

from datetime import timedelta

import pytest

from control.core.problem import Refusal
from control.store import runs
from control.store.claims import Claims
from tests.store.holding import checkpoint, claimed, execute, installation

HOLDER = """
insert into control.worker (worker_id, kind, host, pid, lease_until, server_start_at)
values (%s, 'writer', 'h', 1, clock_timestamp() + interval '1 hour', pg_postmaster_start_time() - interval '1 day')
"""


@pytest.mark.parametrize(("wait_s", "alive"), [(1e8, True), (1e-6, False)])
async def test_a_holder_that_a_restart_cut_off_has_as_long_as_the_setting_says(
    database: str, wait_s: float, alive: bool
) -> None:
    """Its lock went with the server; nothing but the setting decides whether it may still come back."""
    fence = claimed(database, thread="t")
    execute(database, HOLDER, (fence.worker_id,))
    execute(database, "update control.run set workflow = null")
    async with installation(database, failover_wait_s=wait_s) as app:
        control = app.control()
        async with control.transaction() as conn:
            facts, _ = await control.look(conn, await runs.read_run(conn, "default", fence.run_id))
        sweep = Claims(app.database)
        worker_id, grace = app.worker().worker_id, timedelta(seconds=wait_s)
        assert await sweep.orphans(worker_id, grace=grace, settled=False) == [], "a newcomer does not judge"
        orphans = await sweep.orphans(worker_id, grace=grace, settled=True)
        await sweep.close()
        made, versions = checkpoint()
        try:
            at = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
            await app.saver.aput(at, made, {"source": "loop", "step": 0, "parents": {}}, versions)
            held = False
        except Refusal as refusal:
            held = refusal.problem.code == "claim-held"
    assert facts.claim is not None
    assert (facts.claim.alive, held, orphans == []) == (alive, alive, alive)
