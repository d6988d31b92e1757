"""Races that chaos has found, each made to happen every time."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated
from uuid import UUID

from langgraph.graph import START, StateGraph
from pytest import MonkeyPatch
from typing_extensions import TypedDict

from control.core.answer import Word
from control.runtime.commands.decide import decide
from control.runtime.commands.start import start
from control.sdk import approval
from control.store.claims import Claimed, Claims, Holdings
from control.store.errors import DATABASE_AWAY
from control.testing.stage import Stage, staged


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

    async def unheard(claims: Claims, holdings: Holdings, *, free: int) -> list[Claimed]:
        claimed = await claim(claims, holdings, free=free)
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
    assert told[:4] == ["accepted", "claimed", "worker_lost", "claimed"]


async def test_a_database_that_is_away_costs_a_run_no_retry(database: str) -> None:
    """However often: it says nothing about the run."""
    times = iter(range(12))

    def say(_: Said) -> Said:
        if next(times, None) is not None:
            raise DATABASE_AWAY.because("It restarts.")
        return {"said": ["it"]}

    graph = StateGraph(Said).add_node("say", say).add_edge(START, "say").compile()
    async with staged(database, {"saying": graph}) as stage:
        run = await start(stage.control, "saying", {"said": []})
        await stage.until(run.run_id, "succeeded")
        ends = [entry.body for entry in stage.ledger(run.run_id) if entry.kind == "ended"]
    assert [end["outcome"] for end in ends] == ["drained"] * 12 + ["completed"]
    assert not any("retry_at" in end for end in ends)


async def _until_told(stage: Stage, run_id: UUID, kind: str) -> None:
    async with asyncio.timeout(15):
        while True:
            if kind in stage.kinds(run_id):
                return
            await asyncio.sleep(0.01)
