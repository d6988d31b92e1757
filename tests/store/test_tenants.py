"""One installation, several tenants: what each reads, writes and takes on LangGraph's tables."""

from __future__ import annotations

import asyncio
import operator
from dataclasses import replace
from typing import Annotated, Any, Final, LiteralString, TypedDict
from uuid import uuid4

import psycopg
import pytest
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from psycopg.rows import dict_row

from control.core.problem import Refusal
from control.core.question import Question, Suspension
from control.store.item import Asked, Batch, EffectRow, Ending, Fence, Item, SpendRow, WriteRow
from tests.store.holding import claimed, execute, installation, put, under, until_blocked

pytestmark = pytest.mark.installed


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def config(thread: str) -> Any:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}


def asking() -> StateGraph[State]:
    graph = StateGraph(State)
    graph.add_node("ask", lambda state: {"log": [interrupt("Well?")]})
    graph.add_edge(START, "ask")
    graph.add_edge("ask", END)
    return graph


async def test_a_saver_reads_the_threads_of_its_tenant_alone(database: str) -> None:
    mine, other = claimed(database, thread="mine"), claimed(database, tenant="other", thread="other")
    async with installation(database) as app:
        for fence in (mine, other):
            await put(app, under(fence), word=fence.tenant)
        own, theirs = await app.saver.aget_tuple(config("mine")), await app.saver.aget_tuple(config("other"))
        assert own is not None and own.checkpoint["channel_values"] == {"word": "default"}
        assert theirs is None
        listed = [found.config["configurable"]["thread_id"] async for found in app.saver.alist(None)]
        assert listed == ["mine"]


async def test_under_a_claim_the_claims_tenant_reads_whoever_read_before(database: str) -> None:
    """One pooled connection serves all of them, so that each finds what the one before it left."""
    fences = [claimed(database, tenant=tenant, thread=tenant) for tenant in ("a", "b")]
    async with installation(database, pool_limit=1) as app:
        for fence in fences:
            await put(app, under(fence), word=fence.tenant)
        for fence in fences * 2:
            found = await app.saver.aget_tuple(under(fence))
            assert found is not None and found.checkpoint["channel_values"] == {"word": fence.tenant}
            assert await app.saver.aget_tuple(config(fence.thread_id)) is None
            assert [t async for t in app.saver.of(fence.tenant).alist(None)] != []


async def test_no_connection_of_the_pool_bears_the_tenant_of_its_last_reader(database: str) -> None:
    """Whether that reader was done, failed, gave up, or left a transaction open. One connection serves them all."""
    fence = claimed(database, thread="mine")
    async with installation(database, pool_limit=1) as app:
        await put(app, under(fence), word="mine")

        async def read(query: LiteralString) -> None:
            async with app.saver._cursor() as cursor:
                await (await cursor.execute("select checkpoint_id from checkpoints")).fetchall()
                assert cursor.rowcount == 1
                await cursor.execute(query)

        async def borne() -> list[Any]:
            async with app.database.reader.connection() as conn:
                found = (
                    "select current_setting('control.tenants') as tenants, (select count(*) from checkpoints) as seen"
                )
                return await (await conn.execute(found)).fetchall()

        nobody = [{"tenants": "", "seen": 0}]
        await read("select")
        assert await borne() == nobody
        await read("begin")
        assert await borne() == nobody
        with pytest.raises(Refusal, match="division by zero"):
            await read("select 1 / 0")
        assert await borne() == nobody
        reading = asyncio.ensure_future(read("select pg_sleep(60)"))  # given up long before
        await until_blocked(database, by="Timeout")
        reading.cancel()
        await asyncio.wait({reading})
        assert await borne() == nobody


async def test_a_connection_that_cannot_forget_its_tenant_is_not_used_again(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fence = claimed(database, thread="mine")
    async with installation(database, pool_limit=1) as app:
        await put(app, under(fence), word="mine")

        async def fail(conn: psycopg.AsyncConnection[Any]) -> None:
            await conn.execute("select 1 / 0")

        async def backend() -> int:
            async with app.database.reader.connection() as conn:
                return conn.info.backend_pid

        before = await backend()
        with monkeypatch.context() as patch:
            patch.setattr(app.database.reader, "_reset", fail)
            assert await app.saver.aget_tuple(config("mine"))
            assert await backend() != before


async def test_an_item_of_a_tenant_that_its_flush_did_not_name_is_not_written(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, smuggled = claimed(database, tenant="a", thread="a"), claimed(database, tenant="b", thread="b")
    monkeypatch.setattr(Batch, "tenants", lambda _: ["a"])
    async with installation(database) as app:
        told = await asyncio.gather(
            *(put(app, under(fence), word="x") for fence in (named, smuggled)), return_exceptions=True
        )
    assert isinstance(told[0], dict)
    assert isinstance(told[1], Refusal) and told[1].code == "claim-lost"
    assert execute(database, "select thread_id from checkpoints") == [("a",)]


OWN: Final = {
    "checkpoint_writes": "thread_id, convert_from(blob, 'UTF8')",
    "control.approval": "tenant, title",
    "control.wait": "tenant, signal",
    "control.effect": "tenant, name",
    "control.spend": "tenant, tokens::text",
    "control.spend_hour": "tenant, tokens::text",
}


def item(fence: Fence, **given: Any) -> Item:
    return Item(fence, asyncio.get_running_loop().create_future(), **given)


def besides(fence: Fence, word: str) -> Item:
    """A row of each kind that is written after the flush itself, all with this word in them."""
    return item(
        fence,
        marks=[WriteRow("", "c", "task", "", "-1", "__error__", "", word.encode())],
        asked=[
            Asked(Question("question", "input", word, "{}", None), "c", "node"),
            Asked(Suspension("signal", "signal", signal=word), "c", "node"),
        ],
        effects=[EffectRow("key", word, "effect", "began", 1)],
        spends=[SpendRow("key", "0.5", word)],
    )


async def test_two_tenants_runs_with_one_id_share_a_flush_and_no_row(database: str) -> None:
    run_id, words = uuid4(), {"a": "1", "b": "2"}
    fences = {tenant: claimed(database, tenant=tenant, thread=tenant, run_id=run_id) for tenant in words}
    async with installation(database) as app:
        await asyncio.gather(*(app.flusher.write(besides(fences[tenant], word)) for tenant, word in words.items()))
        assert app.flusher.flushes == 1
        for table, columns in OWN.items():
            assert execute(database, f"select {columns} from {table} order by 1, 2") == list(words.items()), table


async def test_an_ending_takes_in_the_answers_of_its_own_tenant(database: str) -> None:
    """Both runs have one id and end in one flush; the second waits for nothing more."""
    run_id, pending = uuid4(), {"a": ("signal",), "b": ()}
    fences = {tenant: claimed(database, tenant=tenant, thread=tenant, run_id=run_id) for tenant in pending}
    async with installation(database) as app:
        for fence in fences.values():
            await app.flusher.write(besides(fence, "1"))
        execute(database, "update control.wait set fired_at = opened_at")
        end = Ending(0, "suspended", "interrupted", "waiting", None, False, 0, settles=True)
        endings = [item(fences[tenant], ending=replace(end, pending=left)) for tenant, left in pending.items()]
        await asyncio.gather(*(app.flusher.write(ending) for ending in endings))
        assert app.flusher.flushes == 3
    assert execute(database, "select tenant from control.wait where delivered_at is not null") == [("b",)]


@pytest.mark.parametrize("act", ["write", "delete", "copy from", "copy to", "prune"])
async def test_what_is_on_another_tenants_thread_is_out_of_reach(database: str, act: str) -> None:
    other = claimed(database, tenant="other", thread="other")
    async with installation(database) as app:
        await put(app, under(other), word="theirs")
        before = execute(database, "select * from checkpoints")
        saver = app.saver
        acts = {
            "write": lambda: asking().compile(checkpointer=saver).ainvoke({"log": []}, config("other")),
            "delete": lambda: saver.adelete_thread("other"),
            "copy from": lambda: saver.acopy_thread("other", "copy"),
            "copy to": lambda: saver.acopy_thread("mine", "other"),
            "prune": lambda: saver.aprune(["other"], strategy="delete"),
        }
        with pytest.raises(Refusal) as refused:
            await acts[act]()
        assert refused.value.code == "thread-taken"
    assert execute(database, "select * from checkpoints") == before


@pytest.mark.parametrize("first", ["resume", "list", "copy"])
async def test_a_thread_of_plain_langgraph_is_his_who_first_names_it(database: str, first: str) -> None:
    graph = asking()
    async with await psycopg.AsyncConnection.connect(database, autocommit=True, row_factory=dict_row) as conn:
        await graph.compile(checkpointer=AsyncPostgresSaver(conn)).ainvoke({"log": ["plain"]}, config("t"))
    async with installation(database) as app:
        assert [found async for found in app.saver.alist(None)] == []
        assert await app.saver.aget_tuple(config("nobody's")) is None
        assert execute(database, "select 1 from control.thread") == []
        if first == "list":
            assert len([found async for found in app.saver.alist(config("t"))]) == 2
        thread = "t"
        if first == "copy":
            await app.saver.acopy_thread(thread, thread := "copy")
        found = await graph.compile(checkpointer=app.saver).ainvoke(Command(resume="yes"), config(thread))
    assert found == {"log": ["plain", "yes"]}
    owners = execute(database, "select tenant, thread_id from control.thread order by 2")
    assert owners == [("default", name) for name in sorted({"t", thread})]
