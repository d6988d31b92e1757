"""Decisions on unchanged graphs, each beside the same graph under LangGraph alone.

Every test first shows what stock LangGraph does, then what the control plane does. The stock half runs the very same
graph with an in-memory saver, as its documentation says: bare `Command(resume=...)`, no strict mode.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import psycopg
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from psycopg.sql import SQL, Identifier

from control.core.answer import Word
from control.core.problem import Refusal
from control.runtime.commands.decide import decide
from control.runtime.commands.pause import pause, resume
from control.runtime.commands.retry import retry
from control.runtime.commands.start import start
from control.store.questions import Approval, open_approvals
from control.testing.stage import Stage, staged
from tests.decisions.agents import Agent, batched, gated, per_call
from tests.runtime.scenes import until

STOCK: Final[Any] = {"configurable": {"thread_id": "t"}}
PAY: Final = ("pay", {"to": "ACME", "amount": 40})
WIPE: Final = ("wipe", {"customer": "ACME"})
REJECT: Final = {"type": "reject", "message": "no"}
APPROVE: Final = {"type": "approve"}


async def asked(graph: Any) -> Any:
    """The stock graph, run up to its question."""
    stock = graph.compile(checkpointer=InMemorySaver())
    await stock.ainvoke({}, STOCK)
    assert stock.get_state(STOCK).interrupts
    return stock


async def waiting(stage: Stage) -> UUID:
    """A run of the graph, waiting for a person."""
    run = await start(stage.control, "agent", {})
    await stage.until(run.run_id, "awaiting_approval")
    return run.run_id


async def open_of(stage: Stage, run_id: UUID) -> list[Approval]:
    async with stage.control.transaction() as conn:
        return await open_approvals(conn, await stage.run(run_id))


async def messages(stage: Stage, run_id: UUID) -> list[Any]:
    run = await stage.run(run_id)
    found = await stage.app.saver.aget_tuple({"configurable": {"thread_id": run.thread_id}})
    assert found
    return list(found.checkpoint["channel_values"].get("messages", []))


def everything(conninfo: str, run_id: UUID) -> Any:
    """All that is kept of a run and its thread."""
    with psycopg.connect(conninfo) as conn:
        tables = ("run", "approval", "ledger", "wait")
        query = "select * from control.{} t where run_id = %s order by t::text"
        rows = [conn.execute(SQL(query).format(Identifier(table)), (run_id,)).fetchall() for table in tables]
        writes = conn.execute("select * from checkpoint_writes w order by w::text").fetchall()
        return rows, writes, conn.execute("select * from checkpoints c order by c::text").fetchall()


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ({"decisions": [APPROVE]}, "2 actions wait for a decision each, in order; 1 came."),
        ({"decisions": [APPROVE, {"type": "edit"}]}, "Action 2 (wipe): an edit has `edited_action`"),
        ({"decisions": [APPROVE, {"type": "yes"}]}, 'Action 2 (wipe): there is no decision "yes".'),
        (
            {"decisions": [APPROVE, {"type": "respond", "message": "done"}]},
            "does not take respond; it takes approve, ed",
        ),
        ([{"type": "accept", "args": None}], "2 actions wait for a decision each, in order; 1 came."),
        ("yes", 'Action 1 (pay): there is no decision "yes".'),
    ],
    ids=["too few", "empty edit", "unknown word", "not allowed", "another client's", "a text"],
)
async def test_a_wrong_answer_leaves_the_question_open(answer: Any, complaint: str, database: str) -> None:
    """Stock LangGraph keeps it, fails on it, and on every right answer after it: the thread is stuck for good."""
    allowed = ("approve", "edit", "reject")
    plain = Agent([PAY, WIPE], allowed=allowed)
    stock = await asked(batched(plain))
    for given in (answer, {"decisions": [APPROVE, REJECT]}):
        with pytest.raises((TypeError, ValueError, KeyError)):
            await stock.ainvoke(Command(resume=given), STOCK)
    assert plain.ran == []

    ours = Agent([PAY, WIPE], allowed=allowed)
    async with staged(database, {"agent": batched(ours).compile()}) as stage:
        run_id = await waiting(stage)
        before = everything(database, run_id)
        with pytest.raises(Refusal) as refused:
            await decide(stage.control, run_id, Word.APPROVED, answer=answer)
        assert refused.value.code == "answer-invalid" and complaint in refused.value.why
        assert everything(database, run_id) == before and (await stage.status(run_id)).word == "awaiting_approval"
        await decide(stage.control, run_id, Word.APPROVED, decisions=[APPROVE, REJECT])
        await stage.until(run_id, "succeeded")
        assert ours.ran == [("pay", ("ACME", 40))]


async def test_a_second_click_does_not_approve_the_next_action(database: str) -> None:
    plain = Agent([PAY, WIPE])
    stock = await asked(gated(plain))
    for _ in range(2):  # the person clicks twice on what was shown: the payment
        await stock.ainvoke(Command(resume=[{"type": "accept"}]), STOCK)
    assert plain.ran == [("pay", ("ACME", 40)), ("wipe", ("ACME",))], "stock answers the next question with it"

    ours = Agent([PAY, WIPE])
    async with staged(database, {"agent": gated(ours).compile()}) as stage:
        run_id = await waiting(stage)
        (shown,) = await open_of(stage, run_id)
        await decide(stage.control, run_id, Word.APPROVED)
        await until_next(stage, run_id, shown)
        with pytest.raises(Refusal, match=r"tester approved “Run pay\?” at .*; name the one that") as refused:
            await decide(stage.control, run_id, Word.APPROVED)
        assert refused.value.code == "which-question" and refused.value.problem.status == 409
        with pytest.raises(Refusal, match="tester approved it at 20"):
            await decide(stage.control, run_id, Word.APPROVED, interrupt_id=shown.interrupt_id)
        (following,) = await open_of(stage, run_id)
        with pytest.raises(Refusal) as refused:
            digest = bytes(shown.packet_digest).hex()
            await decide(stage.control, run_id, Word.APPROVED, interrupt_id=following.interrupt_id, digest=digest)
        assert refused.value.code == "packet-changed"
        assert ours.ran == [("pay", ("ACME", 40))] and await open_of(stage, run_id) == [following]
        await decide(stage.control, run_id, Word.REJECTED, interrupt_id=following.interrupt_id)
        await stage.until(run_id, "succeeded")
        assert ours.ran == [("pay", ("ACME", 40))]


async def until_next(stage: Stage, run_id: UUID, shown: Approval) -> None:
    """Wait until another question than this one is open, and nothing runs."""

    async def asked_next() -> bool:
        found = await open_of(stage, run_id)
        return bool(found) and shown.interrupt_id not in {question.interrupt_id for question in found}

    await until(asked_next, "the next question is asked")
    await stage.until(run_id, "awaiting_approval")


async def test_an_unknown_interrupt_is_refused(database: str) -> None:
    plain = Agent([PAY])
    stock = await asked(gated(plain))
    await stock.ainvoke(Command(resume={"0" * 32: [{"type": "accept"}]}), STOCK)
    assert stock.get_state(STOCK).interrupts and plain.ran == [], "stock ignores it, and says nothing"

    ours = Agent([PAY])
    async with staged(database, {"agent": gated(ours).compile()}) as stage:
        run_id = await waiting(stage)
        before = everything(database, run_id)
        with pytest.raises(Refusal, match=f"None that could be approved has the id {'0' * 32}") as refused:
            await decide(stage.control, run_id, Word.APPROVED, interrupt_id="0" * 32)
        assert refused.value.code == "which-question" and refused.value.problem.status == 409
        assert everything(database, run_id) == before


async def test_a_chat_message_is_no_answer(database: str) -> None:
    plain = Agent([PAY])
    stock = await asked(batched(plain))
    (pending,) = stock.get_state(STOCK).interrupts
    await stock.ainvoke({"messages": [HumanMessage("yes, go on")]}, STOCK)
    (other,) = stock.get_state(STOCK).interrupts
    assert plain.ran == [] and other.id != pending.id, "stock takes it for no answer either, but drops the question"

    ours = Agent([PAY])
    async with staged(database, {"agent": batched(ours).compile()}) as stage:
        run_id = await waiting(stage)
        thread_id, before = (await stage.run(run_id)).thread_id, everything(database, run_id)
        with pytest.raises(Refusal) as refused:
            await start(stage.control, "agent", {"messages": [HumanMessage("yes, go on")]}, thread_id=thread_id)
        assert refused.value.problem.status == 409
        assert everything(database, run_id) == before and ours.ran == []


async def test_a_late_answer_is_told_who_decided_and_when(database: str) -> None:
    plain = Agent([PAY])
    stock = await asked(gated(plain))
    (pending,) = stock.get_state(STOCK).interrupts
    await stock.ainvoke(Command(resume={pending.id: [{"type": "ignore"}]}), STOCK)
    await stock.ainvoke(Command(resume={pending.id: [{"type": "accept"}]}), STOCK)
    assert plain.ran == [], "stock drops it, and says nothing"

    ours = Agent([PAY])
    async with staged(database, {"agent": gated(ours).compile()}) as stage:
        run_id = await waiting(stage)
        (shown,) = await open_of(stage, run_id)
        await decide(stage.control, run_id, Word.REJECTED, interrupt_id=shown.interrupt_id)
        await stage.until(run_id, "succeeded")
        before = everything(database, run_id)
        with pytest.raises(Refusal, match="tester rejected it at 20") as refused:
            await decide(stage.control, run_id, Word.APPROVED, interrupt_id=shown.interrupt_id)
        assert refused.value.problem.status == 409 and refused.value.facts["decided_by"] == "tester"
        assert everything(database, run_id) == before and ours.ran == []


async def test_a_call_that_was_refused_does_not_run_when_it_is_no_longer_gated(database: str) -> None:
    """Per call: the tool is stopped as it starts, the model learns why, and the run goes on."""
    plain = Agent([PAY])
    stock = await asked(per_call(plain))
    plain.when = lambda _: False
    await stock.ainvoke(Command(resume=REJECT), STOCK)
    assert plain.ran == [("pay", ("ACME", 40))], "stock runs what was rejected"

    ours = Agent([PAY])
    async with staged(database, {"agent": per_call(ours).compile()}) as stage:
        run_id = await waiting(stage)
        ours.when = lambda _: False
        await decide(stage.control, run_id, Word.REJECTED, note="too much")
        await stage.until(run_id, "succeeded")
        (told,) = [m for m in await messages(stage, run_id) if isinstance(m, ToolMessage)]
        assert ours.ran == [] and told.status == "error"
        assert str(told.content).startswith("tester refused the call of `pay` with reason: too much.")


async def test_of_two_equal_calls_the_one_that_was_refused_does_not_run(database: str) -> None:
    ours = Agent([PAY, PAY])
    async with staged(database, {"agent": per_call(ours).compile()}) as stage:
        run_id = await waiting(stage)
        first, second = await open_of(stage, run_id)
        ours.when = lambda _: False
        await pause(stage.control, run_id)  # so that both are decided before either runs
        await decide(stage.control, run_id, Word.REJECTED, interrupt_id=first.interrupt_id)
        await decide(stage.control, run_id, Word.APPROVED, interrupt_id=second.interrupt_id)
        await resume(stage.control, run_id)
        await stage.until(run_id, "succeeded")
        assert ours.ran == [("pay", ("ACME", 40))]
        told = {m.tool_call_id: m.status for m in await messages(stage, run_id) if isinstance(m, ToolMessage)}
        assert told[first.asks.actions[0].call_id] == "error" and sorted(told.values()) == ["error", "success"]


@pytest.mark.parametrize("build", [batched, gated])
async def test_a_step_that_passes_over_a_no_goes_no_further(build: Any, database: str) -> None:
    no: Any = {"decisions": [REJECT]} if build is batched else [{"type": "ignore"}]
    plain = Agent([PAY])
    stock = await asked(build(plain))
    plain.when = lambda _: False
    await stock.ainvoke(Command(resume=no), STOCK)
    assert [name for name, _ in plain.ran] == ["pay"], "stock runs what was rejected"

    ours = Agent([PAY])
    async with staged(database, {"agent": build(ours).compile()}) as stage:
        run_id = await waiting(stage)
        ours.when = lambda _: False
        await decide(stage.control, run_id, Word.REJECTED)
        said = await stage.until(run_id, "blocked", "succeeded", "failed")
        assert said.word == "blocked" and ours.ran == []
        assert any("went on without what a person decided" in sentence for sentence in said.because)
        await retry(stage.control, run_id)  # the condition is still another: the same again
        await stage.until(run_id, "blocked")
        assert ours.ran == []
        ours.when = lambda _: True
        await retry(stage.control, run_id)
        await stage.until(run_id, "succeeded")
        assert ours.ran == []


async def test_a_no_is_not_given_to_another_call(database: str) -> None:
    """The condition turns for two calls at once: the answers fit in number, and meet the wrong calls."""

    def first(call: Any) -> bool:
        return bool(call["name"] == "pay")

    def second(call: Any) -> bool:
        return bool(call["name"] == "wipe")

    plain = Agent([PAY, WIPE], when=first)
    stock = await asked(batched(plain))
    plain.when = second
    await stock.ainvoke(Command(resume={"decisions": [REJECT]}), STOCK)
    assert plain.ran == [("pay", ("ACME", 40))], "stock runs what was rejected"

    ours = Agent([PAY, WIPE], when=first)
    async with staged(database, {"agent": batched(ours).compile()}) as stage:
        run_id = await waiting(stage)
        ours.when = second
        await decide(stage.control, run_id, Word.REJECTED)
        await stage.until(run_id, "succeeded")
        assert ours.ran == []
        told = [m for m in await messages(stage, run_id) if isinstance(m, ToolMessage)]
        assert {m.name: m.status for m in told} == {"pay": "error", "wipe": "error"}


async def test_each_action_of_a_batch_gets_its_own_decision(database: str) -> None:
    ours = Agent([PAY, WIPE, ("pay", {"to": "Bolt", "amount": 7}), ("wipe", {"customer": "Bolt"})])
    async with staged(database, {"agent": batched(ours).compile()}) as stage:
        run_id = await waiting(stage)
        edit = {"type": "edit", "edited_action": {"name": "pay", "args": {"to": "Bolt", "amount": 5}}}
        respond = {"type": "respond", "message": "It was deleted by hand."}
        await decide(stage.control, run_id, Word.APPROVED, decisions=["approve", REJECT, edit, respond])
        await stage.until(run_id, "succeeded")
        assert sorted(ours.ran) == [("pay", ("ACME", 40)), ("pay", ("Bolt", 5))]
        told = {m.tool_call_id: m.content for m in await messages(stage, run_id) if isinstance(m, ToolMessage)}
        assert told == {"call-0": "paid", "call-1": "no", "call-2": "paid", "call-3": "It was deleted by hand."}
        asking = next(m for m in await messages(stage, run_id) if isinstance(m, AIMessage))
        assert [call["args"].get("amount") for call in asking.tool_calls] == [40, None, 5, None]


async def test_an_edit_changes_the_arguments_that_are_named(database: str) -> None:
    ours = Agent([PAY])
    async with staged(database, {"agent": batched(ours).compile()}) as stage:
        run_id = await waiting(stage)
        await decide(stage.control, run_id, Word.APPROVED, edit={"amount": 5})
        await stage.until(run_id, "succeeded")
        assert ours.ran == [("pay", ("ACME", 5))]


async def test_a_client_of_the_older_shape_answers_the_newer(database: str) -> None:
    """Agent Inbox answers every graph with a list of one `HumanResponse`; stock LangGraph is stuck on it for good."""
    plain = Agent([PAY])
    stock = await asked(batched(plain))
    accept = [{"type": "accept", "args": None}]
    for given in (accept, {"decisions": [APPROVE]}):
        with pytest.raises(TypeError):
            await stock.ainvoke(Command(resume=given), STOCK)

    ours = Agent([PAY])
    async with staged(database, {"agent": batched(ours).compile()}) as stage:
        run_id = await waiting(stage)
        await decide(stage.control, run_id, Word.APPROVED, answer=accept)
        await stage.until(run_id, "succeeded")
        assert ours.ran == [("pay", ("ACME", 40))]
