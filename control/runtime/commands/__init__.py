"""Commands: what people order. One module for each verb.

A command locks the run, reads its facts, asks `authority` whether the verb is legal now and permitted to whoever gives
the order, changes the facts, and lets `store.runs.save_run` derive the status and append to the ledger, all in one
transaction. It holds no rule of its own. What it appends names the rules that permitted it and the version of the
policy. Workers are told when that transaction commits.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from control.core import lifecycle
from control.core.action import Action
from control.core.facts import Facts
from control.core.lifecycle import VERB_NOT_LEGAL, Verb
from control.core.limits import hold
from control.core.principal import Principal
from control.core.problem import Problem
from control.core.run_status import RunStatus, Status, derive
from control.core.verdict import Permit
from control.policy.port import Resource
from control.runtime.authority import NOT_A_TENANTS, Authority, Grant, resource
from control.runtime.rules_in_force import in_force
from control.store import erasure, limits, runs
from control.store.database import Connection, Database, Role
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
_JUST_LOST: Final = "Its worker was lost a moment ago, and a peer is about to take it over."


@dataclass(frozen=True, slots=True)
class Now:
    """A run at an instant: its row, its facts, and what they come to."""

    run: Run
    facts: Facts
    status: RunStatus
    at: datetime

    @property
    def seen(self) -> tuple[Run, Status]:
        """What policy is shown of it."""
        return self.run, self.status.word


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What a command works with. `principal` is who gives the orders, and for which tenant; `input_limit` is in bytes.
    For the others see control/settings.py.
    """

    database: Database
    principal: Principal
    workflows: Mapping[str, Workflow]
    serde: StrictSerializer
    crash_limit: int
    stall_after: timedelta
    failover_wait: timedelta
    input_limit: int

    @property
    def tenant(self) -> str:
        return self.principal.tenant

    @property
    def by(self) -> str:
        """The principal's name in the ledger."""
        return self.principal.actor

    @property
    def whole(self) -> Resource:
        """The tenant, as policy sees it."""
        return Resource("Tenant", self.tenant, self.tenant)

    async def authority(self, conn: Connection) -> Authority:
        """What the principal may do, under the policy in force in this transaction. Raises `policy-invalid`."""
        return Authority(await in_force(conn, self.tenant), self.principal)

    async def require(self, conn: Connection, action: Action, on: Resource | None = None) -> Grant:
        """The permit for what is done outside a run's life cycle, to the tenant as a whole unless to something in it.

        Raises `not-permitted`, `agreement-needed`.
        """
        return (await self.authority(conn)).require(action, on or self.whole)

    def require_operator(self, what: str) -> None:
        """Leave to do what concerns every tenant, whatever one tenant's rules say. Raises `not-a-tenants`."""
        if not self.principal.operates:
            raise NOT_A_TENANTS.because(f"{self.by} may not {what}, whatever tenant {self.tenant} permits.")

    @asynccontextmanager
    async def transaction(self, role: Role = "control_command") -> AsyncIterator[Connection]:
        async with self.database.scope(role, self.tenant) as conn:
            yield conn

    @asynccontextmanager
    async def changing(self, run_id: UUID, verb: Verb, *, whole_thread: bool = False) -> AsyncIterator[Change]:
        """A transition that this verb makes, if policy permits it and the run's state allows it.

        whole_thread: it reaches beyond the run, to what LangGraph keeps. No run begins on its thread meanwhile.
        Raises `no-such-run`, `not-permitted`, `agreement-needed`, `verb-not-legal`. What policy refuses is recorded in
        the run's ledger, and the run stays as it is; one that the principal may not read does not exist for it.
        """
        async with self.transaction("control_flush" if whole_thread else "control_command") as conn:
            if whole_thread:
                await erasure.hold(conn, self.tenant, [run_id])
            now = await self.look(conn, await runs.lock_run(conn, self.tenant, run_id))
            authority, on = await self.authority(conn), resource(now.run, now.status.word)
            verdict = authority.judge(verb, on)
            if isinstance(verdict, Permit):
                lifecycle.require(verb, now.status.word, now.facts)
                if now.run.worker_id is not None and verb in _ALONE:
                    raise VERB_NOT_LEGAL.because(_JUST_LOST)
                yield Change(self, conn, now.run, at=now.at, grant=authority.grant(verdict, verb, on))
                return
            entry = ("refused", self.by, authority.refused(verb, on, verdict))
            await runs.append(conn, now.run, [entry], at=now.at)
        raise authority.refusal(verb, on, verdict) if authority.sees(*now.seen) else runs.unknown(run_id)

    async def find(self, conn: Connection, name: str) -> UUID:
        """The run that a person means: its id, the first letters of it, or its thread. Raises `no-such-run`.

        What the principal may not read is not found. A whole id is not looked for: whoever goes on with it reads it.
        """
        where = (await self.authority(conn)).visible().where
        return await runs.find_run(conn, self.tenant, name, where=where, stall_after=self.stall_after)

    async def read(self, conn: Connection, run_id: UUID) -> Now:
        """A run that the principal may read, as it stands. Raises `no-such-run`."""
        now = await self.look(conn, await runs.read_run(conn, self.tenant, run_id))
        (await self.authority(conn)).require_seen(*now.seen)
        return now

    async def look(self, conn: Connection, run: Run) -> Now:
        """The run as it stands, whoever may read it."""
        asked, at, alive = await runs.standing(conn, run, grace=self.failover_wait)
        facts = runs.facts_of(run, asked, crash_limit=self.crash_limit, alive=alive)
        status = derive(facts, now=at, stall_after=self.stall_after)
        if status.word is Status.QUEUED:
            allowed, _ = await limits.in_force(conn, run.tenant)
            if held := hold(allowed, await limits.use(conn, run.tenant, allowed, at=at), now=at):
                facts = replace(facts, hold=held)
                status = derive(facts, now=at, stall_after=self.stall_after)
        return Now(run, facts, status, at)


@dataclass(slots=True)
class Change:
    """A locked run about to be changed, and what permits it."""

    control: Control
    conn: Connection
    run: Run
    _: KW_ONLY
    at: datetime
    grant: Grant

    def entry(self, kind: str, body: dict[str, Any]) -> Entry:
        """The ledger's entry for what the principal did, with what permitted it."""
        return kind, self.control.by, body | self.grant.body

    def order(self, verb: Verb, reason: str | None = None) -> Entry:
        """The ledger's entry for an order."""
        return self.entry("ordered", {"verb": verb.value} | ({"reason": reason} if reason else {}))

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
