"""Runs: reading their facts, and changing them one transition at a time.

A transition locks the run's row, reads every fact its status follows from, decides with `core`, and writes the new
facts, the status and the ledger's entries in one transaction. Commands, timers, take-overs and implicit writers all go
this way; only the saver's flush and the claim write a run without it, and each says why its status needs no derivation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, Final, Self
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from control.core.execution import Execution
from control.core.facts import Ask, AskKind, Claim, Facts, Fit, Order, Outcome, OutcomeKind, Progress, Wait, WaitKind
from control.core.failure import FailureClass
from control.core.ledger import canonical
from control.core.predicate import Predicate
from control.core.problem import Problem, Refusal
from control.core.run_status import TERMINAL, index
from control.store.arrays import Texts
from control.store.sql import read
from control.store.visibility import narrowed

NO_SUCH_RUN: Final = Problem(
    code="no-such-run",
    status=404,
    title="There is no such run",
    next_step="List the runs with `control runs`; what you may not read is not seen.",
)

WORK: Final = "control_work"
"""Notification channel: something is ready for a worker. No payload, so that many at once arrive as one."""
ORDERS: Final = "control_orders"
"""Notification channel: a claimed run has an order. The payload is its id."""

_SQL: Final = read("runs")
_NO_ID: Final = UUID(int=0)
Entry = tuple[str, str, dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A row of control.run, without the ledger's head. See the migration for the columns."""

    tenant: str
    run_id: UUID
    thread_id: str
    workflow: str | None
    graph_digest: str | None
    config: dict[str, Any]
    priority: int
    created_at: datetime
    created_by: str
    created_via: list[str]
    restarted_from: UUID | None
    not_before: datetime | None
    epoch: int
    worker_id: UUID | None
    claimed_at: datetime | None
    progress_at: datetime | None
    blocked_in: str | None
    execution: str
    head_checkpoint_id: str | None
    head_step: int | None
    parts: list[str]
    parts_total: int | None
    outcome: str | None
    outcome_at: datetime | None
    failure_class: str | None
    failure: dict[str, Any] | None
    crashes: int
    retries: int
    retry_at: datetime | None
    woken_at: datetime | None
    takeovers: int
    shortfalls: int
    branch: int
    fit: str
    pause_at: datetime | None
    pause_by: str | None
    cancel_at: datetime | None
    cancel_by: str | None
    version: int
    status: str
    since: datetime
    due_at: datetime | None
    closed_at: datetime | None
    erased_at: datetime | None
    deleted_at: datetime | None

    @classmethod
    def of(cls, row: Any) -> Self:
        """From a row by column name."""
        return cls(**{f.name: row[f.name] for f in fields(cls)})

    @property
    def starters(self) -> frozenset[str]:
        """Everybody who may have started it: in whose name that was, and who has had that credential in hand."""
        return frozenset((self.created_by, *self.created_via))

    def key(self, **params: Any) -> dict[str, Any]:
        """The parameters of a query on what belongs to this run: its key, and these."""
        return {"tenant": self.tenant, "run_id": self.run_id, **params}

    def afresh(self, at: datetime) -> Self:
        """The run with nothing counted or held against it of what its attempts came to."""
        return replace(
            self,
            outcome=None,
            outcome_at=None,
            failure=None,
            failure_class=None,
            retry_at=None,
            retries=0,
            crashes=0,
            woken_at=at,
        )


@dataclass(frozen=True, slots=True)
class Questions:
    """What a run is waiting for, and how many answers lie ready."""

    asks: tuple[Ask, ...] = ()
    waits: tuple[Wait, ...] = ()
    ready: int = 0


async def read_run(conn: AsyncConnection[Any], tenant: str, run_id: UUID) -> Run:
    """The run as it stands. Raises `no-such-run`."""
    return _one(await _row(conn, "read", tenant=tenant, run_id=run_id), run_id)


def unknown(run_id: UUID) -> Refusal:
    """That there is no such run, or none that may be seen: the two are told apart by nobody."""
    return NO_SUCH_RUN.because(f"No run has the id {run_id}.", run=str(run_id))


async def add_run(
    conn: AsyncConnection[Any], row: Mapping[str, Any], given: tuple[str, bytes] | None = None
) -> Run | None:
    """A new run on its thread, made at need; None where this run was added before.

    `row` has the keys of the query `add`; `given` is the input as (type, data), None for a script's run.
    """
    try:
        async with conn.transaction():
            await _execute(conn, "add_thread", tenant=row["tenant"], thread_id=row["thread_id"])
            added = Run.of(await _row(conn, "add", **{**row, "config": Jsonb(row["config"])}))
            if given is not None:
                kind, data = given
                await _execute(conn, "add_input", tenant=added.tenant, run_id=added.run_id, type=kind, data=data)
            return added
    except psycopg.errors.UniqueViolation as error:
        if error.diag.constraint_name == "run_pkey":
            return None
        raise


async def add_subjects(conn: AsyncConnection[Any], run: Run, subjects: Iterable[str]) -> None:
    """Say whom a run is about."""
    if given := sorted(set(subjects)):
        await _execute(conn, "add_subjects", **run.key(), subjects=Texts(given))


async def subjects_of(conn: AsyncConnection[Any], run: Run) -> list[str]:
    """Whom a run is about."""
    rows = await (await _execute(conn, "subjects", **run.key())).fetchall()
    return [row["subject"] for row in rows]


async def lock_open(conn: AsyncConnection[Any], tenant: str) -> list[Run]:
    """Every run of the tenant that has not ended, locked, in the order of their ids."""
    return [Run.of(row) for row in await (await _execute(conn, "lock_open", tenant=tenant)).fetchall()]


async def input_of(conn: AsyncConnection[Any], run: Run) -> tuple[str, bytes] | None:
    """What the run was started with, as (type, data). None for a script's run."""
    row = await _row(conn, "input", **run.key())
    return (row["type"], bytes(row["data"])) if row else None


async def lock_run(conn: AsyncConnection[Any], tenant: str, run_id: UUID) -> Run:
    """The run, locked until the transaction ends. Raises `no-such-run`."""
    return _one(await _row(conn, "lock", tenant=tenant, run_id=run_id), run_id)


async def lock_last_on(conn: AsyncConnection[Any], tenant: str, thread_id: str) -> Run | None:
    """The run of a workflow that was started last on a thread, locked; None where there never was one."""
    row = await _row(conn, "last_on_thread", tenant=tenant, thread_id=thread_id)
    return await lock_run(conn, tenant, row["run_id"]) if row else None


async def lock_run_if_free(conn: AsyncConnection[Any], tenant: str, run_id: UUID) -> Run | None:
    """The run, locked, or None where somebody else has it or it is gone."""
    row = await _row(conn, "lock_if_free", tenant=tenant, run_id=run_id)
    return Run.of(row) if row else None


async def find_run(
    conn: AsyncConnection[Any], tenant: str, name: str, *, where: Predicate, stall_after: timedelta
) -> UUID:
    """The run that is meant, of those where the condition holds: its id, the first letters of it, or its thread. A
    whole id that none of them has is returned as it is. Raises `no-such-run`.
    """
    first, last = _id_range(name)
    query, values = narrowed(_SQL["find"], where, tenant)
    params = {"tenant": tenant, "name": name, "first": first, "last": last, "stall_after": stall_after} | values
    cursor = await conn.cursor(row_factory=dict_row).execute(query, params)
    found = [UUID(str(row["run_id"])) for row in await cursor.fetchall()]
    if len(found) == 1 or (found and name not in (str(found[0])[: len(name)], str(found[1])[: len(name)])):
        return found[0]  # of several runs on one thread the newest is meant
    if not found and first == last != _NO_ID:
        return first
    why = f"More than one run matches {name!r}." if found else f"Nothing matches {name!r}."
    raise NO_SUCH_RUN.because(why, run=name)


def _id_range(name: str) -> tuple[UUID, UUID]:
    """The lowest and the highest id that begins with `name`; for what is no beginning of an id, one that none has."""
    digits = name.replace("-", "").lower()
    if not digits or len(digits) > 32 or digits.strip("0123456789abcdef"):
        return _NO_ID, _NO_ID
    return UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))


async def now(conn: AsyncConnection[Any]) -> datetime:
    row = await _row(conn, "now")
    assert row is not None
    at: datetime = row["clock"]
    return at


async def questions(conn: AsyncConnection[Any], run: Run) -> Questions:
    """The open questions and waits of a run."""
    return (await standing(conn, run))[0]


async def standing(
    conn: AsyncConnection[Any], run: Run, *, grace: timedelta | None = None
) -> tuple[Questions, datetime, bool]:
    """The open questions and waits of a run, what time it is, and whether the process that holds its claim lives.

    grace: the time that such a process has to come back after a restart of the server; without it none is asked after.
    """
    row = await _row(conn, "standing", **run.key(worker_id=run.worker_id if grace else None, grace=grace))
    assert row is not None, "the query always has a row"
    asks, waits = row["asks"] or (), row["waits"] or ()
    asked = Questions(
        asks=tuple(
            Ask(
                key,
                AskKind(kind),
                title,
                node,
                _instant(since),
                _at(until),
                _at(due),
                quorum,
                tuple(voters or ()),
                rung,
                assignee,
            )
            for key, kind, title, node, since, until, due, quorum, voters, rung, assignee, decided in asks
            if not decided
        ),
        waits=tuple(
            Wait(key, WaitKind(kind), node, _instant(since), _at(due), signal)
            for key, kind, node, since, due, signal, fired in waits
            if not fired
        ),
        ready=sum(ask[-1] for ask in asks) + sum(wait[-1] for wait in waits),
    )
    return asked, row["now"], row["alive"]


_instant: Final = datetime.fromisoformat


def _at(text: str | None) -> datetime | None:
    return _instant(text) if text else None


async def worker_alive(conn: AsyncConnection[Any], run: Run, *, grace: timedelta) -> bool:
    """Whether the process that holds the claim lives; after a restart of the server it has `grace` to come back."""
    row = await _row(conn, "worker_alive", worker_id=run.worker_id, grace=grace)
    return bool(row and row["alive"])


def facts_of(run: Run, asked: Questions, *, crash_limit: int, alive: bool = True) -> Facts:
    """The run's facts, as `core.run_status` takes them."""
    return Facts(
        created_at=run.created_at,
        execution=Execution(run.execution),
        claim=_claim(run, alive=alive),
        outcome=_outcome(run),
        retry_at=run.retry_at,
        crashes=run.crashes,
        crash_limit=crash_limit,
        takeovers=run.takeovers,
        pause=_order(run.pause_by, run.pause_at),
        cancel=_order(run.cancel_by, run.cancel_at),
        asks=asked.asks,
        waits=asked.waits,
        ready=asked.ready,
        woken_at=run.woken_at,
        not_before=run.not_before,
        fit=Fit(run.fit),
        shortfalls=run.shortfalls,
        erased=run.erased_at is not None,
        deleted=run.deleted_at is not None,
        progress=Progress(len(run.parts), run.parts_total, tuple(run.parts)),
    )


async def save_run(
    conn: AsyncConnection[Any], run: Run, entries: Iterable[Entry], *, at: datetime, crash_limit: int
) -> Run:
    """Write a locked run's changed facts, the status that follows, and the ledger's entries. Returns it as written.

    A run that becomes ready for a worker is announced when the transaction commits.
    """
    asked = await questions(conn, run)
    indexed = index(facts_of(run, asked, crash_limit=crash_limit))
    closed = (run.closed_at or at) if indexed.status in TERMINAL else None
    after = replace(
        run,
        status=indexed.status,
        since=indexed.since,
        due_at=indexed.due_at,
        closed_at=closed,
        version=run.version + 1,
    )
    await append(conn, run, entries, at=at)
    values = {f.name: getattr(after, f.name) for f in fields(after)}
    await _execute(conn, "save", **values | {"failure": Jsonb(after.failure) if after.failure else None})
    if indexed.status == "queued":
        await announce(conn, WORK)
    return after


async def append(conn: AsyncConnection[Any], run: Run, entries: Iterable[Entry], *, at: datetime) -> None:
    """Add entries (kind, actor, body) to a locked run's ledger."""
    columns = [(kind, actor, canonical(body).decode()) for kind, actor, body in entries]
    if not columns:
        return
    kinds, actors, bodies = (Texts(column) for column in zip(*columns, strict=True))
    await _execute(conn, "append", **run.key(kinds=kinds, actors=actors, bodies=bodies, at=at))


async def announce(conn: AsyncConnection[Any], channel: str, payload: str = "") -> None:
    await _execute(conn, "announce", channel=channel, payload=payload)


def _claim(run: Run, *, alive: bool) -> Claim | None:
    if run.worker_id is None or run.claimed_at is None:
        return None
    progress_at = run.progress_at or run.claimed_at
    return Claim(run.epoch, str(run.worker_id), run.claimed_at, progress_at, alive, run.blocked_in)


def _outcome(run: Run) -> Outcome | None:
    if run.outcome is None or run.outcome_at is None:
        return None
    failure = FailureClass(run.failure_class) if run.failure_class else None
    return Outcome(OutcomeKind(run.outcome), run.outcome_at, failure, (run.failure or {}).get("error"))


def _order(by: str | None, at: datetime | None) -> Order | None:
    return Order(by, at) if by and at else None


def _one(row: dict[str, Any] | None, run_id: UUID) -> Run:
    if row is None:
        raise unknown(run_id)
    return Run.of(row)


async def _row(conn: AsyncConnection[Any], query: str, **params: Any) -> dict[str, Any] | None:
    row: dict[str, Any] | None = await (await _execute(conn, query, **params)).fetchone()
    return row


async def _execute(conn: AsyncConnection[Any], query: str, **params: Any) -> Any:
    return await conn.cursor(row_factory=dict_row).execute(_SQL[query], params)
