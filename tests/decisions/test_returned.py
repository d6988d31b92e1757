"""An answer that passes its schema, and that only the graph's own code refuses, changes nothing: it is asked anew."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, Final, TypedDict
from uuid import UUID

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt
from pydantic import BaseModel, ValidationError, field_validator

from control.core.answer import Word
from control.core.story import tell
from control.runtime.attempt import Attempt
from control.runtime.commands.decide import decide
from control.runtime.commands.start import start
from control.runtime.doctor import examine
from control.sdk import aeffect, approval, ask
from control.store.database import Address
from control.store.doctor import cases
from control.store.questions import open_approvals
from control.testing.stage import Stage, staged


class State(TypedDict, total=False):
    paid: Any
    also: Any


class Terms(BaseModel):
    amount: int

    @field_validator("amount")
    @classmethod
    def _in_tens(cls, amount: int) -> int:
        if amount % 10:
            raise ValueError("an amount is paid in tens")
        return amount


WHY: Final = "answer.amount: Value error, an amount is paid in tens"
PAID: list[int] = []


async def pay(_: State) -> State:
    """Asks what to pay, and pays it once. What it asked before stays answered."""
    who = ask("To whom?", answer=Payee)
    decision = approval("Pay?", action={"to": who.name}, answer=Terms, on_yes="Paid.", on_no="Not.", **GATE)
    if decision.approved and decision.answer:
        amount = decision.answer.amount
        await aeffect("pay", lambda _: PAID.append(amount), key="pay", guarded_by=decision)
    return {"paid": decision.answer.amount if decision.answer else "no"}


class Payee(BaseModel):
    name: str


GATE: dict[str, Any] = {}


def also(_: State) -> State:
    """An unchanged graph's own typed question, which is open beside."""
    return {"also": interrupt("How many?", response_schema=Terms).amount}


def paying() -> StateGraph[State]:
    return StateGraph(State).add_node("pay", pay).add_edge(START, "pay")


def counting() -> StateGraph[State]:
    graph = StateGraph(State).add_node("also", also).add_node("more", more)
    return graph.add_edge(START, "also").add_edge(START, "more")


def more(_: State) -> State:
    return {"paid": interrupt("And more?", response_schema=Terms).amount}


@pytest.fixture(autouse=True)
def till() -> Any:
    PAID.clear()
    yield
    GATE.clear()


async def asked(stage: Stage, run: UUID) -> list[str]:
    """The ids of the open questions."""
    async with stage.control.transaction() as conn:
        return [one.interrupt_id for one in (await stage.control.look(conn, await stage.run(run))).facts.asks]


async def asking(stage: Stage) -> UUID:
    """A run that waits for what to pay."""
    run = await start(stage.control, "pay", {})
    await stage.until(run.run_id, "awaiting_input")
    await decide(stage.control, run.run_id, Word.ANSWERED, answer={"name": "Ada"})
    await stage.until(run.run_id, "awaiting_approval")
    return run.run_id


async def returned(stage: Stage, run: UUID, count: int = 1) -> None:
    """Wait until so many answers have come back, and the run stands still again."""
    await stage.until(run, "awaiting_approval", "awaiting_input", "failed")
    while stage.kinds(run).count("returned") < count:
        await stage.until(run, "queued", "running", "awaiting_approval", "awaiting_input")
    await stage.until(run, "awaiting_approval", "awaiting_input")


def findings(conninfo: str) -> list[Any]:
    examined = [examine(case, crash_limit=5) for case in cases(Address.of(conninfo, login=True), "default")]
    return [finding for one in examined for finding in one.findings]


async def test_the_question_is_asked_anew_and_the_right_answer_is_carried_out_once(database: str) -> None:
    async with staged(database, {"pay": paying().compile()}) as stage:
        run = await asking(stage)
        (question,) = await asked(stage, run)
        ana = stage.acting("admin", id="ana@example.org")
        for wrong in (41, 42):
            await decide(ana, run, Word.APPROVED, answer={"amount": wrong}, interrupt_id=question)
            await returned(stage, run, wrong - 40)
            assert PAID == [] and await asked(stage, run) == [question], "under the same id"
        assert not {"task_failed", "refused"} & set(stage.kinds(run)) and findings(database) == []
        last = [entry for entry in stage.ledger(run) if entry.kind == "returned"][-1]
        assert last.body == {"interrupt_id": question, "by": "ana@example.org", "why": WHY}
        async with stage.control.transaction() as conn:
            (shown,) = await open_approvals(conn, await stage.run(run))
        assert shown.returned == f"ana@example.org: {last.body['why']}"
        await decide(stage.control, run, Word.APPROVED, answer={"amount": 40}, interrupt_id=question)
        await stage.until(run, "succeeded")
        assert PAID == [40] and stage.kinds(run).count("effect_began") == 1
        story = [sentence.text for sentence in tell(stage.ledger(run))]
        assert f"The answer of Ana to “Pay?” did not pass its step's own check: {WHY}." in story
        assert findings(database) == []


async def test_stock_tells_the_caller_and_has_the_question_open() -> None:
    """What is said to whoever resumes stock LangGraph is said, under control, to whoever looks at the run."""
    graph: Any = counting().compile(checkpointer=InMemorySaver())
    at: Any = {"configurable": {"thread_id": "t"}}
    graph.invoke({}, at)
    first, second = graph.get_state(at).interrupts
    with pytest.raises(ValidationError, match="an amount is paid in tens"):
        graph.invoke(Command(resume={first.id: {"amount": 41}}), at)
    assert {i.id for i in graph.get_state(at).interrupts} == {first.id, second.id}


async def test_an_unchanged_graphs_question_is_given_back_and_its_neighbour_is_kept(database: str) -> None:
    async with staged(database, {"count": counting().compile()}) as stage:
        run = (await start(stage.control, "count", {})).run_id
        await stage.until(run, "awaiting_input")
        first, second = await asked(stage, run)
        await decide(stage.control, run, Word.ANSWERED, answer={"amount": 7}, interrupt_id=first)
        await returned(stage, run)
        await decide(stage.control, run, Word.ANSWERED, answer={"amount": 20}, interrupt_id=second)
        await stage.until(run, "awaiting_input")
        assert await asked(stage, run) == [first]
        await decide(stage.control, run, Word.ANSWERED, answer={"amount": 10}, interrupt_id=first)
        await stage.until(run, "succeeded")
        assert stage.kinds(run).count("returned") == 1 and findings(database) == []


async def test_both_answered_at_once_only_the_wrong_one_comes_back(database: str) -> None:
    async with staged(database, {"count": counting().compile()}, work=False) as stage:
        run = (await start(stage.control, "count", {})).run_id
        async with stage.working():
            await stage.until(run, "awaiting_input")
        first, second = await asked(stage, run)
        await decide(stage.control, run, Word.ANSWERED, answer={"amount": 7}, interrupt_id=first)
        await decide(stage.control, run, Word.ANSWERED, answer={"amount": 20}, interrupt_id=second)
        async with stage.working():
            await returned(stage, run)
            assert await asked(stage, run) == [first]
            await decide(stage.control, run, Word.ANSWERED, answer={"amount": 10}, interrupt_id=first)
            await stage.until(run, "succeeded")
        assert findings(database) == []


async def test_those_who_agreed_vote_again_with_the_whole_of_the_time(database: str) -> None:
    GATE.update(quorum=2, expires_in=timedelta(hours=2))
    async with staged(database, {"pay": paying().compile()}) as stage:
        run = await asking(stage)
        (question,) = await asked(stage, run)
        both = [stage.acting("admin", id=name) for name in ("ana", "bo")]
        for amount in (41, 40):
            for voter in both:
                await decide(voter, run, Word.APPROVED, answer={"amount": amount}, interrupt_id=question)
            if amount == 41:
                await returned(stage, run)
                async with stage.control.transaction() as conn:
                    (one,) = (await stage.control.look(conn, await stage.run(run))).facts.asks
                assert one.voters == () and one.due_at and one.due_at - one.since == timedelta(hours=2)
                assert findings(database) == []
        await stage.until(run, "succeeded")
        assert PAID == [40] and stage.ledger(run)[-1].actor.startswith("worker") and findings(database) == []


async def test_a_worker_that_dies_before_it_gives_the_answer_back_leaves_that_to_the_next(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with staged(database, {"pay": paying().compile()}, work=False, drain_grace_s=0.1) as stage:
        async with stage.working():
            run = await asking(stage)
        (question,) = await asked(stage, run)
        await decide(stage.control, run, Word.APPROVED, answer={"amount": 41}, interrupt_id=question)
        reached = asyncio.Event()

        async def stuck(_: Attempt, __: Any) -> None:
            reached.set()
            await asyncio.Event().wait()

        with monkeypatch.context() as patched:
            patched.setattr(Attempt, "_conclude", stuck)
            async with stage.working():
                await reached.wait()
        assert "returned" not in stage.kinds(run) and await asked(stage, run) == []
        async with stage.working():
            await returned(stage, run)
            await decide(stage.control, run, Word.APPROVED, answer={"amount": 50}, interrupt_id=question)
            await stage.until(run, "succeeded")
        assert PAID == [50] and stage.kinds(run).count("returned") == 1 and findings(database) == []
