"""The stock development server on our checkpointer: what it runs is governed, and a fresh clone's file is enough."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import psycopg
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from control.core.ledger import verify
from control.testing.database import Databases
from tests.store.holding import claimed, contents, execute, head_of, ledger

ROOT: Final = Path(__file__).parents[2]
PROGRAM: Final = ROOT / ".venv-peers/bin/langgraph"
STARTS_WITHIN_S: Final = 90
GRAPH: Final = """
from typing import TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt


class State(TypedDict):
    said: str


def ask(state: State) -> State:
    return {"said": interrupt("What shall be said?")}


def say(state: State) -> State:
    return {"said": state["said"] + "!"}


builder = StateGraph(State)
builder.add_sequence([ask, say])
builder.add_edge(START, "ask")
graph = builder.compile()
"""

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(not PROGRAM.exists(), reason="`make peers` has not made the environment with `langgraph dev`"),
]


@dataclass(frozen=True)
class Server:
    """A running `langgraph dev`: its address, what it prints, and its database."""

    url: str
    log: Path
    conninfo: str

    @property
    def client(self) -> LangGraphClient:
        return get_client(url=self.url)


@contextmanager
def serving(folder: Path, conninfo: str) -> Iterator[Server]:
    """`langgraph dev` in this folder, on this database. It ends with everything it started."""
    port = free_port()
    command = [PROGRAM, "dev", "--no-browser", "--no-reload", "--port", str(port), "--n-jobs-per-worker", "4"]
    environment = {**os.environ, "DATABASE_URL": conninfo, "LANGSMITH_TRACING": "false", "NO_COLOR": "1"}
    for ours in [name for name in environment if name.startswith("CONTROL_")]:
        del environment[ours]
    log = folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out, start_new_session=True)
        try:
            until_serving(f"http://127.0.0.1:{port}/ok", process, log)
            yield Server(f"http://127.0.0.1:{port}", log, conninfo)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def until_serving(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        with suppress(OSError):
            return direct.open(url, timeout=5).close()
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(0.1)


@pytest.fixture(scope="module")
def server(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves the graph above through our checkpointer, which it names as any project may."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "graph.py").write_text(GRAPH)
    named = {
        "dependencies": ["."],
        "graphs": {"asking": "./graph.py:graph"},
        "checkpointer": {"path": f"{ROOT}/control/app.py:checkpointer"},
    }
    (folder / "langgraph.json").write_text(json.dumps(named))
    with databases.cloned() as conninfo, serving(folder, conninfo) as server:
        yield server


def run_on(conninfo: str, thread_id: str) -> tuple[str, UUID, UUID | None]:
    """The status, id and holder of the one run on the thread."""
    [row] = execute(conninfo, "select status, run_id, worker_id from control.run where thread_id = %s", (thread_id,))
    return tuple(row)


async def test_a_run_is_interrupted_resumed_and_told_in_our_tables(server: Server) -> None:
    client, governed = server.client, server.conninfo
    thread_id = (await client.threads.create())["thread_id"]
    asked: Any = await client.runs.wait(thread_id, "asking", input={"said": ""})
    assert [question["value"] for question in asked["__interrupt__"]] == ["What shall be said?"]
    status, run_id, holder = run_on(governed, thread_id)
    assert (status, holder) == ("awaiting_input", None)
    open_questions = "select kind, title, node from control.approval where run_id = %s and decision is null"
    assert execute(governed, open_questions, (run_id,)) == [("input", "What shall be said?", "ask")]

    answered: Any = await client.runs.wait(thread_id, "asking", command={"resume": "hello"})
    assert answered == {"said": "hello!"}
    assert run_on(governed, thread_id) == ("succeeded", run_id, None)
    assert execute(governed, open_questions, (run_id,)) == []
    assert (await client.threads.get_state(thread_id))["values"] == {"said": "hello!"}

    entries = ledger(governed, run_id)
    assert verify(entries, head=head_of(governed, run_id)) is None
    told = [str(entry.kind) for entry in entries if entry.kind not in ("stepped", "superseded")]
    assert told == ["accepted", "claimed", "asked", "ended", "claimed", "ended"]
    steps = [(entry.body["step"], entry.body["nodes"]) for entry in entries if entry.kind == "stepped"]
    assert steps == [(-1, []), (0, []), (1, ["ask"]), (2, ["say"])]
    assert [entry.body["outcome"] for entry in entries if entry.kind == "ended"] == ["suspended", "completed"]


async def test_runs_at_once_on_threads_of_their_own_do_not_mix(server: Server) -> None:
    client, governed = server.client, server.conninfo
    threads = [(await client.threads.create())["thread_id"] for _ in range(4)]
    for thread_id in threads:
        await client.runs.create(thread_id, "asking", input={"said": ""})
    for thread_id in threads:
        await client.runs.join(thread_id, (await client.runs.list(thread_id))[0]["run_id"])
    assert [run_on(governed, thread_id)[0] for thread_id in threads] == ["awaiting_input"] * 4
    answers: list[Any] = [
        await client.runs.wait(thread_id, "asking", command={"resume": str(n)}) for n, thread_id in enumerate(threads)
    ]
    assert answers == [{"said": f"{n}!"} for n in range(4)]
    assert {run_on(governed, thread_id)[0] for thread_id in threads} == {"succeeded"}


async def test_a_thread_that_a_worker_drives_is_refused_and_left_as_it_was(server: Server) -> None:
    """The server keeps the reason of a failure from its clients, and logs it."""
    client, governed = server.client, server.conninfo
    thread_id = (await client.threads.create(thread_id=str(uuid4())))["thread_id"]
    claimed(governed, thread=thread_id)
    before = contents(governed)
    for given in ({"input": {"said": ""}}, {"command": {"resume": "hello"}}):
        told: Any = await client.runs.wait(thread_id, "asking", **given, raise_error=False)
        assert told["__error__"]["error"] == "Refusal"
    assert "Another process is working on this thread" in server.log.read_text()
    assert contents(governed) == before


async def test_a_fresh_clone_serves_the_workflows_of_its_langgraph_json(database: str, tmp_path: Path) -> None:
    """Copied without what only a used checkout has, such as a .env file."""
    for name in ("control", "graphs", "nodes"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("langgraph.json", "pyproject.toml", "README.md", "requirements.in"):
        shutil.copy(ROOT / name, tmp_path)
    workflows = json.loads((ROOT / "langgraph.json").read_text())["graphs"]
    with serving(tmp_path, database) as server:
        client = server.client
        served = {assistant["graph_id"]: assistant["assistant_id"] for assistant in await client.assistants.search()}
        assert served.keys() == workflows.keys()
        for assistant_id in served.values():
            drawn: Any = await client.assistants.get_graph(assistant_id)
            assert len(drawn["nodes"]) > 2
        thread = await client.threads.create()
        assert await client.threads.get_history(thread["thread_id"]) == []
        with psycopg.connect(database) as conn:
            sessions = conn.execute(
                "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
            ).fetchone()
        assert sessions is not None and sessions[0] > 0, "its checkpointer is ours: it is connected to our database"
