"""Where threads stand, read from the tables of LangGraph's own saver: without the graph, and without trusting bytes.

One statement serves one thread or thousands. What it returns is decoded into plain data: MessagePack goes through an
extension hook that imports nothing and calls nothing, so a row written by anybody can at most look odd. What cannot be
read, such as an encrypted value, is left out and named in `Head.unreadable`; the state is still right, because the
saver keeps versions, updated channels and the kinds of writes in the clear. Two things then rest on a guess, and only
just after `update_state`, which records no updated channels: a deferred node or a join counts as scheduled if nothing
else is, and a `__pregel_tasks` value of at most 48 bytes counts as empty.

Not told apart from rows: `Command(goto=...)` at a deferred node that has never been triggered (it waits; it reads as
scheduled), and heads older than LangGraph 0.5 (format 3), whose channels have other names and are reported unreadable.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

import ormsgpack
import psycopg
from psycopg.rows import class_row
from xxhash import xxh3_128_hexdigest

from control.core.execution import Head, classify
from control.core.superstep import BRANCH, SENDS, START, Channel, Question, Recorded, Trace
from control.store import sql

_HEADS: Final = sql.numbered(sql.read("checkpoints")["heads"])
NULL_TASK: Final = "00000000-0000-0000-0000-000000000000"
_CONTROL: Final = frozenset({"__error__", "__error_source_node__", "__interrupt__", "__resume__"})
_NOT_STATE: Final = frozenset({SENDS, "__no_writes__", "__return__", "__previous__"})
_EMPTY_SENDS: Final = 48  # bytes: an empty list with a cipher's nonce and tag is shorter, one Send is longer
_FORMAT: Final = 4
_READABLE: Final = "msgpack"
_SEND: Final = re.compile(
    rb"(?:\xc7.|\xc8..|\xc9....)\x01\x93\xaflanggraph\.types\xa4Send[\x92\x93](?:([\xa0-\xbf])|\xd9(.)|\xda(..))",
    re.DOTALL,
)


async def heads(conn: psycopg.AsyncConnection[Any], thread_ids: Sequence[str]) -> dict[str, Head]:
    """The head of every thread asked for, in one statement; a thread without rows is `none`."""
    async with psycopg.AsyncRawCursor(conn, row_factory=class_row(_Row)) as cursor:
        await cursor.execute(_HEADS.text, [list(thread_ids)])
        return {row.thread_id: _head(row) for row in await cursor.fetchall()}


def heads_sync(conn: psycopg.Connection[Any], thread_ids: Sequence[str]) -> dict[str, Head]:
    """`heads` over a blocking connection."""
    with psycopg.RawCursor(conn, row_factory=class_row(_Row)) as cursor:
        cursor.execute(_HEADS.text, [list(thread_ids)])
        return {row.thread_id: _head(row) for row in cursor.fetchall()}


class _Row(NamedTuple):
    thread_id: str
    checkpoint_id: str | None
    metadata: Mapping[str, Any] | None
    format: int | None
    channels: list[list[str | None]] | None
    channel_blobs: list[bytes | None] | None
    sends: list[bytes] | None
    writes: list[list[str]] | None
    write_blobs: list[bytes | None] | None
    nested: list[list[str]] | None
    nested_blobs: list[bytes | None] | None
    orphan_writes: int


class _Write(NamedTuple):
    ns: str
    task_id: str
    path: str
    channel: str
    type: str
    xid: str
    deferred: str | None
    blob: bytes | None


class _Stored(NamedTuple):
    """A control channel as stored. `updated` is 'true', 'false', or None where the head does not say."""

    name: str
    node: str | None
    version: str
    seen: str | None
    inline: str
    updated: str | None
    type: str | None
    size: str | None
    blob: bytes | None


def _head(row: _Row) -> Head:
    digest = xxh3_128_hexdigest
    if row.checkpoint_id is None:
        return classify(row.thread_id, None, orphan_writes=row.orphan_writes, digest=digest)
    return classify(row.thread_id, _recorded(row, row.checkpoint_id), orphan_writes=row.orphan_writes, digest=digest)


def _recorded(row: _Row, checkpoint_id: str) -> Recorded:
    reader = _Reader()
    stored = [_Stored._make((*c, blob)) for c, blob in _beside(row.channels, row.channel_blobs)]
    writes = [_Write._make((*w, blob)) for w, blob in _beside(row.writes, row.write_blobs)]
    nested = [_Write._make((*w, blob)) for w, blob in _beside(row.nested, row.nested_blobs)]
    null = [write for write in writes if write.task_id == NULL_TASK]
    if row.format is not None and row.format < _FORMAT:
        reader.unread.add(f"format {row.format}")
    return Recorded(
        checkpoint_id=checkpoint_id,
        metadata=row.metadata or {},
        channels=tuple(_channel(s, reader) for s in stored if s.name != SENDS),
        sends=_pending_sends(stored, row.sends or (), reader),
        goto=tuple(w.channel.removeprefix(BRANCH) for w in null if w.deferred == "false"),
        goto_sends=_goto_sends(null, reader),
        traces=_traces((w for w in writes if w.task_id != NULL_TASK), reader),
        nested=_traces(nested, reader),
        stale_resume=any(write.channel == "__resume__" for write in null),
        unreadable=tuple(sorted(reader.unread)),
    )


def _beside(texts: list[Any] | None, blobs: list[bytes | None] | None) -> Iterable[tuple[Any, bytes | None]]:
    return zip(texts or (), blobs or (), strict=True)


def _channel(stored: _Stored, reader: _Reader) -> Channel:
    node = stored.node or START
    return Channel(stored.name, node, stored.version, stored.seen or "", _available(stored, reader))


def _available(stored: _Stored, reader: _Reader) -> bool | None:
    """Whether the channel holds something its node may start on.

    A plain branch holds a value or nothing. A deferred one holds [value, finished]; a join the set of names that have
    arrived; a deferred join [names, finished]. A join is complete when its names make up all of its own name.
    """
    if stored.inline == "true" or stored.type is None:
        return stored.inline == "true"
    if stored.name == START or stored.version <= (stored.seen or ""):
        return True
    value = reader.read(stored.type, stored.blob)
    if value is _UNREAD:
        return None if stored.updated is None else stored.updated == "true"
    names, finished = (value[0], value[1] is True) if _is_pair(value) else (value, True)
    if stored.name.startswith(BRANCH):
        return finished
    return finished and _complete(stored.name.split(":")[1], {str(name) for name in _plain(names) or ()})


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[1], bool)


def _complete(starts: str, arrived: set[str]) -> bool:
    """`a+b` is complete with a and b. Node names may hold a plus, so lengths decide; a name may be listed twice."""
    return sum(len(name) + 1 for name in arrived) == len(starts) + 1 or set(starts.split("+")) == arrived


def _pending_sends(stored: Iterable[_Stored], packets: Sequence[bytes], reader: _Reader) -> tuple[str, ...] | None:
    tasks = next((s for s in stored if s.name == SENDS and s.type is not None), None)
    if tasks is None:
        return ()
    nodes = tuple(_sent_to(packet) for packet in packets)
    if tasks.type == _READABLE and (any(nodes) or tasks.size in ("0", "1")):
        return nodes
    reader.unread.add(str(tasks.type))
    if tasks.type == _READABLE:
        return None  # bytes that are neither Sends nor an empty list
    some = int(tasks.size or 0) > _EMPTY_SENDS if tasks.updated is None else tasks.updated == "true"
    return None if some else ()


def _goto_sends(null: Iterable[_Write], reader: _Reader) -> tuple[str, ...] | None:
    packets = [write for write in null if write.channel == SENDS]
    unread = {write.type for write in packets} - {_READABLE}
    reader.unread |= unread
    return None if unread else tuple(_sent_to(write.blob or b"") for write in packets)


def _sent_to(head: bytes) -> str:
    """The node of a Send, from the first bytes of it; empty for anything else, which LangGraph skips as well."""
    found = _SEND.match(head)
    if found is None:
        return ""
    size = int.from_bytes(found[1]) & 0x1F if found[1] else int.from_bytes(found[2] or found[3])
    return head[found.end() : found.end() + size].decode(errors="replace")


def _traces(writes: Iterable[_Write], reader: _Reader) -> tuple[Trace, ...]:
    by_task: dict[tuple[str, str], list[_Write]] = {}
    for write in writes:
        by_task.setdefault((write.ns, write.task_id), []).append(write)
    return tuple(_trace(rows, reader) for rows in by_task.values())


def _trace(writes: Sequence[_Write], reader: _Reader) -> Trace:
    control = {write.channel: write for write in writes if write.channel in _CONTROL}
    output = [write for write in writes if write.channel not in _CONTROL]
    error, asked, resume = (control.get(name) for name in ("__error__", "__interrupt__", "__resume__"))
    return Trace(
        task_id=writes[0].task_id,
        path=writes[0].path,
        ns=writes[0].ns,
        done=bool(output),
        error=_text(reader.read(error.type, error.blob)) if error else None,
        fresh_error=error is not None and error.xid in {write.xid for write in output},
        routed="__error_source_node__" in control,
        questions=_questions(reader.read(asked.type, asked.blob), asked.type) if asked else (),
        answers=_count(resume) if resume else 0,
        moved_on=resume is not None and asked is not None and resume.xid != asked.xid,
        outputs=tuple(write.channel for write in output if _is_state(write.channel)),
    )


def _count(resume: _Write) -> int:
    """The length of a recorded list of answers, from its first bytes; a single answer is not in a list."""
    first, *rest = resume.blob or b"\x00"
    if resume.type != _READABLE or not (first >> 4 == 0x9 or first in (0xDC, 0xDD)):
        return 1
    return first & 0xF if first >> 4 == 0x9 else int.from_bytes(rest[: 2 if first == 0xDC else 4])


def _is_state(channel: str) -> bool:
    return channel not in _NOT_STATE and not channel.startswith((BRANCH, "join:"))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(_plain(value))


def _questions(value: Any, encoding: str) -> tuple[Question, ...]:
    if value is _UNREAD:
        return (Question("", _opaque(encoding)),)
    return tuple(_question(item) for item in (value if isinstance(value, list) else [value]))


def _question(item: Any) -> Question:
    if not (isinstance(item, _Made) and isinstance(item.data, dict)):
        return Question("", _plain(item))
    schema = _plain(item.data.get("response_schema"))
    known = str(item.data.get("id", ""))
    return Question(known, _plain(item.data.get("value")), schema if isinstance(schema, dict) else None)


class _Made(NamedTuple):
    """A value that asked to be built by a class: what the class is called, and what it would have been given."""

    kind: str
    data: Any


_UNREAD: Final = object()


class _Reader:
    """Decodes stored values, and remembers which encodings it could not read."""

    def __init__(self) -> None:
        self.unread: set[str] = set()

    def read(self, encoding: str | None, blob: bytes | None) -> Any:
        """Lists, dicts, strings, numbers and `_Made`; `_UNREAD` where that cannot be had."""
        try:
            return _decode(encoding, blob)
        except ValueError:  # covers broken MessagePack, JSON and UTF-8
            self.unread.add(str(encoding))
            return _UNREAD


def _decode(encoding: str | None, blob: bytes | None) -> Any:
    match encoding:
        case "null":
            return None
        case "bytes" | "bytearray":
            return blob
        case "json":
            return json.loads(blob or b"")
        case "msgpack":
            return _unpack(blob or b"")
    raise ValueError(f"no reader for {encoding}")


def _unpack(data: bytes) -> Any:
    return ormsgpack.unpackb(data, ext_hook=_made, option=ormsgpack.OPT_NON_STR_KEYS)


def _made(code: int, data: bytes) -> Any:
    """Extension codes 0 to 5 hold (module, name, arguments, ...); 7 wraps a value; 6 is an array of numbers."""
    if code == 7:
        return _unpack(data)
    parts = _unpack(data) if 0 <= code <= 5 else None
    if not isinstance(parts, list) or len(parts) < 3:
        return _Made("", _opaque(f"extension {code}"))
    if parts[:2] == ["builtins", "tuple"]:
        return parts[2]
    return _Made(f"{parts[0]}.{parts[1]}", parts[2])


def _plain(value: Any) -> Any:
    """JSON-like data: a class becomes what it was built from, bytes and the unknown become a note of what was there."""
    match value:
        case _Made(kind="uuid.UUID", data=str() as hexed):
            return str(UUID(hexed))
        case _Made():
            return _plain(value.data)
        case dict():
            return {key if isinstance(key, str) else str(_plain(key)): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            return _opaque("bytes", size=len(value))
    return _opaque(type(value).__name__)


def _opaque(what: str, **facts: Any) -> dict[str, Any]:
    return {"unreadable": what, **facts}
