"""What a script can do to a thread past the commands, while a person is asked: nothing that makes the action run."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, StateUpdate

from control.core.problem import Refusal
from control.runtime.commands.facts import set_fact
from control.runtime.commands.start import start
from control.sdk import approval
from control.testing.stage import staged
from tests.decisions.paying import State, Till, paying

STOCK: Any = {"configurable": {"thread_id": "t"}}
YES: Any = {"decision": "approve"}


def two_steps(till: Till) -> Any:
    """It asks whether it may pay, and pays in the next node, as graphs without a control plane do."""

    async def ask(state: State) -> Command[Any]:
        decision = approval("Pay?", action={"pay": 40}, on_yes="Paid.", on_no="Not paid.")
        return Command(goto="pay" if decision.approved else END)

    async def pay(_: State) -> State:
        till.paid.append(40)
        return {}

    return StateGraph(State).add_node("ask", ask).add_node("pay", pay).add_edge(START, "ask")


DOORS: Any = {
    "update_state as the node that asks": lambda g, at: g.aupdate_state(at, Command(goto="pay"), as_node="ask"),
    "update_state as the start": lambda g, at: g.aupdate_state(at, {"paid": 1}, as_node="__start__"),
    "supersteps": lambda g, at: g.abulk_update_state(at, [[StateUpdate(Command(goto="pay"), as_node="ask")]]),
    "goto": lambda g, at: g.ainvoke(Command(goto="pay"), at),
    "a new input": lambda g, at: g.ainvoke({}, at),
    "a plain answer": lambda g, at: g.ainvoke(Command(resume=YES), at),
}


@pytest.mark.parametrize("door", DOORS)
async def test_a_script_gets_nowhere_on_a_thread_of_the_workers(door: str, database: str) -> None:
    till = Till()
    async with staged(database, {"pay": two_steps(till).compile()}) as stage:
        run = await start(stage.control, "pay", {})
        await stage.until(run.run_id, "awaiting_approval")
        before = stage.kinds(run.run_id)
        script = two_steps(till).compile(checkpointer=stage.app.saver)
        at: Any = {"configurable": {"thread_id": run.thread_id}}
        with pytest.raises(Refusal) as told:
            await DOORS[door](script, at)
            await script.ainvoke(None, at)
        assert told.value.code == "claim-held" and told.value.problem.status == 409
        assert till.paid == [] and stage.kinds(run.run_id) == before
        assert (await stage.status(run.run_id)).word == "awaiting_approval"


async def test_stock_pays_through_each_of_them() -> None:
    paid = []
    for open_door in DOORS.values():
        till = Till()
        graph = two_steps(till).compile(checkpointer=InMemorySaver())
        await graph.ainvoke({}, STOCK)
        await open_door(graph, STOCK)
        await graph.ainvoke(None, STOCK)
        paid.append(till.paid)
    assert paid == [[40], [], [40], [40], [], [40]], "a node run again only asks again"


async def test_a_copy_of_a_waiting_thread_has_no_approval(database: str) -> None:
    """Whoever answers the copy past the commands has decided nothing: what a decision guards does not begin."""
    till = Till()
    async with staged(database, {"pay": paying(till).compile()}) as stage:
        await set_fact(stage.control, "price", 40)
        run = await start(stage.control, "pay", {})
        await stage.until(run.run_id, "awaiting_approval")
        await stage.app.saver.acopy_thread(run.thread_id, "copy")
        script = paying(till).compile(checkpointer=stage.app.saver)
        with pytest.raises(Refusal) as told:
            await script.ainvoke(Command(resume=YES), {"configurable": {"thread_id": "copy"}})
        assert told.value.code == "decision-missing" and till.paid == []


@pytest.mark.parametrize("roles", [["operator", "approver"], ["admin"]])
async def test_copying_and_deleting_take_permissions_of_their_own(roles: list[str], database: str) -> None:
    till = Till()
    async with staged(database, {"pay": paying(till).compile()}, local_roles=roles) as stage:
        run = await start(stage.control, "pay", {})
        await stage.until(run.run_id, "awaiting_approval")
        saver = stage.app.saver
        if roles == ["admin"]:
            await saver.acopy_thread(run.thread_id, "copy")
            await saver.adelete_thread("copy")
            with pytest.raises(Refusal) as told:
                await saver.adelete_thread(run.thread_id)
            assert told.value.code == "thread-busy"
            return
        for act in (saver.acopy_thread(run.thread_id, "copy"), saver.adelete_thread(run.thread_id),
                    saver.aprune([run.thread_id]), saver.adelete_for_runs([str(run.run_id)])):  # fmt: skip
            with pytest.raises(Refusal) as told:
                await act
            assert told.value.code == "not-permitted" and told.value.problem.status == 403
