"""Every state of the zoo: told right from rows, and shown to be right by resuming the thread."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.errors import EmptyInputError, UnknownInterruptError
from langgraph.types import Command
from psycopg.rows import dict_row

from control.core.execution import Execution, Head, Outcome, with_outcome
from control.store.checkpoints import heads_sync
from tests.store import zoo_edits, zoo_faults, zoo_questions, zoo_steps
from tests.store.zoo import CASES, Case, Thread

assert all((zoo_steps, zoo_questions, zoo_faults, zoo_edits))  # importing them registers their cases


@pytest.fixture(scope="module")
def dsn(databases: Any) -> Iterator[str]:
    with databases.cloned() as conninfo:
        yield conninfo


@pytest.fixture(scope="module")
def reader(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture(scope="module")
def saver_conn(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=0, row_factory=dict_row) as conn:
        yield conn


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with asyncio.Runner() as runner:
        yield runner.get_loop()


@pytest.fixture(scope="module")
def async_conn(dsn: str, loop: asyncio.AbstractEventLoop) -> Iterator[psycopg.AsyncConnection[Any]]:
    connecting = psycopg.AsyncConnection.connect(dsn, autocommit=True, prepare_threshold=0, row_factory=dict_row)
    conn = loop.run_until_complete(connecting)
    yield conn
    loop.run_until_complete(conn.close())


@pytest.fixture(params=["sync", "async"])
def thread(request: pytest.FixtureRequest, dsn: str) -> Thread:
    name = request.node.name
    if request.param == "sync":
        return Thread(PostgresSaver(request.getfixturevalue("saver_conn")), name, dsn)
    loop, conn = request.getfixturevalue("loop"), request.getfixturevalue("async_conn")

    async def saver() -> AsyncPostgresSaver:
        return AsyncPostgresSaver(conn)  # takes the running loop for its own

    return Thread(loop.run_until_complete(saver()), name, dsn, loop)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_rows_tell_the_state_and_resuming_proves_it(
    case: Case, thread: Thread, reader: psycopg.Connection[Any]
) -> None:
    case.drive(thread)
    head = read(reader, thread)
    assert head.state is case.state, head
    assert case.next is None or sorted(head.next) == sorted(case.next)
    assert len(head.open) == case.open
    if not case.locked:
        assert agrees(head, thread, more=case.more) != case.misleads
    prove(head, case, thread, reader)


def read(reader: psycopg.Connection[Any], thread: Thread) -> Head:
    return heads_sync(reader, [thread.thread_id])[thread.thread_id]


def agrees(head: Head, thread: Thread, *, more: bool) -> bool:
    """Whether get_state tells the same: the head, what is unfinished, what is asked, what failed."""
    try:
        snapshot = thread.snapshot()
    except Exception:
        return False
    asked = {question.id for question in snapshot.interrupts}
    rows = {question.id for question in head.open}
    return (
        snapshot.config["configurable"].get("checkpoint_id") == head.checkpoint_id
        and sorted(snapshot.next) == sorted(head.next)
        and (asked < rows if more else asked == rows)
        and {task.error for task in snapshot.tasks if task.error} == recorded_errors(head)
        and (head.state in (Execution.FINISHED, Execution.NONE)) == (not snapshot.next)
        and all(value_of(snapshot, question.id) == question.value for question in head.open if not more)
    )


def recorded_errors(head: Head) -> set[str]:
    """get_state lists an error as long as its row is there; rows know which of them a retry has made old."""
    return {error for task in head.tasks for error in (task.error, task.earlier_error) if error is not None}


def value_of(snapshot: Any, asked: str) -> Any:
    return next(question.value for question in snapshot.interrupts if question.id == asked)


def prove(head: Head, case: Case, thread: Thread, reader: psycopg.Connection[Any]) -> None:
    """Resume the thread, and see that it does what its state promises."""
    before = len(thread.ran)
    match head.state:
        case Execution.NONE:
            thread.go(None)
            assert isinstance(thread.error, EmptyInputError)
        case Execution.FINISHED:
            thread.go(None)
            assert thread.error is None and thread.ran[before:] == []
            assert read(reader, thread).checkpoint_id == head.checkpoint_id
        case Execution.RUNNABLE | Execution.FAILED:
            thread.go(None)
            assert thread.ran[before:] or read(reader, thread).step != head.step
            prove_answered(head, thread)
        case Execution.WAITING:
            prove_waiting(head, case, thread, reader)
        case Execution.BARRIER | Execution.ROUTING_FAILED:
            prove_done(head, thread, reader)


def prove_answered(head: Head, thread: Thread) -> None:
    """An answered question takes no second answer: whatever is sent, the node goes on with the first."""
    for question in (q for q in head.interrupts if q.answered):
        before = len(thread.ran)
        thread.go(Command(resume={question.id: "another answer"}))
        assert "another answer" not in str(thread.snapshot().values), thread.ran[before:]


def prove_waiting(head: Head, case: Case, thread: Thread, reader: psycopg.Connection[Any]) -> None:
    """Every open question takes an answer by its id, strictly, and is not open afterwards."""
    ids = thread.ids() if case.locked else [question.id for question in head.open]
    thread.go(Command(resume={asked: {"ok": True} for asked in ids}), strict=True)
    assert not isinstance(thread.error, UnknownInterruptError), thread.error
    after = read(reader, thread)
    assert not {question.id for question in after.open} & set(ids) or case.locked
    assert after.checkpoint_id != head.checkpoint_id or after.interrupts != head.interrupts or after.errors


def prove_done(head: Head, thread: Thread, reader: psycopg.Connection[Any]) -> None:
    """No task of the head runs again; and then a barrier is passed, a poisoned one is not, a lost route stays lost."""
    before = len(thread.ran)
    thread.go(None)
    assert not {task.name for task in head.tasks} & set(thread.ran[before:])
    after = read(reader, thread)
    if head.conflicting_channels:
        assert after.checkpoint_id == head.checkpoint_id
        outcome = Outcome(head.checkpoint_id, repr(thread.error))
        assert with_outcome(after, outcome).state is Execution.POISONED
    elif head.state is Execution.ROUTING_FAILED:
        assert after.state is Execution.FINISHED and thread.ran[before:] == [] and thread.broken
    else:
        assert after.checkpoint_id != head.checkpoint_id and after.state is Execution.FINISHED
