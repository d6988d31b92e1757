"""A gate lets an action through when those have agreed whom it names, and time does to a question what it says."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, TypedDict
from uuid import UUID

import psycopg
import pytest
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from control.core.answer import Word
from control.core.assignment import Candidate
from control.core.ledger import Entry
from control.core.problem import Refusal
from control.runtime.commands import Control
from control.runtime.commands.decide import decide
from control.runtime.commands.delegate import delegate, revoke
from control.runtime.commands.erase import erase_runs
from control.runtime.commands.reassign import reassign, set_assignee
from control.runtime.commands.start import start
from control.runtime.doctor import examine
from control.sdk import Rung, approval
from control.store import runs
from control.store.database import Address
from control.store.doctor import cases
from control.testing import clock
from control.testing.stage import Stage, staged
from tests.runtime.scenes import until
from tests.runtime.test_timers import swept, until_entered, until_idle
from tests.runtime.test_verbs import everything, open_ids, said

HOUR: Final = timedelta(hours=1)


class State(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]


class Amount(BaseModel):
    eur: int = 0


def gated(title: str = "Pay?", *, effect: Callable[[], Awaitable[None]] | None = None, **gate: Any) -> Any:
    """Asks at a gate, then acts if it may."""

    async def ask(_: State) -> State:
        decided = approval(title, action={"pay": 5}, on_yes="It is paid.", on_no="It is not.", **gate)
        answer = decided.answer.model_dump() if decided.answer else None
        return {"log": [(decided.approved, decided.by, answer)]}

    async def act(_: State) -> State:
        if effect:
            await effect()
        return {}

    return StateGraph(State).add_sequence([("ask", ask), ("act", act)]).add_edge(START, "ask").compile()


def acting(stage: Stage, name: str, *roles: str) -> Control:
    """The commands as this person gives them, who may decide questions as far as policy goes."""
    return stage.acting("approver", *roles, id=name)


async def asked(stage: Stage, name: str = "pay") -> UUID:
    """A run that the tester started, waiting at its gate."""
    run = await start(stage.control, name, {})
    await stage.until(run.run_id, "awaiting_approval")
    return run.run_id


async def approve(stage: Stage, run_id: UUID, name: str, *roles: str, **how: Any) -> Any:
    return await decide(acting(stage, name, *roles), run_id, Word.APPROVED, **how)


def of_kind(stage: Stage, run_id: UUID, *kinds: str) -> list[Entry]:
    return [entry for entry in stage.ledger(run_id) if entry.kind in kinds]


@contextmanager
def refused(code: str, why: str = ".") -> Iterator[pytest.ExceptionInfo[Refusal]]:
    """What is inside is refused with this code, and its reason has this in it."""
    with pytest.raises(Refusal, match=why) as found:
        yield found
    assert found.value.code == code


def assert_books_balance(database: str) -> None:
    """Every row follows from its facts, and is what its ledger replays to."""
    found = [
        finding for case in cases(Address.of(database), "default") for finding in examine(case, crash_limit=5).findings
    ]
    assert found == []


async def test_two_of_three_approve_and_the_third_is_told_who_did(database: str) -> None:
    async with staged(database, {"pay": gated(quorum=2, roles=["finance"])}) as stage:
        run_id = await asked(stage)
        (question,) = (await open_ids(stage, run_id)).values()
        await approve(stage, run_id, "ana", "finance", note="fine")
        told = await stage.status(run_id)
        assert told.word == "awaiting_approval" and told.because[0].endswith(": 1 of 2 votes, from ana.")
        before = everything(database, run_id)
        with refused("voted-already") as again:
            await approve(stage, run_id, "ana", "finance")
        assert again.value.problem.status == 409
        with refused("not-entitled") as stranger:
            await approve(stage, run_id, "zoe", "sales")
        assert stranger.value.problem.status == 403
        assert stranger.value.why == "It takes the role finance; zoe has the role approver, sales."
        assert everything(database, run_id) == before
        await approve(stage, run_id, "ben", "finance")
        with refused("already-decided", "ana, ben approved it at 20") as late:
            await approve(stage, run_id, "cleo", "finance", interrupt_id=question)
        assert late.value.problem.status == 409 and late.value.facts["decided_by"] == "ana, ben"
        await stage.until(run_id, "succeeded")
        assert await said(stage, run_id) == [(True, "ana, ben", None)]
        votes = of_kind(stage, run_id, "voted")
        assert [(vote.actor, vote.body["vote"], vote.body["roles"]) for vote in votes] == [
            ("ana", "yes", ["finance"]),
            ("ben", "yes", ["finance"]),
        ]
        assert_books_balance(database)


async def test_one_no_settles_it(database: str) -> None:
    async with staged(database, {"pay": gated(quorum=3)}) as stage:
        run_id = await asked(stage)
        await approve(stage, run_id, "ana")
        await decide(acting(stage, "ben"), run_id, Word.REJECTED, note="too much")
        await stage.until(run_id, "succeeded")
        assert await said(stage, run_id) == [(False, "ben", None)]
        assert_books_balance(database)


async def test_four_eyes(database: str) -> None:
    """The starter may not approve, nor may somebody in the starter's place, nor the starter in somebody else's."""
    async with staged(database, {"pay": gated(four_eyes=["dan"])}) as stage:
        run_id = await asked(stage)
        at_end = (await stage.status(run_id)).since + HOUR
        for giver, taker in (("tester", "ben"), ("ben", "tester")):
            await delegate(acting(stage, giver), taker, ends_at=at_end)
        for name, place in (("tester", None), ("dan", None), ("ben", "tester"), ("tester", "ben")):
            with refused("not-entitled", "Four eyes are wanted here"):
                await approve(stage, run_id, name, on_behalf_of=place)
        assert of_kind(stage, run_id, "voted", "delegated") == []
        await approve(stage, run_id, "ben")
        await stage.until(run_id, "succeeded")


async def test_a_stand_in_votes_between_two_instants_with_the_roles_that_were_lent(database: str) -> None:
    async with staged(database, {"pay": gated(quorum=2, roles=["finance"])}) as stage:
        run_id = await asked(stage)
        now = (await stage.status(run_id)).since
        bob = acting(stage, "bob", "finance", "lead")
        with refused("not-yours-to-lend", "bob is not cfo"):
            await delegate(bob, "alice", ends_at=now + 3 * HOUR, roles=["cfo"])
        with refused("delegation-invalid", "over before it begins"):
            await delegate(bob, "alice", starts_at=now + HOUR, ends_at=now + HOUR)
        made = await delegate(bob, "alice", starts_at=now + HOUR, ends_at=now + 3 * HOUR, roles=["finance"])
        vote = {"on_behalf_of": "bob"}
        with refused("not-entitled", "bob has not arranged that alice votes in their place at this time"):
            await approve(stage, run_id, "alice", "sales", **vote)
        await clock.advance(database, 2 * HOUR)
        await approve(stage, run_id, "alice", "sales", **vote)
        with refused("voted-already", "alice for bob said yes at .*, and bob counts once"):
            await approve(stage, run_id, "bob", "finance")
        told = [(entry.kind, entry.actor, entry.body) for entry in of_kind(stage, run_id, "delegated", "voted")]
        (_, _, used), (_, voter, cast) = told
        assert (used["giver"], used["taker"], used["roles"], used["by"]) == ("bob", "alice", ["finance"], "bob")
        assert (voter, cast["on_behalf_of"], cast["roles"]) == ("alice", "bob", ["finance"])
        await revoke(bob, made.delegation_id)
        with refused("not-entitled", "has not arranged"):
            await approve(stage, run_id, "alice", **vote)
        await approve(stage, run_id, "cleo", "finance")
        await stage.until(run_id, "succeeded")
        assert await said(stage, run_id) == [(True, "alice for bob, cleo", None)]
        assert_books_balance(database)


async def until_blocked(database: str, count: int) -> None:
    """Wait until so many sessions of this database stand behind a lock."""
    with psycopg.connect(database, autocommit=True) as conn:

        async def blocked() -> bool:
            rows = conn.execute(_BLOCKED).fetchall()
            return len(rows) == count

        await until(blocked, f"{count} sessions wait for a lock")


_BLOCKED: Final = "select pid from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"


async def test_of_two_approvals_at_once_one_acts_and_the_other_is_told(database: str, empty_database: str) -> None:
    """Stock LangGraph takes both, says nothing to either, and acts twice."""
    paid: list[str] = []
    assert await stock_counterpart(empty_database) == 2

    async def pay() -> None:
        paid.append("5")

    async with staged(database, {"pay": gated(effect=pay)}) as stage:
        run_id = await asked(stage)
        (question,) = (await open_ids(stage, run_id)).values()
        with psycopg.connect(database) as holder:
            holder.execute("select from control.run where run_id = %s for update", (run_id,))
            clicks = [
                asyncio.create_task(approve(stage, run_id, name, interrupt_id=question)) for name in ("ana", "ben")
            ]
            await until_blocked(database, 2)
            holder.rollback()
        results = await asyncio.gather(*clicks, return_exceptions=True)
        (loser,) = [result for result in results if isinstance(result, Refusal)]
        (decision,) = of_kind(stage, run_id, "decided")
        assert (loser.code, loser.problem.status) == ("already-decided", 409)
        at = decision.at.strftime("%Y-%m-%d %H:%M:%S UTC")
        assert loser.why == f"{decision.actor} approved it at {at}." and loser.problem.next_step
        assert loser.facts["decided_by"] == decision.actor
        await stage.until(run_id, "succeeded")
        assert paid == ["5"]


async def stock_counterpart(conninfo: str) -> int:
    """How often a stock graph on its stock saver acts when two people answer one interrupt at once."""
    paid: list[str] = []
    both = asyncio.Barrier(2)

    async def ask(_: State) -> State:
        return {"log": [interrupt("Pay?")]}

    async def act(_: State) -> State:
        await asyncio.wait_for(both.wait(), 5)  # both are past the question
        paid.append("5")
        return {}

    graph = StateGraph(State).add_sequence([("ask", ask), ("act", act)]).add_edge(START, "ask")
    thread: Any = {"configurable": {"thread_id": "t"}}
    async with (
        AsyncPostgresSaver.from_conn_string(conninfo) as one,
        AsyncPostgresSaver.from_conn_string(conninfo) as other,
    ):
        await one.setup()
        await graph.compile(checkpointer=one).ainvoke({}, thread)
        clicks = [graph.compile(checkpointer=saver).ainvoke(Command(resume=True), thread) for saver in (one, other)]
        results = await asyncio.gather(*clicks, return_exceptions=True)
    assert not [result for result in results if isinstance(result, BaseException)], "neither is told anything"
    return len(paid)


async def test_two_votes_at_once_are_both_counted(database: str) -> None:
    async with staged(database, {"pay": gated(quorum=2)}) as stage:
        run_id = await asked(stage)
        await asyncio.gather(*(approve(stage, run_id, name) for name in ("ana", "ben")))
        await stage.until(run_id, "succeeded")
        assert [entry.kind for entry in of_kind(stage, run_id, "voted", "decided")] == ["voted", "voted", "decided"]


async def test_votes_agree_to_one_answer(database: str) -> None:
    async with staged(database, {"pay": gated(quorum=2, answer=Amount)}) as stage:
        run_id = await asked(stage)
        await approve(stage, run_id, "ana", answer={"eur": 5})
        for other in ({"eur": 6}, None):
            with refused("votes-differ", "ana agreed at .*, to another answer"):
                await approve(stage, run_id, "ben", answer=other)
        await approve(stage, run_id, "ben", answer={"eur": 5})
        await stage.until(run_id, "succeeded")
        assert await said(stage, run_id) == [(True, "ana, ben", {"eur": 5})]


SILENCE: Final[list[tuple[dict[str, Any], tuple[Any, ...], str]]] = [
    ({}, (False, "clock", None), "deny"),
    ({"on_timeout": "default", "answer": Amount, "default": Amount(eur=1)}, (True, "clock", {"eur": 1}), "default"),
]


@pytest.mark.parametrize(("gate", "outcome", "word"), SILENCE, ids=["deny", "default"])
async def test_silence_comes_to_what_was_said_and_a_late_answer_is_refused(
    gate: dict[str, Any], outcome: tuple[Any, ...], word: str, database: str
) -> None:
    """While nobody lives to notice, and once it is on record."""
    async with staged(database, {"pay": gated(expires_in=HOUR, quorum=2, **gate)}, work=False) as stage:
        async with stage.working():
            run_id = await asked(stage)
            (question,) = (await open_ids(stage, run_id)).values()
            await until_idle(stage)
        await approve(stage, run_id, "ana")
        await clock.advance(database, HOUR)
        before = everything(database, run_id)
        with refused("answer-late", "Its time ended at") as late:
            await approve(stage, run_id, "ben", interrupt_id=question)
        assert late.value.problem.status == 409
        assert everything(database, run_id) == before
        async with stage.working():
            await stage.until(run_id, "succeeded")
        with refused("already-decided", "clock (approved|rejected) it at") as later:
            await approve(stage, run_id, "ben", interrupt_id=question)
        assert later.value.problem.status == 409
        assert await said(stage, run_id) == [outcome]
        (expired,) = of_kind(stage, run_id, "expired")
        assert expired.body["outcome"] == word and stage.kinds(run_id).count("decided") == 1
        assert_books_balance(database)


LADDER: Final = [Rung(HOUR, ["lead"], ["#desk"]), Rung(2 * HOUR, ["cfo"])]


async def test_each_rung_survives_a_restart(database: str) -> None:
    """Another worker each time; the status always says when the next thing happens."""
    graph = gated(roles=["finance"], ladder=LADDER, expires_in=3 * HOUR)
    async with staged(database, {"pay": graph}, work=False) as stage:
        async with stage.working():
            run_id = await asked(stage)
            opened = of_kind(stage, run_id, "asked")[0].at
            assert (await stage.status(run_id)).until == opened + HOUR
            await until_idle(stage)
        with refused("not-entitled", "It takes the role finance; dan has the role approver, lead"):
            await approve(stage, run_id, "dan", "lead")
        for rung in (1, 2):
            await clock.advance(database, HOUR)
            async with stage.working():
                await until_rung(stage, run_id, rung)
                told = await stage.status(run_id)
                assert told.until == opened + (rung + 1) * HOUR and told.word == "awaiting_approval"
        assert told.because[0].endswith("; it was escalated 2 times.")
        first, second = of_kind(stage, run_id, "escalated")
        assert (first.body["to"], first.body["notify"], second.body["to"]) == (["lead"], ["#desk"], ["cfo"])
        assert_books_balance(database)
        await approve(stage, run_id, "dan", "lead")
        async with stage.working():
            await stage.until(run_id, "succeeded")
        assert await said(stage, run_id) == [(True, "dan", None)]


async def until_rung(stage: Stage, run_id: UUID, rung: int) -> None:
    async def climbed() -> bool:
        return len(of_kind(stage, run_id, "escalated")) == rung

    await until(climbed, f"rung {rung} is climbed")


async def test_what_fell_due_while_nobody_lived_happens_once_and_in_order(database: str, troupe: Any) -> None:
    """Three workers wake to a ladder of which every rung is overdue, and its expiry too."""
    graph = gated(roles=["finance"], ladder=LADDER, expires_in=3 * HOUR)
    async with staged(database, {"pay": graph}, work=False) as stage:
        async with stage.working():
            run_ids = [await asked(stage) for _ in range(5)]
            await until_idle(stage)
        await clock.advance(database, 30 * HOUR)
        for _ in range(2):
            troupe.hire("line", takeover_poll_s=0.02)
        async with stage.working():
            for run_id in run_ids:
                await stage.until(run_id, "succeeded")
        for run_id in run_ids:
            told = [entry.kind for entry in of_kind(stage, run_id, "escalated", "expired", "decided")]
            assert told == ["escalated", "escalated", "expired", "decided"]
        assert_books_balance(database)


async def test_a_rung_that_no_sweep_has_noticed_counts_for_whoever_votes(database: str) -> None:
    async with staged(database, {"pay": gated(roles=["finance"], ladder=LADDER)}, work=False) as stage:
        async with stage.working():
            run_id = await asked(stage)
            await until_idle(stage)
        await clock.advance(database, HOUR)
        await approve(stage, run_id, "dan", "lead")
        assert [entry.kind for entry in of_kind(stage, run_id, "escalated", "voted")] == ["escalated", "voted"]
        assert_books_balance(database)


async def test_a_time_that_ends_in_an_escalation_leaves_the_question_open(database: str) -> None:
    graph = gated(roles=["finance"], ladder=[Rung(9 * HOUR, ["cfo"])], on_timeout="escalate", expires_in=HOUR)
    async with staged(database, {"pay": graph}) as stage:
        run_id = await asked(stage)
        await clock.advance(database, HOUR)
        await until_rung(stage, run_id, 1)
        told = await stage.status(run_id)
        assert (told.word, told.until) == ("awaiting_approval", None)
        await swept(stage)
        assert len(of_kind(stage, run_id, "escalated", "expired")) == 2
        assert_books_balance(database)
        await clock.advance(database, 99 * HOUR)
        await approve(stage, run_id, "cfo", "cfo")
        await stage.until(run_id, "succeeded")


async def hire(stage: Stage, *people: Candidate) -> None:
    for person in people:
        await set_assignee(stage.control, person)


def takes(name: str, *skills: str, capacity: int = 5, roles: Sequence[str] = ()) -> Candidate:
    return Candidate(name, frozenset(roles), frozenset(skills), capacity)


def assignees(stage: Stage, run_id: UUID) -> list[str | None]:
    return [entry.body.get("assignee") for entry in of_kind(stage, run_id, "reassigned")]


async def until_assigned(stage: Stage, run_id: UUID, *names: str | None) -> None:
    async def assigned() -> bool:
        return assignees(stage, run_id) == list(names)

    await until(assigned, f"it goes to {names}")


async def test_a_question_goes_to_whoever_has_the_skill_and_moves_on_when_its_end_nears(database: str) -> None:
    async with staged(database, {"pay": gated(skills=["tax"], expires_in=8 * HOUR)}, work=False) as stage:
        await hire(stage, takes("ana", "law"), takes("ben", "tax", capacity=9), takes("cleo", "tax"))
        async with stage.working():
            run_id = await asked(stage)
            await until_assigned(stage, run_id, "ben")
            told = await stage.status(run_id)
            assert (
                told.because[0].endswith("; it lies with ben.")
                and told.until == of_kind(stage, run_id, "asked")[0].at + 6 * HOUR
            )
            await until_idle(stage)
        await clock.advance(database, 6 * HOUR)
        async with stage.working():
            await until_assigned(stage, run_id, "ben", "cleo")
        moved = of_kind(stage, run_id, "reassigned")[-1].body
        assert moved["from"] == "ben" and moved["why"].startswith("cleo knows tax, has room for 5 of 5")
        assert_books_balance(database)
        await reassign(stage.control, run_id, to="zoe")
        with refused("no-assignee") as nobody:
            await hire(stage, takes("ben", "tax", capacity=0), takes("cleo", "tax", capacity=0))
            await reassign(stage.control, run_id)
        assert nobody.value.why == "Of those on the list, 2 without room; 1 without the skills."
        assert assignees(stage, run_id) == ["ben", "cleo", "zoe"]
        assert_books_balance(database)


async def test_nobody_is_given_more_than_there_is_room_for(database: str) -> None:
    """However many sweeps assign at once."""
    async with staged(database, {"pay": gated(skills=[])}, work=False, worker_slots=20) as stage:
        await hire(stage, takes("ana", capacity=3), takes("ben", capacity=4))
        run_ids = [(await start(stage.control, "pay", {})).run_id for _ in range(12)]
        async with stage.working():
            for run_id in run_ids:
                await until_entered(stage, run_id, "reassigned")
        given = [name for run_id in run_ids for name in assignees(stage, run_id)]
        assert (given.count("ana"), given.count("ben"), given.count(None)) == (3, 4, 5)


async def test_a_gate_that_contradicts_itself_is_never_asked(database: str) -> None:
    async with staged(database, {"pay": gated(quorum=2, voters=["ana"])}) as stage:
        run = await start(stage.control, "pay", {})
        told = await stage.until(run.run_id, "failed")
        assert "Fewer voters are named than the quorum needs" in told.because[0]
        assert "asked" not in stage.kinds(run.run_id)


async def test_policy_says_who_may_stand_back_and_who_keeps_the_list(database: str) -> None:
    async with staged(database, {"pay": gated()}, work=False) as stage:
        viewer, operator = stage.acting("viewer", id="vic"), stage.acting("operator", id="olga")
        with refused("not-permitted", "vic may not manage assignees"):
            await set_assignee(viewer, takes("vic"))
        with refused("not-permitted", "olga may not delegate"):
            await delegate(operator, "ben", ends_at=(await now(stage)) + HOUR)
        await set_assignee(operator, takes("ben"))


async def now(stage: Stage) -> datetime:
    async with stage.control.transaction() as conn:
        return await runs.now(conn)


async def test_erasing_a_run_reaches_what_its_votes_agreed_to(database: str) -> None:
    """That they voted, and how, stays, as in the ledger."""
    async with staged(database, {"pay": gated(quorum=2, answer=Amount)}) as stage:
        run_id = await asked(stage)
        for name in ("ana", "ben"):
            await approve(stage, run_id, name, answer={"eur": 4711}, note="for 4711")
        await stage.until(run_id, "succeeded")
        assert "4711" in str(everything(database, run_id) + votes_of(database, run_id))
        await erase_runs(stage.control, [run_id], why="asked for")
        assert "4711" not in str(everything(database, run_id) + votes_of(database, run_id))
        assert [vote[0] for vote in votes_of(database, run_id)] == ["ana", "ben"]


def votes_of(database: str, run_id: UUID) -> list[tuple[Any, ...]]:
    with psycopg.connect(database) as conn:
        return conn.execute(_VOTES, (run_id,)).fetchall()


_VOTES: Final = "select voter, answer, note from control.vote where run_id = %s order by voter"
