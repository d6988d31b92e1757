"""A tenant gets what its limits leave it, and what they hold back says why and until when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from langchain_core.messages import AIMessage

from control.core.answer import Word
from control.core.limits import Limits, Quota, limit
from control.core.problem import Refusal
from control.runtime.commands.decide import decide
from control.runtime.commands.limit import account, history, set_limits
from control.runtime.commands.restart import restart
from control.runtime.commands.start import start
from control.sdk import arecorded, aspend, spend
from control.store.claims import Claims, Holdings
from control.testing import clock
from control.testing.stage import Stage, staged, tester
from tests.runtime.proving import operating
from tests.runtime.scenes import Cues, Graph, State, Unavailable, between, graphs, play, until


def costing(usd: str = "6", *, blocking: bool = False) -> Graph:
    """a, a part that spends before its cue, z."""

    async def part(state: State) -> dict[str, Any]:
        await aspend(usd=usd, tokens=100, name="search")
        return await play("part", state)

    def blocked(_: State) -> dict[str, Any]:
        spend(usd=usd)
        return {"log": ["part"]}

    return between(blocked if blocking else part)


async def limited(stage: Stage, **limits: str) -> None:
    await set_limits(operating(stage), {name: limit(name, text) for name, text in limits.items()})


async def runs_of(stage: Stage, workflow: str, cues: Cues, number: int) -> list[UUID]:
    return [(await start(stage.control, workflow, cues.input)).run_id for _ in range(number)]


async def test_no_more_runs_are_at_work_than_the_limit(database: str, cues: Cues) -> None:
    cues.give("a", "hold")
    async with staged(database, graphs("line")) as stage:
        await limited(stage, runs_at_once="2")
        first, second, third = await runs_of(stage, "line", cues, 3)
        await cues.until_seen("a", 2)
        held = await stage.status(third)
        assert (held.word, held.until) == ("queued", None)
        assert held.because == (
            "It is ready, but held back. Its tenant has 2 runs at work, of the 2 it may have (runs_at_once)."
            " It is taken when one of them ends or waits.",
        )
        cues.take("a")
        for run_id in (first, second, third):
            await stage.until(run_id, "succeeded")


async def test_workers_that_claim_at_once_do_not_fill_the_same_room(database: str, cues: Cues) -> None:
    async with staged(database, graphs("line"), work=False) as stage:
        await limited(stage, runs_at_once="3")
        await runs_of(stage, "line", cues, 12)
        digest = stage.control.workflows["line"].digest
        claims = [Claims(stage.app.database) for _ in range(6)]
        taken = await asyncio.gather(
            *(one.claim(Holdings(uuid4(), ["line"], [digest]), free=2, behind={}, grace=timedelta()) for one in claims)
        )
        assert sum(map(len, taken)) == 3
        for one in claims:
            await one.close()


async def test_a_run_that_waits_holds_no_room(database: str, cues: Cues) -> None:
    async with staged(database, graphs("approve")) as stage:
        await limited(stage, runs_at_once="1")
        runs = await runs_of(stage, "approve", cues, 3)
        for run_id in runs:
            await stage.until(run_id, "awaiting_approval")
        await decide(stage.control, runs[0], Word.APPROVED)
        await stage.until(runs[0], "succeeded")


async def test_a_limit_on_the_noisy_leaves_the_quiet_its_slot(database: str, cues: Cues) -> None:
    """Where every slot were taken by nodes that hang, nobody would be served; one less is what the limit leaves."""
    cues.give("a", "hold")
    async with staged(database, graphs("line"), worker_slots=3) as stage:
        await limited(stage, runs_at_once="2")
        await runs_of(stage, "line", cues, 20)
        await cues.until_seen("a", 2)
        quiet = replace(stage, control=replace(stage.control, principal=tester("quiet")))
        (run_id,) = await runs_of(quiet, "line", cues, 1)
        await cues.until_seen("a", 3)
        assert (await quiet.status(run_id)).word == "running"
        cues.take("a")
        await quiet.until(run_id, "succeeded")


async def test_starts_beyond_the_rate_are_refused_until_there_is_room(database: str, cues: Cues) -> None:
    async with staged(database, graphs("line"), work=False) as stage:
        await limited(stage, starts="3/minute")
        first = (await start(stage.control, "line", cues.input)).run_id
        await runs_of(stage, "line", cues, 2)
        refused = await denied(stage, cues)
        assert refused.problem.status == 429
        assert refused.why.startswith("The tenant has started 3 runs within a minute, and may start no more (starts).")
        assert 1 <= refused.facts["retry_after_s"] <= 60
        assert (await start(stage.control, "line", cues.input, run_id=first)).run_id == first, "it was started before"
        assert (await account(stage.control)).usage.started == 3, "a refused start leaves nothing"
        again = datetime.fromisoformat(refused.facts["retry_at"])
        assert again == (await stage.run(first)).created_at + timedelta(minutes=1)
        await clock.advance(database, timedelta(minutes=1))
        await runs_of(stage, "line", cues, 3)
        await denied(stage, cues)


async def denied(stage: Stage, cues: Cues) -> Refusal:
    """Why the next start is refused."""
    with pytest.raises(Refusal) as refused:
        await start(stage.control, "line", cues.input)
    assert refused.value.code == "limit-reached"
    return refused.value


async def test_starts_at_once_are_counted_one_by_one(database: str, cues: Cues) -> None:
    async with staged(database, graphs("line"), work=False) as stage:
        await limited(stage, starts="3/day")
        said = await asyncio.gather(
            *(start(stage.control, "line", cues.input) for _ in range(12)), return_exceptions=True
        )
        assert sum(not isinstance(one, BaseException) for one in said) == 3
        assert {one.code for one in said if isinstance(one, Refusal)} == {"limit-reached"}
        await limited(stage, starts="none")
        await start(stage.control, "line", cues.input)


async def test_a_restart_is_a_start(database: str, cues: Cues) -> None:
    async with staged(database, graphs("line")) as stage:
        (run_id,) = await runs_of(stage, "line", cues, 1)
        await stage.until(run_id, "succeeded")
        await limited(stage, starts="0/day")
        with pytest.raises(Refusal, match="The tenant may start nothing") as refused:
            await restart(stage.control, run_id)
        assert "retry_at" not in refused.value.facts


@pytest.mark.parametrize("way", ["raised", "next day"])
async def test_a_spent_budget_halts_runs_at_their_next_boundary(database: str, cues: Cues, way: str) -> None:
    async with staged(database, {"line": costing()}) as stage:
        await limited(stage, usd="5.50/day")
        (run_id,) = await runs_of(stage, "line", cues, 1)
        held = await until_held(stage, run_id)
        assert cues.seen() == ["a", "part"], "the step that spent is kept, and the next one not begun"
        now = (await stage.run(run_id)).since
        midnight = Quota(Decimal(1), limit_per()).window(now)[1]
        assert held.until == midnight
        assert held.because[-1] == (
            "It is ready, but held back. The tenant has spent $6.00 of $5.50 in this day (usd). It goes on at"
            f" {midnight:%Y-%m-%d} 00:00:00 UTC, or when the budget is raised."
        )
        refused = await denied(stage, cues)
        assert (refused.facts["limit"], refused.facts["retry_at"]) == ("usd", midnight.isoformat())
        if way == "raised":
            await limited(stage, usd="7/day")
        else:
            await clock.advance(database, midnight - now + timedelta(seconds=1))
        await stage.until(run_id, "succeeded")
        assert cues.seen() == ["a", "part", "z"]
        assert "drained" in [entry.body.get("outcome") for entry in stage.ledger(run_id)]


async def until_held(stage: Stage, run_id: UUID) -> Any:
    """Its status once it has been put back."""

    async def drained() -> bool:
        return (await stage.run(run_id)).outcome == "drained"

    await until(drained, "it is put back")
    return await stage.status(run_id)


def limit_per() -> Any:
    found = limit("usd", "1/day")
    assert isinstance(found, Quota)
    return found.per


async def test_what_is_spent_is_recorded_once(database: str, cues: Cues) -> None:
    cues.give("part", "transient")
    async with staged(database, {"line": costing()}) as stage:
        (run_id,) = await runs_of(stage, "line", cues, 1)
        await cues.until_seen("part", 2)
        cues.take("part")
        await stage.until(run_id, "succeeded")
        assert len(cues.seen("part")) >= 2
        used = (await account(stage.control)).usage
        assert (used.usd, used.tokens) == (Decimal(6), 100)
        (entry,) = [entry for entry in stage.ledger(run_id) if entry.kind == "spent"]
        assert entry.body == {"key": entry.body["key"], "name": "search", "usd": "6", "tokens": 100}
        sums_agree(database)


def sums_agree(database: str) -> None:
    """The sums of the hours are those of what was recorded."""
    by_hour = "select tenant, hour, usd, tokens from control.spend_hour order by 1, 2"
    recorded = "select tenant, date_trunc('hour', at, 'UTC'), sum(usd), sum(tokens) from control.spend group by 1, 2"
    with psycopg.connect(database) as conn:
        assert conn.execute(by_hour).fetchall() == conn.execute(f"{recorded} order by 1, 2").fetchall()


async def test_a_synchronous_node_spends_too(database: str, cues: Cues) -> None:
    async with staged(database, {"line": costing("0.000000001", blocking=True)}) as stage:
        (run_id,) = await runs_of(stage, "line", cues, 1)
        await stage.until(run_id, "succeeded")
        assert (await account(stage.control)).usage.usd == Decimal("0.000000001")


async def test_a_recorded_answer_counts_its_tokens(database: str, cues: Cues) -> None:
    async def think(state: State) -> dict[str, Any]:
        usage = {"input_tokens": 90, "output_tokens": 10, "total_tokens": 100}

        async def answer(_: str) -> AIMessage:
            return AIMessage("42", usage_metadata=usage)

        said = await arecorded("think", answer)
        if not cues.seen("thought"):
            cues.enter("thought")
            raise Unavailable("nobody answers")
        return {"log": [said.content]}

    async with staged(database, {"line": between(think)}) as stage:
        await limited(stage, tokens="1000/hour")
        (run_id,) = await runs_of(stage, "line", cues, 1)
        await stage.until(run_id, "succeeded")
        assert (await account(stage.control)).usage.tokens == 100
        assert [e.body["tokens"] for e in stage.ledger(run_id) if e.kind == "effect_ended"] == [100]
        sums_agree(database)


async def test_the_database_and_core_agree_on_a_used_up_budget(database: str, cues: Cues) -> None:
    """`control.overdrawn` keeps workers from what `core.limits` says is held back, and from nothing else."""
    async with staged(database, graphs("line"), work=False) as stage:
        (run_id,) = await runs_of(stage, "line", cues, 1)
        for per in ("hour", "day", "month"):
            for ago, usd, tokens in AGREED:
                _spent(database, timedelta(hours=ago))
                await limited(stage, usd=f"{usd}/{per}", tokens=f"{tokens}/{per}")
                with psycopg.connect(database) as conn:
                    row = conn.execute("select control.overdrawn('default')").fetchone()
                assert row == (any("held back" in said for said in (await stage.status(run_id)).because),)


AGREED = [
    (0, 1, 9),
    (0, "2", "5"),
    (0, "2.1", "6"),
    (40, "1", "9"),
    (2, "1.5", "10"),
    (0, 9, 0),
    (1, 0, 9),
    (800, 1, 1),
]
"""How long ago two dollars and five tokens were spent, in hours, and the budgets."""


def _spent(database: str, ago: timedelta) -> None:
    """Two dollars and five tokens, once, so long ago."""
    with psycopg.connect(database) as conn:
        conn.execute("delete from control.spend_hour")
        conn.execute(
            "insert into control.spend_hour values ('default', date_trunc('hour', control.clock() - %s, 'UTC'), 2, 5)",
            (ago,),
        )


async def test_limits_are_set_by_whoever_may_and_kept_for_the_record(database: str) -> None:
    async with staged(database, {}, work=False) as stage:
        for role, act, code in (("admin", set_limits, "not-a-tenants"), ("operator", _reading, "not-permitted")):
            with pytest.raises(Refusal) as refused:
                await act(stage.acting(role), {"runs_at_once": 5})
            assert (refused.value.code, refused.value.problem.status) == (code, 403)
        assert (await account(stage.acting("admin"))).version is None
        assert await history(stage.control, limit=9) == []
        await limited(stage, runs_at_once="5", usd="10/month")
        await limited(stage, runs_at_once="5")
        await limited(stage, runs_at_once="none", starts="600/minute")
        newest, first = await history(stage.control, limit=9)
        assert newest.limits == Limits(starts=Quota(Decimal(600), newest.limits.starts.per), usd=first.limits.usd)  # type: ignore[union-attr]  # it is set
        assert (newest.version, newest.set_by, first.limits.runs_at_once) == (2, "tester", 5)
        async with stage.control.transaction() as conn:
            for statement in ("update control.tenant_limit set runs_at_once = 9", "delete from control.tenant_limit"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    async with conn.transaction():
                        await conn.execute(statement)


async def _reading(control: Any, _: Any) -> Any:
    return await account(control)


@pytest.mark.parametrize("wrong", [{"usd": "-1"}, {"usd": "much"}, {"usd": "nan"}, {"tokens": -1}, {"tokens": 1.5}])
@pytest.mark.parametrize("how", [spend, aspend])
async def test_what_cannot_be_spent_is_refused(wrong: dict[str, Any], how: Callable[..., Any]) -> None:
    with pytest.raises(Refusal) as refused:
        said = how(**wrong)
        if said is not None:
            await said
    assert refused.value.code == "spend-not-valid"
