"""What a script can do to a thread past the commands, while a person is asked: nothing that makes the action run."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, StateUpdate, interrupt

from control.core.action import Action
from control.core.principal import Principal
from control.core.problem import Refusal
from control.core.story import tell
from control.runtime.back_doors import permits
from control.runtime.commands.cancel import cancel
from control.runtime.commands.facts import set_fact
from control.runtime.commands.policy import apply
from control.runtime.commands.start import start
from control.sdk import approval
from control.testing.clock import advance
from control.testing.stage import staged
from tests.decisions.paying import HOUR, State, Till, paying
from tests.decisions.test_binding import stock_asks
from tests.decisions.test_returned import findings

STOCK: Any = {"configurable": {"thread_id": "t"}}
YES: Any = {"decision": "approve"}


def two_steps(till: Till, *, plain: bool = False) -> Any:
    """It asks whether it may pay, and pays in the next node, as graphs without a control plane do. plain: it asks as
    they do, too.
    """

    async def ask(state: State) -> Command[Any]:
        till.shown.append(40)
        if plain:
            return Command(goto="pay" if interrupt({"pay": 40})["decision"] == "approve" else END)
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
        graph = two_steps(till, plain=True).compile(checkpointer=InMemorySaver())
        await graph.ainvoke({}, STOCK)
        await open_door(graph, STOCK)
        await graph.ainvoke(None, STOCK)
        paid.append(till.paid)
    assert paid == [[40], [], [40], [40], [], [40]], "a node run again only asks again"


async def test_a_copy_of_a_waiting_thread_has_no_approval(database: str) -> None:
    """Whoever answers the copy past the commands has decided nothing: what a decision guards does not begin."""
    plain = Till()
    stock = await stock_asks(plain)
    await stock_copies(stock.checkpointer, "copy")
    for thread in ("t", "copy"):
        await stock.ainvoke(Command(resume=YES), {"configurable": {"thread_id": thread}})
    assert plain.paid == [40, 40], "stock pays for the copy of a question too"
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


async def stock_copies(saver: Any, thread: str) -> None:
    """Its savers have no copy: whoever holds one writes it."""
    found = await saver.aget_tuple(STOCK)
    there: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
    there = await saver.aput(there, found.checkpoint, found.metadata, found.checkpoint["channel_versions"])
    for task, channel, value in found.pending_writes:
        await saver.aput_writes(there, [(channel, value)], task)


async def test_stock_asks_nobody_before_it_deletes() -> None:
    till = Till()
    stock = await stock_asks(till)
    await stock.checkpointer.adelete_thread("t")
    assert not stock.get_state(STOCK).values and not stock.get_state(STOCK).interrupts, "the question is gone with it"
    await stock.ainvoke(Command(resume=YES), STOCK)
    assert till.paid == [] and stock.get_state(STOCK).interrupts, "who answers begins it anew, and is told nothing"


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
        refused = [entry.body["action"] for entry in stage.ledger(run.run_id) if entry.kind == "refused"]
        assert refused == ["copy_thread", "delete_thread"] and findings(database) == []


async def test_who_tries_again_and_again_does_not_fill_the_ledger(database: str) -> None:
    """The same refusal is on record once an hour; another action, another actor and another policy are another one."""
    async with staged(database, {"pay": paying(Till()).compile()}, local_roles=["operator"]) as stage:
        run = await start(stage.control, "pay", {})
        await stage.until(run.run_id, "awaiting_approval")
        await cancel(stage.control, run.run_id)
        before = len(stage.kinds(run.run_id))

        async def tries(principal: Principal, action: Action) -> list[str]:
            """Three times; the actors of all that is on record by now."""
            for _ in range(3):
                async with stage.control.transaction() as conn:
                    assert await permits(principal)(conn, action, [run.thread_id]) is not None
            return [entry.actor for entry in stage.ledger(run.run_id)[before:] if entry.kind == "refused"]

        ana, ben = (Principal(name, "default", roles=frozenset({"operator"})) for name in ("ana", "ben"))
        assert await tries(ana, Action.DELETE_THREAD) == ["ana"]
        assert await tries(ben, Action.DELETE_THREAD) == ["ana", "ben"]
        assert await tries(ana, Action.COPY_THREAD) == ["ana", "ben", "ana"]
        await apply(stage.control, only())
        assert await tries(ben, Action.DELETE_THREAD) == ["ana", "ben", "ana", "ben"]
        await advance(database, HOUR)
        assert await tries(ben, Action.DELETE_THREAD) == ["ana", "ben", "ana", "ben", "ben"]
        assert findings(database) == []


BESIDES: Any = DOORS | {
    "an input as an update": lambda g, at: g.aupdate_state(at, {"paid": 1}, as_node="__input__"),
    "to go on": lambda g, at: g.ainvoke(None, at),
}
NEEDS: Any = {
    "update_state as the node that asks": ["update_state"],
    "update_state as the start": ["update_state"],
    "supersteps": ["update_state"],
    "an input as an update": ["new_input"],
}
TOLD: Any = dict.fromkeys(BESIDES, "give its thread a new input") | {
    "update_state as the node that asks": "change its state by hand",
    "update_state as the start": "change its state by hand",
    "supersteps": "change its state by hand",
}
ENTERING: Any = ["new_input", "goto"]
"""What a graph needs that enters: which of the two it is about to do shows only when its first node has begun."""
BACK_DOORS: Any = {"update_state", "goto", "new_input", "supersteps", "copy_thread", "delete_thread"}


def only(*actions: str) -> str:
    """Rules under which those who operate may do these things besides."""
    given = ", ".join(f'Action::"{action}"' for action in ("read", "order", *actions))
    return f"""
    @id("some") @why("Some things.") permit (principal in Role::"operator", action in [{given}], resource);
    @id("all") @why("Everything.") permit (principal in Role::"admin", action, resource);
    """


async def test_a_thread_whose_run_has_ended_is_not_open_either(database: str) -> None:
    """The run was cancelled while it asked. Each door is a permission of its own, and without it no node begins."""
    till = Till()
    async with staged(database, {"pay": two_steps(till).compile()}, local_roles=["operator"]) as stage:
        script = two_steps(till).compile(checkpointer=stage.app.saver)
        for door, enter in BESIDES.items():
            run = await start(stage.control, "pay", {})
            await stage.until(run.run_id, "awaiting_approval")
            await cancel(stage.control, run.run_id)
            till.paid.clear()
            at: Any = {"configurable": {"thread_id": run.thread_id}}
            before = await script.aget_state(at), runs_on(database, run.thread_id)
            for missing in NEEDS.get(door, ENTERING):
                await apply(stage.control, only(*BACK_DOORS - {missing}))
                kinds = stage.kinds(run.run_id)
                with pytest.raises(Refusal, match=f"may not {missing.replace('_', ' ')}") as told:
                    await enter(script, at)
                assert told.value.code == "not-permitted" and told.value.problem.status == 403
                assert stage.kinds(run.run_id) == [*kinds, "refused"], "once, in the ledger of what has ended"
                assert stage.ledger(run.run_id)[-1].body["action"] == missing
                assert (await script.aget_state(at), runs_on(database, run.thread_id)) == before, door
                assert till.paid == [], door
            await apply(stage.control, only(*NEEDS.get(door, ENTERING)))
            await enter(script, at)
            assert runs_on(database, run.thread_id) == 2, "what is permitted is done, as a run of its own"
            assert (await stage.status(run.run_id)).word == "cancelled"
            said = [sentence.text for sentence in tell(stage.ledger(run.run_id))]
            assert any(text.endswith(f"was not let {TOLD[door]}: No rule permits it.") for text in said), said
        assert findings(database) == []


async def test_stock_asks_nobody_at_any_door() -> None:
    """Of a thread that was given up while it asked: each writes to it, or begins a node."""
    for door, enter in BESIDES.items():
        till = Till()
        graph = two_steps(till, plain=True).compile(checkpointer=InMemorySaver())
        await graph.ainvoke({}, STOCK)
        before = len(list(graph.get_state_history(STOCK))), len(till.shown)
        await enter(graph, STOCK)
        assert (len(list(graph.get_state_history(STOCK))), len(till.shown)) != before, door


async def test_stock_opens_every_door_of_what_has_ended() -> None:
    """Stock knows of no end: whatever the graph was told while it asked, the next call goes on with it."""
    till = Till()
    graph = two_steps(till, plain=True).compile(checkpointer=InMemorySaver())
    await graph.ainvoke({}, STOCK)
    await graph.ainvoke(Command(resume=YES), STOCK)
    await graph.ainvoke(Command(goto="pay"), STOCK)
    assert till.paid == [40, 40]


async def test_a_thread_of_scripts_alone_is_theirs(database: str) -> None:
    till = Till()
    async with staged(database, {}, work=False, local_roles=["viewer"]) as stage:
        script = two_steps(till).compile(checkpointer=stage.app.saver)
        await script.ainvoke({}, STOCK)
        await script.ainvoke(Command(resume=YES), STOCK)
        await script.aupdate_state(STOCK, {"paid": 1}, as_node="pay")
        assert till.paid == [40]


def runs_on(conninfo: str, thread: str) -> int:
    with psycopg.connect(conninfo) as conn:
        return conn.execute("select count(*) from control.run where thread_id = %s", (thread,)).fetchone()[0]
