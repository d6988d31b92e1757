"""Waiting costs no worker, and a timer or a signal ends it once."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from langgraph.graph import START, StateGraph

from control.core.answer import Word
from control.runtime.commands.decide import decide
from control.runtime.commands.pause import pause, resume
from control.runtime.commands.signal import signal
from control.runtime.commands.start import start
from control.sdk import approval, wait_for
from control.store import claims
from control.testing import clock
from control.testing.stage import Stage, staged
from tests.runtime.scenes import Cues, State, fan, graphs, playing, until
from tests.runtime.test_status_words import run_of
from tests.runtime.test_verbs import said
from tests.runtime.troupe import Troupe

TEN_DAYS = timedelta(days=10)
MINUTE = timedelta(minutes=1)


async def test_ten_days_pass_with_no_worker(database: str, cues: Cues) -> None:
    async with staged(database, graphs("wait"), work=False) as stage:
        async with stage.working():
            run_id = await run_of(stage, "wait", cues)
            told = await stage.until(run_id, "waiting")
            await until_idle(stage)
        await clock.advance(database, TEN_DAYS - MINUTE)
        async with stage.working():
            await swept(stage)
            assert await stage.status(run_id) == told
            await clock.advance(database, MINUTE)
            await stage.until(run_id, "succeeded")
        assert stage.kinds(run_id).count("fired") == 1
        assert await said(stage, run_id) == ["a", "waited", "z"]


async def until_idle(stage: Stage) -> None:
    """A run's row says that its attempt has ended a moment before the worker has put the attempt away."""

    async def idle() -> bool:
        return stage.worker is not None and stage.worker.busy == 0

    await until(idle, "the worker drives nothing")


async def swept(stage: Stage) -> None:
    """Wait for a whole sweep that begins after now."""
    assert stage.worker
    for _ in range(2):
        stage.worker.swept.clear()
        await stage.worker.swept.wait()


async def test_two_sweepers_fire_a_timer_once(database: str, cues: Cues, troupe: Troupe) -> None:
    async with staged(database, graphs("wait"), work=False) as stage:
        for _ in range(2):
            troupe.hire("wait", takeover_poll_s=0.02)
        run_ids = [await run_of(stage, "wait", cues) for _ in range(20)]
        for run_id in run_ids:
            await stage.until(run_id, "waiting")
        await clock.advance(database, TEN_DAYS)
        for run_id in run_ids:
            await stage.until(run_id, "succeeded")
            assert stage.kinds(run_id).count("fired") == 1
    assert cues.seen("z") == ["z"] * 20 and cues.seen("a") == ["a"] * 20


async def test_a_pause_does_not_start_a_wait_again(database: str, cues: Cues) -> None:
    """The span counts from when it was first asked for."""
    async with staged(database, graphs("wait"), work=False) as stage, stage.working():
        run_id = await run_of(stage, "wait", cues)
        told = await stage.until(run_id, "waiting")
        await clock.advance(database, timedelta(days=4))
        await pause(stage.control, run_id)
        await resume(stage.control, run_id)
        again = await stage.until(run_id, "waiting")
        assert again.until == told.until


async def test_a_paused_wait_fires_and_is_taken_up_on_resume(database: str, cues: Cues) -> None:
    async with staged(database, graphs("wait")) as stage:
        run_id = await run_of(stage, "wait", cues)
        await stage.until(run_id, "waiting")
        await pause(stage.control, run_id)
        await clock.advance(database, TEN_DAYS)
        await until_entered(stage, run_id, "fired")
        assert (await stage.status(run_id)).word == "paused"
        await resume(stage.control, run_id)
        await stage.until(run_id, "succeeded")


async def until_entered(stage: Stage, run_id: UUID, kind: str) -> None:
    async def entered() -> bool:
        return kind in stage.kinds(run_id)

    await until(entered, f"{kind} is in the ledger")


async def test_a_signal_sent_before_the_wait_is_kept(database: str, cues: Cues) -> None:
    cues.give("a", "hold")
    async with staged(database, graphs("signal")) as stage:
        run_id = await run_of(stage, "signal", cues)
        await cues.until_seen("a")
        await signal(stage.control, run_id, "stop", payload="another name")
        await signal(stage.control, run_id, "go", payload={"n": 1})
        await signal(stage.control, run_id, "go", payload={"n": 2})
        cues.take("a")
        await stage.until(run_id, "succeeded", timeout_s=5)
        assert await said(stage, run_id) == ["a", {"n": 1}, "z"]
        assert stage.kinds(run_id).count("fired") == 1


async def test_a_signal_kept_with_an_idle_run_outlives_a_restart(database: str, cues: Cues) -> None:
    async with staged(database, graphs("signal"), work=False) as stage:
        run_id = await run_of(stage, "signal", cues)
        await signal(stage.control, run_id, "go", payload="early")
    async with staged(database, graphs("signal")) as stage:
        await stage.until(run_id, "succeeded", timeout_s=5)
        assert await said(stage, run_id) == ["a", "early", "z"]


async def test_a_signal_kept_for_a_wait_whose_worker_dies(database: str, cues: Cues, troupe: Troupe) -> None:
    """The wait is on record, its attempt is not over: the peer that takes the run over gives it the signal."""
    cues.give("beside", "hold")
    async with staged(database, graphs("signal beside"), work=False) as stage:
        run_id = await run_of(stage, "signal beside", cues)
        await signal(stage.control, run_id, "go", payload="early")
        victim = troupe.hire("signal beside")
        await cues.until_seen("beside")
        await until_entered(stage, run_id, "suspended")
        troupe.kill(victim)
        cues.take("beside")
        troupe.hire("signal beside")
        await stage.until(run_id, "succeeded")
        assert sorted(await said(stage, run_id)) == ["beside", "early", "z"]
        assert stage.kinds(run_id).count("fired") == 1


async def test_a_signal_to_a_waiting_run_is_told_apart_by_name(database: str, cues: Cues) -> None:
    async with staged(database, graphs("signal")) as stage:
        run_id = await run_of(stage, "signal", cues)
        await stage.until(run_id, "waiting")
        await signal(stage.control, run_id, "stop")
        assert (await stage.status(run_id)).word == "waiting"
        await signal(stage.control, run_id, "go")
        await stage.until(run_id, "succeeded")
        assert await said(stage, run_id) == ["a", None, "z"]


async def test_a_timer_beside_a_question_goes_on_alone(database: str, cues: Cues) -> None:
    """The timer's branch is delivered; the question stays open, under its own id."""
    async with staged(database, {"beside": fan("sign", "ten_days")}) as stage:
        run_id = await run_of(stage, "beside", cues)
        told = await stage.until(run_id, "awaiting_approval")
        assert told.until and told.until - told.since >= TEN_DAYS - MINUTE
        await clock.advance(database, TEN_DAYS)
        await until_entered(stage, run_id, "fired")
        await stage.until(run_id, "awaiting_approval")
        await decide(stage.control, run_id, Word.APPROVED)
        await stage.until(run_id, "succeeded")
        assert sorted(await said(stage, run_id)) == ["sign: True by tester", "waited", "z"]


async def test_a_start_is_put_off(database: str, cues: Cues) -> None:
    async with staged(database, graphs("line")) as stage:
        async with stage.control.transaction() as conn:
            row = await (await conn.execute("select control.clock() + interval '1 day' as at")).fetchone()
        assert row
        run_id = await run_of(stage, "line", cues, not_before=row["at"])
        await swept(stage)
        assert (await stage.status(run_id)).until == row["at"] and cues.seen() == []
        await clock.advance(database, timedelta(days=1))
        await stage.until(run_id, "succeeded")


async def test_approvals_past_their_expiry_do_not_starve_the_timers(
    database: str, cues: Cues, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than one sweep looks at, all older than the timer that is due. Nobody answered: each is a no."""
    monkeypatch.setattr(claims, "_SWEEP", 20)

    async def node(_: State) -> dict[str, Any]:
        said = approval("Soon?", action={}, on_yes="It acts.", on_no="Not.", expires_in=timedelta(hours=1))
        return {"log": [said.approved]}

    graph = StateGraph(State)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    async with staged(database, {"asks": graph.compile(), **graphs("wait")}, worker_slots=50) as stage:
        asking = [(await run_of(stage, "asks", cues)) for _ in range(25)]
        for run_id in asking:
            await stage.until(run_id, "awaiting_approval")
        waiting = await run_of(stage, "wait", cues)
        await stage.until(waiting, "waiting")
        await clock.advance(database, TEN_DAYS)
        await stage.until(waiting, "succeeded")
        for run_id in asking:
            await stage.until(run_id, "succeeded")
        assert {tuple(await said(stage, run_id)) for run_id in asking} == {(False,)}
        await swept(stage)
        with psycopg.connect(database) as conn:
            before = conn.execute("select run_id, version from control.run order by 1").fetchall()
        await swept(stage)
        await swept(stage)
        with psycopg.connect(database) as conn:
            assert conn.execute("select run_id, version from control.run order by 1").fetchall() == before


@pytest.mark.alone
async def test_a_thousand_suspended_runs_cost_a_worker_nothing(database: str, cues: Cues) -> None:
    """Made through the commands; counted in objects that are left, not in what the allocator keeps."""
    async with staged(database, {"wait": _light()}, worker_slots=50) as stage:
        await _suspend(stage, 100, cues)
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        await _suspend(stage, 1000, cues)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    print(f"1,000 suspended runs: {(after - before) / 1000:,.0f} bytes each")
    assert after - before < 500_000


def _light() -> Any:
    async def node(_: State) -> dict[str, Any]:
        wait_for(TEN_DAYS)
        return {}

    graph = StateGraph(State)
    graph.add_node("node", node)
    graph.add_node("z", playing("z"))
    graph.add_edge(START, "node")
    graph.add_edge("node", "z")
    return graph.compile()


async def _suspend(stage: Stage, count: int, cues: Cues) -> None:
    for _ in range(count // 10):
        await asyncio.gather(*(start(stage.control, "wait", cues.input) for _ in range(10)))
    with psycopg.connect(stage.conninfo, autocommit=True) as conn:

        async def suspended() -> bool:
            left = conn.execute("select count(*) from control.run where status <> 'waiting'").fetchone()
            return left == (0,)

        await until(suspended, "all are suspended", timeout_s=60)
    await until_idle(stage)
