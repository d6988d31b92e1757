"""Races that chaos has found, each made to happen every time."""

from __future__ import annotations

import asyncio
import operator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import psycopg
from langgraph.graph import START, StateGraph
from pytest import MonkeyPatch
from typing_extensions import TypedDict

from control.core.answer import Word
from control.core.ledger import Loss
from control.runtime.commands.decide import decide
from control.runtime.commands.start import start
from control.runtime.recovery import Recovery
from control.sdk import approval
from control.store.claims import Claimed, Claims, Holdings
from control.store.errors import DATABASE_AWAY
from control.store.flush import Flusher
from control.store.item import Item
from control.store.session import Session
from control.testing.stage import Stage, staged
from tests.store.holding import execute

CUT_OFF = """
select pg_terminate_backend(pid) from pg_locks
where locktype = 'advisory' and objsubid = 2
  and database = (select oid from pg_database where datname = current_database())
"""


class Said(TypedDict):
    said: Annotated[list[str], operator.add]


async def test_an_answer_that_comes_while_siblings_still_run_is_delivered_when_they_stop(database: str) -> None:
    released = asyncio.Event()

    def ask(_: Said) -> Said:
        decision = approval("Go on?", action={}, on_yes="It goes on.", on_no="It goes on.")
        return {"said": ["yes" if decision.approved else "no"]}

    async def hold(_: Said) -> Said:
        await released.wait()
        return {"said": ["held"]}

    builder = StateGraph(Said).add_node("ask", ask).add_node("hold", hold)
    graph = builder.add_edge(START, "ask").add_edge(START, "hold").compile()
    async with staged(database, {"asking": graph}) as stage:
        run = await start(stage.control, "asking", {"said": []})
        await _until_told(stage, run.run_id, "asked")
        await decide(stage.control, run.run_id, Word.APPROVED)
        released.set()
        await stage.until(run.run_id, "succeeded")
        told = stage.kinds(run.run_id)
    assert told.index("asked") < told.index("decided") < told.index("ended")
    assert told.count("claimed") == 2


async def test_a_claim_whose_answer_is_lost_does_not_keep_its_run(database: str, monkeypatch: MonkeyPatch) -> None:
    claim, lost = Claims.claim, asyncio.Event()

    async def unheard(claims: Claims, holdings: Holdings, **asked: Any) -> list[Claimed]:
        claimed = await claim(claims, holdings, **asked)
        if claimed and not lost.is_set():
            lost.set()
            raise DATABASE_AWAY.because("The answer was lost.")
        return claimed

    monkeypatch.setattr(Claims, "claim", unheard)
    graph = StateGraph(Said).add_node("say", lambda _: {"said": ["it"]}).add_edge(START, "say").compile()
    async with staged(database, {"saying": graph}) as stage:
        run = await start(stage.control, "saying", {"said": []})
        await stage.until(run.run_id, "succeeded")
        told = stage.kinds(run.run_id)
        lost = [entry.body["why"] for entry in stage.ledger(run.run_id) if entry.kind == "worker_lost"]
    assert told[:4] == ["accepted", "claimed", "worker_lost", "claimed"]
    assert lost == [Loss.UNHEARD]


async def test_a_worker_that_was_cut_off_for_too_long_gives_its_run_up(database: str, monkeypatch: MonkeyPatch) -> None:
    """Nobody else was there to take it: back again, it says so itself, and begins anew."""
    cut_off, opening, entered = asyncio.Event(), Session._open, asyncio.Semaphore(0)

    def unreachable(session: Session) -> psycopg.Connection[Any]:
        if cut_off.is_set():
            raise psycopg.OperationalError("no route to host")
        return opening(session)

    async def say(_: Said) -> Said:
        entered.release()
        if not cut_off.is_set():
            await asyncio.Event().wait()
        return {"said": ["it"]}

    monkeypatch.setattr(Session, "_open", unreachable)
    graph = StateGraph(Said).add_node("say", say).add_edge(START, "say").compile()
    async with staged(database, {"saying": graph}, failover_wait_s=0.2) as stage:
        run = await start(stage.control, "saying", {"said": []})
        await entered.acquire()
        assert stage.worker is not None
        cut_off.set()
        execute(database, CUT_OFF)
        await _until_idle(stage)
        monkeypatch.setattr(Session, "_open", opening)
        await stage.until(run.run_id, "succeeded")
        lost = [entry.body for entry in stage.ledger(run.run_id) if entry.kind == "worker_lost"]
    assert [(body["why"], body["crash"]) for body in lost] == [(Loss.GAVE_UP, False)]


async def test_a_database_that_is_away_does_not_use_up_the_retries_of_a_run(database: str) -> None:
    """More often than a failure of its own would be forgiven: it says nothing about the run."""
    times = iter(range(7))

    def say(_: Said) -> Said:
        if next(times, None) is not None:
            raise DATABASE_AWAY.because("It restarts.")
        return {"said": ["it"]}

    graph = StateGraph(Said).add_node("say", say).add_edge(START, "say").compile()
    async with staged(database, {"saying": graph}) as stage:
        run = await start(stage.control, "saying", {"said": []})
        await stage.until(run.run_id, "succeeded")
        ends = [entry.body for entry in stage.ledger(run.run_id) if entry.kind == "ended"]
    assert [end["outcome"] for end in ends] == ["failed"] * 7 + ["completed"]
    assert all("retry_at" in end for end in ends[:-1])


async def test_a_run_that_finishes_while_the_database_is_away_is_finished_later(
    database: str, monkeypatch: MonkeyPatch
) -> None:
    """What its last node returned was acknowledged early and then lost: the rows say that the node has yet to run."""
    flush, refused = Flusher._flush, iter(range(2))

    async def lost(flusher: Flusher, items: list[Item]) -> None:
        if any(item.writes or item.ending for item in items) and next(refused, None) is not None:
            flusher._fail(items, DATABASE_AWAY.because("Every try was lost."))
        else:
            await flush(flusher, items)

    monkeypatch.setattr(Flusher, "_flush", lost)
    graph = StateGraph(Said).add_node("say", lambda _: {"said": ["it"]}).add_edge(START, "say").compile()
    async with staged(database, {"saying": graph}) as stage:
        run = await start(stage.control, "saying", {"said": []})
        await stage.until(run.run_id, "succeeded")
        ends = [entry.body["outcome"] for entry in stage.ledger(run.run_id) if entry.kind == "ended"]
    assert ends[-1] == "completed"
    assert set(ends[:-1]) == {"failed"}, "it never looked as if it had stopped at a breakpoint"


async def test_a_run_that_no_sweep_can_deal_with_keeps_no_other_waiting(
    database: str, monkeypatch: MonkeyPatch
) -> None:
    wake, bad = Recovery.wake, set[UUID]()

    async def broken(recovery: Recovery, tenant: str, run_id: UUID) -> bool:
        if run_id in bad:
            raise AssertionError("nobody foresaw this")
        return await wake(recovery, tenant, run_id)

    monkeypatch.setattr(Recovery, "wake", broken)
    graph = StateGraph(Said).add_node("say", lambda _: {"said": ["it"]}).add_edge(START, "say").compile()
    async with staged(database, {"saying": graph}) as stage:
        soon = datetime.now(UTC) + timedelta(seconds=0.3)
        first = await start(stage.control, "saying", {"said": []}, not_before=soon)
        bad.add(first.run_id)
        second = await start(stage.control, "saying", {"said": []}, not_before=soon + timedelta(seconds=0.1))
        await stage.until(second.run_id, "succeeded")
        assert stage.kinds(first.run_id) == ["accepted"], "it was due before the other, and no sweep can wake it"
        bad.clear()
        await stage.until(first.run_id, "succeeded")


async def _until_idle(stage: Stage) -> None:
    async with asyncio.timeout(15):
        while True:
            if stage.worker and not stage.worker.busy:
                return
            await asyncio.sleep(0.01)


async def _until_told(stage: Stage, run_id: UUID, kind: str) -> None:
    async with asyncio.timeout(15):
        while True:
            if kind in stage.kinds(run_id):
                return
            await asyncio.sleep(0.01)
