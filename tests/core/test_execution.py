"""Laws of the row status, over generated heads. The rows behind them are exercised in tests/store."""

from __future__ import annotations

from dataclasses import replace
from hashlib import md5
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.execution import Execution, Head, OpenInterrupt, Outcome, classify, with_outcome
from control.core.superstep import PULL, START, Channel, Question, Recorded, Trace

CHECKPOINT = "1f1e51bb-7b29-6447-8001-754ca9ad723c"
NODES = ("a", "b", "a+b, c", "x y")


def digest(data: bytes) -> str:
    return md5(data).hexdigest()


def asked_by(ns: str, number: int = 0) -> str:
    return digest((f"{ns}|{number}" if number else ns).encode())


def branch(node: str) -> Channel:
    return Channel(f"branch:to:{node}", node, version="2", seen="1")


def head_of(*traces: Trace, nodes: tuple[str, ...] = ("a",), **recorded: Any) -> Head:
    rows = Recorded(CHECKPOINT, {"step": 3}, tuple(branch(node) for node in nodes), traces=traces)
    return classify("t", replace(rows, **recorded), digest=digest)


def trace(node: str, **facts: Any) -> Trace:
    return replace(Trace(f"id-{node}", PULL + node), **facts)


@st.composite
def traces(draw: st.DrawFn, node: str) -> Trace | None:
    """What one task may leave: nothing, output, an error, a question, or several of them with answers."""
    if draw(st.booleans()):
        return None
    answers = draw(st.integers(0, 3))
    number = draw(st.integers(0, answers))
    return trace(
        node,
        done=draw(st.booleans()),
        error=draw(st.sampled_from([None, "ValueError('x')", "CancelledError()"])),
        fresh_error=draw(st.booleans()),
        routed=draw(st.booleans()),
        questions=(Question(asked_by(f"{node}:id-{node}", number), number),) if draw(st.booleans()) else (),
        answers=answers,
        outputs=tuple(draw(st.lists(st.sampled_from(["log", "x"]), max_size=3))),
    )


@st.composite
def recordings(draw: st.DrawFn) -> Recorded:
    left = [t for node in NODES if (t := draw(traces(node)))]
    fired = draw(st.sets(st.sampled_from(NODES)))
    return Recorded(CHECKPOINT, {"step": 3}, tuple(branch(node) for node in fired), traces=tuple(left))


@given(recordings())
def test_what_is_next_is_what_is_not_done(recorded: Recorded) -> None:
    head = classify("t", recorded, digest=digest)
    assert head.next == tuple(task.name for task in head.tasks if not task.done)
    assert {task.name for task in head.tasks} == {channel.target for channel in recorded.channels}


@given(recordings())
def test_the_state_agrees_with_the_tasks_it_is_made_of(recorded: Recorded) -> None:
    head = classify("t", recorded, digest=digest)
    match head.state:
        case Execution.FINISHED:
            assert not head.tasks
        case Execution.BARRIER:
            assert head.tasks and not head.next and not head.errors and not head.open
        case Execution.ROUTING_FAILED:
            assert any(task.done and task.error for task in head.tasks)
        case Execution.FAILED:
            assert any(task.failed and not task.done for task in head.tasks)
        case Execution.WAITING:
            assert head.open
        case Execution.RUNNABLE:
            assert head.next and not head.open
        case _:
            pytest.fail(f"rows alone gave {head.state}")


@given(recordings(), st.randoms())
def test_the_order_of_the_rows_does_not_matter(recorded: Recorded, random: Random) -> None:
    shuffled = list(recorded.traces)
    random.shuffle(shuffled)
    again = classify("t", replace(recorded, traces=tuple(shuffled)), digest=digest)
    assert again == classify("t", recorded, digest=digest)


@given(recordings())
def test_a_done_task_asks_nothing(recorded: Recorded) -> None:
    head = classify("t", recorded, digest=digest)
    assert all(not task.interrupts for task in head.tasks if task.done)
    assert set(head.open) <= set(head.interrupts)


@given(recordings(), st.sampled_from([None, "other"]))
def test_an_outcome_on_another_head_changes_nothing(recorded: Recorded, checkpoint: str | None) -> None:
    head = classify("t", recorded, digest=digest)
    assert with_outcome(head, Outcome(checkpoint, "ValueError('x')")) == head
    assert with_outcome(head, Outcome(CHECKPOINT, None)) == head
    assert with_outcome(head, None) == head


def test_no_checkpoint_is_none_even_with_orphan_writes() -> None:
    head = classify("t", None, orphan_writes=2, digest=digest)
    assert (head.state, head.checkpoint_id, head.orphan_writes) == (Execution.NONE, None, 2)


@pytest.mark.parametrize("answers", range(4))
def test_a_question_is_answered_once_the_task_holds_more_answers_than_came_before_it(answers: int) -> None:
    for number in range(answers + 1):
        asked = Question(asked_by("a:id-a", number))
        head = head_of(trace("a", error="ValueError('x')", questions=(asked,), answers=answers))
        assert head.interrupts[0].answered == (number < answers)
        assert head.state is (Execution.FAILED if number < answers else Execution.WAITING)


def test_a_question_without_an_error_is_open_whatever_its_number() -> None:
    """Before LangGraph 1.2 every question of a task had the first one's id."""
    head = head_of(trace("a", questions=(Question(asked_by("a:id-a")),), answers=1))
    assert head.state is Execution.WAITING


def test_a_failed_task_beside_an_open_question_is_failed() -> None:
    asks = trace("b", questions=(Question(asked_by("b:id-b")),))
    head = head_of(trace("a", error="ValueError('x')"), asks, nodes=("a", "b"))
    assert head.state is Execution.FAILED and len(head.open) == 1


def test_a_stopped_task_has_not_failed() -> None:
    assert head_of(trace("a", error="CancelledError()")).state is Execution.RUNNABLE


def test_an_error_stored_with_output_is_a_router_and_one_stored_before_it_is_old() -> None:
    routed = head_of(trace("a", done=True, error="ValueError('x')", fresh_error=True))
    retried = head_of(trace("a", done=True, error="ValueError('x')", fresh_error=False))
    assert routed.state is Execution.ROUTING_FAILED and routed.errors == ("ValueError('x')",)
    assert retried.state is Execution.BARRIER and retried.errors == ()
    assert retried.tasks[0].earlier_error == "ValueError('x')"


def test_a_task_handed_to_an_error_handler_is_never_done() -> None:
    handler = Trace("h", f"{PULL}a, node_error_handler, 0000000000", done=True)
    failed = trace("a", error="ValueError('x')", routed=True)
    assert head_of(failed).state is Execution.RUNNABLE
    assert head_of(failed, handler).state is Execution.RUNNABLE
    assert head_of(failed, replace(handler, done=False, error="KeyError('y')")).state is Execution.FAILED
    asking = replace(handler, done=False, questions=(Question(asked_by("__error_handler__a:h"), "fix?"),))
    waiting = head_of(failed, asking)
    assert waiting.state is Execution.WAITING
    assert waiting.open == (
        OpenInterrupt(asked_by("__error_handler__a:h"), "fix?", None, "a", "h", "__error_handler__a:h"),
    )


def test_a_conflict_is_suspected_from_rows_and_proven_by_an_outcome() -> None:
    both = [trace(node, done=True, outputs=("x",)) for node in ("a", "b")]
    head = head_of(*both, nodes=("a", "b"))
    assert (head.state, head.conflicting_channels) == (Execution.BARRIER, ("x",))
    assert with_outcome(head, Outcome(CHECKPOINT, "InvalidUpdateError('x')")).state is Execution.POISONED
    assert with_outcome(head, Outcome(CHECKPOINT, "OperationalError('gone')", transient=True)) == head


def test_an_outcome_uncovers_a_router_that_raised_in_a_retry() -> None:
    head = head_of(trace("a", done=True, error="ValueError('old')", fresh_error=False))
    assert with_outcome(head, Outcome(CHECKPOINT, "ValueError('new')")).state is Execution.ROUTING_FAILED


def test_an_outcome_says_that_the_failure_is_newer_than_the_question() -> None:
    head = head_of(trace("a", error="ValueError('x')", questions=(Question(asked_by("a:id-a")),)))
    assert head.state is Execution.WAITING
    assert with_outcome(head, Outcome(CHECKPOINT, "ValueError('x')")).state is Execution.FAILED
    assert with_outcome(head, Outcome(CHECKPOINT, "ValueError('of another')")) == head


def test_sends_are_told_apart_by_position_and_replaced_by_a_command() -> None:
    head = head_of(nodes=(), sends=("w", "", "w"))
    assert head.next == ("w", "w") and len({task.task_id for task in head.tasks}) == 2
    done = Trace(head.tasks[1].task_id or "", head.tasks[1].path, done=True)
    assert head_of(done, nodes=(), sends=("w", "", "w")).tasks[1].done
    assert head_of(done, nodes=(), sends=("w", "", "w"), goto_sends=("v",)).next == ("v",)


def test_output_that_update_state_stored_for_a_task_makes_it_done() -> None:
    """It lies under a path of its own; the task is known by its id, which hashes the channels that trigger it."""
    join = Channel("join:x+y:a", "a", version="0", available=False)
    known = head_of(channels=(branch("a"), join))
    parts = "a" + "4" + "a" + "__pregel_pull" + "branch:to:a" + "join:x+y:a"
    hexed = digest(bytes.fromhex(CHECKPOINT.replace("-", "")) + parts.encode())
    task_id = f"{hexed[:8]}-{hexed[8:12]}-{hexed[12:16]}-{hexed[16:20]}-{hexed[20:]}"
    edited = head_of(Trace(task_id, "~__interrupt__, 0000000000", done=True), channels=(branch("a"), join))
    assert (known.state, edited.state) == (Execution.RUNNABLE, Execution.BARRIER)


def test_an_unsure_channel_counts_only_where_nothing_surer_does() -> None:
    deferred = Channel("branch:to:late", "late", version="2", available=None)
    assert head_of(channels=(deferred,)).next == ("late",)
    assert head_of(channels=(deferred, branch("a"))).next == ("a",)


def test_an_entrypoint_is_named_by_what_it_recorded() -> None:
    start = Channel(START, START, version="2")
    assert head_of(channels=(start,)).next == (START,)
    assert head_of(trace("flow"), channels=(start,)).next == ("flow",)


def test_a_question_of_a_subgraph_is_answered_when_the_subgraphs_task_is_done() -> None:
    asked = Question("q", "ok?")
    inner = Trace("i", PULL + "inner", ns="a:id-a", questions=(asked,))
    head = head_of(trace("a", questions=(asked,)), nested=(inner,))
    assert head.state is Execution.WAITING and head.open[0].ns == "a:id-a|inner:i"
    head = head_of(trace("a", questions=(asked,)), nested=(replace(inner, done=True),))
    assert head.state is Execution.RUNNABLE and head.interrupts[0].answered
