"""A worker that dies, freezes, leaves or is cut off: its runs go on elsewhere, and it writes nothing more."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from control.core.run_status import Facet
from control.runtime.commands.start import start
from control.store.embedded import ensure
from control.store.migrations import migrate
from control.testing import server
from control.testing.stage import Stage, staged
from tests.runtime.scenes import Cues, graphs, until
from tests.runtime.test_status_words import run_of, until_let_go
from tests.runtime.troupe import Troupe


def epochs(stage: Stage, run_id: UUID) -> list[tuple[int, str]]:
    """Who claimed the run, epoch by epoch."""
    return [(entry.epoch, entry.actor) for entry in stage.ledger(run_id) if entry.kind == "claimed"]


def who(troupe: Troupe, pid: int) -> str:
    return f"worker:{troupe.hired[pid]}"


@pytest.mark.alone
async def test_a_killed_worker_is_replaced_within_two_seconds(database: str, cues: Cues, troupe: Troupe) -> None:
    """At the pace of the default settings, with a peer that has other work to do."""
    took: list[float] = []
    pace = {"poll_s": 1.0, "takeover_poll_s": 0.25}
    async with staged(database, graphs("line"), work=False) as stage:
        peer = troupe.hire("line", **pace)
        for turn in range(5):
            os.kill(peer, signal.SIGSTOP)  # so that the victim gets the run
            victim = troupe.hire("line", **pace)
            cues.give("b", "hold")
            run_id = await run_of(stage, "line", cues)
            await cues.until_seen("b", 2 * turn + 1)
            os.kill(peer, signal.SIGCONT)
            killed_at = time.monotonic()
            troupe.kill(victim)
            await cues.until_seen("b", 2 * turn + 2)
            took.append(time.monotonic() - killed_at)
            cues.take("b")
            told = await stage.until(run_id, "succeeded")
            assert told.facets == {Facet.RESUMED}
            assert epochs(stage, run_id) == [(1, who(troupe, victim)), (2, who(troupe, peer))]
    assert cues.seen() == ["a", "b", "b", "c"] * 5
    print(f"kill -9 to the node entered again: {', '.join(f'{s:.2f}' for s in sorted(took))} s")
    assert max(took) <= 2


async def test_finished_siblings_are_not_repeated(database: str, cues: Cues, troupe: Troupe) -> None:
    cues.give("beside", "die")
    async with staged(database, graphs("sign beside"), work=False) as stage:
        victim = troupe.hire("sign beside")
        run_id = await run_of(stage, "sign beside", cues)
        await troupe.until_gone(victim)
        cues.take("beside")
        troupe.hire("sign beside")
        await stage.until(run_id, "awaiting_approval")
        assert cues.seen() == ["beside", "beside"]
        assert stage.kinds(run_id).count("asked") == 1
        lost = next(entry for entry in stage.ledger(run_id) if entry.kind == "worker_lost")
        assert lost.body["worker"] == str(troupe.hired[victim]) and lost.body["why"] == "its session is gone"


async def test_a_stopped_worker_that_wakes_up_writes_nothing(database: str, cues: Cues, troupe: Troupe) -> None:
    """Stopped longer than its lease, it holds its session's lock all the while."""
    async with staged(database, graphs("line"), work=False) as stage:
        zombie = troupe.hire("line", lease_s=1)
        cues.give("b", "hold")
        run_id = await run_of(stage, "line", cues)
        await cues.until_seen("b")
        os.kill(zombie, signal.SIGSTOP)
        heir = troupe.hire("line")
        await cues.until_seen("b", 2)
        cues.take("b")
        await stage.until(run_id, "succeeded")
        ledger = stage.ledger(run_id)
        assert epochs(stage, run_id) == [(1, who(troupe, zombie)), (2, who(troupe, heir))]
        assert next(entry for entry in ledger if entry.kind == "worker_lost").body["why"] == "its lease ran out"
        cues.give("c", "hold")
        os.kill(zombie, signal.SIGCONT)
        await until_renewed(database, troupe.hired[zombie])
        fresh = [(await run_of(stage, "line", cues)) for _ in range(2)]
        await cues.until_seen("c", 3)
        cues.take("c")
        for other in fresh:
            await stage.until(other, "succeeded")
        assert stage.ledger(run_id) == ledger
    assert cues.pids("b").count(zombie) >= 1 and cues.pids("c")[0] == heir


async def until_renewed(conninfo: str, worker_id: UUID) -> None:
    """Until a worker that was thought lost shows a sign of life again."""
    query = "select lease_until > clock_timestamp() from control.worker where worker_id = %s"
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as conn:

        async def renewed() -> bool:
            return (await (await conn.execute(query, (worker_id,))).fetchone()) == (True,)

        await until(renewed, "the lease is renewed")


async def test_a_zombie_in_a_step_learns_that_its_claim_is_lost(database: str, cues: Cues, troupe: Troupe) -> None:
    """Both are in the node when the zombie wakes up; the zombie's result is the first, and counts for nothing."""
    async with staged(database, graphs("blocking"), work=False) as stage:
        zombie = troupe.hire("blocking", lease_s=1)
        cues.give("slow", "hold")
        run_id = await run_of(stage, "blocking", cues)
        await cues.until_seen("slow")
        os.kill(zombie, signal.SIGSTOP)
        heir = troupe.hire("blocking")
        await cues.until_seen("slow", 2)
        os.kill(heir, signal.SIGSTOP)
        before = stage.ledger(run_id)
        cues.take("slow")
        os.kill(zombie, signal.SIGCONT)
        await until_renewed(database, troupe.hired[zombie])
        os.kill(zombie, signal.SIGTERM)
        await troupe.until_gone(zombie)
        assert stage.ledger(run_id) == before
        os.kill(heir, signal.SIGCONT)
        await stage.until(run_id, "succeeded")
        assert cues.seen() == ["slow", "slow", "z"] and cues.pids("z") == [heir]


async def test_a_draining_worker_hands_over_at_the_step_boundary(database: str, cues: Cues, troupe: Troupe) -> None:
    async with staged(database, graphs("line"), work=False) as stage:
        leaving = troupe.hire("line")
        cues.give("b", "hold")
        run_id = await run_of(stage, "line", cues)
        await cues.until_seen("b")
        os.kill(leaving, signal.SIGTERM)
        heir = troupe.hire("line")
        other = await run_of(stage, "line", cues)
        await cues.until_seen("b", 2)
        assert cues.pids("b") == [leaving, heir]
        cues.take("b")
        for run in (run_id, other):
            told = await stage.until(run, "succeeded")
            assert told.facets == frozenset()
        await troupe.until_gone(leaving)
        assert epochs(stage, run_id) == [(1, who(troupe, leaving)), (2, who(troupe, heir))]
        ended = [entry.body["outcome"] for entry in stage.ledger(run_id) if entry.kind == "ended"]
        assert ended == ["drained", "completed"]
        assert sorted(cues.seen()) == ["a", "a", "b", "b", "c", "c"]


async def test_a_drain_does_not_wait_for_a_node_longer_than_its_grace(
    database: str, cues: Cues, troupe: Troupe
) -> None:
    async with staged(database, graphs("blocking"), work=False) as stage:
        leaving = troupe.hire("blocking", drain_grace_s=0.3)
        cues.give("slow", "hold")
        run_id = await run_of(stage, "blocking", cues)
        await cues.until_seen("slow")
        heir = troupe.hire("blocking")
        os.kill(leaving, signal.SIGTERM)
        await cues.until_seen("slow", 2)
        assert cues.pids("slow") == [leaving, heir]
        cues.take("slow")
        await stage.until(run_id, "succeeded")
        assert cues.seen() == ["slow", "slow", "z"] and cues.pids("z") == [heir]


async def test_many_runs_of_a_dead_worker_all_go_on(database: str, cues: Cues, troupe: Troupe) -> None:
    async with staged(database, graphs("line"), work=False) as stage:
        victim = troupe.hire("line", worker_slots=50)
        cues.give("b", "hold")
        run_ids = [await run_of(stage, "line", cues) for _ in range(50)]
        await cues.until_seen("b", 50)
        troupe.kill(victim)
        cues.take("b")
        troupe.hire("line", worker_slots=50)
        for run_id in run_ids:
            await stage.until(run_id, "succeeded")
            assert [epoch for epoch, _ in epochs(stage, run_id)] == [1, 2]
    assert len(cues.seen("a")) == 50 and len(cues.seen("b")) == 100 and len(cues.seen("c")) == 50


SESSIONS = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and {which}"


@pytest.mark.parametrize(
    "which",
    ["usename = 'control_claim'", "usename = 'control_flush'", "usename like 'control%'"],
    ids=["the session and the sweeps", "the flush", "all"],
)
async def test_a_worker_survives_the_loss_of_its_connections(which: str, database: str, cues: Cues) -> None:
    """Whether it keeps its run or loses it to itself, the run ends right, and a new one runs as well."""
    cues.give("b", "hold")
    async with staged(database, graphs("line", "wait")) as stage:
        run_id = await run_of(stage, "line", cues)
        await cues.until_seen("b")
        with psycopg.connect(database, autocommit=True) as conn:
            conn.execute(SESSIONS.format(which=which))  # type: ignore[arg-type]  # one of the constants above
        cues.take("b")
        await until_word(stage, run_id, "succeeded")
        assert cues.seen("a") == ["a"] and cues.seen("c") == ["c"]
        assert len(cues.seen("b")) == len(epochs(stage, run_id))
        after = await run_of(stage, "line", cues)
        await until_word(stage, after, "succeeded")


async def until_word(stage: Stage, run_id: UUID, word: str) -> None:
    """As `stage.until`, where the stage's own connections may be lost as well."""
    async with asyncio.timeout(20):
        while True:
            try:
                await stage.until(run_id, word)
            except Exception as error:
                if getattr(getattr(error, "problem", None), "code", None) != "database-away":
                    raise
            else:
                return


@pytest.mark.alone
@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_restart_of_the_database_loses_nothing(mode: str, own_server: Path, cues: Cues) -> None:
    """A run in a node, one at a question, and one that starts later: the worker comes back and keeps what it has."""
    migrate(conninfo := ensure(own_server, idle_s=20))
    cues.give("b", "hold")
    async with staged(conninfo, graphs("line", "approve")) as stage:
        run_id, asking = await run_of(stage, "line", cues), await run_of(stage, "approve", cues)
        await cues.until_seen("b")
        await stage.until(asking, "awaiting_approval")
        await asyncio.to_thread(server.restart, own_server, mode=mode)  # type: ignore[arg-type]  # one of the two
        cues.take("b")
        await until_word(stage, run_id, "succeeded")
        assert [epoch for epoch, _ in epochs(stage, run_id)] == [1]
        await until_word(stage, asking, "awaiting_approval")
        after = await start_again(stage, cues)
        await until_word(stage, after, "succeeded")
    assert cues.seen("b") == ["b", "b"]


async def start_again(stage: Stage, cues: Cues) -> UUID:
    """A run, however many of the pool's connections turn out to be gone first."""
    async with asyncio.timeout(20):
        while True:
            try:
                return (await start(stage.control, "line", cues.input)).run_id
            except Exception as error:
                if getattr(getattr(error, "problem", None), "code", None) != "database-away":
                    raise


async def test_an_abandoned_claim_is_on_record(database: str, cues: Cues, troupe: Troupe) -> None:
    """A kill before the first checkpoint repeats nothing: the input is kept with the run."""
    async with staged(database, graphs("line"), work=False) as stage:
        victim = troupe.hire("line")
        cues.give("a", "hold")
        run_id = await run_of(stage, "line", cues)
        await cues.until_seen("a")
        troupe.kill(victim)
        cues.take("a")
        troupe.hire("line")
        await stage.until(run_id, "succeeded")
        await until_let_go(stage, run_id)
        row = await stage.run(run_id)
        assert (row.epoch, row.takeovers, row.crashes, row.worker_id) == (2, 1, 0, None)
