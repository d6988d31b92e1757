"""The run as it goes: its ledger read as it grows, one line for each entry that says something."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from control.cli.follow import parts
from control.cli.standing import Standing, standing
from control.core.ledger import Entry, Kind
from control.core.run_status import Status
from control.runtime.commands import Control
from control.store import claims, listing
from graphs.loan_demo.crew import Crew, Fault
from graphs.loan_demo.screen import Screen

Pids = Mapping[str, int]
_POLL_S: Final = 0.05
_PATIENCE_S: Final = 60.0
_STUCK: Final = (Status.FAILED, Status.ABANDONED, Status.BLOCKED, Status.CANCELLED, Status.PARTIAL)


@dataclass
class Watch:
    """One run, seen from outside. `pids` is the process of each worker by the worker's id."""

    control: Control
    run_id: UUID
    crew: Crew
    screen: Screen
    entries: list[Entry] = field(default_factory=list)
    pids: dict[str, int] = field(default_factory=dict)

    async def until(self, reached: Callable[[Standing], bool]) -> Standing:
        """Print what happens until then. Raises `Fault` where the run stops before, or a minute has passed."""
        end = time.monotonic() + _PATIENCE_S
        with self.screen.moving() as status:
            while not reached(now := await self.look()):
                if now.status.word in _STUCK or time.monotonic() > end:
                    raise Fault(f"The run is {now.status.word}: {' '.join(now.status.because)}")
                _ = self.crew.working
                where = f" in {', '.join(now.nodes)}" if now.nodes else ""
                status.update(f"{now.status.word.replace('_', ' ')}{where}, {parts(now)} done")
                await asyncio.sleep(_POLL_S)
        return now

    async def look(self) -> Standing:
        """The run now; prints what is new."""
        now = await standing(self.control, self.run_id, close=True)
        async with self.control.transaction() as conn:
            entries = [entry async for entry in listing.entries(conn, self.control.tenant, self.run_id)]
            workers = await claims.workers(conn, grace=self.control.failover_wait)
        self.pids |= {str(row["worker_id"]): row["pid"] for row in workers}
        known, self.entries = len(self.entries), entries
        for entry in entries[known:]:
            tell = _LINES.get(entry.kind)
            if tell and (told := tell(entry, self.pids)):
                self.screen.event(self.clock(entry.at), told, style=_STYLES.get(entry.kind, ""))
        return now

    def clock(self, at: datetime) -> str:
        """Seconds since the run was accepted."""
        return f"{(at - self.entries[0].at).total_seconds():.2f} s"

    def of_kind(self, kind: Kind) -> list[Entry]:
        return [entry for entry in self.entries if entry.kind is kind]


async def wait_for_workers(control: Control, crew: Crew) -> None:
    """Until every worker of the crew is registered and alive."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        async with control.transaction() as conn:
            workers = await claims.workers(conn, grace=control.failover_wait)
        alive = {row["pid"] for row in workers if row["alive"]}
        if alive.issuperset(crew.working):
            return
        if time.monotonic() > end:
            raise Fault("The workers did not come up.")
        await asyncio.sleep(_POLL_S)


def _claimed(entry: Entry, pids: Pids) -> str:
    return f"worker {_pid(entry, pids)} has it (epoch {entry.epoch})"


def _lost(entry: Entry, pids: Pids) -> str:
    return f"worker {_pid(entry, pids)} is gone: its claim is taken away"


def _pid(entry: Entry, pids: Pids) -> str:
    return str(pids.get(entry.body["worker"], "of no known process"))


def _stepped(entry: Entry, _: Pids) -> str | None:
    nodes = [name for name in entry.body["nodes"] if not name.startswith("__")]
    return f"done: {', '.join(nodes)}" if nodes else None


def _began(entry: Entry, _: Pids) -> str:
    again = f" (call {entry.body['call']})" if entry.body["call"] > 1 else ""
    return f"calls for the {entry.body['name']}{again}; noted before the call"


def _outcome(entry: Entry, _: Pids) -> str:
    return f"{entry.body['name']}: {entry.body['state']}, and the outcome recorded"


def _failed(entry: Entry, _: Pids) -> str:
    return f"{entry.body['node']} failed: {_first_line(str(entry.body['error']))}"


def _first_line(error: str) -> str:
    """An error is kept as its `repr`, which spells out its line breaks."""
    return error.partition("\\n")[0]


def _ended(entry: Entry, _: Pids) -> str | None:
    due = entry.deadline("retry")
    if entry.body["outcome"] != "failed" or due is None:
        return None
    pause_s = (due - entry.at).total_seconds()
    return f"a {entry.body['failure_class']} failure: to be tried again by itself in {pause_s:.1f} s"


_LINES: Final[Mapping[Kind, Callable[[Entry, Pids], str | None]]] = {
    Kind.ACCEPTED: lambda entry, _: f"accepted from {entry.actor}",
    Kind.CLAIMED: _claimed,
    Kind.STEPPED: _stepped,
    Kind.EFFECT_BEGAN: _began,
    Kind.EFFECT_ENDED: _outcome,
    Kind.TASK_FAILED: _failed,
    Kind.ENDED: _ended,
    Kind.WORKER_LOST: _lost,
    Kind.ASKED: lambda entry, _: f"asks: {entry.body['title']}",
    Kind.DECIDED: lambda entry, _: f"{entry.body['decision']} by {entry.actor}",
}
_STYLES: Final = {
    Kind.TASK_FAILED: "red", Kind.ENDED: "yellow", Kind.WORKER_LOST: "red", Kind.ASKED: "bold yellow",
    Kind.DECIDED: "green", Kind.CLAIMED: "cyan",
}  # fmt: skip
