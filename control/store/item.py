"""What one write of a run carries, and how many of them become the columns of one flush."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import attrgetter, itemgetter
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

    def __hash__(self) -> int:
        """Of what tells fences apart and hashes fast: a UUID does not."""
        return hash((self.thread_id, self.epoch))


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
    idx: str  # a number, as it is sent
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


class SpendRow(NamedTuple):
    key: str
    usd: str  # a number, as it is sent
    tokens: str


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
    """One write. `entries` are (kind, actor, body) of the ledger; `written` completes with the run's version. One that
    lingers waits for company; one that goes `alone` joins no other of its run. `rests_on`: earlier writes of the run,
    without which this one must not be. `weighs`: its weight as it was queued.
    """

    fence: Fence
    written: asyncio.Future[int]
    checkpoints: list[CheckpointRow] = field(default_factory=list)
    blobs: list[BlobRow] = field(default_factory=list)
    writes: list[WriteRow] = field(default_factory=list)
    marks: list[WriteRow] = field(default_factory=list)
    entries: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    effects: list[EffectRow] = field(default_factory=list)
    spends: list[SpendRow] = field(default_factory=list)
    head: tuple[str, int] | None = None
    parts: tuple[str, ...] | None = None
    shortfalls: int = 0
    ending: Ending | None = None
    lingers: bool = False
    alone: bool = False
    rests_on: tuple[asyncio.Future[int], ...] = ()
    weighs: int = 0

    def weight(self) -> int:
        """About how many bytes it sends: those of whatever a graph can make long."""
        blobs = sum(len(row.blob or b"") for rows in (self.blobs, self.writes, self.marks) for row in rows)
        states = sum(len(row.checkpoint) + len(row.metadata) for row in self.checkpoints)
        told = sum(len(text) for _, _, body in self.entries for text in body.values() if isinstance(text, str))
        effects = sum(len(effect.outcome or b"") + len(effect.error or "") for effect in self.effects)
        packets = sum(len(asked.question.packet) for asked in self.asked if isinstance(asked.question, Question))
        return blobs + states + told + effects + packets


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

    def short(self) -> bool:
        """Whether the short form of the `flush` query will do."""
        for items in self.groups.values():
            if sum(len(item.entries) for item in items) > 1 or any(item.ending for item in items):
                return False
        return True

    def columns(self, flush: int, *, short: bool = False) -> dict[str, Any]:
        """The parameters of the `flush` query, or of its short form, and of `fates`."""
        numbered = [(str(i), items) for i, items in enumerate(self.groups.values(), start=1)]
        return {
            "flush": flush,
            **_run_columns(self.groups, short=short),
            **_columns("c", _CHECKPOINT, _rows(numbered, _checkpoints, _CHECKPOINT_KEY)),
            **_columns("b", _BLOB, _rows(numbered, _blobs, _BLOB_KEY, first=True)),
            **_columns("w", _WRITE, _rows(numbered, _writes, _WRITE_KEY, first=True)),
            **_columns("e", ("nth", "kind", "actor", "body"), _entries(numbered)),
        }

    def marks(self) -> dict[str, Any] | None:
        """The parameters of `write_marks`. Of two writes of one mark the later stands."""
        rows = {
            (*_named(fence), *_MARK_KEY(mark)): (*_named(fence), *mark)
            for fence, items in self.groups.items()
            for item in items
            for mark in item.marks
        }
        return self._rare((*_NAMED, *_WRITE), list(rows.values()))

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
                _text(q.due_in),
                _json(q.gate.as_json()) if q.gate else None,
            )
            for fence, a in self._asked()
            if isinstance(q := a.question, Question)
        ]
        asked = (*_NAMED, "interrupt", "checkpoint", "node", "kind", "title", "packet", "schema", "expires_in")
        names = (*asked, "due_in", "gate")
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
        names = (*_NAMED, "interrupt", "checkpoint", "node", "kind", "due_at", "span", "signal")
        return self._rare(names, rows)

    def effects(self) -> dict[str, Any] | None:
        """The parameters of `write_effects`. Of two writes of one effect the later stands."""
        rows = {
            (*_named(fence), e.key): (
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
        names = (*_NAMED, "key", "name", "kind", "state", "calls", "outcome_type", "outcome", "how", "error")
        return self._rare(names, list(rows.values()))

    def spends(self) -> dict[str, Any] | None:
        """The parameters of `write_spends`, or None where nothing was spent."""
        rows = [(*_named(fence), *row) for fence, items in self.groups.items() for item in items for row in item.spends]
        return self._rare((*_NAMED, "key", "usd", "tokens"), rows)

    def settled(self) -> dict[str, Any] | None:
        """The parameters of `settle`, or None where no attempt ends that was given an answer."""
        rows = [
            (*_named(fence), ",".join(item.ending.pending))
            for fence, items in self.groups.items()
            for item in items
            if item.ending and item.ending.settles
        ]
        return self._rare((*_NAMED, "pending"), rows)

    def _asked(self) -> list[tuple[Fence, Asked]]:
        return [(fence, a) for fence, items in self.groups.items() for item in items for a in item.asked]

    def _rare(self, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Any] | None:
        if not rows:
            return None
        columns = zip(*rows, strict=True)
        return {
            name: (Blobs if name in ("outcome", "blob") else Texts)(column)
            for name, column in zip(names, columns, strict=True)
        }


_NAMED = ("tenant", "run", "epoch")


def _named(fence: Fence) -> tuple[str, str, str]:
    """Whose run, which, and its epoch, for the queries that follow the flush: a run's id is unique in its tenant."""
    return fence.tenant, str(fence.run_id), str(fence.epoch)


_CHECKPOINT = ("ns", "id", "parent", "checkpoint", "metadata")
_BLOB = ("ns", "channel", "version", "type", "blob")
_WRITE = ("ns", "id", "task", "path", "idx", "channel", "type", "blob")
_CHECKPOINT_KEY, _BLOB_KEY, _WRITE_KEY = itemgetter(0, 1, 2), itemgetter(0, 1, 2, 3), itemgetter(0, 1, 2, 3, 5)
_MARK_KEY = attrgetter("ns", "checkpoint_id", "task_id", "idx")
_checkpoints, _blobs, _writes = attrgetter("checkpoints"), attrgetter("blobs"), attrgetter("writes")
_Numbered = list[tuple[str, list[Item]]]
_Columns = dict[str, Texts | Blobs]


def _rows(
    numbered: _Numbered, kind: Callable[[Item], list[Any]], key: Callable[[Any], Any], *, first: bool = False
) -> list[tuple[Any, ...]]:
    """(run's number, *row) of each row. A statement may write no row twice: the one stands that would stand had each
    item been written alone, which is the later, or the first where rows are never replaced.
    """
    rows = [(i, *row) for i, items in numbered for item in items for row in kind(item)]
    if first:
        rows.reverse()
    return list({key(row): row for row in rows}.values())


def _entries(numbered: _Numbered) -> list[tuple[Any, ...]]:
    return [
        (i, str(nth), kind, actor, canonical(body).decode())
        for i, items in numbered
        for nth, (kind, actor, body) in enumerate((entry for item in items for entry in item.entries), start=1)
    ]


def _columns(prefix: str, names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> _Columns:
    columns = list(zip(*rows, strict=True)) or [()] * (len(names) + 1)
    named = zip(("i", *names), columns, strict=True)
    return {f"{prefix}_{name}": Blobs(column) if name == "blob" else Texts(column) for name, column in named}


def _run_columns(groups: dict[Fence, list[Item]], *, short: bool) -> _Columns:
    names = _RUN if short else _RUN + _ENDING
    columns = zip(*(_run_row(fence, items, short=short) for fence, items in groups.items()), strict=True)
    return {name: Texts(column) for name, column in zip(names, columns, strict=True)}


_RUN = ("tenant", "run", "thread", "epoch", "worker", "head", "step", "parts", "shortfalls", "entries", "version")
_ENDING = (
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


def _run_row(fence: Fence, items: list[Item], *, short: bool) -> tuple[str | None, ...]:
    heads = [item.head for item in items if item.head]
    parts = [item.parts for item in items if item.parts is not None]
    endings = [item.ending for item in items if item.ending]
    return (
        fence.tenant,
        str(fence.run_id),
        fence.thread_id,
        str(fence.epoch),
        str(fence.worker_id),
        heads[-1][0] if heads else None,
        str(heads[-1][1]) if heads else None,
        PARTS_SEPARATOR.join(parts[-1]) if parts else None,
        str(sum(item.shortfalls for item in items)),
        str(sum(len(item.entries) for item in items)),
        str(endings[0].version) if endings else None,
        *(() if short else _ending_row(endings[0]) if endings else _NO_ENDING),
    )


_NO_ENDING = (None,) * len(_ENDING)


def _ending_row(ending: Ending) -> tuple[str | None, ...]:
    return (
        ending.outcome,
        ending.execution,
        ending.failure_class,
        _json(ending.failure),
        _text(ending.retry_at),
        str(ending.retries),
        ending.fit,
        ending.status,
        _text(ending.due_at),
        str(ending.closed),
    )


def _text(value: datetime | timedelta | None) -> str | None:
    """An instant or a span as PostgreSQL reads it from text."""
    if isinstance(value, timedelta):
        return f"{value.total_seconds()} seconds"
    return value.isoformat() if value else None


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, default=str)
