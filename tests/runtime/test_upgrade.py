"""Old and new workers side by side: each run ends on a version that fits, or is blocked and says what to do.

Which worker takes which run is arranged, never left to who comes first: a worker has one slot, or is the only one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final
from uuid import UUID, uuid4

import psycopg

from control.core.ledger import Entry
from control.runtime.commands.cancel import cancel
from control.runtime.commands.restart import restart
from control.runtime.commands.rewind import rewind
from control.runtime.workflows import describe
from control.store.claims import Claims, Holdings
from control.testing.stage import Stage, staged
from tests.runtime.scenes import Cues, graphs, until
from tests.runtime.test_recovery import epochs, who
from tests.runtime.test_status_words import legal_verbs, run_of
from tests.runtime.test_verbs import said
from tests.runtime.troupe import Troupe

OLD, NEW = "flow=line", "flow=other line"  # a b c, and a bb c
WAYS_OUT = {"cancel", "restart", "rewind"}


def version(graph: str) -> str:
    """The digest that a worker which holds this graph as `flow` advertises."""
    (flow,) = graphs(flow=graph.partition("=")[2]).values()
    return describe("flow", flow).digest


def one(stage: Stage, run_id: UUID, kind: str) -> Entry:
    """The only entry of its kind."""
    (entry,) = (entry for entry in stage.ledger(run_id) if entry.kind == kind)
    return entry


async def test_each_version_ends_the_runs_that_it_began(database: str, cues: Cues, troupe: Troupe) -> None:
    """A run that nobody has begun goes to either version, and stays with it."""
    async with staged(database, graphs(flow="line"), work=False) as stage:
        old = troupe.hire(OLD, worker_slots=1)
        for node in ("b", "bb"):
            cues.give(node, "hold")
        first = await run_of(stage, "flow", cues)
        await cues.until_seen("b")
        new = troupe.hire(NEW, worker_slots=1)
        second = await run_of(stage, "flow", cues)  # the old one's slot is taken
        await cues.until_seen("bb")
        for node in ("b", "bb"):
            cues.take(node)
        for run_id, worker, graph, log in (first, old, OLD, ["a", "b", "c"]), (second, new, NEW, ["a", "bb", "c"]):
            await stage.until(run_id, "succeeded")
            assert await said(stage, run_id) == log
            assert epochs(stage, run_id) == [(1, who(troupe, worker))]
            assert (await stage.run(run_id)).graph_digest == version(graph)


async def test_a_run_that_is_handed_over_stays_with_its_version(database: str, cues: Cues, troupe: Troupe) -> None:
    """One worker of the old version leaves, one stays; one of the new is idle all the while, and may not take it."""
    async with staged(database, graphs("endless", flow="line"), work=False) as stage:
        leaving = troupe.hire(OLD, "endless")
        cues.give("b", "hold")
        run_id, marker = await run_of(stage, "flow", cues), await run_of(stage, "endless", cues)
        await cues.until_seen("b")
        await cues.until_seen("turn")
        staying, _ = troupe.hire(OLD), troupe.hire(NEW)
        os.kill(leaving, signal.SIGTERM)
        await until_handed_over(stage, marker)  # both runs were asked to stop in one breath
        cues.take("b")
        await stage.until(run_id, "succeeded")
        assert await said(stage, run_id) == ["a", "b", "c"]
        assert epochs(stage, run_id) == [(1, who(troupe, leaving)), (2, who(troupe, staying))]
        assert "adopted" not in stage.kinds(run_id)


async def until_handed_over(stage: Stage, run_id: UUID) -> None:
    async def handed_over() -> bool:
        return any(entry.body.get("outcome") == "drained" for entry in stage.ledger(run_id))

    await until(handed_over, "its worker has let it go")


async def test_a_version_cut_off_by_a_restart_has_its_time_to_come_back(database: str, cues: Cues) -> None:
    """Its worker has neither lock nor lease, as after any restart of the server, and counts as alive all the same."""
    async with staged(database, graphs(flow="other line"), work=False) as stage:
        run_id, desk = await run_of(stage, "flow", cues), Claims(stage.app.database)
        with psycopg.connect(database, autocommit=True) as conn:
            conn.execute("update control.run set graph_digest = %s where run_id = %s", (version(OLD), run_id))
            conn.execute("select control.server_seen_at()")
            conn.execute(CUT_OFF, {"digests": [version(OLD)]})
        new = Holdings(uuid4(), ["flow"], [version(NEW)])
        try:
            assert await desk.claim(new, free=1, behind={}, grace=timedelta(hours=1)) == []
            (taken,) = await desk.claim(new, free=1, behind={}, grace=timedelta())
        finally:
            await desk.close()
        assert taken.run_id == run_id


CUT_OFF: Final = """
insert into control.worker (worker_id, kind, host, pid, digests, lease_until, server_seen_at)
values (gen_random_uuid(), 'worker', 'h', 1, %(digests)s, clock_timestamp() - interval '1 minute', '-infinity')
"""


async def left_before(node: str, stage: Stage, *, cues: Cues, troupe: Troupe) -> tuple[UUID, int, int]:
    """A run, the old worker that was killed in the node, and the new one, the only one that is left."""
    old = troupe.hire(OLD)
    cues.give(node, "hold")
    run_id = await run_of(stage, "flow", cues)
    await cues.until_seen(node)
    troupe.kill(old)
    cues.take(node)
    return run_id, old, troupe.hire(NEW)


async def test_a_run_whose_version_is_gone_goes_on_where_it_fits(database: str, cues: Cues, troupe: Troupe) -> None:
    """It stands before `c`, which both versions have."""
    async with staged(database, graphs(flow="line"), work=False) as stage:
        run_id, old, new = await left_before("c", stage, cues=cues, troupe=troupe)
        await stage.until(run_id, "succeeded")
        assert epochs(stage, run_id) == [(1, who(troupe, old)), (2, who(troupe, new))]
        adopted = one(stage, run_id, "adopted").body
        assert (adopted["from"], adopted["digest"]) == (version(OLD), version(NEW))
        assert await said(stage, run_id) == ["a", "b", "c"]


@asynccontextmanager
async def blocked(database: str, cues: Cues, troupe: Troupe) -> AsyncIterator[tuple[Stage, UUID]]:
    """A run that stands before `b`, which the only version that is left does not have. It says so, and what helps."""
    async with staged(database, graphs(flow="line"), work=False) as stage:
        run_id, old, new = await left_before("b", stage, cues=cues, troupe=troupe)
        await until_blocked(stage, run_id)
        assert epochs(stage, run_id) == [(1, who(troupe, old)), (2, who(troupe, new))]
        assert cues.seen() == ["a", "b"], "the new version entered none of its nodes"
        yield stage, run_id


async def until_blocked(stage: Stage, run_id: UUID) -> None:
    """Wait for it; it says why, and names each of its ways out."""
    told = await stage.until(run_id, "blocked")
    assert "graph-changed" in told.because[0]
    assert await legal_verbs(stage, run_id) == WAYS_OUT | {"signal"}
    assert [entry.body.get("fit") for entry in stage.ledger(run_id) if entry.kind == "ended"] == ["changed"]


async def test_a_blocked_run_goes_on_when_its_version_comes_back(database: str, cues: Cues, troupe: Troupe) -> None:
    async with blocked(database, cues, troupe) as (stage, run_id):
        back = troupe.hire(OLD)
        await stage.until(run_id, "succeeded")
        assert epochs(stage, run_id)[2:] == [(3, who(troupe, back))]
        assert await said(stage, run_id) == ["a", "b", "c"]
    assert cues.seen() == ["a", "b", "b", "c"]


async def test_a_blocked_run_is_rewound_to_where_the_new_version_fits(
    database: str, cues: Cues, troupe: Troupe
) -> None:
    async with blocked(database, cues, troupe) as (stage, run_id):
        steps = [entry.body for entry in stage.ledger(run_id) if entry.kind == "stepped"]
        await rewind(stage.control, run_id, next(s["checkpoint_id"] for s in steps if s["step"] == 0))
        await stage.until(run_id, "succeeded")
        assert await said(stage, run_id) == ["a", "bb", "c"]
        assert (await stage.run(run_id)).graph_digest == version(NEW)


async def test_a_blocked_run_is_restarted_under_the_new_version(database: str, cues: Cues, troupe: Troupe) -> None:
    """The restart is another run; the blocked one is there to be cancelled."""
    async with blocked(database, cues, troupe) as (stage, run_id):
        again = await restart(stage.control, run_id)
        await stage.until(again.run_id, "succeeded")
        assert await said(stage, again.run_id) == ["a", "bb", "c"]
        assert (await stage.status(run_id)).word == "blocked"
        await cancel(stage.control, run_id)
        await stage.until(run_id, "cancelled")


async def test_a_blocked_run_is_cancelled(database: str, cues: Cues, troupe: Troupe) -> None:
    async with blocked(database, cues, troupe) as (stage, run_id):
        await cancel(stage.control, run_id)
        await stage.until(run_id, "cancelled")
    assert cues.seen() == ["a", "b"]
