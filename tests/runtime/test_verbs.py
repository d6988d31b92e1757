"""Verbs act where they are legal; elsewhere they refuse, and nothing changes. An answer reaches its own question."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final
from uuid import UUID

import psycopg
import pytest

from control.core.answer import Word
from control.core.lifecycle import Verb
from control.core.problem import Refusal
from control.runtime.commands.cancel import cancel
from control.runtime.commands.decide import decide
from control.runtime.commands.pause import pause, resume
from control.runtime.commands.reassign import reassign
from control.runtime.commands.restart import restart
from control.runtime.commands.retry import retry
from control.runtime.commands.rewind import rewind
from control.runtime.commands.signal import signal
from control.runtime.commands.start import start
from control.store.questions import Approval, open_approvals
from control.testing.stage import Stage, staged
from tests.runtime.scenes import Cues, graphs, until
from tests.runtime.test_status_words import ALL, EXPECTED, Scene, legal_verbs, run_of, succeeded

Act = Callable[[Stage, UUID], Awaitable[Any]]

ACTS: Final[dict[Verb, Act]] = {
    Verb.PAUSE: lambda stage, run_id: pause(stage.control, run_id),
    Verb.RESUME: lambda stage, run_id: resume(stage.control, run_id),
    Verb.ANSWER: lambda stage, run_id: decide(stage.control, run_id, Word.ANSWERED, answer={"amount": 1}),
    Verb.APPROVE: lambda stage, run_id: decide(stage.control, run_id, Word.APPROVED),
    Verb.REJECT: lambda stage, run_id: decide(stage.control, run_id, Word.REJECTED),
    Verb.CANCEL: lambda stage, run_id: cancel(stage.control, run_id),
    Verb.RETRY: lambda stage, run_id: retry(stage.control, run_id),
    Verb.RESTART: lambda stage, run_id: restart(stage.control, run_id),
    Verb.REWIND: lambda stage, run_id: rewind(stage.control, run_id),
    Verb.SIGNAL: lambda stage, run_id: signal(stage.control, run_id, "go", payload=7),
    Verb.REASSIGN: lambda stage, run_id: reassign(stage.control, run_id, to="ben"),
}

# What a run becomes once a legal verb has done its work, with a worker at hand; None: the word it had.
BECOMES: Final[dict[tuple[str, Verb], str | None]] = {
    ("succeeded", Verb.RESTART): None,
    ("succeeded", Verb.REWIND): "succeeded",
    ("failed", Verb.RETRY): "failed",
    ("failed", Verb.RESTART): None,
    ("failed", Verb.REWIND): "failed",
    ("waiting_on_time", Verb.PAUSE): "paused",
    ("waiting_on_time", Verb.CANCEL): "cancelled",
    ("waiting_on_time", Verb.REWIND): "waiting",
    ("waiting_on_time", Verb.SIGNAL): None,
    ("waiting_for_a_signal", Verb.PAUSE): "paused",
    ("waiting_for_a_signal", Verb.CANCEL): "cancelled",
    ("waiting_for_a_signal", Verb.REWIND): "waiting",
    ("waiting_for_a_signal", Verb.SIGNAL): "succeeded",
    ("not_yet", Verb.PAUSE): "paused",
    ("not_yet", Verb.CANCEL): "cancelled",
    ("not_yet", Verb.SIGNAL): None,
    ("awaiting_approval", Verb.PAUSE): "paused",
    ("awaiting_approval", Verb.APPROVE): "succeeded",
    ("awaiting_approval", Verb.REJECT): "succeeded",
    ("awaiting_approval", Verb.CANCEL): "cancelled",
    ("awaiting_approval", Verb.REWIND): "awaiting_approval",
    ("awaiting_approval", Verb.SIGNAL): None,
    ("awaiting_approval", Verb.REASSIGN): None,
    ("awaiting_input", Verb.REASSIGN): None,
    ("paused_while_waiting", Verb.REASSIGN): None,
    ("awaiting_input", Verb.PAUSE): "paused",
    ("awaiting_input", Verb.ANSWER): "succeeded",
    ("awaiting_input", Verb.CANCEL): "cancelled",
    ("awaiting_input", Verb.REWIND): "awaiting_input",
    ("awaiting_input", Verb.SIGNAL): None,
    ("paused_while_waiting", Verb.RESUME): "awaiting_approval",
    ("paused_while_waiting", Verb.APPROVE): None,
    ("paused_while_waiting", Verb.REJECT): None,
    ("paused_while_waiting", Verb.CANCEL): "cancelled",
    ("paused_while_waiting", Verb.REWIND): None,
    ("paused_while_waiting", Verb.SIGNAL): None,
    ("cancelled_while_waiting", Verb.RESTART): None,
}
ACTED: Final = sorted({scene for scene, _ in BECOMES})
SCENES: Final = {scene.__name__: scene for scene in EXPECTED}


def everything(conninfo: str, run_id: UUID) -> list[tuple[Any, ...]]:
    """Every row that belongs to the run, its checkpoints and its ledger included, and how many runs there are."""
    with psycopg.connect(conninfo) as conn:
        found = [conn.execute(query, {"run": run_id}).fetchall() for query in _ROWS]
    return [row for rows in found for row in rows]


_ROWS: Final = (
    "select to_jsonb(r)::text from control.run r where run_id = %(run)s",
    "select seq, hash from control.ledger where run_id = %(run)s order by seq",
    "select to_jsonb(a)::text from control.approval a where run_id = %(run)s order by interrupt_id",
    "select to_jsonb(w)::text from control.wait w where run_id = %(run)s order by interrupt_id",
    "select to_jsonb(s)::text from control.signal s where run_id = %(run)s order by n",
    "select checkpoint_id from checkpoints c join control.run r using (thread_id) where run_id = %(run)s order by 1",
    "select task_id, idx, channel, blob from checkpoint_writes w join control.run r using (thread_id)"
    " where run_id = %(run)s order by 1, 2",
    "select count(*) from control.run where %(run)s is not null",
)


@pytest.mark.parametrize("scene", EXPECTED, ids=lambda scene: scene.__name__)
async def test_an_illegal_verb_changes_nothing(scene: Scene, database: str, cues: Cues) -> None:
    async with staged(database, graphs(*ALL)) as stage:
        run_id = await scene(stage, cues)
        await stage.until(run_id, EXPECTED[scene].word)
        legal = await legal_verbs(stage, run_id)
        before = everything(database, run_id)
        for verb in set(ACTS) - {Verb(name) for name in legal}:
            with pytest.raises(Refusal) as refused:
                await ACTS[verb](stage, run_id)
            assert refused.value.problem.code == "verb-not-legal", (verb, refused.value)
            assert set(refused.value.facts["legal"]) == legal and refused.value.why.endswith(".")
        assert everything(database, run_id) == before


@pytest.mark.parametrize("name", ACTED)
async def test_a_legal_verb_acts(name: str, database: str, cues: Cues) -> None:
    """Each verb that has a command, on a run of its own; and the table above names exactly those that are legal."""
    legal = {Verb(word) for word in EXPECTED[SCENES[name]].verbs.split()}
    assert {verb for scene, verb in BECOMES if scene == name} == legal & ACTS.keys()
    async with staged(database, graphs(*ALL)) as stage:
        for verb, becomes in [(verb, word) for (scene, verb), word in BECOMES.items() if scene == name]:
            run_id = await SCENES[name](stage, cues)
            await stage.until(run_id, EXPECTED[SCENES[name]].word)
            seen = len(stage.ledger(run_id))
            other = await ACTS[verb](stage, run_id)
            word = becomes or EXPECTED[SCENES[name]].word
            await stage.until(run_id, word)
            if verb is Verb.RESTART:
                assert other.run_id != run_id and other.restarted_from == run_id
                assert len(stage.ledger(run_id)) == seen
            else:
                assert len(stage.ledger(run_id)) > seen
                assert any(entry.actor == "tester" for entry in stage.ledger(run_id)[seen:]), verb


async def test_a_cancel_that_came_too_late_says_so(database: str, cues: Cues) -> None:
    """Its last step was running when it was cancelled, and committed: it did all that it was asked to."""
    cues.give("c", "hold")
    async with staged(database, graphs("line")) as stage:
        run_id = await succeeded(stage, cues)
        await cues.until_seen("c")
        await cancel(stage.control, run_id)
        cues.take("c")
        told = await stage.until(run_id, "succeeded", "cancelled")
        assert told.word == "succeeded" and "came too late" in told.because[-1]


async def open_ids(stage: Stage, run_id: UUID) -> dict[str, str]:
    """The open questions by title."""
    async with stage.control.transaction() as conn:
        found: list[Approval] = await open_approvals(conn, await stage.run(run_id))
    return {question.title: question.interrupt_id for question in found}


async def test_a_second_decision_is_told_of_the_first(database: str, cues: Cues) -> None:
    async with staged(database, graphs("approve")) as stage:
        run_id = await run_of(stage, "approve", cues)
        await stage.until(run_id, "awaiting_approval")
        (interrupt_id,) = (await open_ids(stage, run_id)).values()
        await decide(stage.control, run_id, Word.REJECTED, interrupt_id=interrupt_id, note="no")
        await stage.until(run_id, "succeeded")
        before = everything(database, run_id)
        for word in Word:
            with pytest.raises(Refusal, match="tester rejected it at 20") as refused:
                await decide(stage.control, run_id, word, interrupt_id=interrupt_id)
            assert refused.value.problem.code == "already-decided" and refused.value.facts["decided_by"] == "tester"
        assert everything(database, run_id) == before
        assert await said(stage, run_id) == ["a", "sign: False by tester", "z"]


async def said(stage: Stage, run_id: UUID) -> list[Any]:
    """The log that the graph kept in its state."""
    run = await stage.run(run_id)
    found = await stage.app.saver.aget_tuple({"configurable": {"thread_id": run.thread_id}})
    assert found
    log: list[Any] = found.checkpoint["channel_values"].get("log", [])
    return log


async def test_of_two_deciders_at_once_one_binds(database: str, cues: Cues) -> None:
    async with staged(database, graphs("approve"), work=False) as stage:
        async with stage.working():
            run_id = await run_of(stage, "approve", cues)
            await stage.until(run_id, "awaiting_approval")
        (interrupt_id,) = (await open_ids(stage, run_id)).values()
        words = [Word.APPROVED, Word.REJECTED] * 4
        attempts = [decide(stage.control, run_id, word, interrupt_id=interrupt_id) for word in words]
        results = await asyncio.gather(*attempts, return_exceptions=True)
        refused = [result for result in results if isinstance(result, Refusal)]
        assert len(refused) == len(words) - 1
        assert {refusal.problem.code for refusal in refused} == {"already-decided"}
        assert stage.kinds(run_id).count("decided") == 1


@pytest.mark.parametrize("answer", [None, 5, {"amount": "much"}, {}, {"amount": 1.5}, "x"])
async def test_a_wrong_answer_changes_nothing(answer: Any, database: str, cues: Cues) -> None:
    async with staged(database, graphs("ask"), work=False) as stage:
        async with stage.working():
            run_id = await run_of(stage, "ask", cues)
            await stage.until(run_id, "awaiting_input")
        before = everything(database, run_id)
        with pytest.raises(Refusal) as refused:
            await decide(stage.control, run_id, Word.ANSWERED, answer=answer)
        assert refused.value.problem.code == "answer-invalid" and refused.value.facts["schema"]
        assert everything(database, run_id) == before
        async with stage.working():
            await decide(stage.control, run_id, Word.ANSWERED, answer={"amount": 3})
            await stage.until(run_id, "succeeded")
        assert await said(stage, run_id) == ["a", "amount 3", "z"]


async def test_an_answer_that_comes_while_a_sibling_runs_is_kept(database: str, cues: Cues) -> None:
    cues.give("beside", "hold")
    async with staged(database, graphs("sign beside")) as stage:
        run_id = await run_of(stage, "sign beside", cues)
        await cues.until_seen("beside")
        await until_asked(stage, run_id, "sign")
        assert (await stage.status(run_id)).word == "running"
        await decide(stage.control, run_id, Word.APPROVED)
        assert (await stage.status(run_id)).word == "running"
        cues.take("beside")
        await stage.until(run_id, "succeeded")
        assert cues.seen() == ["beside", "z"]
        assert sorted(await said(stage, run_id)) == ["beside", "sign: True by tester", "z"]


async def until_asked(stage: Stage, run_id: UUID, *titles: str) -> dict[str, str]:
    """The open questions, once these are among them."""

    async def asked() -> bool:
        return set(titles) <= (await open_ids(stage, run_id)).keys()

    await until(asked, f"{titles} are asked")
    return await open_ids(stage, run_id)


async def test_of_two_approvals_each_gets_its_own_answer(database: str, cues: Cues) -> None:
    async with staged(database, graphs("both")) as stage:
        run_id = await run_of(stage, "both", cues)
        asked = await until_asked(stage, run_id, "sign", "countersign")
        with pytest.raises(Refusal, match="2 are open"):
            await decide(stage.control, run_id, Word.APPROVED)
        await decide(stage.control, run_id, Word.REJECTED, interrupt_id=asked["countersign"])
        await stage.until(run_id, "awaiting_approval")
        assert await open_ids(stage, run_id) == {"sign": asked["sign"]}
        assert cues.seen() == []
        with pytest.raises(Refusal, match="tester rejected “countersign” at 20"):
            await decide(stage.control, run_id, Word.APPROVED)
        await decide(stage.control, run_id, Word.APPROVED, interrupt_id=asked["sign"])
        await stage.until(run_id, "succeeded")
        log = await said(stage, run_id)
        assert sorted(log) == ["countersign: False by tester", "sign: True by tester", "z"]


async def test_an_answer_is_not_given_to_the_next_question(database: str, cues: Cues) -> None:
    """Plain LangGraph, invoked again after the first answer, answers the second question with it."""
    async with staged(database, graphs("twice")) as stage:
        run_id = await run_of(stage, "twice", cues)
        first = await until_asked(stage, run_id, "First?")
        await decide(stage.control, run_id, Word.ANSWERED, answer={"amount": 1})
        second = await until_asked(stage, run_id, "Second?")
        await stage.until(run_id, "awaiting_input")
        for _ in range(2):  # paused and resumed, it is entered again, and still asks
            await pause(stage.control, run_id)
            await resume(stage.control, run_id)
            assert (await stage.until(run_id, "awaiting_input")).word == "awaiting_input"
        assert await open_ids(stage, run_id) == second and second["Second?"] != first["First?"]
        with pytest.raises(Refusal, match="tester answered it"):
            await decide(stage.control, run_id, Word.ANSWERED, answer={"amount": 9}, interrupt_id=first["First?"])
        await decide(stage.control, run_id, Word.ANSWERED, answer={"amount": 2}, interrupt_id=second["Second?"])
        await stage.until(run_id, "succeeded")
        assert await said(stage, run_id) == ["a", ("first", 1), ("second", 2), "z"]


async def test_an_answer_is_not_given_to_the_next_question_after_a_kill(database: str, cues: Cues, troupe: Any) -> None:
    """The worker dies with the first answer in hand; the next delivers it again, and the second question is asked."""
    async with staged(database, graphs("twice"), work=False) as stage:
        pid = troupe.hire("twice")
        run_id = await run_of(stage, "twice", cues)
        await until_asked(stage, run_id, "First?")
        await stage.until(run_id, "awaiting_input")
        cues.give("twice", "hold")
        await decide(stage.control, run_id, Word.ANSWERED, answer={"amount": 1})
        await cues.until_seen("twice")
        troupe.kill(pid)
        cues.take("twice")
        troupe.hire("twice")
        second = (await until_asked(stage, run_id, "Second?"))["Second?"]
        told = await stage.until(run_id, "awaiting_input")
        assert [sentence.split("”")[0] for sentence in told.because] == ["“Second?"]
        await decide(stage.control, run_id, Word.ANSWERED, answer={"amount": 2}, interrupt_id=second)
        await stage.until(run_id, "succeeded")
        assert await said(stage, run_id) == ["a", ("first", 1), ("second", 2), "z"]
        assert stage.kinds(run_id).count("asked") == 2


async def test_a_plain_interrupt_gets_the_answer_as_it_was_given(database: str, cues: Cues) -> None:
    async with staged(database, graphs("plain")) as stage:
        for answer in ("yes", {"a" * 32: "looks like an id"}, {}, None, [1], False):
            run_id = await run_of(stage, "plain", cues)
            await stage.until(run_id, "awaiting_input")
            await decide(stage.control, run_id, Word.ANSWERED, answer=answer)
            await stage.until(run_id, "succeeded")
            assert (await said(stage, run_id))[1] == answer


async def test_a_thread_takes_one_open_run_at_a_time(database: str, cues: Cues) -> None:
    async with staged(database, graphs("approve", "line")) as stage:
        first = await start(stage.control, "approve", cues.input, thread_id="t")
        await stage.until(first.run_id, "awaiting_approval")
        with pytest.raises(Refusal, match="has a run that has not ended") as refused:
            await start(stage.control, "line", cues.input, thread_id="t")
        assert refused.value.problem.code == "thread-busy"
        await cancel(stage.control, first.run_id)
        second = await start(stage.control, "line", cues.input, thread_id="t")
        await stage.until(second.run_id, "succeeded")
        with pytest.raises(Refusal) as refused:
            await decide(stage.control, first.run_id, Word.APPROVED)
        assert refused.value.problem.code == "verb-not-legal"
