"""The auditor itself: it passes books that are in order, and finds each thing that could be wrong with them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from uuid import uuid4

import pytest

from control.core.ledger import Kind, Loss
from control.runtime.commands.start import start
from control.testing.chaos import WITNESS, Seen, Toll, Work, witnessed
from control.testing.faults import fleet
from control.testing.stage import staged
from tests.chaos.auditor import Books, books, examine
from tests.chaos.graphs import graphs
from tests.store.holding import execute

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass
class Case:
    """A run that was taken from a worker which lived: what it was, what is recorded, and what was seen."""

    work: Work
    found: Books
    seen: list[Seen]
    slandered: str

    def faults(self, toll: Toll) -> list[str]:
        return examine(self.found, [self.work], self.seen, toll).faults


@pytest.fixture
async def case(database: str, tmp_path: Path) -> Case:
    work, file = Work("slow", {"total": 0}, uuid4()), tmp_path / WITNESS
    config = {"configurable": {WITNESS: str(file)}}
    async with staged(database, {"slow": graphs()["slow"]}) as stage:
        run = await start(stage.control, "slow", work.value, run_id=work.run_id, config=config)
        await until(lambda: any(one.node == "second" for one in witnessed(file)))
        assert stage.worker is not None
        slandered = str(stage.worker.worker_id)
        execute(database, "update control.worker set lease_until = now() - interval '1 s', ended_at = null")
        async with stage.working():
            await until(lambda: "worker_lost" in stage.kinds(work.run_id))
            await stage.until(run.run_id, "succeeded")
    return Case(work, books(database), witnessed(file), slandered)


async def test_a_living_worker_that_was_declared_dead_is_found(case: Case) -> None:
    taken = f"run {case.work.run_id} was taken from {case.slandered}, which lived: its lease ran out"
    now = datetime.now(UTC)
    assert case.faults(Toll(0)) == [taken]
    assert case.faults(Toll(0, killed={str(uuid4()): LONG_AGO})) == [taken], "another was killed"
    assert case.faults(Toll(0, killed={case.slandered: now + timedelta(seconds=1)})) == [taken], "it was killed later"
    assert case.faults(Toll(0, killed={case.slandered: LONG_AGO})) == []


@pytest.mark.parametrize("why", [Loss.GAVE_UP, Loss.UNHEARD])
async def test_only_a_restart_of_the_database_excuses_a_claim_that_its_worker_let_go(why: Loss, case: Case) -> None:
    told = with_entry(case, place_of(case, Kind.WORKER_LOST), body={"worker": case.slandered, "why": why})
    slander = f"which lived: {why}"
    assert sum(slander in fault for fault in told.faults(Toll(0, faults=Counter({"kills, worker": 9})))) == 1
    assert not any(slander in fault for fault in told.faults(Toll(0, faults=Counter({"restarts, fast": 1}))))


LIES: dict[str, tuple[Callable[[Case], Case], str]] = {
    "a run is gone": (lambda c: replace(c, found=Books({}, {})), "lost or made up"),
    "a run nobody started": (lambda c: replace(c, work=replace(c.work, run_id=uuid4())), "lost or made up"),
    "another end": (lambda c: replace(c, work=replace(c.work, value={"total": 1})), "is succeeded with 111, not 112"),
    "a run nobody saw": (lambda c: replace(c, seen=[]), "nobody saw run"),
    "a node done twice in an epoch": (lambda c: replace(c, seen=[*c.seen, c.seen[0]]), "2 times in epoch 1"),
    "a node done under no claim": (
        lambda c: replace(c, seen=[*c.seen, replace(c.seen[0], epoch=9)]), "in epoch 9, which the ledger does not know",
    ),
    "a node done again after its step": (
        lambda c: replace(c, seen=[*c.seen, replace(c.seen[0], epoch=2)]), "in epoch 2 after its step was committed",
    ),
    "a row that the ledger does not bear out": (lambda c: with_row(c, takeovers=0), "takeovers is 0 in the row and 1"),
    "an entry that was changed": (lambda c: with_entry(c, 1, actor="another"), "the chain is broken at entry 2"),
}  # fmt: skip


async def test_whatever_else_is_wrong_is_found(case: Case) -> None:
    toll = Toll(0, killed={case.slandered: LONG_AGO})
    told = {name: case_faults for name, (lie, _) in LIES.items() if (case_faults := lie(case).faults(toll))}
    for name, (_, says) in LIES.items():
        assert any(says in fault for fault in told.get(name, ())), (name, told.get(name))


def with_row(case: Case, **changed: object) -> Case:
    row = {**case.found.runs[case.work.run_id], **changed}
    return replace(case, found=replace(case.found, runs={case.work.run_id: row}))


def place_of(case: Case, kind: Kind) -> int:
    return [entry.kind for entry in case.found.ledgers[case.work.run_id]].index(kind)


def with_entry(case: Case, place: int, **changed: object) -> Case:
    chain = list(case.found.ledgers[case.work.run_id])
    chain[place] = replace(chain[place], **changed)  # type: ignore[arg-type]  # the fields are the caller's
    return replace(case, found=replace(case.found, ledgers={case.work.run_id: chain}))


def test_a_process_that_dies_before_it_says_its_name_has_none(tmp_path: Path) -> None:
    with fleet(die, log=tmp_path / "log") as crew:
        member = crew.start()
        member.process.join()
        assert member.name is None


def die(says: Connection) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while True:
            if holds():
                return
            await asyncio.sleep(0.02)
