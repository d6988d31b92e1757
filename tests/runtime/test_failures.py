"""What follows from a failure: tried again by itself, waits for somebody, or ends; and the way out of each."""

from __future__ import annotations

import operator
from collections import defaultdict
from datetime import timedelta
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from control.core.lifecycle import Verb
from control.core.problem import Refusal
from control.runtime.commands.pause import pause, resume
from control.runtime.commands.retry import retry
from control.runtime.commands.rewind import rewind
from control.runtime.commands.start import start
from control.testing import clock
from control.testing.stage import Stage, staged
from tests.runtime.scenes import Cues, State, graphs, line, playing
from tests.runtime.test_status_words import legal_verbs, run_of
from tests.runtime.test_verbs import said


async def test_a_transient_failure_is_tried_again_by_itself(database: str, cues: Cues) -> None:
    """Five attempts in all, each pause longer; the clock is moved to each."""
    cues.give("b", "transient")
    pauses: list[float] = []
    async with staged(database, graphs("line"), work=False) as stage:
        run_id = await run_of(stage, "line", cues)
        for attempt in range(1, 5):
            async with stage.working():
                await cues.until_seen("b", attempt)
                while (row := await stage.run(run_id)).retries < attempt:
                    await stage.until(run_id, "waiting", "queued", "running")
            assert row.retry_at and row.outcome_at and row.retries == attempt
            pauses.append((row.retry_at - row.outcome_at) / timedelta(seconds=1))
            assert row.failure_class == "transient" and row.failure == {"error": "Unavailable: nobody answers"}
            await clock.advance(database, timedelta(seconds=pauses[-1] + 1))
            told = await stage.status(run_id)
            assert told.word == "queued" and "nobody answers" in told.because[0] and told.since == row.retry_at
        async with stage.working():
            told = await stage.until(run_id, "failed")
        assert "It is not tried again by itself." in told.because
    assert cues.seen() == ["a", *["b"] * 5]
    assert all(2**n / 2 <= pause <= 2**n for n, pause in enumerate(pauses)), pauses


async def test_a_run_that_waits_for_its_retry_says_until_when(database: str, cues: Cues) -> None:
    cues.give("b", "transient")
    async with staged(database, graphs("line"), work=False) as stage:
        run_id = await run_of(stage, "line", cues)
        async with stage.working():
            await cues.until_seen("b", 1)
            await stage.until(run_id, "waiting")
        await clock.advance(database, timedelta(minutes=-1))
        row, told = await stage.run(run_id), await stage.status(run_id)
        assert told.word == "waiting" and told.until == row.retry_at
        assert "a transient failure" in told.because[0] and "tried again at" in told.because[-1]
        assert await legal_verbs(stage, run_id) == {"pause", "cancel", "retry", "rewind", "signal"}
        cues.take("b")
        await retry(stage.control, run_id)  # nobody has to wait for the clock
        async with stage.working():
            await stage.until(run_id, "succeeded")
    assert cues.seen() == ["a", "b", "b", "c"]


async def test_success_forgets_the_failures_before_it(database: str, cues: Cues) -> None:
    cues.give("b", "transient")
    async with staged(database, graphs("line")) as stage:
        run_id = await run_of(stage, "line", cues)
        await cues.until_seen("b")
        cues.take("b")
        await stage.until(run_id, "succeeded")
        row = await stage.run(run_id)
        assert (row.retries, row.retry_at, row.failure_class, row.failure) == (0, None, None, None)
        kinds = [kind for kind in stage.kinds(run_id) if kind in ("task_failed", "ended", "woken", "claimed")]
        assert kinds == ["claimed", "task_failed", "ended", "woken", "claimed", "ended"]


async def test_a_permanent_failure_is_not_tried_again(database: str, cues: Cues) -> None:
    cues.give("b", "permanent")
    async with staged(database, graphs("line")) as stage:
        run_id = await run_of(stage, "line", cues)
        await stage.until(run_id, "failed")
        assert (await stage.run(run_id)).failure_class == "permanent"
        await clock.advance(database, timedelta(days=1))
        assert stage.worker
        await swept(stage)
        assert (await stage.status(run_id)).word == "failed"
    assert cues.seen() == ["a", "b"]


async def swept(stage: Stage) -> None:
    """Wait for a whole sweep that began after now."""
    assert stage.worker
    for _ in range(2):
        stage.worker.swept.clear()
        await stage.worker.swept.wait()


async def test_a_poisoned_run_is_rewound_and_then_goes_on(database: str, cues: Cues) -> None:
    """Two nodes wrote what takes one value. No retry helps; going back to before the step does, once it is mended."""
    async with staged(database, graphs("clash")) as stage:
        run_id = await run_of(stage, "clash", cues)
        told = await stage.until(run_id, "failed")
        assert "InvalidUpdateError" in " ".join(told.because)
        row = await stage.run(run_id)
        assert (row.execution, row.failure_class) == ("poisoned", "poisoned")
        with pytest.raises(Refusal, match="rewind or restart it"):
            await retry(stage.control, run_id)
        await rewind(stage.control, run_id)
        told = await stage.until(run_id, "failed")
        assert cues.seen() == ["split", "split"] and (await stage.run(run_id)).branch == 1
        await rewind(stage.control, run_id)
        cues.give("split", "permanent")
        await stage.until(run_id, "failed")
        row = await stage.run(run_id)
        assert row.failure_class == "permanent" and row.execution == "failed", "a new step, with nothing of the old"


async def test_a_rewind_drops_the_step_and_what_hung_on_it(database: str, cues: Cues) -> None:
    async with staged(database, {"line": line("a", "b", "c")}) as stage:
        run_id = await run_of(stage, "line", cues)
        await stage.until(run_id, "succeeded")
        steps = [entry.body for entry in stage.ledger(run_id) if entry.kind == "stepped"]
        after_a = next(step["checkpoint_id"] for step in steps if step["nodes"] == ["a"])
        with pytest.raises(Refusal) as refused:
            await rewind(stage.control, run_id, "00000000-0000-0000-0000-000000000000")
        assert refused.value.problem.code == "no-such-checkpoint"
        await rewind(stage.control, run_id, after_a)
        await stage.until(run_id, "succeeded")
        assert cues.seen() == ["a", "b", "c", "b", "c"]
        assert await said(stage, run_id) == ["a", "b", "c"]


async def test_a_failed_router_is_not_skipped(database: str, cues: Cues) -> None:
    """Plain LangGraph, invoked again, ends the graph without routing."""
    cues.give("way", "permanent")
    async with staged(database, graphs("routed")) as stage:
        run_id = await run_of(stage, "routed", cues)
        told = await stage.until(run_id, "failed")
        assert (await stage.run(run_id)).execution == "routing_failed" and "cannot advance" in told.because[0]
        assert Verb.RETRY not in await legal_verbs(stage, run_id)
        cues.take("way")
        await rewind(stage.control, run_id)
        await stage.until(run_id, "succeeded")
    assert cues.seen() == ["a", "a", "z"]


async def test_a_transient_failure_of_a_router_is_not_skipped_either(database: str, cues: Cues) -> None:
    cues.give("way", "transient")
    async with staged(database, graphs("routed")) as stage:
        run_id = await run_of(stage, "routed", cues)
        await stage.until(run_id, "failed")
        assert "z" not in cues.seen()
        cues.take("way")
        await rewind(stage.control, run_id)
        await stage.until(run_id, "succeeded")
    assert cues.seen() == ["a", "a", "z"]


async def test_the_limit_of_steps_is_a_permanent_failure(database: str, cues: Cues) -> None:
    async with staged(database, graphs("endless")) as stage:
        run = await start(stage.control, "endless", cues.input, config={"recursion_limit": 5})
        told = await stage.until(run.run_id, "failed")
        assert "GraphRecursionError" in told.because[0]
        row = await stage.run(run.run_id)
        assert (row.failure_class, row.execution) == ("permanent", "runnable")


class Foreign:
    """A class that no schema names."""


class Free(TypedDict):
    folder: str
    log: Annotated[list[Any], operator.add]


def leaking(value: Any) -> Any:
    async def leak(_: Free) -> dict[str, Any]:
        return {"log": [value]}

    graph = StateGraph(Free)
    graph.add_sequence([("a", playing("a")), ("leak", leak)])
    graph.add_edge(START, "a")
    return graph.compile()


@pytest.mark.parametrize(
    ("value", "code", "named"),
    [
        (Foreign(), "state-not-serialisable", "Foreign"),
        (object(), "state-not-serialisable", "object"),
        (lambda: 0, "state-not-serialisable", "function"),
        ({"deep": defaultdict(list)}, "type-not-allowed", "defaultdict would come back as dict (channel 'log'"),
    ],
    ids=["a class", "an object", "a function", "a subclass of a builtin"],
)
async def test_a_state_that_cannot_be_stored_fails_its_run_alone(
    value: Any, code: str, named: str, database: str, cues: Cues
) -> None:
    """Said with the type's name; what was committed before stands, and the neighbours go on."""
    async with staged(database, {"leak": leaking(value), **graphs("line")}) as stage:
        cues.give("b", "hold")
        neighbour = await run_of(stage, "line", cues)
        run_id = await run_of(stage, "leak", cues)
        told = await stage.until(run_id, "failed")
        assert named in " ".join(told.because), told.because
        row = await stage.run(run_id)
        assert row.failure_class == "permanent" and row.failure and row.parts == ["a"]
        cues.take("b")
        await stage.until(neighbour, "succeeded")


@pytest.mark.parametrize("text", ["a\0b", "\ud800"], ids=["a NUL", "half a character"])
@pytest.mark.parametrize("where", ["question", "error", "state"])
async def test_a_text_the_database_refuses_stops_nobody_else(text: str, where: str, database: str, cues: Cues) -> None:
    """In a question, an error or the state: its run ends in a way that says why, and the neighbours go on."""

    async def node(_: State) -> dict[str, Any]:
        if where == "error":
            raise ValueError(f"not {text}")
        if where == "question":
            interrupt({"title": f"who is {text}?"})
        return {"one": text}

    graph = StateGraph(State)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    async with staged(database, {"odd": graph.compile(), **graphs("line")}) as stage:
        run_id = await run_of(stage, "odd", cues)
        await stage.until(run_id, "failed", "awaiting_input", "succeeded")
        neighbour = await run_of(stage, "line", cues)
        await stage.until(neighbour, "succeeded")
        row = await stage.run(run_id)
        assert row.worker_id is None and (row.status == "awaiting_input") <= (where == "question")


async def test_a_failure_before_the_first_step_is_not_the_threads_past(database: str, cues: Cues) -> None:
    """The thread's head belongs to an earlier run that succeeded; this one has done nothing."""
    async with staged(database, graphs("line")) as stage:
        first = await start(stage.control, "line", cues.input, thread_id="t")
        await stage.until(first.run_id, "succeeded")
        second = await start(stage.control, "line", cues.input, thread_id="t", config={"recursion_limit": 0})
        told = await stage.until(second.run_id, "failed", "succeeded")
        assert told.word == "failed", told.because
        assert (await stage.run(second.run_id)).execution == "none"
        third = await start(stage.control, "line", cues.input, thread_id="t")
        await stage.until(third.run_id, "succeeded")
        assert await said(stage, third.run_id) == ["a", "b", "c"] * 2


async def test_a_run_on_a_used_thread_that_is_paused_before_it_begins(database: str, cues: Cues) -> None:
    async with staged(database, graphs("line"), work=False) as stage:
        async with stage.working():
            first = await start(stage.control, "line", cues.input, thread_id="t")
            await stage.until(first.run_id, "succeeded")
        second = await start(stage.control, "line", cues.input, thread_id="t")
        await pause(stage.control, second.run_id)
        async with stage.working():
            await swept(stage)
            assert (await stage.status(second.run_id)).word == "paused"
            await resume(stage.control, second.run_id)
            await stage.until(second.run_id, "succeeded")
    assert cues.seen() == ["a", "b", "c"] * 2
