"""A list shows, and filters by, what is so now: time passes without a transaction."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from control.core.run_status import Status
from control.runtime.commands.start import start
from control.store import listing
from control.testing import clock
from control.testing.stage import Stage, staged
from tests.cli import troupe

HOUR = timedelta(hours=1)


async def listed(stage: Stage, status: Status | None, *, limit: int = 10) -> list[str]:
    async with stage.control.transaction() as conn:
        found = await listing.page(conn, "default", limit=limit, stall_after=stage.control.stall_after, status=status)
        return [f"{run.workflow} {run.status}" for run in found]


async def test_a_filter_by_status_applies_the_clock(database: str) -> None:
    async with staged(database, {"count": troupe.count, "listen": troupe.listen}, work=False) as stage:
        await start(stage.control, "count", {})
        await start(stage.control, "listen", {}, not_before=datetime.now(UTC) + HOUR)
        assert await listed(stage, None) == ["listen waiting", "count queued"], "newest first"
        assert await listed(stage, None, limit=1) == ["listen waiting"]
        assert await listed(stage, Status.WAITING) == ["listen waiting"]
        assert await listed(stage, Status.QUEUED) == ["count queued"]

        await clock.advance(database, 2 * HOUR)
        assert await listed(stage, None) == ["listen queued", "count queued"]
        assert await listed(stage, Status.WAITING) == []
        assert await listed(stage, Status.QUEUED) == ["listen queued", "count queued"]


async def test_a_run_that_does_not_move_is_listed_as_stalled(database: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with staged(database, {"slow": troupe.slow}) as stage:
        run = await start(stage.control, "slow", {"gate": str(gate)})
        await stage.until(run.run_id, "running")
        assert (await listed(stage, Status.RUNNING), await listed(stage, Status.STALLED)) == (["slow running"], [])
        await clock.advance(database, HOUR)
        assert (await listed(stage, Status.RUNNING), await listed(stage, Status.STALLED)) == ([], ["slow stalled"])
        await asyncio.to_thread(gate.touch)
        await stage.until(run.run_id, "succeeded")
