"""Every change to an exported ledger is found: by our verifier, and by the single file that shares no code with it.

The bundle comes from a real database: runs that ended, one that waits, one that was erased, trees under two keys. Every
byte of it is covered, so every change that leaves other bytes than before counts; one that leaves the same bytes is not
a change, and is not counted.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Final

import pytest

from control.core.bundle import check
from control.runtime import signing
from control.runtime.commands.erase import erase_runs
from control.runtime.commands.pause import pause
from control.runtime.commands.start import start
from control.testing.database import Databases
from control.testing.stage import Stage, staged, tester
from tests.cli import troupe
from tests.runtime.mutations import KINDS, Originals, lines, written
from tests.runtime.mutations import records as parsed
from tests.runtime.proving import attestor, bundle, create_key, rotate_key, verdict

GRAPHS: Final = {"count": troupe.count, "pay": troupe.pay}


@pytest.fixture(scope="module")
def exported(databases: Databases) -> Iterator[tuple[Originals, bytes]]:
    """The bundles, and the public key to trust."""
    with databases.cloned() as conninfo:
        yield asyncio.run(_exported(conninfo))


async def _exported(conninfo: str) -> tuple[Originals, bytes]:
    async with staged(conninfo, GRAPHS) as stage:
        key = await create_key(stage)
        runs = [(await start(stage.control, "count", {"amount": n})).run_id for n in range(3)]
        for run_id in runs:
            await stage.until(run_id, "succeeded")
        waiting = await start(stage.control, "pay", {"amount": 9})
        await stage.until(waiting.run_id, "awaiting_approval")
        await attestor(stage).attest("default", wait=True)
        earlier = await bundle(stage)
        await rotate_key(stage)
        await erase_runs(stage.control, [runs[0]], why="asked to")
        await pause(stage.control, waiting.run_id, reason="lunch")
        await attestor(stage).attest("default", wait=True)
        this, foreign = await bundle(stage), await _foreign(stage)
    return Originals(this, earlier, foreign), key.public


async def _foreign(stage: Stage) -> bytes:
    """Another tenant's, in the same database and under the same keys."""
    theirs = Stage(stage.app, stage.app.control(principal=tester("theirs"), workflows=True), stage.conninfo)
    run = await start(theirs.control, "count", {"amount": 1})
    await theirs.until(run.run_id, "succeeded")
    await attestor(theirs).attest("theirs", wait=True)
    return await bundle(theirs)


def hunt(originals: Originals, trusted: bytes, *, count: int, seed: int) -> Counter[str]:
    """Try so many changes of all kinds; returns how many of each were made. Fails on the first that is not found."""
    random, found = Random(seed), Counter[str]()
    while found.total() < count:
        kind = KINDS[found.total() % len(KINDS)] if random.random() < 0.9 else random.choice(KINDS)
        changed = kind(originals, random)
        if changed is None or changed == originals.bundle:
            continue
        report = verdict(changed, trusted)
        assert report.fault, f"seed {seed}, change {found.total()}: {kind.__name__} was not found"
        found[kind.__name__] += 1
    return found


def told(found: Counter[str]) -> str:
    return "\n".join(f"{name.replace('_', ' '):24}{number:8,} of {number:,} found" for name, number in found.items())


def test_what_was_exported_is_proven(exported: tuple[Originals, bytes]) -> None:
    originals, trusted = exported
    report = verdict(originals.bundle, trusted)
    assert (report.fault, report.runs, report.trees, report.attested) == (None, 4, 2, 4)
    assert report.erased > 3
    for other in (originals.earlier, originals.foreign):
        assert verdict(other, trusted).fault is None
    assert written(parsed(originals.bundle)) == originals.bundle, "the mutations write as the export does"


def test_every_change_is_found(exported: tuple[Originals, bytes]) -> None:
    found = hunt(*exported, count=1000, seed=20261120)
    print(f"\n{told(found)}")
    assert len(found) == len(KINDS) and min(found.values()) >= 25


@pytest.mark.prove
@pytest.mark.timeout(7200)
def test_every_one_of_100_000_changes_is_found(exported: tuple[Originals, bytes]) -> None:
    seed = Random().randrange(2**32)
    print(f"\nseed {seed}")
    found = hunt(*exported, count=100_000, seed=seed)
    print(told(found))
    assert len(found) == len(KINDS)


def test_every_bit_of_some_lines_counts(exported: tuple[Originals, bytes]) -> None:
    """The opening, a key, a head and the seal, bit by bit: no byte of them is free."""
    originals, trusted = exported
    whole = lines(originals.bundle)
    for place in (0, 1, next(i for i, line in enumerate(whole) if b'"head"' in line), len(whole) - 1):
        for bit in range(0, len(whole[place]) * 8, 7):  # every seventh reaches every byte, and every bit in turn
            line = bytearray(whole[place])
            line[bit // 8] ^= 1 << bit % 8
            changed = b"".join([*whole[:place], bytes(line), *whole[place + 1 :]])
            report = check(iter(changed.splitlines(keepends=True)), trusted=[trusted], verifies=signing.verifies)
            assert report.fault, f"line {place + 1}, bit {bit}"
