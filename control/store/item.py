"""What one write of a run carries, and how many of them become the columns of one flush."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from control.core.ledger import canonical
from control.core.question import Question, Suspension
from control.store.arrays import Blobs, Texts

PARTS_SEPARATOR = "\x1f"


class Fence(NamedTuple):
    """What a write is checked against: it lands while this worker holds this run, on this thread, in this epoch."""

    tenant: str
    run_id: UUID
    thread_id: str
    epoch: int
    worker_id: UUID


class CheckpointRow(NamedTuple):
    ns: str
    checkpoint_id: str
    parent_id: str | None
    checkpoint: str
    metadata: str


class BlobRow(NamedTuple):
    ns: str
    channel: str
    version: str
    type: str
    blob: bytes | None


class WriteRow(NamedTuple):
    ns: str
    checkpoint_id: str
    task_id: str
    task_path: str
    idx: int
    channel: str
    type: str
    blob: bytes


class Asked(NamedTuple):
    """A question or suspension, where it was asked."""

    question: Question | Suspension
    checkpoint_id: str
    node: str


class EffectRow(NamedTuple):
    key: str
    name: str
    kind: str
    state: str
    calls: int
    outcome_type: str | None = None
    outcome: bytes | None = None
    how: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of an attempt: what it came to, and the status that follows from the facts of `version`, since now.

    `pending` names the interrupts that the head still waits for; where answers lay ready (`settles`), those to
    any other were taken in.
    """

    version: int
    outcome: str
    execution: str
    status: str
    due_at: datetime | None
    closed: bool
    retries: int
    failure_class: str | None = None
    failure: dict[str, Any] | None = None
    retry_at: datetime | None = None
    fit: str = "fits"
    pending: tuple[str, ...] = ()
    settles: bool = False


@dataclass(slots=True, eq=False)
class Item:
    """One write. `entries` are (kind, actor, body) of the ledger; `written` completes with the run's version."""

    fence: Fence
    written: asyncio.Future[int]
    checkpoints: list[CheckpointRow] = field(default_factory=list)
    blobs: list[BlobRow] = field(default_factory=list)
    writes: list[WriteRow] = field(default_factory=list)
    marks: list[WriteRow] = field(default_factory=list)
    entries: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    effects: list[EffectRow] = field(default_factory=list)
    head: tuple[str, int] | None = None
    parts: tuple[str, ...] | None = None
    shortfalls: int = 0
    ending: Ending | None = None


@dataclass(slots=True)
class Batch:
    """The items of one flush, oldest first, grouped by fence."""

    groups: dict[Fence, list[Item]]

    @classmethod
    def of(cls, items: Iterable[Item]) -> Batch:
        groups: dict[Fence, list[Item]] = {}
        for item in items:
            groups.setdefault(item.fence, []).append(item)
        return cls(groups)

    def tenants(self) -> list[str]:
        return sorted({fence.tenant for fence in self.groups})

    def columns(self, flush: int) -> dict[str, Any]:
        """The parameters of the `flush` query."""
        numbered = list(enumerate(self.groups.values(), start=1))
        return {
            "flush": flush,
            **_run_columns(self.groups),
            **_columns("c", _CHECKPOINT, _rows(numbered, "checkpoints", lambda r: r[:2])),
            **_columns("b", _BLOB, _rows(numbered, "blobs", lambda r: r[:3], first=True)),
            **_columns("w", _WRITE, _rows(numbered, "writes", lambda r: (*r[:3], r[4]), first=True)),
            **_columns("m", _WRITE, _rows(numbered, "marks", lambda r: (*r[:3], r[4]))),
            **_columns("e", ("kind", "actor", "body"), _entries(numbered)),
        }

    def approvals(self) -> dict[str, Any] | None:
        """The parameters of `open_approvals`, or None where nothing is asked."""
        rows = [
            (
                *_named(fence),
                q.interrupt_id,
                a.checkpoint_id,
                a.node,
                q.kind,
                q.title,
                q.packet,
                _json(q.schema),
                _text(q.expires_in),
            )
            for fence, a in self._asked()
            if isinstance(q := a.question, Question)
        ]
        names = ("run", "epoch", "interrupt", "checkpoint", "node", "kind", "title", "packet", "schema", "expires_in")
        return self._rare(names, rows)

    def waits(self) -> dict[str, Any] | None:
        """The parameters of `open_waits`, or None where nothing is awaited."""
        rows = [
            (
                *_named(fence),
                s.interrupt_id,
                a.checkpoint_id,
                a.node,
                s.kind,
                _text(s.due_at),
                _text(s.span),
                s.signal,
            )
            for fence, a in self._asked()
            if isinstance(s := a.question, Suspension)
        ]
        names = ("run", "epoch", "interrupt", "checkpoint", "node", "kind", "due_at", "span", "signal")
        return self._rare(names, rows)

    def effects(self) -> dict[str, Any] | None:
        """The parameters of `write_effects`. Of two writes of one effect the later stands."""
        rows = {
            (fence.run_id, e.key): (
                *_named(fence),
                e.key,
                e.name,
                e.kind,
                e.state,
                str(e.calls),
                e.outcome_type,
                e.outcome,
                e.how,
                e.error,
            )
            for fence, items in self.groups.items()
            for item in items
            for e in item.effects
        }
        names = ("run", "epoch", "key", "name", "kind", "state", "calls", "outcome_type", "outcome", "how", "error")
        return self._rare(names, list(rows.values()))

    def settled(self) -> dict[str, Any] | None:
        """The parameters of `settle`, or None where no attempt ends that was given an answer."""
        rows = [
            (*_named(fence), ",".join(item.ending.pending))
            for fence, items in self.groups.items()
            for item in items
            if item.ending and item.ending.settles
        ]
        return self._rare(("run", "epoch", "pending"), rows)

    def _asked(self) -> list[tuple[Fence, Asked]]:
        return [(fence, a) for fence, items in self.groups.items() for item in items for a in item.asked]

    def _rare(self, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Any] | None:
        if not rows:
            return None
        columns = zip(*rows, strict=True)
        return {
            name: (Blobs if name == "outcome" else Texts)(column) for name, column in zip(names, columns, strict=True)
        }


def _named(fence: Fence) -> tuple[str, str]:
    """The run and its epoch, for the queries that follow the flush."""
    return str(fence.run_id), str(fence.epoch)


_CHECKPOINT = ("ns", "id", "parent", "checkpoint", "metadata")
_BLOB = ("ns", "channel", "version", "type", "blob")
_WRITE = ("ns", "id", "task", "path", "idx", "channel", "type", "blob")
_Numbered = list[tuple[int, list[Item]]]


def _rows(numbered: _Numbered, kind: str, key: Any, *, first: bool = False) -> list[tuple[Any, ...]]:
    """(run's number, *row) of each row. A statement may write no row twice: the one stands that would stand had each
    item been written alone, which is the later, or the first where rows are never replaced.
    """
    rows = [(i, *row) for i, items in numbered for item in items for row in getattr(item, kind)]
    return list({(i, *key(row)): (i, *row) for i, *row in (reversed(rows) if first else rows)}.values())


def _entries(numbered: _Numbered) -> list[tuple[Any, ...]]:
    return [
        (i, kind, actor, canonical(body).decode())
        for i, items in numbered
        for item in items
        for kind, actor, body in item.entries
    ]


def _columns(prefix: str, names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    columns = list(zip(*rows, strict=True)) or [()] * (len(names) + 1)
    named = zip(("i", *names), columns, strict=True)
    return {
        f"{prefix}_{name}": Blobs(column) if name == "blob" else Texts([_text(value) for value in column])
        for name, column in named
    }


def _run_columns(groups: dict[Fence, list[Item]]) -> dict[str, Texts]:
    rows = [_run_row(fence, items) for fence, items in groups.items()]
    columns = zip(*rows, strict=True)
    return {name: Texts([_text(v) for v in column]) for name, column in zip(_RUN, columns, strict=True)}


_RUN = (
    "tenant",
    "run",
    "thread",
    "epoch",
    "worker",
    "head",
    "step",
    "parts",
    "shortfalls",
    "version",
    "outcome",
    "execution",
    "failure_class",
    "failure",
    "retry_at",
    "retries",
    "fit",
    "status",
    "due_at",
    "closed",
)


def _run_row(fence: Fence, items: list[Item]) -> tuple[Any, ...]:
    heads = [item.head for item in items if item.head]
    parts = [item.parts for item in items if item.parts is not None]
    head = heads[-1] if heads else (None, None)
    return (
        fence.tenant,
        fence.run_id,
        fence.thread_id,
        fence.epoch,
        fence.worker_id,
        *head,
        PARTS_SEPARATOR.join(parts[-1]) if parts else None,
        sum(item.shortfalls for item in items),
        *_ending_row(next((item.ending for item in items if item.ending), None)),
    )


def _ending_row(ending: Ending | None) -> tuple[Any, ...]:
    if ending is None:
        return (None,) * 11
    return (
        ending.version,
        ending.outcome,
        ending.execution,
        ending.failure_class,
        _json(ending.failure),
        ending.retry_at,
        ending.retries,
        ending.fit,
        ending.status,
        ending.due_at,
        ending.closed,
    )


def _text(value: Any) -> str | None:
    """A value as PostgreSQL reads it from text."""
    if value is None or isinstance(value, str):
        return value
    if hasattr(value, "total_seconds"):
        return f"{value.total_seconds()} seconds"
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, default=str)
