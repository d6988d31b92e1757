"""The effect ledger behind the SDK: an intent before each call, its outcome after, and both under the claim alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig

from control.app import App
from control.core.ledger import verify
from control.core.problem import Refusal
from control.sdk.ports import Begun
from control.store import runs
from control.store.item import Fence
from tests.store.holding import claimed, contents, execute, head_of, installation, ledger, put, under


@dataclass
class Receipt:
    """What a call may return and strict serialisation refuses: no schema names it."""

    amount: int


def node(fence: Fence, task: str = "task-1") -> RunnableConfig:
    """The configuration of a node in an attempt of its own: nothing is remembered of earlier ones."""
    return under(fence, __pregel_task_id=task)


def sibling(config: RunnableConfig, task: str) -> RunnableConfig:
    """Another node of the same attempt."""
    return {"configurable": config["configurable"] | {"__pregel_task_id": task}}


async def begin(app: App, at: RunnableConfig, key: str = "pay", **more: Any) -> Begun:
    return await app.saver.effects.begin(at, key=key, name="Pay", kind="effect", **more)


async def end(app: App, at: RunnableConfig, key: str = "pay", **what: Any) -> None:
    given: dict[str, Any] = {"state": "done", "outcome": None, "how": "called", "error": None}
    await app.saver.effects.end(at, key=key, **given | what)


async def refused(awaitable: Any) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        await awaitable
    return refusal.value


def recorded(conninfo: str) -> list[Any]:
    """Every effect: key, state, calls, epoch, how, error."""
    return execute(conninfo, "select effect_key, state, calls, epoch, how, error from control.effect order by 1")


def superseded(conninfo: str, fence: Fence) -> Fence:
    """The same run under the next claim, as another attempt holds it."""
    execute(conninfo, "update control.run set epoch = epoch + 1 where run_id = %s", (fence.run_id,))
    return fence._replace(epoch=fence.epoch + 1)


@pytest.mark.parametrize(
    "outcome",
    [
        None, True, 0, 10**15, 1.5, "é\u2028\U0001f600", "", b"\0\xff", [1, [None]], {"a": {"b": b"x"}}, {},
        datetime(2026, 2, 3, 4, 5, 6, 7, tzinfo=UTC), Decimal("0.10"), UUID(int=7), AIMessage("hello", id="m"),
        "x" * 1_000_000,
    ],
    ids=lambda outcome: f"{type(outcome).__name__} {str(outcome)[:10]}",
)  # fmt: skip
async def test_what_a_call_returned_is_told_to_every_later_attempt(database: str, outcome: Any) -> None:
    fence = claimed(database)
    async with installation(database) as app:
        begun = await begin(app, at := node(fence))
        assert begun == Begun("new", None, f"{fence.run_id}/pay", 1)
        await end(app, at, outcome=outcome)
    async with installation(database) as app:
        later = await begin(app, node(superseded(database, fence)))
    assert later == Begun("done", outcome, begun.idempotency_key, 1)
    assert type(later.outcome) is type(outcome)
    assert recorded(database) == [("pay", "done", 1, 1, "called", None)]


async def test_an_intent_is_durable_before_the_call_and_looking_at_it_writes_nothing(database: str) -> None:
    fence = claimed(database)
    async with installation(database) as app:
        first = await begin(app, node(fence))
        assert recorded(database) == [("pay", "began", 1, 1, None, None)]
        next_fence = superseded(database, fence)
        before = contents(database)
        assert await begin(app, node(next_fence)) == Begun("in_flight", None, first.idempotency_key, 1)
        assert contents(database) == before


async def test_a_call_in_flight_is_repeated_only_when_asked_to_and_under_its_first_key(database: str) -> None:
    fence = claimed(database)
    async with installation(database) as app:
        first = await begin(app, node(fence))
        at = node(superseded(database, fence))
        assert (await begin(app, at)).state == "in_flight"
        again = await begin(app, at, again=True)
        assert again == Begun("new", None, first.idempotency_key, 2)
        assert recorded(database) == [("pay", "began", 2, 2, None, None)]
        await end(app, at, outcome="receipt")
    assert recorded(database) == [("pay", "done", 2, 2, "called", None)]


async def test_what_is_done_is_not_begun_again_even_when_asked_to(database: str) -> None:
    fence = claimed(database)
    async with installation(database) as app:
        await begin(app, at := node(fence))
        await end(app, at, outcome="receipt")
        before = contents(database)
        assert await begin(app, at, again=True) == Begun("done", "receipt", f"{fence.run_id}/pay", 1)
        assert contents(database) == before


async def test_a_call_that_failed_is_made_again_and_counted(database: str) -> None:
    fence = claimed(database)
    async with installation(database) as app:
        await begin(app, at := node(fence))
        await end(app, at, state="failed", error="OSError: nobody answers")
        assert recorded(database) == [("pay", "failed", 1, 1, "called", "OSError: nobody answers")]
        assert (await begin(app, at)) == Begun("new", None, f"{fence.run_id}/pay", 2)
        assert recorded(database) == [("pay", "began", 2, 1, None, None)], "the second call is not failed yet"
        await end(app, at, outcome=7)
    assert recorded(database) == [("pay", "done", 2, 1, "called", None)]


async def test_an_effects_story_is_in_the_ledger_and_verifies(database: str) -> None:
    fence = claimed(database)
    async with installation(database) as app:
        at = node(fence)
        await begin(app, at)
        await end(app, at, state="failed", error="OSError: no")
        await begin(app, at)
        await end(app, at, outcome="secret of the customer", how="probed")
    entries = ledger(database, fence.run_id)
    said = {"key": "pay", "name": "Pay", "kind": "effect"}
    assert [(str(entry.kind), entry.body) for entry in entries] == [
        ("effect_began", said | {"call": 1}),
        ("effect_ended", said | {"state": "failed", "how": "called", "error": "OSError: no"}),
        ("effect_began", said | {"call": 2}),
        ("effect_ended", said | {"state": "done", "how": "probed"}),
    ]
    assert {entry.actor for entry in entries} == {"worker:test"}
    assert verify(entries, head=head_of(database, fence.run_id)) is None


async def test_an_outcome_that_would_come_back_as_another_type_is_refused_whole(database: str) -> None:
    fence = claimed(database)
    async with installation(database) as app:
        await begin(app, at := node(fence))
        before = contents(database)
        refusal = await refused(end(app, at, outcome={"deep": [Receipt(3)]}))
        assert refusal.lines() == (
            "A value in the graph's state would come back as another type",
            f"{__name__}.Receipt is not among the types that may be read back (at ['deep'][0]).",
            "Turn it into plain data (dict, list, str, number) in the node, or name its model, dataclass or enum in "
            "the state's schema.",
        )
        assert contents(database) == before, "the call was made, so it is in doubt: in flight, not failed and not done"
        assert (await begin(app, node(fence))).state == "in_flight"
        await end(app, at, outcome={"deep": [3]}, how="told")
    assert recorded(database) == [("pay", "done", 1, 1, "told", None)]


async def test_an_outcome_of_a_type_that_a_workflow_names_comes_back_as_itself(database: str) -> None:
    fence = claimed(database)
    async with installation(database) as app:
        app.saver.serde.allow([(__name__, "Receipt")])
        await begin(app, at := node(fence))
        await end(app, at, outcome=Receipt(3))
        assert (await begin(app, node(fence))).outcome == Receipt(3)


async def test_neither_an_outcome_nor_an_error_keeps_a_secret(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANK_PASSWORD", "hunter2hunter2")
    fence = claimed(database)
    async with installation(database, redact="BANK_PASSWORD") as app:
        at = node(fence)
        await begin(app, at)
        await end(app, at, state="failed", error="OSError: hunter2hunter2 was\0refused")
        await begin(app, at, "other")
        await end(app, at, "other", outcome={"used": "hunter2hunter2"})
    assert "hunter2" not in str(contents(database))
    assert b"hunter2" not in execute(database, "select outcome from control.effect where outcome is not null")[0][0]
    [(error,)] = execute(database, "select error from control.effect where error is not null")
    assert error.startswith("OSError: ") and error.endswith("was\\0refused")


@pytest.mark.parametrize("taken", ["epoch = 2", "worker_id = gen_random_uuid()", "worker_id = null"])
async def test_an_attempt_that_lost_its_claim_records_no_end(database: str, taken: str) -> None:
    fence = claimed(database)
    async with installation(database) as app:
        await begin(app, at := node(fence))
        execute(database, f"update control.run set {taken}")
        before = contents(database)
        assert (await refused(end(app, at, outcome="late"))).code == "claim-lost"
    assert contents(database) == before


async def test_another_tenant_finds_no_effect_to_end(database: str) -> None:
    fence = claimed(database)
    async with installation(database) as app:
        await begin(app, node(fence))
        before = contents(database)
        with pytest.raises(AssertionError, match="effect pay ends without having begun"):
            await end(app, node(fence._replace(tenant="other")), outcome="theirs")
        assert (await refused(begin(app, node(fence._replace(tenant="other"))))).code == "claim-lost"
    assert contents(database) == before


async def test_the_end_of_an_old_attempt_does_not_settle_the_call_of_the_new_one(database: str) -> None:
    fence = claimed(database)
    async with installation(database) as old, installation(database) as new:
        slow = node(fence)
        await begin(old, slow)
        at = node(superseded(database, fence))
        await begin(new, at, again=True)
        assert (await refused(end(old, slow, state="failed", error="late"))).code == "claim-lost"
        assert recorded(database) == [("pay", "began", 2, 2, None, None)]
        assert (await refused(begin(old, slow, "another"))).code == "claim-lost"
        await end(new, at, outcome="receipt")
    assert recorded(database) == [("pay", "done", 2, 2, "called", None)]


async def test_two_nodes_at_once_may_not_share_a_key(database: str) -> None:
    fence = claimed(database)
    async with installation(database) as app:
        one = node(fence, "task-1")
        two = sibling(one, "task-2")
        await begin(app, one)
        before = contents(database)
        refusal = await refused(begin(app, two))
        assert (refusal.code, refusal.why) == (
            "effect-key-in-use", "'pay' is being called by another node at this moment."
        )  # fmt: skip
        assert contents(database) == before
        await begin(app, two, "another")
        await end(app, one, outcome="receipt")
        assert (await begin(app, two)).outcome == "receipt", "one after the other, they are one effect"
        assert (await begin(app, one)).outcome == "receipt"


async def test_a_key_is_free_for_the_next_node_once_its_call_failed(database: str) -> None:
    fence = claimed(database)
    async with installation(database) as app:
        one = node(fence, "task-1")
        await begin(app, one)
        await end(app, one, state="failed", error="no")
        assert (await begin(app, sibling(one, "task-2"))).calls == 2


async def test_the_same_key_in_two_runs_is_two_effects(database: str) -> None:
    ours, next_run, theirs = claimed(database), claimed(database), claimed(database, tenant="theirs")
    async with installation(database) as app:
        for fence in (ours, next_run, theirs):
            at = node(fence)
            begun = await begin(app, at)
            assert begun == Begun("new", None, f"{fence.run_id}/pay", 1)
            await end(app, at, outcome=str(fence.run_id))
        told = [(await begin(app, node(fence))).outcome for fence in (ours, next_run, theirs)]
    assert told == [str(fence.run_id) for fence in (ours, next_run, theirs)]


SEEN: Final = """
select concat(current_setting('control.tenants', true), current_setting('control.tenant', true)) as tenants,
       (select count(*) from control.run) as runs
"""


async def test_no_tenant_stays_with_a_connection_that_others_will_use(database: str) -> None:
    """Every connection of every pool, after effects, checkpoints and commands were read and written on them."""
    fence = claimed(database)
    async with installation(database, pool_limit=1) as app:
        at = node(fence)
        await begin(app, at)
        await end(app, at, outcome=1)
        assert (await begin(app, node(fence))).state == "done"
        with pytest.raises(Refusal, match="division by zero"):
            async with app.saver.reading(fence.tenant) as conn:
                await conn.execute("select 1 / 0")
        stored = await put(app, at, messages=["x"])
        assert await app.saver.aget_tuple(stored) is not None
        async with app.control().transaction() as conn:
            assert (await runs.read_run(conn, fence.tenant, fence.run_id)).epoch == fence.epoch
        for pool in (app.database.reader, app.database._commands, app.database._flushes):
            async with pool.connection() as conn:
                assert await (await conn.execute(SEEN)).fetchone() == {"tenants": "", "runs": 0}
