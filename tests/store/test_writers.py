"""Scripts that write through the saver without a worker: each thread is one process's at a time, and has a story."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from control.core.ledger import verify
from tests.store.holding import execute, head_of, installation, ledger


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def runs_of(conninfo: str) -> list[Any]:
    return execute(conninfo, "select status, run_id, worker_id is null from control.run order by created_at")


def config(thread: str = "t") -> Any:
    return {"configurable": {"thread_id": thread}}


async def test_a_script_gets_one_run_that_waits_is_answered_and_ends(database: str) -> None:
    graph = StateGraph(State)
    graph.add_node("ask", lambda state: {"log": [interrupt("Well?")]})
    graph.add_edge(START, "ask")
    async with installation(database) as app:
        compiled = graph.compile(checkpointer=app.saver)
        await compiled.ainvoke({"log": []}, config(), durability="sync")
        assert [(status, free) for status, _, free in runs_of(database)] == [("awaiting_input", True)]
        await compiled.ainvoke(Command(resume="yes"), config(), durability="sync")
    [(status, run_id, free)] = runs_of(database)
    assert (status, free) == ("succeeded", True)
    entries = ledger(database, run_id)
    assert [str(e.kind) for e in entries if e.kind in ("accepted", "claimed", "asked", "ended")] == [
        "accepted", "claimed", "asked", "ended", "claimed", "ended"
    ]  # fmt: skip
    assert verify(entries, head=head_of(database, run_id)) is None


async def test_a_failed_script_is_said_to_have_failed(database: str) -> None:
    graph = StateGraph(State)
    graph.add_node("break", lambda state: 1 / 0)
    graph.add_edge(START, "break")
    async with installation(database) as app:
        with pytest.raises(ZeroDivisionError):
            await graph.compile(checkpointer=app.saver).ainvoke({"log": []}, config(), durability="sync")
    assert [(status, free) for status, _, free in runs_of(database)] == [("failed", True)]


async def test_a_branch_that_fails_while_its_sibling_works_is_still_one_run(database: str) -> None:
    failed = asyncio.Event()

    async def broken(state: State) -> State:
        failed.set()
        raise ValueError("broken")

    async def slow(state: State) -> State:
        await failed.wait()
        return {"log": ["slow"]}

    graph = StateGraph(State)
    graph.add_node("broken", broken)
    graph.add_node("slow", slow)
    for node in ("broken", "slow"):
        graph.add_edge(START, node)
        graph.add_edge(node, END)
    async with installation(database) as app:
        with pytest.raises(ValueError, match="broken"):
            await graph.compile(checkpointer=app.saver).ainvoke({"log": []}, config(), durability="sync")
    assert [(status, free) for status, _, free in runs_of(database)] == [("failed", True)]


async def test_of_two_processes_on_a_thread_the_second_is_refused(database: str) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def hold(state: State) -> State:
        entered.set()
        await leave.wait()
        return {"log": ["held"]}

    graph = StateGraph(State)
    graph.add_node("hold", hold)
    graph.add_edge(START, "hold")
    async with installation(database) as one, installation(database) as two:
        first = asyncio.ensure_future(
            graph.compile(checkpointer=one.saver).ainvoke({"log": []}, config(), durability="sync")
        )
        await entered.wait()
        with pytest.raises(Exception, match="Another process is working on this thread"):
            await graph.compile(checkpointer=two.saver).ainvoke({"log": ["x"]}, config(), durability="sync")
        leave.set()
        await first
        found = await one.saver.aget_tuple(config())
    assert found is not None
    assert found.checkpoint["channel_values"]["log"] == ["held"]
    assert [status for status, _, _ in runs_of(database)] == ["succeeded"]
