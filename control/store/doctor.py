"""What the doctor reads: the condition of the database, and every run with its facts and its ledger.

Runs are read in pages, each in one snapshot, so that a run that moves meanwhile is not seen half before and half after.
Ledgers are streamed, so that neither many runs nor a long one fill the memory. Connections are the doctor's own:
blocking, read-only, and with no more rights than the roles have that do the work.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict, deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

import psycopg
from psycopg import IsolationLevel
from psycopg.rows import class_row, dict_row

from control.core.facts import Ask, AskKind, Wait, WaitKind
from control.core.ledger import KINDS, START, Entry, Kind
from control.core.problem import Refusal
from control.store.database import Address
from control.store.errors import refusal
from control.store.migrations import check_current
from control.store.runs import Questions, Run
from control.store.sql import read

ROLES: Final = ("control_command", "control_flush", "control_claim")
GUARDS: Final = frozenset({"ledger_is_append_only", "ledger_is_never_truncated"})
OLDEST: Final = 15
"""The oldest PostgreSQL that is supported."""

_SQL: Final = read("doctor")
_SCHEMA: Final = read("schema")
_SCOPE: Final = read("runs")["scope"]
_PAGE: Final = 500
_FETCH: Final = 2000  # ledger entries held at once
_BEFORE_ALL: Final = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must be so of the database, and whether it is."""

    name: str
    holds: bool
    says: str


@dataclass(frozen=True, slots=True)
class Case:
    """A run to examine; `run` is None where only its ledger is left. `entries` must be read before the next case.

    `gathered` is where its ledger stood when a tree gathered it last: the tree's number, the entry's, and its hash.
    """

    tenant: str
    run_id: UUID
    run: Run | None
    asked: Questions
    head: bytes
    entries: Iterator[Entry]
    gathered: tuple[int, int, bytes] | None = None


def checks(address: Address) -> Iterator[Check]:
    """The condition of the database; of one with another schema, that alone. Raises `database-away`."""
    with _connected(address.direct) as conn:
        schema = _schema(conn)
        yield schema
        if not schema.holds:
            return
        yield _direct(conn)
        yield _roles(conn)
        yield _walls(conn)
        yield _append_only(conn)


def tenants(address: Address) -> list[str]:
    """Every tenant that has runs. Raises `database-away`."""
    with _connected(address.session("control_claim")) as conn:
        return [row[0] for row in conn.execute(_SQL["tenants"]).fetchall()]


def cases(address: Address, tenant: str, *, page: int = _PAGE) -> Iterator[Case]:
    """Every run of a tenant, in the order of their ids. Raises `database-away`."""
    with _connected(address.session("control_command")) as conn:
        conn.isolation_level, conn.read_only = IsolationLevel.REPEATABLE_READ, True
        after: UUID | None = _BEFORE_ALL
        while after is not None:
            after = yield from _page(conn, tenant, after=after, limit=page)


def _page(conn: psycopg.Connection[Any], tenant: str, *, after: UUID, limit: int) -> Generator[Case, None, UUID | None]:
    """The runs after one id, and the ledgers in that stretch. Returns the last id, or None after the last page."""
    with conn.transaction():
        conn.execute(_SCOPE, {"role": "control_command", "tenant": tenant})
        params = {"tenant": tenant, "after": after, "limit": limit}
        rows = conn.cursor(row_factory=dict_row).execute(_SQL["runs"], params).fetchall()
        last: UUID | None = rows[-1]["run_id"] if len(rows) == limit else None
        asked = _questions(conn, tenant, [row["run_id"] for row in rows])
        found = {row["run_id"]: (Run.of(row), bytes(row["ledger_hash"])) for row in rows}
        stretch = {"tenant": tenant, "after": after, "upto": last}
        leaves = {row[0]: (row[1], row[2], bytes(row[3])) for row in conn.execute(_SQL["leaves"], stretch)}
        with conn.cursor(name="entries", row_factory=class_row(_Row)) as cursor:
            cursor.itersize = _FETCH
            cursor.execute(_SQL["entries"], stretch)
            ledgers = groupby(cursor, key=attrgetter("run_id"))
            for run_id, rows_of_run in _all(sorted(found), ledgers):
                run, head = found.get(run_id, (None, START))
                entries, gathered = _entries(rows_of_run), leaves.get(run_id)
                yield Case(tenant, run_id, run, asked[run_id], head, entries, gathered)
    return last


def _all(runs: Iterable[UUID], ledgers: Iterable[tuple[UUID, Iterator[_Row]]]) -> Iterator[tuple[UUID, Iterator[_Row]]]:
    """Both in one order: every run with its ledger, runs without one, and ledgers without a run."""
    waiting = deque(runs)
    for run_id, rows in ledgers:
        while waiting and waiting[0] < run_id:
            yield waiting.popleft(), iter(())
        if waiting and waiting[0] == run_id:
            waiting.popleft()
        yield run_id, rows
    for run_id in waiting:
        yield run_id, iter(())


def _questions(conn: psycopg.Connection[Any], tenant: str, run_ids: list[UUID]) -> Mapping[UUID, Questions]:
    """What each of these runs waits for, and how many answers lie ready."""
    asks, waits, ready = defaultdict[UUID, list[Ask]](list), defaultdict[UUID, list[Wait]](list), Counter[UUID]()
    with conn.cursor(row_factory=dict_row) as cursor:
        for a in cursor.execute(_SQL["asks"], {"tenant": tenant, "runs": run_ids}):
            ready[a["run_id"]] += a["settled"]
            if not a["settled"]:
                asks[a["run_id"]].append(_ask(a))
        for w in cursor.execute(_SQL["waits"], {"tenant": tenant, "runs": run_ids}):
            ready[w["run_id"]] += w["settled"]
            if not w["settled"]:
                kind_of_wait = WaitKind(w["kind"])
                wait = Wait(w["interrupt_id"], kind_of_wait, w["node"], w["opened_at"], w["due_at"], w["signal"])
                waits[w["run_id"]].append(wait)
    return defaultdict(
        Questions, {run_id: Questions(tuple(asks[run_id]), tuple(waits[run_id]), ready[run_id]) for run_id in run_ids}
    )


def _ask(row: Mapping[str, Any]) -> Ask:
    return Ask(
        row["interrupt_id"],
        AskKind(row["kind"]),
        row["title"],
        row["node"],
        row["opened_at"],
        row["expires_at"],
        row["due_at"],
        row["quorum"],
        tuple(row["voters"]),
        row["rung"],
        row["assignee"],
    )


class _Row(NamedTuple):
    run_id: UUID
    seq: int
    at: datetime
    kind: str
    actor: str
    epoch: int
    body: str | None
    digest: bytes
    hash: bytes


def _entries(rows: Iterable[_Row]) -> Iterator[Entry]:
    """The entries as stored, each with the hash before it. A kind that is not known here stays a word."""
    prev = START
    for row in rows:
        kind = cast("Kind", KINDS.get(row.kind, row.kind))
        yield Entry(
            row.seq,
            row.at,
            kind,
            row.actor,
            row.epoch,
            _body(row),
            prev=prev,
            hash=bytes(row.hash),
            digest=bytes(row.digest),
        )
        prev = bytes(row.hash)


def _body(row: _Row) -> Mapping[str, Any]:
    """The body, or what cannot pass for it where the stored text is not the text that was hashed."""
    if row.body is None:
        return {}
    if sha256(row.body.encode()).digest() != bytes(row.digest):
        return {"unlike_its_digest": row.body}
    body: Mapping[str, Any] = json.loads(row.body)
    return body


def _schema(conn: psycopg.Connection[Any]) -> Check:
    number, version = conn.execute(_SQL["server"]).fetchone() or (0, "unknown")
    migrated = conn.execute(_SCHEMA["has_migrations"]).fetchone()
    applied: dict[int, str] = dict(conn.execute(_SCHEMA["applied"]).fetchall()) if migrated else {}
    try:
        check_current(applied)
    except Refusal as refused:
        return Check("schema", False, f"{refused.problem.title}: {refused.why}")
    if number < OLDEST * 10_000:
        return Check("schema", False, f"PostgreSQL {version} is older than {OLDEST}.")
    return Check("schema", True, f"PostgreSQL {version}, {len(applied)} migrations applied")


def _direct(conn: psycopg.Connection[Any]) -> Check:
    row = conn.execute(_SCHEMA["server"]).fetchone()
    if row is None or row[0] != conn.info.backend_pid:
        return Check("address", False, "The direct address leads to a connection pooler; set DATABASE_DIRECT_URL.")
    says = "It takes no writes: a standby, or read-only by default." if row[1] else "direct, and takes writes"
    return Check("address", not row[1], says)


def _roles(conn: psycopg.Connection[Any]) -> Check:
    found = dict(conn.execute(_SQL["roles"], {"roles": list(ROLES)}).fetchall())
    faults = [f"{role} is missing" for role in ROLES if role not in found]
    faults += [f"{role} may do more than its work" for role, mighty in found.items() if mighty]
    return Check("roles", not faults, "; ".join(faults) or f"{', '.join(ROLES)}, none above its work")


def _walls(conn: psycopg.Connection[Any]) -> Check:
    open_tables = [row[0] for row in conn.execute(_SQL["unguarded"]).fetchall()]
    says = f"missing on {', '.join(open_tables)}" if open_tables else "on every table of a tenant"
    return Check("row security", not open_tables, says)


def _append_only(conn: psycopg.Connection[Any]) -> Check:
    missing = GUARDS - {row[0] for row in conn.execute(_SQL["guards"]).fetchall()}
    says = f"off: {', '.join(sorted(missing))}" if missing else "append-only"
    return Check("ledger", not missing, says)


@contextmanager
def _connected(conninfo: str) -> Iterator[psycopg.Connection[Any]]:
    try:
        with psycopg.connect(conninfo, autocommit=True, connect_timeout=5) as conn:
            yield conn
    except psycopg.Error as error:
        if (refused := refusal(error)) is None:
            raise
        raise refused from error
