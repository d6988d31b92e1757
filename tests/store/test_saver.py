"""The saver's promises to one writer: fencing, order, and that nothing refused leaves a trace."""

from __future__ import annotations

import asyncio
import enum
from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from langgraph.types import Interrupt

from control.core.ledger import verify
from control.core.problem import Refusal
from control.store.item import Fence
from tests.store.holding import checkpoint, claimed, contents, execute, head_of, installation, ledger, put, under


@dataclass
class Foreign:
    """A type that no schema names."""

    n: int


async def refused(awaitable: Any) -> str:
    with pytest.raises(Refusal) as refusal:
        await awaitable
    return refusal.value.problem.code


@pytest.mark.parametrize("wrong", ["epoch", "thread", "tenant", "worker", "run"])
async def test_a_write_under_a_wrong_claim_changes_nothing(database: str, wrong: str) -> None:
    fence = claimed(database)
    other = {
        "epoch": fence._replace(epoch=0), "thread": fence._replace(thread_id=claimed(database).thread_id),
        "tenant": fence._replace(tenant="other"), "worker": fence._replace(worker_id=uuid4()),
        "run": fence._replace(run_id=uuid4()),
    }[wrong]  # fmt: skip
    async with installation(database) as app:
        before = contents(database)
        assert await refused(put(app, under(other), step=0, text="x", list=[1])) == "claim-lost"
        writes = [("text", [2])]
        at = under(other, checkpoint_id="c")
        assert await refused(app.saver.aput_writes(at, writes, "task")) == "claim-lost"
        question = [("__interrupt__", [Interrupt(value="Well?", id="i" * 32)])]
        assert await refused(app.saver.aput_writes(under(other, checkpoint_id="c"), question, "task")) == "claim-lost"
        at = under(other)
        assert await refused(app.saver.effects.begin(at, key="k", name="mail", kind="effect")) == "claim-lost"
    assert contents(database) == before


async def test_the_neighbours_of_a_lost_claim_are_written_in_the_same_flush(database: str) -> None:
    fences = [claimed(database) for _ in range(5)]
    lost = fences[2]
    execute(database, "update control.run set epoch = 2 where run_id = %s", (lost.run_id,))
    async with installation(database) as app:
        before = app.flusher.flushes
        told = await asyncio.gather(*(put(app, under(fence), a=1) for fence in fences), return_exceptions=True)
        assert app.flusher.flushes == before + 1
    assert [isinstance(one, Refusal) for one in told] == [fence is lost for fence in fences]
    written = {thread for (thread,) in execute(database, "select thread_id from checkpoints")}
    assert written == {fence.thread_id for fence in fences if fence is not lost}


async def test_a_writer_that_lost_its_claim_is_told_once_and_writes_no_more(database: str) -> None:
    fence = claimed(database)
    execute(database, "update control.run set epoch = 2 where run_id = %s", (fence.run_id,))
    config, told = under(fence), []
    config["configurable"]["__control_tenure"].on_lost = told.append
    async with installation(database) as app:
        assert await refused(put(app, config)) == "claim-lost"
        before = app.flusher.flushes
        assert await refused(put(app, config)) == "claim-lost"
        assert app.flusher.flushes == before, "it was refused without asking the database"
    assert [refusal.problem.code for refusal in told] == ["claim-lost"]


async def test_a_value_of_an_unknown_type_leaves_nothing_behind(database: str) -> None:
    fence = claimed(database)
    async with installation(database) as app:
        before = contents(database)
        with pytest.raises(Refusal, match=r"tests\.store\.test_saver\.Foreign is not among the types"):
            await put(app, under(fence), fine=[1], foreign={"deep": [Foreign(1)]})
        with pytest.raises(Refusal, match=r"test_saver\.Foreign"):
            await app.saver.aput_writes(under(fence, checkpoint_id="c"), [("a", [1]), ("b", [Foreign(1)])], "t")
        with pytest.raises(Refusal, match="cannot be stored"):
            await put(app, under(fence), connection=[asyncio.get_running_loop()])
        assert contents(database) == before
        await put(app, under(fence), fine=[1])


class Word(enum.StrEnum):
    YES = "yes"


FAITHFUL: dict[str, Any] = {
    "pair": (1, [(2, "b")]), "word": Word.YES, "words": [Word.YES], "ordered": OrderedDict(b=1, a=(2,)), "vast": 1e22,
    "counts": Counter("aab"), "keys": {1: "a", (2, 3): "b"}, "endless": float("inf"), "zero": -0.0, "half": 0.5,
    "n": 10**30, "yes": True, "text": "é", "none": None, "raw": b"x", "bytes": bytearray(b"x"),
}  # fmt: skip


async def test_channels_and_pending_writes_come_back_with_their_types(database: str) -> None:
    """What the stock saver would put into the database's JSON, and what it packs."""
    fence = claimed(database)
    async with installation(database) as app:
        app.saver.serde.allow([(__name__, "Word")])
        packed = {name: value for name, value in FAITHFUL.items() if name != "n"}  # beyond 64 bits only JSON has it
        config = await put(app, under(fence), **FAITHFUL)
        await app.saver.aput_writes(config, list(packed.items()), "task")
        found = await app.saver.aget_tuple(config)
    assert found and found.pending_writes
    for kept, given in (
        (found.checkpoint["channel_values"], FAITHFUL),
        ({channel: value for _, channel, value in found.pending_writes}, packed),
    ):
        assert {name: (type(value), repr(value)) for name, value in kept.items()} == {
            name: (type(value), repr(value)) for name, value in given.items()
        }


@pytest.mark.parametrize("bad", [defaultdict(list), {"deep": [defaultdict(list)]}, ValueError(), "TEXT"], ids=repr)
async def test_a_value_that_would_change_is_refused_with_its_channel(database: str, bad: Any) -> None:
    bad = type("Text", (str,), {})(bad) if isinstance(bad, str) else bad
    fence = claimed(database)
    async with installation(database) as app:
        before = contents(database)
        for attempt in (
            put(app, under(fence), fine=[1], basket=bad),
            app.saver.aput_writes(under(fence, checkpoint_id="c"), [("a", [1]), ("basket", bad)], "t"),
        ):
            with pytest.raises(Refusal, match=r"would come back as .*channel 'basket'") as refusal:
                await attempt
            assert refusal.value.code == "type-not-allowed"
        assert contents(database) == before


async def test_a_question_opens_once_though_its_interrupt_arrives_twice(database: str) -> None:
    fence = claimed(database)
    async with installation(database) as app:
        config = await put(app, under(fence))
        question = [("__interrupt__", [Interrupt(value={"title": "Send it?"}, id="1" * 32)])]
        nested = {"configurable": config["configurable"] | {"checkpoint_ns": "child:1"}}
        await app.saver.aput_writes(nested, question, "inner", "~__pregel_pull, ask")
        await app.saver.aput_writes(config, question, "outer", "~__pregel_pull, child")
        again = under(fence, checkpoint_id=config["configurable"]["checkpoint_id"])
        await app.saver.aput_writes(again, question, "outer", "~__pregel_pull, child")
    rows = execute(database, "select interrupt_id, node from control.approval")
    assert rows == [("1" * 32, "child")]


async def test_a_timer_counts_from_the_instant_of_its_entry(database: str) -> None:
    fence = claimed(database)
    async with installation(database) as app:
        config = await put(app, under(fence))
        wait = {"type": "control.wait", "kind": "timer", "seconds": 90.5}
        await app.saver.aput_writes(config, [("__interrupt__", [Interrupt(value=wait, id="2" * 32)])], "t", "~p, n")
    entry = ledger(database, fence.run_id)[-1]
    [(due_at, opened_at)] = execute(database, "select due_at, opened_at from control.wait")
    assert opened_at == entry.at
    assert (due_at - entry.at).total_seconds() == 90.5 == entry.body["due_in_s"]


async def test_the_ledger_that_the_database_chains_is_the_one_that_core_verifies(database: str) -> None:
    fence = claimed(database)
    async with installation(database) as app:
        for step in range(3):
            config = await put(app, under(fence), step=step, text=f"“{step}” \U0001f600")
            await app.saver.aput_writes(config, [("__error__", RuntimeError("naïve | bar"))], f"t{step}", "~p, node")
    entries = ledger(database, fence.run_id)
    assert [str(entry.kind) for entry in entries] == ["stepped", "task_failed"] * 3
    assert verify(entries, head=head_of(database, fence.run_id)) is None


@pytest.mark.parametrize(
    "change",
    [
        "update control.ledger set actor = 'somebody else'",
        "delete from control.ledger",
        "truncate control.ledger",
        "update control.ledger set body = null",
    ],
)
async def test_not_even_the_owner_changes_the_ledger(database: str, change: str) -> None:
    fence = claimed(database)
    async with installation(database) as app:
        await put(app, under(fence))
    before = contents(database)
    with pytest.raises(psycopg.errors.DatabaseError, match="the ledger is append-only"):
        execute(database, change)
    assert contents(database) == before


async def test_of_two_writes_of_one_row_the_same_stands_in_one_flush_as_in_two(database: str) -> None:
    together, apart = claimed(database), claimed(database)
    async with installation(database) as app:
        for fence in (together, apart):
            config = await put(app, under(fence))
            puts = [app.saver.aput_writes(config, [("a", [value])], "task") for value in ("first", "second")]
            marks = [app.saver.aput_writes(config, [("__resume__", [value])], "task") for value in ("old", "new")]
            if fence is together:
                before = app.flusher.flushes
                await asyncio.gather(*puts, *marks)
                assert app.flusher.flushes == before + 1
            else:
                for each in (*puts, *marks):
                    await each
        read = {fence: await pending(app, fence) for fence in (together, apart)}
    assert read[together] == read[apart] == {"a": ["first"], "__resume__": ["new"]}


async def pending(app: Any, fence: Fence) -> dict[str, Any]:
    found = await app.saver.aget_tuple({"configurable": {"thread_id": fence.thread_id}})
    return {channel: value for _, channel, value in found.pending_writes}


async def test_a_checkpoint_reads_back_as_it_was_put(database: str) -> None:
    fence = claimed(database)
    values = {
        "text": "é\u2028",
        "number": 3.5,
        "none": None,
        "yes": True,
        "big": "x" * 10**6,
        "list": [1, {"a": b"\0"}],
    }
    async with installation(database) as app:
        made, versions = checkpoint(**values)
        await app.saver.aput(under(fence), made, {"source": "loop", "step": 7, "parents": {}}, versions)
        found = await app.saver.aget_tuple({"configurable": {"thread_id": fence.thread_id}})
    assert found is not None
    assert found.checkpoint["channel_values"] == values
    assert (found.metadata["source"], found.metadata["step"]) == ("loop", 7)


async def test_other_loops_and_threads_write_through_the_savers_own_loop(database: str) -> None:
    fence = claimed(database)
    async with installation(database) as app:

        def elsewhere() -> None:
            asyncio.run(put(app, under(fence), n=[1]))
            app.saver.put_writes(under(fence, checkpoint_id="c"), [("a", [1])], "t")

        await asyncio.to_thread(elsewhere)
        found = await app.saver.aget_tuple({"configurable": {"thread_id": fence.thread_id}})
    assert found is not None
    assert found.checkpoint["channel_values"] == {"n": [1]}


@dataclass(eq=False)
class Broken(Exception):
    """An exception that is a dataclass, as many are; serialised as one, its type would be refused."""

    part: str


async def test_an_error_is_kept_as_its_text_whatever_its_type(database: str) -> None:
    fence = claimed(database)
    async with installation(database) as app:
        await put(app, under(fence), step=0)
        at = under(fence, checkpoint_id="c")
        await app.saver.aput_writes(at, [("__error__", Broken("pump"))], "task", "~__pregel_pull, pump")
    told = [(entry.kind, entry.body) for entry in ledger(database, fence.run_id)][-1]
    assert told == ("task_failed", {"node": "pump", "error": repr(Broken("pump"))})
