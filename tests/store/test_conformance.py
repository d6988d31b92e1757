"""LangGraph's own conformance suite, every capability it knows, against the saver that governs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import ALL_CAPABILITIES
from langgraph.checkpoint.postgres import PostgresSaver
from psycopg.rows import dict_row

from control.app import App
from control.core.problem import Refusal
from control.store.session import Session
from tests.store.holding import checkpoint, claimed, contents, execute, installation, put, under


async def test_it_conforms_in_every_capability(database: str) -> None:
    @checkpointer_test(name="ControlSaver")
    async def savers() -> AsyncIterator[BaseCheckpointSaver[str]]:
        async with installation(database) as app:
            yield app.saver

    report = await validate(savers)
    failures = [failure for result in report.results.values() for failure in result.failures]
    assert not failures
    passed = {name for name, result in report.results.items() if result.passed}
    assert passed == {capability.value for capability in ALL_CAPABILITIES}


def code(refusal: pytest.ExceptionInfo[Refusal]) -> str:
    return refusal.value.problem.code


async def finished(app: App, thread: str) -> None:
    """A thread with one checkpoint and a value, on which no run is open."""
    await put(app, {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}, kept=[1])


@pytest.mark.parametrize("verb", ["delete", "delete_for_runs", "prune", "prune_delete", "copy_from", "copy_to"])
async def test_a_thread_somebody_works_on_is_left_alone(database: str, verb: str) -> None:
    fence = claimed(database)
    async with installation(database) as app:
        made, versions = checkpoint(kept=[1])
        await app.saver.aput(under(fence), made, {"source": "loop", "step": 0, "run_id": "r-1"}, versions)
        await finished(app, "idle")
        worker = Session(
            app.database.address.session("control_claim"), "worker", timedelta(seconds=30), worker_id=fence.worker_id
        )
        await asyncio.to_thread(worker.start)
        try:
            before = contents(database)
            with pytest.raises(Refusal) as refusal:
                await {
                    "delete": lambda: app.saver.adelete_thread(fence.thread_id),
                    "delete_for_runs": lambda: app.saver.adelete_for_runs(["r-1"]),
                    "prune": lambda: app.saver.aprune([fence.thread_id]),
                    "prune_delete": lambda: app.saver.aprune(["idle", fence.thread_id], strategy="delete"),
                    "copy_from": lambda: app.saver.acopy_thread(fence.thread_id, "copy"),
                    "copy_to": lambda: app.saver.acopy_thread("idle", fence.thread_id),
                }[verb]()
            assert code(refusal) == "claim-held"
            assert contents(database) == before
        finally:
            await asyncio.to_thread(worker.stop)


async def test_a_thread_with_an_open_run_is_not_deleted_but_may_be_copied_and_pruned(database: str) -> None:
    fence = claimed(database)
    async with installation(database) as app:
        config = await put(app, under(fence), kept=[0])
        await put(app, config, kept=[1], step=1)
        execute(database, "update control.run set worker_id = null, status = 'awaiting_approval'")
        with pytest.raises(Refusal, match="is awaiting_approval") as refusal:
            await app.saver.adelete_thread(fence.thread_id)
        assert code(refusal) == "thread-busy"
        await app.saver.acopy_thread(fence.thread_id, "copy")
        await app.saver.aprune([fence.thread_id])
    threads = execute(database, "select thread_id, count(*) from checkpoints group by thread_id order by count(*)")
    assert threads == [(fence.thread_id, 1), ("copy", 2)]


async def test_another_tenants_thread_is_not_touched(database: str) -> None:
    async with installation(database, tenant="theirs") as other:
        await finished(other, "their-thread")
        await put(other, {"configurable": {"thread_id": "their-thread", "checkpoint_ns": ""}}, kept=[2])
    execute(database, 'update checkpoints set metadata = metadata || \'{"run_id": "r-1"}\'')
    before = contents(database)
    async with installation(database, tenant="ours") as app:
        for act in (
            app.saver.adelete_thread("their-thread"),
            app.saver.aprune(["their-thread"]),
            app.saver.aprune(["their-thread"], strategy="delete"),
            app.saver.acopy_thread("their-thread", "mine"),
        ):
            with pytest.raises(Refusal) as refusal:
                await act
            assert code(refusal) == "thread-taken"
        await app.saver.adelete_for_runs(["r-1"])
    assert contents(database) == before


async def test_a_copy_does_not_mix_with_what_is_there(database: str) -> None:
    async with installation(database) as app:
        await finished(app, "a")
        await app.saver.acopy_thread("a", "b")
        before = contents(database)
        with pytest.raises(Refusal, match="'b' has checkpoints already") as refusal:
            await app.saver.acopy_thread("a", "b")
        assert code(refusal) == "thread-taken"
        assert contents(database) == before


async def test_a_run_that_begins_while_a_thread_is_deleted_keeps_it(database: str) -> None:
    async with installation(database) as app:
        await finished(app, "a")
        fence = claimed(database)
        with pytest.raises(Refusal) as refusal:
            async with app.saver._writers.idle(["a", fence.thread_id + "-new"], ended=True) as conn:
                await conn.execute("delete from checkpoints")
                begun = claimed(database, thread=fence.thread_id + "-new")
                waiting = "update control.run set worker_id = null, claimed_at = null where run_id = %s"
                execute(database, waiting, (begun.run_id,))
        assert code(refusal) == "thread-busy"
    assert execute(database, "select thread_id from checkpoints") == [("a",)]


async def test_deleting_a_run_takes_the_values_that_only_it_refers_to(database: str) -> None:
    async with installation(database) as app:
        config = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
        for run_id, version in (("r-1", "1"), ("r-2", "2")):
            made, _ = checkpoint(shared=[0], own=[run_id])
            made["channel_versions"] = {"shared": "1", "own": version}
            metadata = {"source": "loop", "step": 0, "run_id": run_id}
            await app.saver.aput(config, made, metadata, {"own": version} | ({"shared": "1"} if version == "1" else {}))
        await app.saver.adelete_for_runs(["r-1"])
        found = await app.saver.aget_tuple(config)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"shared": [0], "own": ["r-2"]}
    assert sorted(execute(database, "select channel, version from checkpoint_blobs")) == [("own", "2"), ("shared", "1")]


async def test_a_thread_that_plain_langgraph_wrote_can_be_taken_over(database: str) -> None:
    made, versions = checkpoint(kept=[1])
    with psycopg.connect(database, autocommit=True, row_factory=dict_row) as conn:
        config = {"configurable": {"thread_id": "plain", "checkpoint_ns": ""}}
        PostgresSaver(conn).put(config, made, {"source": "loop", "step": 0, "parents": {}}, versions)
    async with installation(database) as app:
        await app.saver.acopy_thread("plain", "copy")
        await app.saver.adelete_thread("plain")
    assert execute(database, "select thread_id from checkpoints") == [("copy",)]
    assert sorted(execute(database, "select tenant, thread_id from control.thread")) == [
        ("default", "copy"), ("default", "plain")
    ]  # fmt: skip


async def test_the_synchronous_forms_do_the_same(database: str) -> None:
    async with installation(database) as app:
        await finished(app, "a")

        def blocking() -> None:
            app.saver.copy_thread("a", "b")
            app.saver.prune(["b"])
            app.saver.delete_for_runs([str(uuid4())])
            app.saver.delete_thread("a")

        await asyncio.to_thread(blocking)
    assert execute(database, "select thread_id from checkpoints") == [("b",)]
