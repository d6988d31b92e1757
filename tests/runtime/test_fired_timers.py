"""A timer fires once, and what waited for it goes on once: whenever its worker dies, and however its node fails."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pytest

from control.runtime.commands.retry import retry
from control.runtime.recovery import Recovery
from control.store import runs
from control.store.claims import Claimed, Claims
from control.testing import clock
from control.testing.faults import Fleet, Member, fleet
from control.testing.stage import Stage, staged
from tests.runtime.scenes import Cues, graphs, until
from tests.runtime.test_recovery import epochs
from tests.runtime.test_status_words import run_of
from tests.runtime.test_timers import TEN_DAYS, until_entered
from tests.runtime.test_verbs import said

HELD: Final = ("wait then", "wait beside")
Moment = Callable[[pytest.MonkeyPatch], None]
"""Arranges that the process dies at a moment."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before_the_commit(patch: pytest.MonkeyPatch, *, of: str = "fired") -> None:
    """The timer is fired and the run is saved, in a transaction that never ends. of: the kind of its entry."""
    save = runs.save_run

    async def fatal(conn: Any, run: Any, entries: Any, **about: Any) -> None:
        await save(conn, run, entries, **about)
        if any(kind == of for kind, *_ in entries):
            die()

    patch.setattr(runs, "save_run", fatal)


def after_the_commit(patch: pytest.MonkeyPatch) -> None:
    """The timer has fired; nobody has claimed the run."""
    wake = Recovery.wake

    async def fatal(recovery: Recovery, tenant: str, run_id: UUID) -> bool:
        if done := await wake(recovery, tenant, run_id):
            die()
        return done

    patch.setattr(Recovery, "wake", fatal)


def at_the_claim(patch: pytest.MonkeyPatch) -> None:
    """The run is claimed; its node has not been told yet that it has waited."""
    claim = Claims.claim

    async def fatal(claims: Claims, *asked: Any, **about: Any) -> list[Claimed]:
        if claimed := await claim(claims, *asked, **about):
            die()
        return claimed

    patch.setattr(Claims, "claim", fatal)


def in_the_node(_: pytest.MonkeyPatch) -> None:
    """The node goes on; its cue kills the process."""


def work(says: Connection, conninfo: str, moment: Moment | None) -> None:
    """The life of a worker process."""
    with pytest.MonkeyPatch.context() as patch:
        if moment is not None:
            moment(patch)
        asyncio.run(_work(says, conninfo))


async def _work(says: Connection, conninfo: str) -> None:
    async with staged(conninfo, graphs(*HELD), work=False) as stage:
        says.send(f"worker:{stage.app.worker().worker_id}")
        async with stage.working():
            await asyncio.Event().wait()


@pytest.fixture
def crew(database: str, tmp_path: Path) -> Iterator[Fleet]:
    with fleet(work, database, log=tmp_path / "log", preload=["tests.runtime.test_fired_timers"]) as crew:
        yield crew


async def until_dead(member: Member) -> None:
    async def dead() -> bool:
        return not member.alive

    await until(dead, "the worker has died", timeout_s=30)


async def suspended(stage: Stage, cues: Cues) -> UUID:
    """A run that waits; nobody works."""
    async with stage.working():
        run_id = await run_of(stage, "wait then", cues)
        await stage.until(run_id, "waiting")
    return run_id


async def ended_once(stage: Stage, run_id: UUID) -> None:
    """The run ends well, having waited once, and its timer having fired once."""
    await stage.until(run_id, "succeeded", timeout_s=30)
    told = stage.kinds(run_id)
    assert (told.count("suspended"), told.count("fired")) == (1, 1)
    assert told.index("suspended") < told.index("fired")


@pytest.mark.parametrize(
    ("moment", "claims", "entered"),
    [(before_the_commit, 2, 1), (after_the_commit, 2, 1), (at_the_claim, 3, 1), (in_the_node, 3, 2)],
)
async def test_a_worker_dies_at_the_firing(
    moment: Moment, claims: int, entered: int, *, database: str, cues: Cues, crew: Fleet
) -> None:
    """`claims` of the run, the one that opened the wait included; its node goes on `entered` times."""
    if moment is in_the_node:
        cues.give("after", "die")
    async with staged(database, graphs(*HELD), work=False) as stage:
        run_id = await suspended(stage, cues)
        await clock.advance(database, TEN_DAYS)
        await until_dead(crew.start(moment))
        assert stage.kinds(run_id).count("fired") == (moment is not before_the_commit)
        if moment is in_the_node:
            cues.take("after")
        crew.start(None)
        await ended_once(stage, run_id)
        assert len(epochs(stage, run_id)) == claims
        assert await said(stage, run_id) == ["a", "after", "z"]
    assert cues.seen() == ["a", *["after"] * entered, "z"]


async def test_a_timer_is_due_while_its_worker_dies_beside_it(database: str, cues: Cues, crew: Fleet) -> None:
    """It cannot fire while the wait's own worker holds the run: whoever takes the run over fires it."""
    cues.give("beside", "hold")
    async with staged(database, graphs(*HELD), work=False) as stage:
        victim = crew.start(None)
        run_id = await run_of(stage, "wait beside", cues)
        await cues.until_seen("beside")
        await until_entered(stage, run_id, "suspended")
        await clock.advance(database, TEN_DAYS)
        victim.kill()
        cues.take("beside")
        assert "fired" not in stage.kinds(run_id)
        crew.start(None)
        await ended_once(stage, run_id)
        assert sorted(await said(stage, run_id)) == ["beside", "waited", "z"]


async def test_a_retry_after_the_wait_does_not_wait_again(database: str, cues: Cues) -> None:
    async with staged(database, graphs(*HELD), work=False) as stage:
        run_id = await suspended(stage, cues)
        cues.give("after", "permanent")
        await clock.advance(database, TEN_DAYS)
        async with stage.working():
            await stage.until(run_id, "failed")
            cues.take("after")
            await retry(stage.control, run_id)
            await ended_once(stage, run_id)
        assert await said(stage, run_id) == ["a", "after", "z"]
    assert cues.seen() == ["a", "after", "after", "z"]


async def test_a_worker_dies_when_a_retry_after_the_wait_is_due(database: str, cues: Cues, crew: Fleet) -> None:
    """The failure is on record, and its retry has a time of its own, which another worker keeps."""
    cues.give("after", "transient")
    async with staged(database, graphs(*HELD), work=False) as stage:
        run_id = await suspended(stage, cues)
        await clock.advance(database, TEN_DAYS)
        await until_dead(crew.start(partial(before_the_commit, of="woken")))
        cues.take("after")
        crew.start(None)
        await ended_once(stage, run_id)
        assert [entry.body["why"] for entry in stage.ledger(run_id) if entry.kind == "woken"] == ["retry"]
        assert await said(stage, run_id) == ["a", "after", "z"]
    assert cues.seen() == ["a", "after", "after", "z"]
