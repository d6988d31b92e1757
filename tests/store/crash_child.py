"""Runs graphs in processes of their own that die by SIGKILL, for test_checkpoints_crash.

Started once with nothing but its standard input, from which it reads one job a line, it forks a process for each job
and answers each line with how that process ended. So a job costs a fork, not an import, and still dies for real.

A job names a scenario, a durability, a thread, and a phase: in phase `kill` the graph runs until the scenario kills the
process; in phase `resume` it runs to its end. Each execution of a node is a line in the witness file, synced to disk.
"""

from __future__ import annotations

import json
import operator
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Annotated, Any, Final, NotRequired, TypedDict

import psycopg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.config import get_config
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt
from psycopg.rows import dict_row


class State(TypedDict):
    log: Annotated[list[str], operator.add]
    n: NotRequired[int]


@dataclass(frozen=True)
class Job:
    dsn: str
    scenario: str
    durability: str
    thread: str
    phase: str
    witness: str
    given: Any = None

    @property
    def dying(self) -> bool:
        return self.phase == "kill"

    def saw(self, node: str, config: RunnableConfig) -> None:
        about = config["metadata"]
        root, _, inner = about["langgraph_checkpoint_ns"].partition("|")
        step = None if inner else about["langgraph_step"]
        line = json.dumps({"phase": self.phase, "node": node, "root": root.partition(":")[0], "step": step})
        with Path(self.witness).open("a") as file:
            file.write(line + "\n")
            os.fsync(file.fileno())

    def node(self, name: str, *, dies: bool = False, after: Callable[[], object] = lambda: None) -> Callable[..., Any]:
        """A node that notes its execution and, in the killing phase, may die; `after` is what it awaits before that."""

        def run(state: Any, config: RunnableConfig) -> Any:
            self.saw(name, config)
            if dies and self.dying:
                after()
                die()
            return {"log": [name]}

        return run

    def asks(self, name: str, *, dies: bool = False) -> Callable[..., Any]:
        """A node that asks, and dies once it has its answer."""

        def run(state: Any, config: RunnableConfig) -> Any:
            self.saw(name, config)
            answer = interrupt(name)
            if dies and self.dying:
                die()
            return {"log": [f"{name}:{answer}"]}

        return run

    def until_stored(self, *nodes: str, count: int = 1) -> Callable[[], None]:
        """Wait for output of so many tasks of these nodes; there is no waiting for it in exit mode."""
        query = """select count(distinct task_id) from checkpoint_writes
                   where thread_id = %s and channel = any('{log,__return__,branch:to:a}') and task_path ~ %s"""
        paths = "|".join(f"(pull, {node}|push, [0-9]+, [0-9]+)$" if node == "w" else f"pull, {node}$" for node in nodes)

        def until_counted() -> None:
            with psycopg.connect(self.dsn, autocommit=True) as conn:
                while conn.execute(query, (self.thread, paths)).fetchone() < (count,):
                    time.sleep(0.005)

        return until_counted if self.durability != "exit" else lambda: None

    def until_orphaned(self) -> None:
        """Wait for a write that is stored under a checkpoint that is not."""
        query = """select exists (select from checkpoint_writes w where thread_id = %s and not exists (
                   select from checkpoints c where (c.thread_id, c.checkpoint_id) = (w.thread_id, w.checkpoint_id)))"""
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            while conn.execute(query, (self.thread,)).fetchone() != (True,):
                time.sleep(0.005)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


class Dying(PostgresSaver):
    """Dies at the checkpoint of one step: instead of storing it, once the writes that go before it are stored. Or
    stores none from one step on, as one that is too slow for its graph.
    """

    dies_at: int | None = None
    behind_from: int | None = None
    first: Callable[[], object]

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        if self.behind_from is not None and metadata["step"] >= self.behind_from:
            Event().wait()
        if metadata["step"] == self.dies_at:
            self.first()
            die()
        return super().put(config, checkpoint, metadata, new_versions)


def line(job: Job, *nodes: tuple[str, Any]) -> StateGraph:
    graph = StateGraph(State)
    for name, node in nodes:
        graph.add_node(name, node)
    for start, end in zip((START, *(name for name, _ in nodes)), (name for name, _ in nodes), strict=False):
        graph.add_edge(start, end)
    return graph


def inside_a_node(job: Job, saver: Any) -> Any:
    dies = job.node("c", dies=True, after=lambda: time.sleep(0.1))  # the work of the node, while puts land
    return line(job, ("a", job.node("a")), ("b", job.node("b")), ("c", dies), ("d", job.node("d"))).compile(saver)


def between_nodes(job: Job, saver: Any) -> Any:
    nodes = [(name, job.node(name, dies=name == "c")) for name in "abcd"]
    return line(job, *nodes).compile(saver)


def fan_out(job: Job, saver: Any) -> Any:
    graph = StateGraph(State)
    graph.add_node("p1", job.node("p1"))
    graph.add_node("p2", job.node("p2"))
    graph.add_node("p3", job.node("p3", dies=True, after=job.until_stored("p1", "p2", count=2)))
    graph.add_node("z", job.node("z"))
    for name in ("p1", "p2", "p3"):
        graph.add_edge(START, name)
    graph.add_edge(["p1", "p2", "p3"], "z")
    return graph.compile(saver)


def sends(job: Job, saver: Any) -> Any:
    def worker(state: Any, config: RunnableConfig) -> Any:
        number = state["n"]
        return job.node(f"w{number}", dies=number == 5, after=job.until_stored("w", count=5))(state, config)

    graph = StateGraph(State)
    graph.add_node("plan", job.node("plan"))
    graph.add_node("w", worker)
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", lambda _: [Send("w", {"n": n}) for n in range(6)], ["w"])
    return graph.compile(saver)


def subgraph(job: Job, saver: Any) -> Any:
    inner = line(job, ("s1", job.node("s1")), ("s2", job.node("s2", dies=True, after=job.until_stored("s1")))).compile()
    return line(job, ("a", job.node("a")), ("s", inner), ("z", job.node("z"))).compile(saver)


def functional(job: Job, saver: Any) -> Any:
    @task
    def t1() -> str:
        job.saw("t1", get_config())
        return "t1"

    @task
    def t2() -> str:
        job.saw("t2", get_config())
        if job.dying:
            job.until_stored("flow, [0-9]+, [0-9]+")()
            die()
        return "t2"

    @entrypoint(checkpointer=saver)
    def flow(given: Any) -> Any:
        job.saw("flow", get_config())
        return {"log": [t1().result(), t2().result()]}

    return flow


def fast_loop(job: Job, saver: Any) -> Any:
    def turn(state: Any, config: RunnableConfig) -> Any:
        job.saw("turn", config)
        if state.get("n", 0) == 25 and job.dying:
            if outrun:
                job.until_orphaned()
            die()
        return {"log": ["turn"], "n": state.get("n", 0) + 1}

    outrun = job.dying and job.durability == "async"
    saver.behind_from = 24 if outrun else None
    graph = StateGraph(State)
    graph.add_node("turn", turn)
    graph.add_edge(START, "turn")
    graph.add_conditional_edges("turn", lambda state: "turn" if state["n"] < 30 else "__end__", ["turn", "__end__"])
    return graph.compile(saver)


def answered(job: Job, saver: Any) -> Any:
    return line(job, ("a", job.node("a")), ("b", job.asks("b", dies=True)), ("c", job.node("c"))).compile(saver)


def answered_by_id(job: Job, saver: Any) -> Any:
    return answered(job, saver)


def answered_in_a_subgraph(job: Job, saver: Any) -> Any:
    inner = line(job, ("i", job.asks("i")), ("j", job.node("j", dies=True, after=job.until_stored("i")))).compile()
    return line(job, ("a", job.node("a")), ("s", inner)).compile(saver)


def before_a_checkpoint(job: Job, saver: Any) -> Any:
    if job.dying:
        saver.dies_at, saver.first = (3 if job.durability == "exit" else 2), job.until_stored("b")
    return line(job, *((name, job.node(name)) for name in "abc")).compile(saver)


def after_the_input(job: Job, saver: Any) -> Any:
    if job.dying:
        saver.dies_at, saver.first = (1 if job.durability == "exit" else 0), job.until_stored("__start__")
    return line(job, ("a", job.node("a"))).compile(saver)


def goto_on_a_finished_thread(job: Job, saver: Any) -> Any:
    graph = line(job, ("a", job.node("a")))
    graph.add_node("b", job.node("b", dies=True, after=lambda: time.sleep(0.1)))  # the work, while the goto lands
    return graph.compile(saver)


def retry_of_an_error(job: Job, saver: Any) -> Any:
    def broken(state: Any, config: RunnableConfig) -> Any:
        job.saw("b", config)
        if job.phase == "fail":
            raise ValueError("b broke")
        if job.dying:
            die()
        return {"log": ["b"]}

    return line(job, ("a", job.node("a")), ("b", broken), ("c", job.node("c"))).compile(saver)


SCENARIOS: Final = (
    inside_a_node, between_nodes, fan_out, sends, subgraph, functional, fast_loop, answered, answered_by_id,
    answered_in_a_subgraph, before_a_checkpoint, after_the_input, goto_on_a_finished_thread, retry_of_an_error,
)  # fmt: skip


def run(job: Job) -> str:
    """What the graph came to: `ended`, `asked`, or the error that it ended with."""
    build = next(scenario for scenario in SCENARIOS if scenario.__name__ == job.scenario)
    config: Any = {"configurable": {"thread_id": job.thread, "__pregel_strict_resume": True}, "recursion_limit": 100}
    given = Command(**job.given["command"]) if isinstance(job.given, dict) and "command" in job.given else job.given
    with psycopg.connect(job.dsn, autocommit=True, prepare_threshold=0, row_factory=dict_row) as conn:
        graph = build(job, Dying(conn))
        try:
            result = graph.invoke(given, config, durability=job.durability)
        except Exception as error:
            return repr(error)
    return "asked" if "__interrupt__" in result else "ended"


def fork(job: Job, answer: str) -> None:
    """Run the job in a child; `answer` is the file that takes what it came to."""
    if os.fork():
        return
    try:
        Path(answer).write_text(run(job))
    except BaseException:
        Path(answer).write_text(traceback.format_exc())
    finally:
        os._exit(0)


def main() -> None:
    """Each line of input is a list of jobs that run side by side; each answer a list of results, in order."""
    for batch in sys.stdin:
        jobs = [Job(**fields) for fields in json.loads(batch)]
        answers = [f"{job.witness}.{job.phase}" for job in jobs]
        for job, answer in zip(jobs, answers, strict=True):
            Path(answer).unlink(missing_ok=True)
            fork(job, answer)
        for _ in jobs:
            os.wait()
        found = [path.read_text() if (path := Path(answer)).exists() else "killed" for answer in answers]
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
