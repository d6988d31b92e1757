"""Deleting a run takes what it worked with. What happened stays on record, and nobody loses what is theirs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, Final, TypedDict
from uuid import UUID

import psycopg
import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from control.core.lifecycle import Verb
from control.core.problem import Refusal
from control.core.story import ERASED, tell
from control.runtime.commands.cancel import cancel
from control.runtime.commands.delete import delete
from control.runtime.commands.erase import erase_person, prune
from control.runtime.commands.policy import apply
from control.runtime.commands.restart import restart
from control.runtime.commands.retry import retry
from control.runtime.commands.rewind import rewind
from control.runtime.commands.signal import signal
from control.runtime.commands.start import start
from control.testing import clock
from control.testing.stage import Stage, staged, tester
from tests.runtime.proving import attestor, bundle, create_key, verdict
from tests.runtime.test_erasure import GRAPHS as LIVED
from tests.runtime.test_erasure import OTHER, SECRET, findings, holding, lived

LANGGRAPH: Final = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")


class Talk(TypedDict, total=False):
    said: list[str]
    now: str
    ask: bool


def inner(state: Talk) -> Talk:
    return {"said": [*state.get("said", []), state["now"]]}


def perhaps(state: Talk) -> Talk:
    return {"ask": bool(interrupt("More?"))} if state.get("ask") else {}


def talk() -> StateGraph[Talk]:
    """A conversation: each run adds what is said now to what was said before, in a subgraph."""
    sub = StateGraph(Talk).add_node("inner", inner).add_edge(START, "inner").compile(checkpointer=True)
    graph = StateGraph(Talk).add_node("say", sub).add_node("perhaps", perhaps)
    return graph.add_edge(START, "say").add_edge("say", "perhaps")


def _appended(log: list[str], writes: list[list[str]]) -> list[str]:
    return [*log, *(word for write in writes for word in write)]


class Diary(TypedDict, total=False):
    log: Annotated[list[str], DeltaChannel(_appended)]


def diary() -> Any:
    return StateGraph(Diary).add_node("write", lambda _: {"log": ["dear diary"]}).add_edge(START, "write").compile()


GRAPHS: Final = {**LIVED, "talk": talk().compile(), "diary": diary()}


async def said(stage: Stage, now: str, *, ask: bool = False, thread: str = "talk") -> UUID:
    """A run that says something on the thread, to its end or its question."""
    run = await start(stage.control, "talk", {"now": now, "ask": ask}, thread_id=thread)
    await stage.until(run.run_id, "awaiting_input" if ask else "succeeded")
    return run.run_id


async def values(stage: Stage, thread: str = "talk") -> Any:
    state = await talk().compile(checkpointer=stage.app.saver).aget_state({"configurable": {"thread_id": thread}})
    return state.values


def counted(conninfo: str, thread: str) -> dict[str, int]:
    """How many rows LangGraph keeps of a thread, by table."""
    with psycopg.connect(conninfo) as conn:
        query = "select count(*) from {} where thread_id = %s"
        return {table: conn.execute(query.format(table).encode(), (thread,)).fetchone()[0] for table in LANGGRAPH}


async def test_what_it_worked_with_goes_and_its_record_stays(database: str) -> None:
    async with staged(database, GRAPHS) as stage:
        run, kept = await lived(stage, SECRET, "Ana"), await lived(stage, OTHER)
        others, before = holding(database, OTHER), stage.ledger(run)
        await delete(stage.acting("admin", id="dan@example.org"), run, reason="A test of ours")

        assert set(counted(database, str(run)).values()) == {0} and min(counted(database, str(kept)).values()) > 0
        assert holding(database, SECRET) == {"control.ledger", "control.approval"}, "what was asked and answered stays"
        assert holding(database, OTHER) == others
        *same, last = stage.ledger(run)
        assert [entry.hash for entry in same] == [entry.hash for entry in before]
        assert not any(entry.erased for entry in same)
        assert (last.kind, last.actor, last.body["reason"]) == ("deleted", "dan@example.org", "A test of ours")
        assert last.body["checkpoints"] > 2 and last.body["rules"] == ["admins-do-everything"]
        story = [sentence.text for sentence in tell([*same, last])]
        assert "Tester started work." in story and ERASED not in story
        assert story[-1] == (
            "Dan deleted its checkpoints and what it had been given, and said why: “A test of ours”. This record stays."
        )
        assert findings(database) == [], "the chains verify, and the row is what the ledger says"
        status = await stage.status(run)
        assert (status.word, status.because[-1]) == (
            "succeeded", "It has been deleted since; its record stays, and says by whom."
        )  # fmt: skip


async def test_its_record_is_exported_and_verified_as_before(database: str) -> None:
    async with staged(database, GRAPHS) as stage:
        key = await create_key(stage)
        run = await said(stage, "once")
        await attestor(stage).attest("default", wait=True)
        await delete(stage.control, run)
        report = verdict(await bundle(stage, run), key.public)
        assert (report.fault, report.erased, report.entries) == (None, 0, len(stage.ledger(run)))


async def test_nothing_is_done_to_it_any_more_and_that_is_said(database: str) -> None:
    async with staged(database, GRAPHS) as stage:
        run = (await start(stage.control, "fail", {"text": "x"})).run_id
        await stage.until(run, "failed")
        await delete(stage.control, run)
        before = stage.kinds(run)
        for verb in (retry, rewind, restart, delete):
            with pytest.raises(Refusal, match="It has been deleted, so there is nothing to go on from") as told:
                await verb(stage.control, run)
            assert (told.value.code, told.value.facts["legal"]) == ("verb-not-legal", [])
        with pytest.raises(Refusal, match="Nothing in it can wait"):
            await signal(stage.control, run, "door")
        assert stage.kinds(run) == before


async def test_the_record_goes_with_age_not_before_the_floor_or_with_the_person(database: str) -> None:
    async with staged(database, GRAPHS) as stage:
        run, ana = await lived(stage, SECRET), await lived(stage, OTHER, "Ana")
        for one in (run, ana):
            await delete(stage.control, one)
        await clock.advance(database, timedelta(days=179))
        assert (await prune(stage.control, days=1)).erased == 0 and "control.approval" in holding(database, SECRET)
        assert [gone.run_id for gone in await erase_person(stage.control, "Ana", why="she asked")] == [ana]
        assert holding(database, OTHER) == set()
        await clock.advance(database, timedelta(days=2))
        assert (await prune(stage.control, days=1)).erased == 1 and holding(database, SECRET) == set()
        assert stage.kinds(run)[-2:] == ["deleted", "erased"] and findings(database) == []


RULES: Final = """
@id("janitors-delete") @why("Janitors delete.")
permit (principal in Role::"janitor", action in [Action::"read", Action::"delete"], resource);
@id("admins") @why("Administrators do everything.")
permit (principal in Role::"admin", action, resource);
"""


async def test_it_takes_a_permission_of_its_own(database: str) -> None:
    async with staged(database, GRAPHS) as stage:
        run = await said(stage, "once")
        with pytest.raises(Refusal, match="somebody may not delete run") as told:
            await delete(stage.acting("operator", "approver"), run)
        assert told.value.code == "not-permitted" and counted(database, "talk")["checkpoints"] > 0
        assert stage.ledger(run)[-1].body["action"] == "delete"
        await apply(stage.control, RULES, note=None)
        with pytest.raises(Refusal, match="may not cancel"):
            await cancel(stage.acting("janitor"), run)
        await delete(stage.acting("janitor"), run)
        assert stage.ledger(run)[-1].body["rules"] == ["janitors-delete"]


async def test_a_run_that_has_not_ended_is_not_deleted(database: str) -> None:
    async with staged(database, GRAPHS) as stage:
        run = await said(stage, "well?", ask=True)
        before = counted(database, "talk")
        with pytest.raises(Refusal, match="Only a run that has ended is deleted; cancel it first"):
            await delete(stage.control, run)
        assert counted(database, "talk") == before
        await cancel(stage.control, run)
        await delete(stage.control, run)
        assert set(counted(database, "talk").values()) == {0}


async def test_on_a_shared_thread_only_its_own_goes_and_the_others_go_on(database: str) -> None:
    async with staged(database, GRAPHS) as stage:
        first, second = await said(stage, "one"), await said(stage, "two")
        third = await said(stage, "three", ask=True)
        before = counted(database, "talk")
        with pytest.raises(Refusal, match=f"Run {third} is awaiting_input") as told:
            await delete(stage.control, first)
        assert told.value.code == "thread-busy" and counted(database, "talk") == before
        assert "deleted" not in stage.kinds(first)
        await cancel(stage.control, third)
        expected = await values(stage)
        for gone in (first, third):
            own = {entry.body.get("checkpoint_id") for entry in stage.ledger(gone)}
            await delete(stage.control, gone)
            assert not own & await points(stage)
        assert expected["said"] == ["one", "two", "three"]
        assert (await values(stage))["said"] == ["one", "two"], "as it was when the second run ended"
        await rewind(stage.control, second)
        await stage.until(second, "succeeded")
        assert await said(stage, "four") and (await values(stage))["said"] == ["one", "two", "four"]
        assert findings(database) == []


async def points(stage: Stage) -> set[str]:
    saver = stage.app.saver
    at: Any = {"configurable": {"thread_id": "talk"}}
    return {found.config["configurable"]["checkpoint_id"] async for found in saver.alist(at)}


async def test_what_later_runs_cannot_be_read_without_is_not_taken(database: str) -> None:
    async with staged(database, GRAPHS) as stage:
        runs = []
        for _ in range(2):
            runs.append((await start(stage.control, "diary", {}, thread_id="diary")).run_id)
            await stage.until(runs[-1], "succeeded")
        before = counted(database, "diary")
        with pytest.raises(Refusal, match="cannot be read without this one: Thread diary uses a DeltaChannel"):
            await delete(stage.control, runs[0])
        assert counted(database, "diary") == before and "deleted" not in stage.kinds(runs[0])


async def test_what_is_left_of_a_thread_stays_its_tenants(database: str) -> None:
    async with staged(database, GRAPHS) as stage:
        await delete(stage.control, await said(stage, "mine"))
        stranger = replace(stage.control, principal=tester("other"))
        with pytest.raises(Refusal) as told:
            await start(stranger, "talk", {"now": "theirs"}, thread_id="talk")
        assert told.value.code == "thread-taken"
        await said(stage, "anew")
        assert (await values(stage))["said"] == ["anew"], "and its tenant begins from nothing there"


async def test_what_a_script_left_is_deleted_too_and_what_was_there_before_it_is_not(database: str) -> None:
    async with staged(database, GRAPHS, work=False) as stage:
        script = talk().compile(checkpointer=stage.app.saver)
        at: Any = {"configurable": {"thread_id": "talk"}}
        found = []
        for word in ("one", "two"):
            await script.ainvoke({"now": word}, at)
            async with stage.control.transaction() as conn:
                cursor = await conn.execute("select run_id from control.run order by created_at desc limit 1")
                found.append((await cursor.fetchone())["run_id"])
        await delete(stage.control, found[1])
        assert (await values(stage))["said"] == ["one"]
        await delete(stage.control, found[0])
        assert set(counted(database, "talk").values()) == {0}


async def test_whoever_may_not_see_it_is_not_told_that_it_exists(database: str) -> None:
    async with staged(database, GRAPHS) as stage:
        run = await said(stage, "once")
        with pytest.raises(Refusal) as told:
            await delete(stage.acting("service", scopes=frozenset({"start"})), run)
        assert told.value.code == "no-such-run"
        with pytest.raises(Refusal) as told:
            await delete(replace(stage.control, principal=tester("other")), run)
        assert told.value.code == "no-such-run" and Verb.DELETE not in stage.kinds(run)
