"""Cores that have no rest: processes that keep them busy, and the measure of how idle they were all the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from control.testing.faults import fleet

_STAT: Final = Path("/proc/stat")
_IDLE: Final = slice(3, 5)  # of a core's times: idle, and idle while a disk works


@dataclass(slots=True)
class Idleness:
    """share: how much of this process's cores nobody used, from 0 to 1, once it is known; None where the operating
    system does not tell.
    """

    share: float | None = None

    def __str__(self) -> str:
        return "cores' idleness unknown" if self.share is None else f"cores idle {self.share:.1%}"


@contextmanager
def measured() -> Iterator[Idleness]:
    """Measure the cores during the block."""
    found, (idle, total) = Idleness(), _spent()
    try:
        yield found
    finally:
        idle_then, total_then = _spent()
        if total_then > total:
            found.share = (idle_then - idle) / (total_then - total)


@contextmanager
def burning(*, log: Path, cores: int | None = None) -> Iterator[None]:
    """Keep that many cores busy during the block, by default all, at the same priority as everybody's."""
    with fleet(_burn, log=log) as crew:
        for _ in range(len(os.sched_getaffinity(0)) if cores is None else cores):
            crew.start()
        for member in crew.members:
            member.until_named()
        yield


def _burn(says: Connection) -> None:
    says.send("burner")
    while True:
        pass


def _spent() -> tuple[int, int]:
    """What this process's cores have spent since they were started: idly, and in all."""
    if not _STAT.exists():
        return 0, 0
    mine = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    cores = [line.split() for line in _STAT.read_text(encoding="ascii").splitlines()]
    times = [[int(time) for time in spent[:8]] for name, *spent in cores if name in mine]
    return sum(sum(core[_IDLE]) for core in times), sum(sum(core) for core in times)
