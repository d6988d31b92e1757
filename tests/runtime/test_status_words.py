"""Each status word, reached for real, and the same again after everything was closed and opened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import pytest

from control.core.answer import Word
from control.core.lifecycle import next_verbs
from control.core.run_status import Facet, RunStatus
from control.core.translation import WORDS
from control.runtime.commands.cancel import cancel
from control.runtime.commands.decide import decide
from control.runtime.commands.pause import pause, resume
from control.runtime.commands.retry import retry
from control.runtime.commands.start import start
from control.store import runs
from control.testing.stage import Stage, staged
from tests.runtime.scenes import Cues, graphs, until
from tests.runtime.troupe import Troupe

Scene = Callable[[Stage, Cues], Awaitable[UUID]]

ALL: Final = ("line", "approve", "ask", "wait", "signal", "handled", "routed", "clash")


async def run_of(stage: Stage, workflow: str, cues: Cues, **given: object) -> UUID:
    return (await start(stage.control, workflow, cues.input, **given)).run_id  # type: ignore[arg-type]  # any of start's


async def succeeded(stage: Stage, cues: Cues) -> UUID:
    return await run_of(stage, "line", cues)


async def partial(stage: Stage, cues: Cues) -> UUID:
    return await run_of(stage, "handled", cues)


async def failed(stage: Stage, cues: Cues) -> UUID:
    cues.give("b", "permanent")
    return await run_of(stage, "line", cues)


async def retried(stage: Stage, cues: Cues) -> UUID:
    run_id = await failed(stage, cues)
    await stage.until(run_id, "failed")
    cues.take("b")
    await retry(stage.control, run_id)
    return run_id


async def poisoned(stage: Stage, cues: Cues) -> UUID:
    return await run_of(stage, "clash", cues)


async def waiting_on_time(stage: Stage, cues: Cues) -> UUID:
    return await run_of(stage, "wait", cues)


async def waiting_for_a_signal(stage: Stage, cues: Cues) -> UUID:
    return await run_of(stage, "signal", cues)


async def not_yet(stage: Stage, cues: Cues) -> UUID:
    async with stage.control.transaction() as conn:
        tomorrow = await runs.now(conn) + timedelta(days=1)
    return await run_of(stage, "line", cues, not_before=tomorrow)


async def awaiting_approval(stage: Stage, cues: Cues) -> UUID:
    return await run_of(stage, "approve", cues)


async def awaiting_input(stage: Stage, cues: Cues) -> UUID:
    return await run_of(stage, "ask", cues)


async def paused_while_running(stage: Stage, cues: Cues) -> UUID:
    cues.give("b", "hold")
    run_id = await run_of(stage, "line", cues)
    await cues.until_seen("b")
    await pause(stage.control, run_id, reason="stock-taking")
    assert (await stage.status(run_id)).word == "running"
    cues.take("b")
    return run_id


async def paused_while_waiting(stage: Stage, cues: Cues) -> UUID:
    run_id = await awaiting_approval(stage, cues)
    await stage.until(run_id, "awaiting_approval")
    await pause(stage.control, run_id)
    return run_id


async def cancelled_while_waiting(stage: Stage, cues: Cues) -> UUID:
    run_id = await awaiting_approval(stage, cues)
    await stage.until(run_id, "awaiting_approval")
    await cancel(stage.control, run_id, reason="no longer wanted")
    return run_id


async def cancelled_while_running(stage: Stage, cues: Cues) -> UUID:
    cues.give("b", "hold")
    run_id = await run_of(stage, "line", cues)
    await cues.until_seen("b")
    await cancel(stage.control, run_id)
    assert (await stage.status(run_id)).word == "cancelling"
    cues.take("b")
    return run_id


@dataclass(frozen=True)
class Expected:
    """because: part of what is said. until: the span to the deadline. verbs: those that are legal."""

    word: str
    because: str
    verbs: str
    until: timedelta | None = None
    nodes: str = ""


DAY: Final = timedelta(days=1)
EXPECTED: Final[dict[Scene, Expected]] = {
    succeeded: Expected("succeeded", "Every step it had to take is done.", "restart rewind delete", nodes="a b c"),
    partial: Expected(
        "partial", "1 part failed and an error handler stood in", "restart rewind delete", nodes="broken"
    ),
    failed: Expected("failed", "ValueError: it can never work", "retry restart rewind delete", nodes="a b"),
    retried: Expected("succeeded", "Every step it had to take is done.", "restart rewind delete", nodes="a b b c"),
    poisoned: Expected("failed", "cannot advance", "restart rewind delete", nodes="split"),
    waiting_on_time: Expected("waiting", "part waits until", "pause cancel rewind signal", 10 * DAY, "a"),
    waiting_for_a_signal: Expected("waiting", "waited for the signal “go”", "pause cancel rewind signal", nodes="a"),
    not_yet: Expected("waiting", "not to start before", "pause cancel signal", DAY),
    awaiting_approval: Expected(
        "awaiting_approval",
        "“sign” has waited for an approval",
        "pause approve reject cancel rewind signal reassign",
        nodes="a",
    ),
    awaiting_input: Expected(
        "awaiting_input",
        "“How much?” has waited for an answer",
        "pause answer cancel rewind signal reassign",
        nodes="a",
    ),
    paused_while_running: Expected("paused", "tester ordered it paused", "resume cancel rewind signal", nodes="a b"),
    paused_while_waiting: Expected(
        "paused", "tester ordered it paused", "resume approve reject cancel rewind signal reassign", nodes="a"
    ),
    cancelled_while_waiting: Expected("cancelled", "tester ordered it cancelled", "restart delete", nodes="a"),
    cancelled_while_running: Expected("cancelled", "tester ordered it cancelled", "restart delete", nodes="a b"),
}


async def legal_verbs(stage: Stage, run_id: UUID) -> set[str]:
    async with stage.control.transaction() as conn:
        now = await stage.control.look(conn, await runs.read_run(conn, stage.control.tenant, run_id))
    return {str(verdict.verb) for verdict in next_verbs(now.status.word, now.facts) if verdict.allowed}


async def drift(stage: Stage, run_id: UUID) -> tuple[str, str]:
    """The word that is stored and the word that follows from the facts, which must be one, the clock aside."""
    row = await stage.run(run_id)
    async with stage.control.transaction() as conn:
        facts = (await stage.control.look(conn, row)).facts
    return row.status, runs.index(facts).status


@pytest.mark.parametrize("scene", EXPECTED, ids=lambda scene: scene.__name__)
async def test_the_word_is_right_and_survives_a_restart(scene: Scene, database: str, cues: Cues) -> None:
    expected = EXPECTED[scene]
    async with staged(database, graphs(*ALL)) as stage:
        run_id = await scene(stage, cues)
        told = await stage.until(run_id, expected.word)
        assert any(expected.because in sentence for sentence in told.because), told.because
        assert await legal_verbs(stage, run_id) == set(expected.verbs.split())
        assert _span(told) == expected.until
        assert told.facets == frozenset()
        assert WORDS[told.word].thread.value == THREAD_WORDS[expected.word]
    assert sorted(cues.seen()) == expected.nodes.split()
    async with staged(database, graphs(*ALL), work=False) as stage:
        assert await stage.status(run_id) == told
        assert await drift(stage, run_id) == (expected.word, expected.word)
    async with staged(database, graphs(*ALL)) as stage:
        assert stage.worker
        await stage.worker.swept.wait()
        assert await stage.status(run_id) == told
    assert sorted(cues.seen()) == expected.nodes.split()


THREAD_WORDS: Final = {
    "succeeded": "idle",
    "partial": "idle",
    "failed": "error",
    "waiting": "busy",
    "awaiting_approval": "interrupted",
    "awaiting_input": "interrupted",
    "paused": "interrupted",
    "cancelled": "idle",
}


def _span(told: RunStatus) -> timedelta | None:
    """From since to until, to the minute."""
    return None if told.until is None else timedelta(minutes=round((told.until - told.since) / timedelta(minutes=1)))


async def test_queued_until_a_worker_comes(database: str, cues: Cues) -> None:
    async with staged(database, graphs("line"), work=False) as stage:
        run_id = await run_of(stage, "line", cues)
        told = await stage.status(run_id)
        assert told.word == "queued" and "the next free worker takes it" in told.because[-1]
        assert (told.progress.done, told.progress.total) == (0, 3)
        assert await legal_verbs(stage, run_id) == {"pause", "cancel", "signal"}
    async with staged(database, graphs("line"), work=False) as stage:
        assert await stage.status(run_id) == told
        async with stage.working():
            done = await stage.until(run_id, "succeeded")
        assert done.progress.parts == ("a", "b", "c")


async def test_running_then_stalled_then_running_again(database: str, cues: Cues, troupe: Troupe) -> None:
    """The worker is another process: what is closed and opened is everything else."""
    cues.give("b", "hold")
    pid = troupe.hire("line")
    async with staged(database, graphs("line"), work=False, stall_after_s=0.5) as stage:
        run_id = await run_of(stage, "line", cues)
        await cues.until_seen("b")
        running = await stage.status(run_id)
        assert running.word == "running" and str(troupe.hired[pid]) in running.because[0]
        assert running.progress.parts == ("a",) and _is(running.until, after=running.since)
        stalled = await stage.until(run_id, "stalled")
        assert "nothing has moved since" in stalled.because[-1] and stalled.since == running.until
        assert await legal_verbs(stage, run_id) == {"pause", "cancel", "signal"}
    async with staged(database, graphs("line"), work=False, stall_after_s=0.5) as stage:
        assert (await stage.status(run_id)) == stalled
        cues.take("b")
        await stage.until(run_id, "succeeded")
    assert cues.seen() == ["a", "b", "c"]


async def test_cancelling_is_seen_from_a_new_process_and_ends(database: str, cues: Cues, troupe: Troupe) -> None:
    cues.give("b", "hold")
    troupe.hire("line", cancel_grace_s=1)
    async with staged(database, graphs("line"), work=False) as stage:
        run_id = await run_of(stage, "line", cues)
        await cues.until_seen("b")
        await cancel(stage.control, run_id, reason="too late")
    async with staged(database, graphs("line"), work=False) as stage:
        told = await stage.status(run_id)
        assert told.word == "cancelling" and "tester ordered it cancelled" in told.because[0]
        assert await legal_verbs(stage, run_id) == set()
        done = await stage.until(run_id, "cancelled")
        assert done.since > told.since
    assert cues.seen() == ["a", "b"]


async def test_a_run_that_kills_its_workers_is_abandoned(database: str, cues: Cues, troupe: Troupe) -> None:
    cues.give("b", "die")
    for _ in range(3):
        troupe.hire("line", crash_limit=2)
    async with staged(database, graphs("line"), work=False, crash_limit=2) as stage:
        run_id = await run_of(stage, "line", cues)
        await stage.until(run_id, "abandoned")
        told = await until_let_go(stage, run_id)
        assert told.because == ("2 workers were lost while working on it, and the limit is 2.",)
        assert told.facets == {Facet.RESUMED}
        assert await legal_verbs(stage, run_id) == {"retry", "restart", "rewind", "delete"}
    assert cues.seen() == ["a", "b", "b"] and len(set(cues.pids("b"))) == 2
    async with staged(database, graphs("line"), crash_limit=2) as stage:
        assert await stage.status(run_id) == told
        cues.take("b")
        await retry(stage.control, run_id)
        await stage.until(run_id, "succeeded")
    assert cues.seen() == ["a", "b", "b", "b", "c"]


async def until_let_go(stage: Stage, run_id: UUID) -> RunStatus:
    """Once the claim of a dead worker is taken away on record, too."""

    async def free() -> bool:
        return (await stage.run(run_id)).worker_id is None

    await until(free, "its claim is taken away")
    return await stage.status(run_id)


async def test_blocked_when_the_graph_changed_under_it(database: str, cues: Cues) -> None:
    async with staged(database, graphs(flow="line")) as stage:
        cues.give("b", "hold")
        run_id = await run_of(stage, "flow", cues)
        await cues.until_seen("b")
        await pause(stage.control, run_id)
        cues.take("b")
        await stage.until(run_id, "paused")
    async with staged(database, graphs(flow="approve")) as stage:
        await resume(stage.control, run_id)
        told = await stage.until(run_id, "blocked")
        assert "graph-changed" in told.because[0]
        assert await legal_verbs(stage, run_id) == {"cancel", "restart", "rewind", "signal"}
    async with staged(database, graphs(flow="approve")) as stage:
        assert await stage.status(run_id) == told
    async with staged(database, graphs(flow="line")) as stage:
        await stage.until(run_id, "succeeded")
    assert cues.seen() == ["a", "b", "c"]


async def test_a_decision_and_a_resume_move_it_on(database: str, cues: Cues) -> None:
    async with staged(database, graphs("approve")) as stage:
        run_id = await paused_while_waiting(stage, cues)
        await stage.until(run_id, "paused")
        await decide(stage.control, run_id, Word.APPROVED)
        told = await stage.until(run_id, "paused")
        assert "An answer is recorded and about to be delivered." in told.because
        assert cues.seen() == ["a"]
        await resume(stage.control, run_id)
        await stage.until(run_id, "succeeded")
    assert cues.seen() == ["a", "z"]


def _is(until: object, *, after: object) -> bool:
    return until is not None and until > after  # type: ignore[operator]  # both are instants
