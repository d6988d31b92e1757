"""A quiet tenant is served before a noisy one's queue, however long. `tests.bench.fairness` measures the times."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from uuid import UUID

import psycopg
import pytest

from control.runtime.commands.start import start
from control.testing.stage import Stage, staged, tester
from tests.bench.fairness import napping
from tests.runtime.scenes import until

pytestmark = pytest.mark.installed

OVERTOOK = """
with quiet as (
    select r.run_id, r.created_at, min(l.at) as claimed_at
    from control.run r join control.ledger l using (tenant, run_id)
    where r.tenant = 'quiet' and l.kind = 'claimed' group by r.run_id, r.created_at
)
select count(*) from control.ledger
where tenant like 'noisy%%' and kind = 'claimed'
  and at > (select max(created_at) from quiet) and at < (select max(claimed_at) from quiet)
"""


@pytest.mark.parametrize(("workers", "slots", "noisy"), [(2, 2, 1), (1, 1, 3)])
async def test_a_noisy_tenant_does_not_keep_a_quiet_one_waiting(
    database: str, workers: int, slots: int, noisy: int
) -> None:
    """Of 500 runs that were there before, no more go before the quiet tenant's ten than these ten are."""
    async with AsyncExitStack() as stack:
        stage, *others = [
            await stack.enter_async_context(staged(database, napping(0.02), work=False, worker_slots=slots))
            for _ in range(workers)
        ]
        for n in range(noisy):
            await starts(of(stage, f"noisy-{n}"), 500 // noisy)
        for one in (stage, *others):
            await stack.enter_async_context(one.working())
        await until(lambda: served(database, 20 * workers), "the noisy are served")
        quiet = of(stage, "quiet")
        for run_id in await starts(quiet, 10):
            await quiet.until(run_id, "running", "succeeded")
        with psycopg.connect(database) as conn:
            row = conn.execute(OVERTOOK).fetchone()
        assert row is not None and row[0] <= 10


def of(stage: Stage, tenant: str) -> Stage:
    return replace(stage, control=replace(stage.control, principal=tester(tenant)))


async def starts(stage: Stage, number: int) -> list[UUID]:
    """Started at once, ten at a time."""
    begun: list[UUID] = []
    while len(begun) < number:
        some = (start(stage.control, "nap", {"turn": 0}) for _ in range(min(10, number - len(begun))))
        begun += [run.run_id for run in await asyncio.gather(*some)]
    return begun


async def served(database: str, least: int) -> bool:
    async with await psycopg.AsyncConnection.connect(database) as conn:
        row = await (await conn.execute("select count(*) from control.ledger where kind = 'claimed'")).fetchone()
        return row is not None and row[0] >= least
