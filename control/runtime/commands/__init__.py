"""Commands: what people order. One module for each verb.

A command locks the run, reads its facts, asks `core.lifecycle` whether the verb is legal now, changes the facts, and
lets `store.runs.save_run` derive the status and append to the ledger, all in one transaction. It holds no rule of its
own. Workers are told when that transaction commits.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from control.core.facts import Facts
from control.core.lifecycle import VERB_NOT_LEGAL, Verb, require
from control.core.problem import Problem
from control.core.run_status import RunStatus, derive
from control.store import runs
from control.store.database import Connection, Database
from control.store.runs import Entry, Run
from control.store.serde import StrictSerializer

if TYPE_CHECKING:  # a command that starts no run needs no workflow, nor the LangGraph runtime that loads one
    from control.runtime.workflows import Workflow

INPUT_TOO_LARGE: Final = Problem(
    code="input-too-large",
    status=413,
    title="The input or answer is larger than this installation takes",
    next_step="Store the document elsewhere and pass a reference to it, or raise CONTROL_INPUT_LIMIT_MB.",
)
_ALONE: Final = frozenset({Verb.RETRY, Verb.REWIND})
"""Verbs that need a run which nobody holds, not even a worker that seems to be gone: it may come back and write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What a command works with. `tenant` is whose runs it sees, `by` who gives the orders; `input_limit` is in bytes.
    For the others see control/settings.py.
    """

    database: Database
    tenant: str
    by: str
    workflows: Mapping[str, Workflow]
    serde: StrictSerializer
    crash_limit: int
    stall_after: timedelta
    failover_wait: timedelta
    input_limit: int

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        async with self.database.scope("control_command", self.tenant) as conn:
            yield conn

    @asynccontextmanager
    async def changing(self, run_id: UUID, verb: Verb) -> AsyncIterator[Change]:
        """A transition that this verb makes, if the run's state allows it. Raises `no-such-run`, `verb-not-legal`."""
        async with self.transaction() as conn:
            run = await runs.lock_run(conn, self.tenant, run_id)
            facts, at = await self.look(conn, run)
            change = Change(self, conn, run, at, facts)
            require(verb, change.status.word, change.facts)
            if run.worker_id is not None and verb in _ALONE:
                raise VERB_NOT_LEGAL.because("Its worker was lost a moment ago, and a peer is about to take it over.")
            yield change

    async def look(self, conn: Connection, run: Run) -> tuple[Facts, datetime]:
        """The run's facts, and what time it is."""
        asked, at = await runs.standing(conn, run)
        alive = run.worker_id is None or await runs.worker_alive(conn, run, grace=self.failover_wait)
        return runs.facts_of(run, asked, crash_limit=self.crash_limit, alive=alive), at

    async def facts(self, conn: Connection, run: Run) -> Facts:
        return (await self.look(conn, run))[0]


@dataclass(slots=True)
class Change:
    """A locked run about to be changed."""

    control: Control
    conn: Connection
    run: Run
    at: datetime
    facts: Facts

    @property
    def status(self) -> RunStatus:
        return derive(self.facts, now=self.at, stall_after=self.control.stall_after)

    async def save(self, run: Run, entries: Iterable[Entry]) -> Run:
        """Write the changed run, and tell the worker that holds it."""
        after = await runs.save_run(self.conn, run, entries, at=self.at, crash_limit=self.control.crash_limit)
        if after.worker_id is not None:
            await runs.announce(self.conn, runs.ORDERS, str(after.run_id))
        return after


def check_size(control: Control, size: int) -> None:
    """Refuse an input or an answer of too many bytes. Raises `input-too-large`."""
    if size > control.input_limit:
        raise INPUT_TOO_LARGE.because(f"{size:,} bytes; {control.input_limit:,} are allowed.", bytes=size)
