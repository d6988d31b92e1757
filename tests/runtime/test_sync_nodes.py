"""Nodes that block: a thread of their own keeps them from stalling others; on the loop they are found out."""

from __future__ import annotations

import asyncio
import time

import pytest

from control.runtime.commands.cancel import cancel
from control.testing.stage import staged
from tests.runtime.scenes import Cues, graphs, until
from tests.runtime.test_recovery import epochs
from tests.runtime.test_status_words import run_of
from tests.runtime.troupe import Troupe


@pytest.mark.alone
async def test_thirty_blocked_threads_do_not_stall_the_loop(database: str, cues: Cues) -> None:
    cues.give("slow", "hold")
    async with staged(database, graphs("blocking", "line"), worker_slots=60, sync_node_threads=32) as stage:
        blocked = [await run_of(stage, "blocking", cues) for _ in range(30)]
        await cues.until_seen("slow", 30)
        watching = asyncio.create_task(worst_lag(1.0))
        quick = [await run_of(stage, "line", cues) for _ in range(10)]
        for run_id in quick:
            await stage.until(run_id, "succeeded")
        lag = await watching
        cues.take("slow")
        for run_id in blocked:
            await stage.until(run_id, "succeeded")
    print(f"worst lag of the loop with 30 blocked nodes: {lag * 1000:.0f} ms")
    assert lag < 0.5


async def worst_lag(span_s: float) -> float:
    """By how much the loop is late at worst, over this span."""
    ends, worst = time.monotonic() + span_s, 0.0
    while (began := time.monotonic()) < ends:
        await asyncio.sleep(0.01)  # what is measured is how much longer this takes
        worst = max(worst, time.monotonic() - began - 0.01)
    return worst


async def test_a_node_that_blocks_the_loop_is_named(database: str, cues: Cues, troupe: Troupe) -> None:
    cues.give("hog", "hold")
    troupe.hire("hogging", block_after_s=0.2)
    async with staged(database, graphs("hogging"), work=False, stall_after_s=0.5) as stage:
        run_id = await run_of(stage, "hogging", cues)

        async def named() -> bool:
            return (await stage.run(run_id)).blocked_in is not None

        await until(named, "the node is named")
        told = await stage.until(run_id, "stalled")
        assert "nothing has moved in hog: block (" in told.because[-1] and "scenes.py:" in told.because[-1]
        assert (await stage.run(run_id)).epoch == 1, "its process lives, so nobody takes it over"
        cues.take("hog")
        await stage.until(run_id, "succeeded")
        assert (await stage.run(run_id)).blocked_in is None


async def test_a_blocked_loop_is_not_a_dead_worker(database: str, cues: Cues, troupe: Troupe) -> None:
    """The lease is renewed by a thread: longer than it the loop is blocked, and the run stays where it is."""
    cues.give("hog", "hold")
    troupe.hire("hogging", lease_s=0.6)
    async with staged(database, graphs("hogging"), work=False) as stage:
        run_id = await run_of(stage, "hogging", cues)
        await cues.until_seen("hog")
        troupe.hire("hogging")
        # The lease must have run out three times, and the database's own clock measures it.
        await asyncio.sleep(2)
        assert (await stage.status(run_id)).word == "running"
        cues.take("hog")
        await stage.until(run_id, "succeeded")
        assert [epoch for epoch, _ in epochs(stage, run_id)] == [1]
    assert cues.seen("hog") == ["hog"]


async def test_a_cancelled_node_that_cannot_stop_writes_nothing_later(
    database: str, cues: Cues, troupe: Troupe
) -> None:
    cues.give("slow", "hold")
    pid = troupe.hire("blocking", cancel_grace_s=0.2)
    async with staged(database, graphs("blocking"), work=False) as stage:
        run_id = await run_of(stage, "blocking", cues)
        await cues.until_seen("slow")
        await cancel(stage.control, run_id)
        assert (await stage.status(run_id)).word == "cancelling"
        await stage.until(run_id, "cancelled")
        ledger, row = stage.ledger(run_id), await stage.run(run_id)
        cues.take("slow")
        after = await run_of(stage, "blocking", cues)
        await stage.until(after, "succeeded")
        assert stage.ledger(run_id) == ledger and await stage.run(run_id) == row
    assert cues.seen() == ["slow", "slow", "z"] and set(cues.pids("slow")) == {pid}
