"""Old and new workers side by side: each run ends on a version that fits, or is blocked and says what to do."""

from __future__ import annotations

import os
import signal
from uuid import UUID

from control.runtime.commands.restart import restart
from control.runtime.commands.rewind import rewind
from control.testing.stage import Stage, staged
from tests.runtime.scenes import Cues, graphs
from tests.runtime.test_recovery import epochs, who
from tests.runtime.test_status_words import legal_verbs, run_of
from tests.runtime.test_verbs import said
from tests.runtime.troupe import Troupe

OLD, NEW = "flow=line", "flow=other line"  # a b c, and a bb c


async def test_each_run_stays_with_the_version_it_began_under(database: str, cues: Cues, troupe: Troupe) -> None:
    async with staged(database, graphs(flow="line"), work=False) as stage:
        old = troupe.hire(OLD)
        cues.give("b", "hold")
        first = await run_of(stage, "flow", cues)
        await cues.until_seen("b")
        os.kill(old, signal.SIGTERM)  # a rolling upgrade: it hands its run over at the step's end
        second_old, new = troupe.hire(OLD), troupe.hire(NEW)
        cues.take("b")
        await stage.until(first, "succeeded")
        assert await said(stage, first) == ["a", "b", "c"]
        assert epochs(stage, first)[-1] in [(1, who(troupe, old)), (2, who(troupe, second_old))]
        runs = [await run_of(stage, "flow", cues) for _ in range(10)]
        for run_id in runs:
            await stage.until(run_id, "succeeded")
            assert await said(stage, run_id) in (["a", "b", "c"], ["a", "bb", "c"])
            assert len(epochs(stage, run_id)) == 1
        assert {who(troupe, old), who(troupe, second_old), who(troupe, new)} >= {
            epochs(stage, run_id)[0][1] for run_id in runs
        }


async def test_a_run_whose_version_is_gone_goes_on_where_it_fits(database: str, cues: Cues, troupe: Troupe) -> None:
    """It stands before `c`, which both versions have."""
    async with staged(database, graphs(flow="line"), work=False) as stage:
        old = troupe.hire(OLD)
        cues.give("c", "hold")
        run_id = await run_of(stage, "flow", cues)
        await cues.until_seen("c")
        troupe.kill(old)
        cues.take("c")
        new = troupe.hire(NEW)
        await stage.until(run_id, "succeeded")
        assert epochs(stage, run_id)[-1] == (2, who(troupe, new))
        adopted = next(entry for entry in stage.ledger(run_id) if entry.kind == "adopted")
        assert adopted.body["digest"] != adopted.body["from"]
        assert await said(stage, run_id) == ["a", "b", "c"]


async def blocked(stage: Stage, cues: Cues, troupe: Troupe) -> UUID:
    """A run that stands before `b`, which the only version that is left does not have."""
    old = troupe.hire(OLD)
    cues.give("b", "hold")
    run_id = await run_of(stage, "flow", cues)
    await cues.until_seen("b")
    troupe.kill(old)
    cues.take("b")
    troupe.hire(NEW)
    return run_id


async def test_a_blocked_run_goes_on_when_its_version_comes_back(database: str, cues: Cues, troupe: Troupe) -> None:
    async with staged(database, graphs(flow="line"), work=False) as stage:
        run_id = await blocked(stage, cues, troupe)
        told = await stage.until(run_id, "blocked")
        assert "graph-changed" in told.because[0]
        assert await legal_verbs(stage, run_id) == {"cancel", "restart", "rewind", "signal"}
        troupe.hire(OLD)
        await stage.until(run_id, "succeeded")
        assert await said(stage, run_id) == ["a", "b", "c"]
    assert cues.seen() == ["a", "b", "b", "c"]


async def test_a_blocked_run_is_rewound_to_where_the_new_version_fits(
    database: str, cues: Cues, troupe: Troupe
) -> None:
    async with staged(database, graphs(flow="line"), work=False) as stage:
        run_id = await blocked(stage, cues, troupe)
        await stage.until(run_id, "blocked")
        steps = [entry.body for entry in stage.ledger(run_id) if entry.kind == "stepped"]
        await rewind(stage.control, run_id, next(s["checkpoint_id"] for s in steps if s["step"] == 0))
        await stage.until(run_id, "succeeded")
        assert await said(stage, run_id) == ["a", "bb", "c"]


async def test_a_blocked_run_is_restarted_under_the_new_version(database: str, cues: Cues, troupe: Troupe) -> None:
    async with staged(database, graphs(flow="line"), work=False) as stage:
        run_id = await blocked(stage, cues, troupe)
        await stage.until(run_id, "blocked")
        again = await restart(stage.control, run_id)
        await stage.until(again.run_id, "succeeded")
        assert await said(stage, again.run_id) == ["a", "bb", "c"]
        assert (await stage.status(run_id)).word == "blocked"
