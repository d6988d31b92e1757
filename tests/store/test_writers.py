"""Scripts that write through the saver without a worker: each thread is one process's at a time, and has a story."""

from __future__ import annotations

import asyncio
import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, TypedDict
from uuid import UUID

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from control.core.answer import Word
from control.core.ledger import verify
from control.core.problem import Refusal
from control.runtime.commands.decide import decide
from control.runtime.commands.start import start
from control.store import writers
from control.store.checkpoints import heads
from control.store.item import Item
from control.store.saver import ControlSaver
from control.store.tenure import Tenure
from control.testing.stage import staged
from tests.store.holding import contents, execute, head_of, installation, ledger


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


async def test_a_script_that_goes_on_with_an_answer_holds_its_run_until_it_ends(database: str) -> None:
    """Until the node that asked is done, the rows show its question still."""
    seen: list[Any] = []

    async def ask(state: State) -> State:
        said = interrupt("Well?")
        await until_answered(database)
        for _ in range(10):
            seen.extend(await asyncio.to_thread(runs_of, database))
        return {"log": [said]}

    graph = StateGraph(State)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    async with installation(database) as app:
        compiled = graph.compile(checkpointer=app.saver)
        await compiled.ainvoke({"log": []}, config(), durability="sync")
        await compiled.ainvoke(Command(resume="yes"), config(), durability="sync")
    [(status, run_id, free)] = runs_of(database)
    assert (seen, status, free) == ([("running", run_id, False)] * 10, "succeeded", True)
    assert [str(e.kind) for e in ledger(database, run_id)].count("claimed") == 2


async def test_a_question_takes_no_claim_from_a_branch_that_writes(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the question's rows and what follows from it, the sibling's output is on its way."""
    found, writing, decided = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def heads_slowly(*args: Any) -> Any:
        seen = await heads(*args)
        if seen["t"].open and not found.is_set():
            found.set()
            await writing.wait()
        return seen

    async def ask(state: State) -> State:
        return {"log": [interrupt("Well?")]}

    async def work(state: State) -> State:
        await found.wait()
        return {"log": ["worked"]}

    graph = StateGraph(State)
    for name, node in {"ask": ask, "work": work}.items():
        graph.add_node(name, node)
        graph.add_edge(START, name)
    async with installation(database) as app:
        write, look = app.flusher.write, app.saver._writers.after_write

        async def write_when_decided(item: Item) -> int:
            if found.is_set():
                writing.set()
                await decided.wait()
            return await write(item)

        async def look_and_tell(tenure: Tenure) -> None:
            await look(tenure)
            if found.is_set():
                decided.set()

        monkeypatch.setattr(writers, "heads", heads_slowly)
        monkeypatch.setattr(app.flusher, "write", write_when_decided)
        monkeypatch.setattr(app.saver._writers, "after_write", look_and_tell)
        compiled = graph.compile(checkpointer=app.saver)
        await compiled.ainvoke({"log": []}, config(), durability="sync")
        [(status, run_id, free)] = runs_of(database)
        assert (status, free) == ("awaiting_input", True)
        assert (await compiled.ainvoke(Command(resume="yes"), config(), durability="sync"))["log"] == ["yes", "worked"]
    assert [str(e.kind) for e in ledger(database, run_id)].count("claimed") == 2


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
    entered, leave = asyncio.Semaphore(0), asyncio.Event()

    async def hold(state: State) -> State:
        entered.release()
        await leave.wait()
        return {"log": ["held"]}

    graph = StateGraph(State)
    graph.add_node("hold", hold)
    graph.add_edge(START, "hold")
    async with installation(database) as one, installation(database) as two:
        first = asyncio.ensure_future(
            graph.compile(checkpointer=one.saver).ainvoke({"log": []}, config(), durability="sync")
        )
        await entered.acquire()
        for value in ({"log": ["x"]}, None):
            with pytest.raises(Refusal, match="Another process is working on this thread"):
                await graph.compile(checkpointer=two.saver).ainvoke(value, config(), durability="sync")
        assert entered.locked(), "its node did not run"
        leave.set()
        await first
        found = await one.saver.aget_tuple(config())
    assert found is not None
    assert found.checkpoint["channel_values"]["log"] == ["held"]
    assert [status for status, _, _ in runs_of(database)] == ["succeeded"]


async def test_a_script_that_resumes_a_workflows_thread_runs_none_of_its_nodes(database: str) -> None:
    ran: list[str] = []

    def ask(state: State) -> State:
        ran.append("ask")
        return {"log": [interrupt("Well?")]}

    builder = StateGraph(State).add_node("ask", ask).add_edge(START, "ask")
    async with staged(database, {"asking": builder.compile()}) as stage:
        run = await start(stage.control, "asking", {"log": []})
        await stage.until(run.run_id, "awaiting_input")
        before, script, thread = (
            contents(database),
            builder.compile(checkpointer=stage.app.saver),
            config(run.thread_id),
        )
        for value in (Command(resume="yes"), None, {"log": ["x"]}):
            with pytest.raises(Refusal, match="belongs to the workers"):
                await script.ainvoke(value, thread, durability="sync")
            with pytest.raises(Refusal, match="belongs to the workers"):
                await asyncio.to_thread(script.invoke, value, thread, durability="sync")
        with pytest.raises(Refusal, match="belongs to the workers"):
            await calling(lambda _: script.ainvoke(Command(resume="yes"), thread)).ainvoke({"log": []})
        assert (ran, contents(database)) == (["ask"], before)
        await decide(stage.control, run.run_id, Word.ANSWERED, answer="yes")
        await stage.until(run.run_id, "succeeded")
        assert (await script.aget_state(thread)).values["log"] == ["yes"]


async def test_a_workflows_thread_may_be_looked_at_from_anywhere(database: str) -> None:
    builder = StateGraph(State).add_node("ask", lambda _: {"log": [interrupt("Well?")]}).add_edge(START, "ask")
    async with staged(database, {"asking": builder.compile()}) as stage:
        run = await start(stage.control, "asking", {"log": ["in"]})
        await stage.until(run.run_id, "awaiting_input")
        script, thread = builder.compile(checkpointer=stage.app.saver), config(run.thread_id)
        assert (await script.aget_state(thread)).next == ("ask",)
        assert (await asyncio.to_thread(script.get_state, thread)).next == ("ask",)
        assert [state.next async for state in script.aget_state_history(thread)] == [("ask",), ("__start__",)]
        inside: list[tuple[str, ...]] = []

        async def look(within: RunnableConfig) -> None:
            for about in (
                thread,
                {"configurable": {**within["configurable"], **thread["configurable"], "checkpoint_ns": ""}},
            ):
                inside.append((await script.aget_state(about)).next)

        await calling(look, stage.app.saver).ainvoke({"log": []}, config("another"))
        assert inside == [("ask",)] * 2


def calling(call: Callable[[RunnableConfig], Awaitable[Any]], saver: ControlSaver | None = None) -> Any:
    """A graph whose node calls this with its own configuration."""

    async def node(state: State, config: RunnableConfig) -> State:
        await call(config)
        return {"log": []}

    return StateGraph(State).add_node("node", node).add_edge(START, "node").compile(checkpointer=saver)


SCRIPT: Final = """
import operator, os, signal, sys
from pathlib import Path
from typing import Annotated, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from control.app import saver_sync

folder, thread, given = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def node(name):
    def run(state):
        with (folder / "witness").open("a") as file:
            file.write(name + "\\n")
        said = [interrupt("Well?")] if name == "ask" else []
        if (folder / f"die-in-{name}").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return {"log": [name, *said]}
    return run


builder = StateGraph(State)
builder.add_sequence([(name, node(name)) for name in ("a", "ask", "z")])
builder.add_edge(START, "a")
with saver_sync() as saver:
    graph = builder.compile(checkpointer=saver)
    config = {"configurable": {"thread_id": thread}}
    value = {"start": {"log": ["in"]}, "go on": None, "answer": Command(resume="yes")}[given[0]]
    graph.invoke(value, config, durability="sync")
    print(*graph.get_state(config).values["log"])
"""


@dataclass(frozen=True)
class Desk:
    """A folder with a script, to be run in processes of their own. A file `die-in-<node>` has that node kill it."""

    folder: Path
    conninfo: str

    def run(self, what: str, thread: str = "t") -> subprocess.CompletedProcess[str]:
        """Run it to its end, or to its death. Nothing of this process's settings reaches it."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CONTROL_")}
        environment |= {"DATABASE_URL": self.conninfo, "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, self.folder / "script.py", self.folder, thread, what]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    def said(self, what: str) -> str:
        done = self.run(what)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def kill_in(self, node: str, what: str) -> None:
        (self.folder / f"die-in-{node}").touch()
        assert self.run(what).returncode == -signal.SIGKILL
        (self.folder / f"die-in-{node}").unlink()

    @property
    def witness(self) -> list[str]:
        return (self.folder / "witness").read_text().split()


@pytest.fixture
def desk(tmp_path: Path, database: str) -> Desk:
    (tmp_path / "script.py").write_text(SCRIPT)
    return Desk(tmp_path, database)


def story(conninfo: str, run_id: UUID) -> list[tuple[str, str, int]]:
    """The entries that say who worked and to what end, of a ledger that verifies: kind, actor, epoch."""
    entries = ledger(conninfo, run_id)
    assert verify(entries, head=head_of(conninfo, run_id)) is None
    told = ("accepted", "claimed", "asked", "superseded", "ended")
    return [(str(e.kind), e.actor.partition(":")[0], e.epoch) for e in entries if e.kind in told]


def test_a_script_asks_in_one_process_and_is_answered_in_another(desk: Desk) -> None:
    assert desk.said("start") == "in a"
    assert desk.said("answer") == "in a ask yes z"
    assert desk.witness == ["a", "ask", "ask", "z"]
    [(status, run_id, free)] = runs_of(desk.conninfo)
    assert (status, free) == ("succeeded", True)
    assert story(desk.conninfo, run_id) == [
        ("accepted", "script", 0), ("claimed", "script", 1), ("asked", "script", 1), ("ended", "script", 1),
        ("claimed", "script", 2), ("superseded", "control", 2), ("ended", "script", 2),
    ]  # fmt: skip
    assert execute(desk.conninfo, "select kind, count(*), count(ended_at) from control.worker group by kind") == [
        ("writer", 2, 2)
    ], "each signed off"


async def test_a_script_goes_on_with_the_run_of_one_that_was_killed(desk: Desk) -> None:
    """The first death is noticed by the script that goes on, the second by a worker's sweep."""
    desk.kill_in("a", "start")
    [(status, run_id, free)] = runs_of(desk.conninfo)
    assert (status, free) == ("running", False), "nobody has noticed yet"
    until_let_go(desk.conninfo)
    assert desk.said("go on") == "in a"
    assert desk.witness == ["a", "a", "ask"], "what was not recorded is done again"
    assert runs_of(desk.conninfo) == [("awaiting_input", run_id, True)], "it is the same run"
    desk.kill_in("z", "answer")
    until_let_go(desk.conninfo)
    await until_swept(desk.conninfo, run_id)
    open_questions = "select interrupt_id from control.approval where decision is null"
    assert execute(desk.conninfo, open_questions) == [], "nobody is asked what the script has answered"
    assert desk.said("go on") == "in a ask yes z"
    assert desk.witness == ["a", "a", "ask", "ask", "z", "z"], "the answer was taken once, what followed it twice"
    assert runs_of(desk.conninfo) == [("succeeded", run_id, True)]
    assert story(desk.conninfo, run_id) == [
        ("accepted", "script", 0), ("claimed", "script", 1), ("ended", "control", 1),
        ("claimed", "script", 2), ("asked", "script", 2), ("ended", "script", 2),
        ("claimed", "script", 3), ("superseded", "control", 3), ("ended", "control", 3),
        ("claimed", "script", 4), ("ended", "script", 4),
    ]  # fmt: skip
    ends = [entry.body for entry in ledger(desk.conninfo, run_id) if entry.kind == "ended" and entry.actor == "control"]
    gone = "The script that drove it is gone; run it again on the same thread."
    assert [(end["outcome"], end["failure_class"], end["error"]) for end in ends] == [("failed", "human", gone)] * 2


async def until_swept(conninfo: str, run_id: UUID) -> None:
    """Wait until a worker has found that the run's script is gone."""
    async with staged(conninfo, {}) as stage:
        await stage.until(run_id, "blocked")


async def until_answered(conninfo: str) -> None:
    """Wait until an answer is stored: a graph goes on before it is."""
    async with asyncio.timeout(20):
        stored = "select 1 from checkpoint_writes where channel = '__resume__'"
        while not await asyncio.to_thread(execute, conninfo, stored):  # noqa: ASYNC110  # the database tells nobody
            await asyncio.sleep(0.01)


def until_let_go(conninfo: str) -> None:
    """Wait until the server has noticed that no process lives that holds a claim here."""
    query = """select count(*) from pg_locks
               where locktype = 'advisory' and classid::bigint = control.lock_class() and objsubid = 2
                 and database = (select oid from pg_database where datname = current_database())"""
    deadline = time.monotonic() + 15
    while execute(conninfo, query) != [(0,)]:
        assert time.monotonic() < deadline, "a dead process's lock is still held"
        time.sleep(0.01)
