"""Tool calls under the rules: an agent's own `ToolNode`, governed by two arguments of it.

Where it matters what plain LangGraph does, the same agent runs on it first, with its tools ungoverned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Send

from control.core.answer import Word
from control.core.problem import Refusal
from control.core.story import tell
from control.policy.cedar import default_text
from control.runtime.commands.decide import decide
from control.runtime.commands.pause import pause, resume
from control.runtime.commands.policy import apply, what_if
from control.runtime.commands.start import start
from control.sdk import Ask, Declared, Permit, aask_policy, ask_policy, govern_tools
from control.testing.stage import Stage, staged
from tests.decisions.agents import Agent, State, batched, gated
from tests.decisions.test_beside_stock import (
    APPROVE,
    PAY,
    STOCK,
    WIPE,
    asked,
    everything,
    messages,
    open_of,
    until_next,
    waiting,
)

ASK: Final = """
@id("large") @ask("treasurer") @why("Payments over 30 are agreed to first.")
forbid (principal, action == Action::"call_tool", resource == Tool::"pay")
when { context has numbers && context.numbers.hasTag("amount") && context.numbers.getTag("amount") > 30 };
"""
NEVER: Final = """
@id("no-wiping") @why("Customers are not deleted by agents.")
forbid (principal is Agent, action == Action::"call_tool", resource == Tool::"wipe");
"""
FROZEN: Final = """
@id("frozen") @why("Payments are frozen.")
forbid (principal, action == Action::"call_tool", resource == Tool::"pay");
"""
EVIL: Final = """
@id("frozen") @why("Nobody pays EVIL.")
forbid (principal, action == Action::"call_tool", resource == Tool::"pay")
when { context has texts && context.texts.hasTag("to") && context.texts.getTag("to") == "EVIL" };
"""
DECLARED: Final = {"pay": Declared(effect=True, risk="high", reversible=False)}


def governed(agent: Agent, declared: Any = DECLARED, *, apart: bool = False, governs: bool = True) -> Any:
    """One node for all calls of the model's turn, or a task for each."""
    wrappers: Any = govern_tools(declared) if governs else {}

    def each(state: State) -> list[Send]:
        said = state["messages"][-1]
        assert isinstance(said, AIMessage)
        return [Send("tools", [call]) for call in said.tool_calls]

    graph = StateGraph(State).add_node("model", agent.model).add_edge(START, "model")
    graph.add_node("tools", ToolNode(agent.tools(), **wrappers)).add_edge("tools", END)
    return graph.add_conditional_edges("model", each, ["tools"]) if apart else graph.add_edge("model", "tools")


async def rules(stage: Stage, *texts: str) -> None:
    await apply(stage.control, "".join((default_text(), *texts)))


async def told(stage: Stage, run_id: UUID) -> list[ToolMessage]:
    return [message for message in await messages(stage, run_id) if isinstance(message, ToolMessage)]


def judged(stage: Stage, run_id: UUID) -> list[tuple[str, str, list[str]]]:
    return [
        (entry.body["name"], entry.body["verdict"], entry.body["rules"])
        for entry in stage.ledger(run_id)
        if entry.kind == "judged"
    ]


async def finished(stage: Stage) -> UUID:
    run = await start(stage.control, "agent", {})
    await stage.until(run.run_id, "succeeded")
    return run.run_id


async def test_what_the_rules_permit_runs_and_is_on_record(database: str) -> None:
    agent = Agent([("pay", {"to": "ACME", "amount": 30})])
    async with staged(database, {"agent": governed(agent).compile()}) as stage:
        await rules(stage, ASK)
        run_id = await finished(stage)
        assert agent.ran == [("pay", ("ACME", 30))]
        assert judged(stage, run_id) == [("pay", "permit", ["agents-work"])]
        (entry,) = [entry for entry in stage.ledger(run_id) if entry.kind == "judged"]
        request = entry.body["request"]
        assert entry.actor == "agent:agent" and request["resource"]["attributes"]["risk"] == "high"
        assert request["context"] == {
            "workflow": "agent", "node": "tools", "started_by": "tester", "starter_roles": ["admin"],
            "numbers": {"amount": 30}, "texts": {"to": "ACME"},
        }  # fmt: skip
        assert [k for k in stage.kinds(run_id) if k.startswith("effect")] == ["effect_began", "effect_ended"]


async def test_what_the_rules_forbid_never_runs_and_the_model_is_told(database: str) -> None:
    plain = Agent([WIPE])
    await governed(plain, governs=False).compile().ainvoke({})
    assert plain.ran, "plain LangGraph has nobody to ask"

    agent = Agent([WIPE, ("pay", {"to": "ACME", "amount": 1})])
    async with staged(database, {"agent": governed(agent).compile()}) as stage:
        await rules(stage, NEVER)
        run_id = await finished(stage)
        assert agent.ran == [("pay", ("ACME", 1))]
        first, second = await told(stage, run_id)
        assert first.status == "error" and second.content == "paid"
        assert str(first.content) == (
            "The rules do not allow this call of `wipe`: Customers are not deleted by agents. (rules: no-wiping) "
            "It was not executed. Do not retry it unless the user explicitly requests it."
        )
        assert judged(stage, run_id)[0] == ("wipe", "deny", ["no-wiping"])
        story = [sentence.text for sentence in tell(stage.ledger(run_id))]
        assert "The agent was not let use wipe: Customers are not deleted by agents." in story


async def test_the_rules_see_a_call_as_the_tool_takes_it(database: str) -> None:
    """A number that the model writes as a text is a number to the tool, and so to the rules."""
    agent = Agent([("pay", {"to": "ACME", "amount": "1000"})])
    async with staged(database, {"agent": governed(agent).compile()}) as stage:
        await rules(stage, ASK)
        run_id = await waiting(stage)
        (asked,) = await open_of(stage, run_id)
        assert asked.asks.value["action"] == {"name": "pay", "args": {"to": "ACME", "amount": 1000}}
        assert agent.ran == []


async def test_arguments_that_the_tool_does_not_take_are_sent_back(database: str) -> None:
    agent = Agent([("pay", {"to": "ACME", "amount": "much"})])
    async with staged(database, {"agent": governed(agent).compile()}) as stage:
        run_id = await finished(stage)
        (message,) = await told(stage, run_id)
        assert message.status == "error" and "The arguments of `pay` are not right: amount:" in str(message.content)
        assert agent.ran == [] and judged(stage, run_id) == []


async def test_a_call_that_needs_leave_waits_for_it_through_restarts_and_runs_once(database: str) -> None:
    agent = Agent([PAY])
    async with staged(database, {"agent": governed(agent).compile()}, work=False) as stage:
        await rules(stage, ASK)
        async with stage.working():
            run_id = await waiting(stage)
        (asked,) = await open_of(stage, run_id)
        packet = asked.asks
        assert packet.title == "Call pay?" and packet.risk == "high" and packet.reversible is False
        assert packet.rules == ("large",) and packet.gate == {"roles": ["treasurer"]}
        with pytest.raises(Refusal, match="It takes the role treasurer; tester has the role admin") as refused:
            await decide(stage.control, run_id, Word.APPROVED)
        assert refused.value.code == "not-entitled"
        await decide(stage.acting("treasurer", "approver", id="tina"), run_id, Word.APPROVED)
        async with stage.working():
            await stage.until(run_id, "succeeded")
        assert agent.ran == [("pay", ("ACME", 40))]
        assert judged(stage, run_id) == [("pay", "ask", ["large"])], "asked once, and read again from then on"
        (began,) = [entry for entry in stage.ledger(run_id) if entry.kind == "effect_began"]
        assert began.body["guarded_by"] == asked.interrupt_id


async def test_a_refused_call_does_not_run_when_the_rules_change_meanwhile(database: str) -> None:
    agent = Agent([PAY])
    async with staged(database, {"agent": governed(agent).compile()}) as stage:
        await rules(stage, ASK)
        run_id = await waiting(stage)
        await rules(stage)
        by = stage.acting("treasurer", "approver", id="tina")
        await decide(by, run_id, Word.REJECTED, note="too much")
        await stage.until(run_id, "succeeded")
        (message,) = await told(stage, run_id)
        assert agent.ran == [] and message.status == "error"
        assert str(message.content).startswith("tina refused the call of `pay` with reason: too much. It was not exec")


async def test_a_yes_to_what_the_rules_forbid_by_now_is_stale(database: str) -> None:
    agent = Agent([PAY])
    async with staged(database, {"agent": governed(agent).compile()}) as stage:
        await rules(stage, ASK)
        run_id = await waiting(stage)
        await rules(stage, ASK, FROZEN)
        with pytest.raises(Refusal, match="Policy on call_tool of pay by agent:agent: to be asked first became") as no:
            await decide(stage.acting("treasurer", "approver", id="tina"), run_id, Word.APPROVED)
        assert no.value.code == "answer-stale"
        await stage.until(run_id, "succeeded")
        (message,) = await told(stage, run_id)
        assert agent.ran == [] and "The approval of `pay` does not stand: policy on call_tool" in str(message.content)


async def test_a_yes_is_held_against_the_rules_when_the_call_starts(database: str) -> None:
    agent = Agent([PAY])
    async with staged(database, {"agent": governed(agent).compile()}) as stage:
        await rules(stage, ASK)
        run_id = await waiting(stage)
        await pause(stage.control, run_id)
        await decide(stage.acting("treasurer", "approver", id="tina"), run_id, Word.APPROVED)
        await rules(stage, ASK, FROZEN)
        await resume(stage.control, run_id)
        await stage.until(run_id, "succeeded")
        (message,) = await told(stage, run_id)
        assert agent.ran == [] and "Payments are frozen." in str(message.content)
        assert "effect_began" not in stage.kinds(run_id) and "stale" in stage.kinds(run_id)


async def test_a_permit_is_held_against_the_rules_when_its_node_goes_on(database: str) -> None:
    """What is permitted waits for its neighbour's question, and nothing of the node runs before."""
    agent = Agent([("pay", {"to": "ACME", "amount": 1}), PAY])
    async with staged(database, {"agent": governed(agent).compile()}) as stage:
        await rules(stage, ASK)
        run_id = await waiting(stage)
        assert agent.ran == []
        await rules(stage, ASK, FROZEN)
        await decide(stage.acting("treasurer", "approver", id="tina"), run_id, Word.REJECTED)
        await stage.until(run_id, "succeeded")
        small, large = await told(stage, run_id)
        assert agent.ran == []
        assert "The rules have changed since it was permitted. Payments are frozen." in str(small.content)
        assert str(large.content).startswith("tina refused the call")


@pytest.mark.parametrize("apart", [False, True], ids=["one node", "a task each"])
async def test_each_call_has_its_own_approval(apart: bool, database: str) -> None:
    agent = Agent([PAY, ("pay", {"to": "EVIL", "amount": 90})])
    async with staged(database, {"agent": governed(agent, apart=apart).compile()}) as stage:
        await rules(stage, ASK)
        run_id, by = await waiting(stage), stage.acting("treasurer", "approver", id="tina")
        for _ in range(2):
            shown, *_rest = await open_of(stage, run_id)
            word = Word.APPROVED if shown.asks.value["action"]["args"]["to"] == "ACME" else Word.REJECTED
            await decide(by, run_id, word, interrupt_id=shown.interrupt_id)
            if not apart and word is Word.APPROVED:
                await until_next(stage, run_id, shown)
        await stage.until(run_id, "succeeded")
        assert agent.ran == [("pay", ("ACME", 40))]
        assert sorted(message.status for message in await told(stage, run_id)) == ["error", "success"]


async def test_an_approver_changes_the_arguments_within_the_schema_and_the_rules(database: str) -> None:
    agent = Agent([PAY])
    async with staged(database, {"agent": governed(agent).compile()}) as stage:
        await rules(stage, ASK)
        run_id, by = await waiting(stage), stage.acting("treasurer", "approver", id="tina")
        before = everything(database, run_id)
        for wrong in ({"amount": 35}, {"to": "ACME", "amount": "much"}, {"to": "ACME", "amount": 1, "more": 2}):
            with pytest.raises(Refusal) as refused:
                await decide(by, run_id, Word.APPROVED, answer={"args": wrong})
            assert refused.value.code == "answer-invalid" and everything(database, run_id) == before
        await decide(by, run_id, Word.APPROVED, answer={"args": {"to": "ACME", "amount": 35}})
        await stage.until(run_id, "succeeded")
        assert agent.ran == [("pay", ("ACME", 35))]
        assert judged(stage, run_id) == [("pay", "ask", ["large"])] * 2


async def test_an_edit_that_the_rules_forbid_does_not_run(database: str) -> None:
    agent = Agent([PAY])
    async with staged(database, {"agent": governed(agent).compile()}) as stage:
        await rules(stage, ASK, EVIL)
        run_id, by = await waiting(stage), stage.acting("treasurer", "approver", id="tina")
        await decide(by, run_id, Word.APPROVED, answer={"args": {"to": "EVIL", "amount": 40}})
        await stage.until(run_id, "succeeded")
        (message,) = await told(stage, run_id)
        assert agent.ran == [] and "(rules: frozen)" in str(message.content)


async def test_a_retry_keeps_its_verdict_and_its_approval(database: str) -> None:
    """The bank is away at the first call: the attempt fails, and the next finds both, though the rules are others."""
    agent = Agent([PAY])
    calls: list[Any] = []

    @tool
    def pay(to: str, amount: int) -> str:
        """Pay somebody."""
        calls.append(amount)
        if len(calls) == 1:
            raise ConnectionError("the bank is away")
        return "paid"

    graph = StateGraph(State).add_node("model", agent.model).add_edge(START, "model").add_edge("model", "tools")
    graph.add_node("tools", ToolNode([pay], **govern_tools(DECLARED))).add_edge("tools", END)
    async with staged(database, {"agent": graph.compile()}) as stage:
        await rules(stage, ASK)
        run_id = await waiting(stage)
        await rules(stage, ASK, NEVER)
        await decide(stage.acting("treasurer", "approver", id="tina"), run_id, Word.APPROVED)
        await stage.until(run_id, "succeeded")
        (message,) = await told(stage, run_id)
        assert calls == [40, 40] and message.content == "paid"
        assert judged(stage, run_id) == [("pay", "ask", ["large"])]
        assert [entry.body["call"] for entry in stage.ledger(run_id) if entry.kind == "effect_began"] == [1, 2]


async def test_a_verdict_is_of_one_intent_alone(database: str) -> None:
    """A node that is run again with other arguments, since a model in it said something else, is judged again."""
    amounts, said = [20, 90], list[Any]()

    async def pay(_: State) -> State:
        said.append(await aask_policy("call_tool", "pay", args={"amount": amounts[len(said)]}))
        if len(said) == 1:
            raise ConnectionError("the bank is away")
        return {}

    graph = StateGraph(State).add_node("pay", pay).add_edge(START, "pay")
    async with staged(database, {"agent": graph.compile()}) as stage:
        await rules(stage, ASK)
        run_id = await finished(stage)
        assert isinstance(said[0], Permit) and isinstance(said[1], Ask)
        assert [verdict for _, verdict, _ in judged(stage, run_id)] == ["permit", "ask"]


async def test_a_wrapper_that_would_stop_the_loop_lets_nothing_through(database: str) -> None:
    """Given alone, the synchronous wrapper is called on the worker's own loop."""
    agent = Agent([PAY])
    wrapper: Any = govern_tools()["wrap_tool_call"]
    graph = StateGraph(State).add_node("model", agent.model).add_edge(START, "model").add_edge("model", "tools")
    graph.add_node("tools", ToolNode(agent.tools(), wrap_tool_call=wrapper)).add_edge("tools", END)
    async with staged(database, {"agent": graph.compile()}) as stage:
        run = await start(stage.control, "agent", {})
        status = await stage.until(run.run_id, "blocked", "failed", "succeeded")
        assert status.word != "succeeded" and agent.ran == []
        assert any("A synchronous effect cannot be recorded from here" in sentence for sentence in status.because)


async def test_what_if_decides_tool_calls_again(database: str) -> None:
    agent = Agent([("pay", {"to": "ACME", "amount": 20})])
    async with staged(database, {"agent": governed(agent).compile()}) as stage:
        run_id = await finished(stage)
        found = await what_if(stage.control, default_text() + FROZEN, days=1)
        assert [(d.run_id, d.actor, d.action, d.was, d.would) for d in found.differences] == [
            (run_id, "agent:agent", "call_tool", "permit", "deny")
        ]


async def test_a_secret_in_the_arguments_stays_out_of_the_ledger(database: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("BANK_PASSWORD", "hunter2-hunter2")
    agent = Agent([("pay", {"to": "hunter2-hunter2", "amount": 1})])
    async with staged(database, {"agent": governed(agent).compile()}, redact=["BANK_PASSWORD"]) as stage:
        run_id = await finished(stage)
        assert agent.ran == [("pay", ("hunter2-hunter2", 1))]
        assert "hunter2" not in str(everything(database, run_id))


async def test_plans_and_their_tasks_are_asked_about(database: str) -> None:
    small = """
    @id("small-plans") @why("Plans of more than 5 tasks are looked at.") @ask("planner")
    forbid (principal, action == Action::"propose_plan", resource) when { context.tasks > 5 };
    """
    said: list[Any] = []

    async def plan(_: State) -> State:
        said.append(await aask_policy("propose_plan", "trip", tasks=6, budget_usd=10))
        said.append(await aask_policy("plan_task", "book", args={"nights": 2}))
        return {}

    def again(_: State) -> State:
        said.append(ask_policy("propose_plan", "trip", tasks=5, budget_usd=10.001))
        return {}

    graph = StateGraph(State).add_sequence([plan, again]).add_edge(START, "plan")
    await graph.compile().ainvoke({})
    assert [verdict.rules for verdict in said] == [("no-policy",)] * 3, "plain LangGraph has no rules"
    said.clear()
    async with staged(database, {"agent": graph.compile()}) as stage:
        await rules(stage, small)
        run_id = await finished(stage)
        asks, task, permits = said
        assert isinstance(asks, Ask) and asks.of == ("planner",) and isinstance(task, Permit)
        assert isinstance(permits, Permit)
        entries = [entry.body for entry in stage.ledger(run_id) if entry.kind == "judged"]
        assert [body["request"]["context"].get("budget_cents") for body in entries] == [1000, None, 1001]


@pytest.mark.parametrize("words", [["approve"], ["reject"]])
def test_in_plain_langgraph_calls_run_and_those_marked_interrupt(words: Sequence[str]) -> None:
    agent = Agent([WIPE, PAY])
    graph = governed(agent, {"pay": Declared(ask=True)}).compile(checkpointer=InMemorySaver())
    graph.invoke({}, STOCK)
    (asked,) = graph.get_state(STOCK).interrupts
    assert asked.value["action"] == {"name": "pay", "args": {"to": "ACME", "amount": 40}} and agent.ran == []
    graph.invoke(Command(resume={"decision": words[0]}), STOCK)
    assert sorted(name for name, _ in agent.ran) == (["pay", "wipe"] if words == ["approve"] else ["wipe"])


@pytest.mark.parametrize("build", [batched, gated])
async def test_what_a_rule_forbids_no_approver_of_an_unchanged_graph_lets_through(build: Any, database: str) -> None:
    """Its own shape has no word for an answer that is out of date: it is told no, and held to it."""
    plain = Agent([PAY])
    stock = await asked(build(plain))
    await stock.ainvoke(Command(resume=[{"type": "accept"}] if build is gated else {"decisions": [APPROVE]}), STOCK)
    assert plain.ran, "stock has no rules"

    agent = Agent([PAY])
    async with staged(database, {"agent": build(agent).compile()}) as stage:
        run_id = await waiting(stage)
        await rules(stage, FROZEN)
        with pytest.raises(Refusal, match="Payments are frozen") as refused:
            await decide(stage.control, run_id, Word.APPROVED)
        assert refused.value.code == "answer-stale"
        await stage.until(run_id, "succeeded")
        assert agent.ran == []
