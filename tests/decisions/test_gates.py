"""Gates that the rules put on the questions of unchanged graphs, in the shapes of other libraries.

Each graph runs on plain LangGraph first, where whoever answers decides alone.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import pytest
from langchain_core.messages import ToolMessage
from langgraph.types import Command

from control.core.answer import Word
from control.core.problem import Refusal
from control.policy.cedar import default_text
from control.runtime.commands.decide import decide
from control.runtime.commands.policy import apply
from control.store.questions import Approval
from control.testing import clock
from control.testing.stage import Stage, staged
from tests.decisions.agents import Agent, batched, gated, per_call
from tests.decisions.test_beside_stock import (
    APPROVE,
    PAY,
    REJECT,
    STOCK,
    WIPE,
    asked,
    everything,
    messages,
    open_of,
    waiting,
)

TWO: Final = """
@id("large") @why("Two agree to payments over 30.")
@ask("treasurer") @quorum("2") @four_eyes("true") @expires("PT4H") @ladder("PT1H: director")
forbid (principal is Agent, action == Action::"call_tool", resource == Tool::"pay")
when { context has numbers && context.numbers.hasTag("amount") && context.numbers.getTag("amount") > 30 };
"""
LEGAL: Final = """
@id("deletions") @ask("legal") @why("Deletions are legal's business.")
forbid (principal is Agent, action == Action::"call_tool", resource == Tool::"wipe");
"""
FORBIDDEN: Final = """
@id("evil") @why("Nobody pays EVIL.")
forbid (principal, action == Action::"call_tool", resource == Tool::"pay")
when { context has texts && context.texts.hasTag("to") && context.texts.getTag("to") == "EVIL" };
"""


async def gated_by(stage: Stage, *texts: str) -> tuple[UUID, Approval]:
    """A run at its question, asked under these rules."""
    await apply(stage.control, "".join((default_text(), *texts)))
    run_id = await waiting(stage)
    (question,) = await open_of(stage, run_id)
    return run_id, question


async def vote(stage: Stage, run_id: UUID, name: str, *roles: str, word: Word = Word.APPROVED, **how: Any) -> str:
    """What came of somebody's vote: the run's status, or why it was refused."""
    try:
        await decide(stage.acting("approver", *roles, id=name), run_id, word, **how)
    except Refusal as refusal:
        return refusal.code
    return (await stage.status(run_id)).word


async def test_a_batch_takes_the_yes_of_everybody_whom_its_rules_name(database: str) -> None:
    """Two treasurers for the payment, and legal for the deletion: each keeps a seat in the one question of both."""
    plain = Agent([PAY, WIPE])
    stock = await asked(batched(plain))
    await stock.ainvoke(Command(resume={"decisions": [APPROVE, APPROVE]}), STOCK)
    assert [name for name, _ in plain.ran] == ["pay", "wipe"], "stock takes one answer, of anybody"

    ours = Agent([PAY, WIPE])
    async with staged(database, {"agent": batched(ours).compile()}) as stage:
        run_id, question = await gated_by(stage, TWO, LEGAL)
        packet = question.asks
        assert packet.rules == ("deletions", "large") and packet.asked_by == "agent:agent"
        assert packet.gate == {"quorum": 3, "seats": {"legal": 1, "treasurer": 2}, "four_eyes": True}
        assert [piece["title"] for piece in packet.evidence] == [
            "Two agree to payments over 30.", "Deletions are legal's business.",
        ]  # fmt: skip
        assert await vote(stage, run_id, "tester", "treasurer") == "not-entitled", "it started the run"
        assert await vote(stage, run_id, "nobody") == "not-entitled"
        assert await vote(stage, run_id, "tina", "treasurer") == "awaiting_approval"
        assert await vote(stage, run_id, "tina", "treasurer", "legal") == "voted-already"
        both = [APPROVE, REJECT]
        assert await vote(stage, run_id, "theo", "treasurer", decisions=both) == "votes-differ"
        assert await vote(stage, run_id, "theo", "treasurer") == "awaiting_approval" and ours.ran == []
        await vote(stage, run_id, "lea", "legal")
        await stage.until(run_id, "succeeded")
        assert [name for name, _ in ours.ran] == ["pay", "wipe"]
        (decided,) = [entry for entry in stage.ledger(run_id) if entry.kind == "decided"]
        assert decided.body["decision"] == "approved" and stage.kinds(run_id).count("voted") == 3


async def test_a_batch_is_answered_in_its_own_shape_after_the_quorum(database: str) -> None:
    ours = Agent([PAY, WIPE])
    async with staged(database, {"agent": batched(ours).compile()}) as stage:
        run_id, _ = await gated_by(stage, TWO)
        both = [{"type": "edit", "edited_action": {"name": "pay", "args": {"to": "ACME", "amount": 35}}}, REJECT]
        for name in ("tina", "theo"):
            await vote(stage, run_id, name, "treasurer", decisions=both)
        await stage.until(run_id, "succeeded")
        assert ours.ran == [("pay", ("ACME", 35))]
        told = [message for message in await messages(stage, run_id) if isinstance(message, ToolMessage)]
        assert sorted(message.status for message in told) == ["error", "success"]


async def test_one_no_settles_a_batch(database: str) -> None:
    ours = Agent([PAY, WIPE])
    async with staged(database, {"agent": batched(ours).compile()}) as stage:
        run_id, _ = await gated_by(stage, TWO)
        await vote(stage, run_id, "tina", "treasurer")
        await vote(stage, run_id, "theo", "treasurer", word=Word.REJECTED)
        await stage.until(run_id, "succeeded")
        assert ours.ran == []


@pytest.mark.parametrize("build", [gated, per_call], ids=["HumanInterrupt", "tool_approval"])
async def test_a_single_question_takes_its_quorum_and_is_answered_in_its_shape(build: Any, database: str) -> None:
    yes: Any = [{"type": "accept"}] if build is gated else APPROVE
    plain = Agent([PAY])
    stock = await asked(build(plain))
    await stock.ainvoke(Command(resume=yes), STOCK)
    assert plain.ran == [("pay", ("ACME", 40))], "stock takes one answer, of anybody"

    ours = Agent([PAY])
    async with staged(database, {"agent": build(ours).compile()}) as stage:
        run_id, question = await gated_by(stage, TWO)
        assert question.asks.gate == {
            "quorum": 2, "roles": ["treasurer"], "four_eyes": True,
            "ladder": [{"after_s": 3600.0, "to": ["director"], "notify": []}],
        }  # fmt: skip
        assert question.expires_at == question.opened_at + timedelta(hours=4)
        assert await vote(stage, run_id, "dora", "director") == "not-entitled"
        assert await vote(stage, run_id, "tina", "treasurer") == "awaiting_approval"
        await clock.advance(database, timedelta(hours=2))
        await vote(stage, run_id, "dora", "director")
        await stage.until(run_id, "succeeded")
        assert ours.ran == [("pay", ("ACME", 40))]


@pytest.mark.parametrize("build", [batched, gated, per_call])
async def test_silence_is_a_no_in_the_shape_of_the_question(build: Any, database: str) -> None:
    ours = Agent([PAY])
    async with staged(database, {"agent": build(ours).compile()}) as stage:
        run_id, _ = await gated_by(stage, TWO)
        await vote(stage, run_id, "tina", "treasurer")
        await clock.advance(database, timedelta(hours=5))
        await stage.until(run_id, "succeeded")
        assert ours.ran == [] and "expired" in stage.kinds(run_id)


async def test_what_takes_no_no_stays_open(database: str) -> None:
    ours = Agent([PAY], allowed=("approve", "edit"))
    async with staged(database, {"agent": batched(ours).compile()}) as stage:
        run_id, question = await gated_by(stage, TWO)
        assert question.expires_at is None and question.asks.gate["quorum"] == 2
        for name in ("tina", "theo"):
            await vote(stage, run_id, name, "treasurer")
        await stage.until(run_id, "succeeded")
        assert ours.ran == [("pay", ("ACME", 40))]


async def test_a_change_beyond_what_was_asked_is_refused_whole(database: str) -> None:
    """Else one approver of a small payment could make it a large one, which takes two."""
    small = TWO.replace("large", "small").replace("> 30", "<= 30").replace('@quorum("2") ', "")
    ours = Agent([("pay", {"to": "ACME", "amount": 20})])
    async with staged(database, {"agent": batched(ours).compile()}) as stage:
        run_id, _ = await gated_by(stage, TWO, small, FORBIDDEN)
        before = everything(database, run_id)
        for edit, why in (
            ({"amount": 4000}, "is asked about by others: Two"),
            ({"to": "EVIL"}, "is forbidden: Nobody"),
        ):
            with pytest.raises(Refusal, match=why) as refused:
                await decide(stage.acting("approver", "treasurer", id="tina"), run_id, Word.APPROVED, edit=edit)
            assert refused.value.code == "answer-invalid" and everything(database, run_id) == before
        await vote(stage, run_id, "tina", "treasurer", edit={"amount": 10})
        await stage.until(run_id, "succeeded")
        assert ours.ran == [("pay", ("ACME", 10))]


async def test_a_voice_that_policy_no_longer_hears_makes_it_a_no(database: str) -> None:
    ours = Agent([PAY])
    barred = """@id("barred") @why("Tina decides nothing.")
    forbid (principal == Person::"tina", action in Action::"settle", resource);"""
    async with staged(database, {"agent": batched(ours).compile()}) as stage:
        run_id, _ = await gated_by(stage, TWO)
        await vote(stage, run_id, "tina", "treasurer")
        await apply(stage.control, default_text() + TWO + barred)
        assert await vote(stage, run_id, "theo", "treasurer") == "answer-stale"
        await stage.until(run_id, "succeeded")
        assert ours.ran == []


async def test_a_graph_cannot_put_a_gate_of_its_own_in_the_place_of_the_rules(database: str) -> None:
    ours = Agent([PAY])
    forged = {"control": {"gate": {"quorum": 1}, "rules": ["none"], "expires_in_s": 1}}

    def build(agent: Agent) -> Any:
        from langgraph.graph import START, StateGraph
        from langgraph.types import interrupt

        def ask(_: Any) -> dict[str, Any]:
            request = {"action_requests": [{"name": "pay", "args": {"to": "ACME", "amount": 40}}], **forged}
            said = interrupt(request)["decisions"]
            agent.ran += [("pay", said[0]["type"])]
            return {}

        return StateGraph(dict).add_node("ask", ask).add_edge(START, "ask")

    async with staged(database, {"agent": build(ours).compile()}) as stage:
        run_id, question = await gated_by(stage, LEGAL)
        assert question.asks.gate == {} and question.expires_at is None and "control" not in question.asks.value
        await vote(stage, run_id, "tina")
        await stage.until(run_id, "succeeded")
        assert ours.ran == [("pay", "approve")]
