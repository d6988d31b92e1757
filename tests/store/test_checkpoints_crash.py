"""Rows tell the truth after kill -9, in every durability mode: a new process does just what they said it would."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from control.core.execution import Execution, Head
from control.store.checkpoints import heads_sync

CHILD: Final = Path(__file__).with_name("crash_child.py")
DURABILITIES: Final = ("sync", "async", "exit")
INPUT: Final = {"log": []}
YES: Final = {"command": {"resume": "yes"}}

# What a thread goes through before the kill, and what the killed process is given.
PREPARED: Final[dict[str, tuple[str, Any]]] = {
    "answered": ("ask", YES),
    "answered_by_id": ("ask", "by id"),
    "answered_in_a_subgraph": ("ask", "by id"),
    "goto_on_a_finished_thread": ("end", {"command": {"goto": "b"}}),
    "retry_of_an_error": ("fail", None),
}

# What rows must say after the kill in sync mode, where nothing is left to timing; and in exit mode, where the last
# exit is all there is. In async mode the head may be any earlier one, and what it says must come true all the same.
SYNC: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "inside_a_node": ("runnable", ("c",)),
    "between_nodes": ("runnable", ("c",)),
    "fan_out": ("runnable", ("p3",)),
    "sends": ("runnable", ("w",)),
    "subgraph": ("runnable", ("s",)),
    "functional": ("runnable", ("flow",)),
    "fast_loop": ("runnable", ("turn",)),
    "answered": ("waiting", ("b",)),
    "answered_by_id": ("waiting", ("b",)),
    "answered_in_a_subgraph": ("runnable", ("s",)),
    "before_a_checkpoint": ("barrier", ()),
    "after_the_input": ("barrier", ()),
    "goto_on_a_finished_thread": ("runnable", ("b",)),
    "retry_of_an_error": ("failed", ("b",)),
}
EXIT: Final[dict[str, str]] = {
    "answered": "waiting",
    "answered_by_id": "waiting",
    "answered_in_a_subgraph": "waiting",
    "goto_on_a_finished_thread": "finished",
    "retry_of_an_error": "failed",
}


@dataclass
class Crash:
    """One thread that was killed: what rows said then, what the next process came to, and what rows say now."""

    scenario: str
    durability: str
    thread: str
    witness: Path
    head: Head
    killed: str
    came_to: str = ""
    after: Head | None = None

    def ran(self, phase: str) -> list[dict[str, Any]]:
        lines = self.witness.read_text().splitlines() if self.witness.exists() else []
        return [line for line in map(json.loads, lines) if line["phase"] == phase]


class Processes:
    """The children: `run` starts a batch of jobs side by side and returns what each came to."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn, self.folder = dsn, folder
        self.child = subprocess.Popen(
            [sys.executable, str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, phase: str, given: dict[tuple[str, str], Any]) -> dict[tuple[str, str], str]:
        found: dict[tuple[str, str], str] = {}
        for durability in DURABILITIES:
            batch = [key for key in given if key[1] == durability]
            found.update(zip(batch, self._ask([self._job(key, phase, given[key]) for key in batch]), strict=True))
        return found

    def thread(self, key: tuple[str, str]) -> str:
        return ".".join(key)

    def _job(self, key: tuple[str, str], phase: str, given: Any) -> dict[str, Any]:
        scenario, durability = key
        thread = self.thread(key)
        job = {"dsn": self.dsn, "scenario": scenario, "durability": durability, "thread": thread, "phase": phase}
        return {**job, "witness": str(self.folder / thread), "given": given}

    def _ask(self, jobs: list[dict[str, Any]]) -> list[str]:
        assert self.child.stdin and self.child.stdout
        self.child.stdin.write(json.dumps(jobs) + "\n")
        self.child.stdin.flush()
        answers: list[str] = json.loads(self.child.stdout.readline())
        return answers


KEYS: Final = [(scenario, durability) for scenario in SYNC for durability in DURABILITIES]


@pytest.fixture(scope="module")
def crashes(databases: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], Crash]]:
    with databases.cloned() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        processes = Processes(dsn, tmp_path_factory.mktemp("witness"))
        try:
            yield crashed(processes, conn)
        finally:
            processes.child.communicate()


def crashed(processes: Processes, conn: psycopg.Connection[Any]) -> dict[tuple[str, str], Crash]:
    """Every scenario in every mode: prepared, killed, read, resumed in a new process, read again."""
    for phase in ("ask", "end", "fail"):
        processes.run(phase, {key: INPUT for key in KEYS if PREPARED.get(key[0], ("", None))[0] == phase})
    heads = read(processes, conn)
    given = {key: PREPARED.get(key[0], ("", INPUT))[1] for key in KEYS}
    killed = processes.run("kill", {key: by_id(heads[key]) if g == "by id" else g for key, g in given.items()})
    heads = read(processes, conn)
    crashes = {
        key: Crash(*key, processes.thread(key), processes.folder / processes.thread(key), heads[key], killed[key])
        for key in KEYS
    }
    came_to = processes.run("resume", {key: what_continues(head) for key, head in heads.items()})
    after = read(processes, conn)
    for key, crash in crashes.items():
        crash.came_to, crash.after = came_to[key], after[key]
    return crashes


def read(processes: Processes, conn: psycopg.Connection[Any]) -> dict[tuple[str, str], Head]:
    found = heads_sync(conn, [processes.thread(key) for key in KEYS])
    return {key: found[processes.thread(key)] for key in KEYS}


def by_id(head: Head) -> Any:
    return {"command": {"resume": {question.id: "yes" for question in head.open}}}


def what_continues(head: Head) -> Any:
    """The input again where nothing is stored; an answer where a question is open and none lies there; else nothing."""
    if head.state is Execution.NONE:
        return INPUT
    return by_id(head) if head.state is Execution.WAITING and not head.stale_resume else None


@pytest.fixture(params=KEYS, ids=".".join)
def crash(request: pytest.FixtureRequest, crashes: dict[tuple[str, str], Crash]) -> Crash:
    return crashes[request.param]


def test_the_process_was_killed(crash: Crash) -> None:
    assert crash.killed == "killed"


def test_rows_say_where_the_kill_left_the_thread(crash: Crash) -> None:
    if crash.durability == "sync":
        state, following = SYNC[crash.scenario]
        assert (crash.head.state, crash.head.next) == (state, following), crash.head
    elif crash.durability == "exit":
        assert crash.head.state == EXIT.get(crash.scenario, "none"), crash.head


def test_what_is_called_done_ran_before_and_does_not_run_again(crash: Crash) -> None:
    head, done = crash.head, Counter(task.name for task in crash.head.tasks if task.done)
    ran = [line["root"] for line in crash.ran("kill")]
    again = Counter(line["root"] for line in crash.ran("resume") if line["step"] == (head.step or 0) + 1)
    for name in done.keys() - {"__start__"}:
        assert name in ran
        assert again[name] == head.next.count(name)


def test_what_is_called_next_runs_first_and_nothing_else(crash: Crash) -> None:
    head, ran = crash.head, crash.ran("resume")
    if head.step is None or "__start__" in head.next:
        assert head.state in (Execution.NONE, Execution.RUNNABLE) and ran
        return
    first = Counter(line["root"] for line in ran if line["step"] == head.step + 1)
    through_inner = {line["root"] for line in ran if line["step"] is None}
    assert first <= Counter(head.next)
    assert Counter(head.next).keys() <= first.keys() | through_inner
    assert first == Counter(name for name in head.next if name in first)


def test_the_thread_comes_to_its_end(crash: Crash) -> None:
    assert crash.came_to == "ended", crash.came_to
    assert crash.after is not None and crash.after.state is Execution.FINISHED


@pytest.mark.parametrize("durability", ["sync", "async"])
def test_a_task_call_that_returned_is_not_made_again(crashes: Any, durability: str) -> None:
    assert [line["node"] for line in crashes["functional", durability].ran("resume")] == ["flow", "t2"]


@pytest.mark.parametrize("durability", ["sync", "async"])
def test_a_plain_answer_left_behind_is_delivered_again(crashes: Any, durability: str) -> None:
    crash = crashes["answered", durability]
    if durability == "sync" or crash.head.stale_resume:
        assert crash.head.stale_resume and len(crash.head.open) == 1
        assert crash.came_to == "ended"  # without any answer sent: the old one was taken
    assert not crashes["answered_by_id", durability].head.stale_resume


def test_work_beyond_the_head_is_seen_in_async_mode(crashes: Any) -> None:
    """A fast loop outruns its checkpoints; some of its writes are stored under checkpoints that never were."""
    lost, kept = crashes["fast_loop", "async"], crashes["fast_loop", "sync"]
    repeated = len(lost.ran("kill")) + len(lost.ran("resume")) - 30
    assert len(kept.ran("kill")) + len(kept.ran("resume")) - 30 == 1
    assert kept.head.orphan_writes == 0
    assert repeated > 1 and lost.head.orphan_writes > 0
