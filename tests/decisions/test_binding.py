"""A decision binds what was shown: what has moved since makes it stale. Each beside plain LangGraph's own."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from control.core.answer import Word
from control.core.problem import Refusal
from control.policy.cedar import default_text
from control.runtime.commands.decide import decide
from control.runtime.commands.facts import listed, set_fact
from control.runtime.commands.policy import apply
from control.runtime.commands.rewind import rewind
from control.runtime.commands.start import start
from control.store.questions import Approval, open_approvals
from control.testing.clock import advance
from control.testing.stage import Stage, staged
from tests.decisions.paying import HOUR, Till, paying, plainly

STOCK: Any = {"configurable": {"thread_id": "t"}}
YES: Any = {"decision": "approve"}
INSTANT = timedelta(microseconds=1)
NO_APPROVERS = '@id("nobody") forbid (principal in Role::"approver", action == Action::"approve", resource);'


async def stock_asks(till: Till) -> Any:
    """Plain LangGraph's graph, up to its question about 40."""
    graph = plainly(till).compile(checkpointer=InMemorySaver())
    await graph.ainvoke({}, STOCK)
    (asked,) = graph.get_state(STOCK).interrupts
    assert asked.value["action"]["amount"] == 40
    return graph


async def stock_takes(graph: Any, answer: Any = YES) -> None:
    """Plain LangGraph takes the answer, and has nothing left to ask."""
    await graph.ainvoke(Command(resume=answer), STOCK)
    assert not graph.get_state(STOCK).next and not graph.get_state(STOCK).interrupts


async def asked(stage: Stage, run_id: UUID) -> Approval:
    await stage.until(run_id, "awaiting_approval")
    async with stage.control.transaction() as conn:
        (question,) = await open_approvals(conn, await stage.run(run_id))
    return question


async def waiting(stage: Stage) -> tuple[UUID, Approval]:
    run = await start(stage.control, "pay", {})
    return run.run_id, await asked(stage, run.run_id)


async def refused(stage: Stage, run_id: UUID, question: Approval, *, by: Any = None) -> Refusal:
    with pytest.raises(Refusal) as told:
        await decide(by or stage.control, run_id, Word.APPROVED, interrupt_id=question.interrupt_id)
    assert told.value.problem.status == 409, told.value
    return told.value


async def agree(stage: Stage, run_id: UUID, question: Approval) -> None:
    await decide(stage.control, run_id, Word.APPROVED, interrupt_id=question.interrupt_id)


async def moves(till: Till, **to: Any) -> None:
    for name, value in to.items():
        setattr(till, name, value)


def stale(stage: Stage, run_id: UUID) -> list[Any]:
    return [entry.body for entry in stage.ledger(run_id) if entry.kind == "stale"]


async def test_a_yes_to_a_fact_that_has_moved_is_refused_and_asked_again(database: str) -> None:
    plain = Till()
    stock = await stock_asks(plain)
    plain.price = 50
    await stock_takes(stock)
    assert plain.paid == [50], "stock pays what nobody was shown"
    till = Till()
    async with staged(database, {"pay": paying(till).compile()}) as stage:
        await set_fact(stage.control, "price", 40)
        run_id, question = await waiting(stage)
        await set_fact(stage.control, "price", 50)
        told = await refused(stage, run_id, question)
        assert told.code == "answer-stale" and told.why == "Fact price: 40 became 50."
        assert told.facts["moved"] == [{"what": "fact", "name": "price", "was": "40", "now": "50"}]
        again = await asked(stage, run_id)
        assert again.interrupt_id != question.interrupt_id and again.asks.fresh == {"price": 50}
        assert "price: 40 became 50" in (await refused(stage, run_id, question)).why, "the first is closed for good"
        assert till.paid == []
        await agree(stage, run_id, again)
        await stage.until(run_id, "succeeded")
        assert till.paid == [50] and len(stale(stage, run_id)) == 1


async def test_a_fact_that_moves_after_the_yes_stops_the_effect(database: str) -> None:
    plain = Till()
    plain.before = partial(moves, plain, price=50)
    await stock_takes(await stock_asks(plain))
    assert plain.price == 50 and plain.paid == [40], "stock pays at a price that is no more"
    till = Till()
    async with staged(database, {"pay": paying(till).compile()}) as stage:
        await set_fact(stage.control, "price", 40)
        run_id, question = await waiting(stage)
        till.before = lambda: set_fact(stage.control, "price", 50)
        await agree(stage, run_id, question)
        again = await asked(stage, run_id)
        assert again.asks.value["action"]["amount"] == 40, "the node had read it before it moved"
        assert till.paid == [] and [entry["found"] for entry in stale(stage, run_id)] == ["effect"]
        await refused(stage, run_id, again)
        newest = await asked(stage, run_id)
        await agree(stage, run_id, newest)
        await stage.until(run_id, "succeeded")
        assert till.paid == [50]


async def test_an_old_yes_does_not_come_back_with_the_old_fact(database: str) -> None:
    """It moved, was asked about again and refused, and moved back: the no stands."""
    till = Till()
    async with staged(database, {"pay": paying(till).compile()}) as stage:
        await set_fact(stage.control, "price", 40)
        run_id, question = await waiting(stage)
        till.before = lambda: set_fact(stage.control, "price", 50)
        await agree(stage, run_id, question)
        again = await asked(stage, run_id)
        await set_fact(stage.control, "price", 40)
        await decide(stage.control, run_id, Word.REJECTED, interrupt_id=again.interrupt_id)
        await stage.until(run_id, "succeeded")
        assert till.paid == []


async def test_what_was_shown_holds_for_its_time(database: str) -> None:
    plain = Till({"valid_for": INSTANT})
    await stock_takes(await stock_asks(plain))
    assert plain.paid == [40], "to stock, what was shown holds for ever"
    till = Till({"valid_for": HOUR})
    async with staged(database, {"pay": paying(till).compile()}) as stage:
        await set_fact(stage.control, "price", 40)
        run_id, question = await waiting(stage)
        await advance(database, timedelta(minutes=61))
        told = await refused(stage, run_id, question)
        assert told.code == "answer-stale" and told.why.startswith("Time valid_for: valid until ")
        again = await asked(stage, run_id)
        till.before = lambda: advance(database, HOUR)
        await agree(stage, run_id, again)
        last = await asked(stage, run_id)
        assert till.paid == []
        await agree(stage, run_id, last)
        await stage.until(run_id, "succeeded")
        assert till.paid == [40]


async def test_a_late_yes_is_refused(database: str) -> None:
    plain = Till({"expires_in": INSTANT})
    await stock_takes(await stock_asks(plain))
    assert plain.paid == [40], "stock has no end of a question's time"
    till = Till({"expires_in": HOUR})
    async with staged(database, {"pay": paying(till).compile()}) as stage:
        run_id, question = await waiting(stage)
        await advance(database, HOUR)
        told = await refused(stage, run_id, question)
        assert told.code in ("answer-late", "already-decided")
        await stage.until(run_id, "succeeded")
        assert till.paid == []


async def test_a_yes_is_judged_by_the_policy_in_force(database: str) -> None:
    plain = Till({"roles": ["approver"]})
    await stock_takes(await stock_asks(plain), YES | {"by": "mallory"})
    assert plain.paid == [40], "stock takes the answer of anybody, whoever was to give it"
    till = Till({"fresh": None})
    async with staged(database, {"pay": paying(till).compile()}) as stage:
        run_id, question = await waiting(stage)
        await apply(stage.control, default_text() + NO_APPROVERS)
        told = await refused(stage, run_id, question, by=stage.acting("approver"))
        assert told.code == "answer-stale" and "permitted became" in told.why and "nobody" in told.facts["rules"]
        assert till.paid == [] and (await stage.status(run_id)).word == "awaiting_approval"


async def test_a_policy_that_moves_after_the_yes_stops_the_effect(database: str) -> None:
    plain = Till({"roles": ["approver"]})
    plain.before = partial(moves, plain, args={"roles": []})
    await stock_takes(await stock_asks(plain))
    assert plain.args == {"roles": []} and plain.paid == [40], "stock pays by a rule that is no more"
    till = Till({"fresh": None})
    async with staged(database, {"pay": paying(till).compile()}) as stage:
        run_id, question = await waiting(stage)
        till.before = lambda: apply(stage.control, default_text() + NO_APPROVERS)
        await decide(stage.acting("approver"), run_id, Word.APPROVED, interrupt_id=question.interrupt_id)
        again = await asked(stage, run_id)
        assert till.paid == [] and stale(stage, run_id)[0]["moved"][0]["what"] == "policy"
        await agree(stage, run_id, again)
        await stage.until(run_id, "succeeded")
        assert till.paid == [40]


async def test_an_early_vote_that_policy_takes_back_does_not_count(database: str) -> None:
    till = Till({"fresh": None, "quorum": 2})
    async with staged(database, {"pay": paying(till).compile()}) as stage:
        run_id, question = await waiting(stage)
        await decide(stage.acting("approver"), run_id, Word.APPROVED, interrupt_id=question.interrupt_id)
        await apply(stage.control, default_text() + NO_APPROVERS)
        told = await refused(stage, run_id, question)
        assert told.why.startswith("Policy on approve by somebody: permitted became ")
        await asked(stage, run_id)
        assert till.paid == []


async def test_a_yes_to_a_head_that_has_moved_is_refused(database: str) -> None:
    plain = Till()
    stock = await stock_asks(plain)
    (shown,) = stock.get_state(STOCK).interrupts
    await stock.aupdate_state(stock.get_state(STOCK).config, None, as_node="__copy__")
    plain.price = 50
    await stock.ainvoke(None, STOCK)
    (other,) = stock.get_state(STOCK).interrupts
    await stock_takes(stock)
    assert other.id != shown.id and plain.paid == [50], "stock gives the yes to the question that is asked by now"
    till = Till()
    async with staged(database, {"pay": paying(till).compile()}) as stage:
        run_id, question = await waiting(stage)
        await rewind(stage.control, run_id)
        again = await asked(stage, run_id)
        told = await refused(stage, run_id, question)
        assert told.code == "answer-stale" and "Head pay: asked became no longer asked since" in told.why
        assert again.interrupt_id != question.interrupt_id and till.paid == []
        assert await asked(stage, run_id) == again


async def test_an_approval_is_spent_on_one_effect(database: str) -> None:
    plain = Till(effects=("pay", "pay twice"))
    await stock_takes(await stock_asks(plain))
    assert plain.paid == [40, 40], "stock pays as often as it is told to"
    till = Till(effects=("pay", "pay twice"))
    async with staged(database, {"pay": paying(till).compile()}) as stage:
        await set_fact(stage.control, "price", 40)
        run_id, question = await waiting(stage)
        await agree(stage, run_id, question)
        status = await stage.until(run_id, "failed")
        assert till.paid == [40] and "used for 'pay'; this is 'pay twice'" in str(status.because)
        began = [entry.body for entry in stage.ledger(run_id) if entry.kind == "effect_began"]
        assert [body["guarded_by"] for body in began] == [question.interrupt_id]


async def test_a_retry_under_the_same_key_uses_the_approval_it_spent(database: str) -> None:
    till = Till(away=1)
    async with staged(database, {"pay": paying(till).compile()}) as stage:
        await set_fact(stage.control, "price", 40)
        run_id, question = await waiting(stage)
        await agree(stage, run_id, question)
        await until_retried(stage, database, run_id)
        assert till.paid == [40]
        began = [entry.body for entry in stage.ledger(run_id) if entry.kind == "effect_began"]
        assert [(body["call"], body["guarded_by"]) for body in began] == [(n, question.interrupt_id) for n in (1, 2)]


async def until_retried(stage: Stage, conninfo: str, run_id: UUID) -> None:
    """Through the wait before the retry."""
    while (await stage.until(run_id, "waiting", "succeeded")).word != "succeeded":
        await advance(conninfo, HOUR)
        await stage.until(run_id, "succeeded")


async def test_only_who_may_says_what_a_fact_is(database: str) -> None:
    async with staged(database, {}, work=False) as stage:
        with pytest.raises(Refusal) as told:
            await set_fact(stage.acting("approver"), "price", 1)
        assert told.value.code == "not-permitted" and await listed(stage.control) == []
        await set_fact(stage.acting("service"), "price", {"eur": 1})
        assert [(fact.name, fact.value) for fact in await listed(stage.control)] == [("price", '{"eur": 1}')]
        for name, value in (("", 1), ("x", "y" * 70_000)):
            with pytest.raises(Refusal) as told:
                await set_fact(stage.control, name, value)
            assert told.value.code == "fact-invalid"
