"""Whole columns as parameters.

A flush sends many rows as parallel arrays. psycopg's own list adaptation writes text arrays element by element, and
its parameter type depends on the values, which would make a new prepared statement for every mixture of nulls. `Texts`
and `Blobs` always travel as binary `text[]` and `bytea[]`; SQL casts the former to what the column is. A binary array
is its opening, then each element behind its length, which is -1 for a null.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

from psycopg.abc import AdaptContext
from psycopg.adapt import Dumper
from psycopg.pq import Format

_TEXT: Final = 25  # PostgreSQL's own numbers of its types
_TEXT_ARRAY: Final = 1009
_BYTEA: Final = 17
_BYTEA_ARRAY: Final = 1001
_length: Final = Struct("!i").pack
_NULL: Final = _length(-1)
_opening: Final = Struct("!iiiii").pack  # dimensions, has nulls, element type, length, lower bound
_NO_TEXTS: Final = Struct("!iii").pack(0, 0, _TEXT)
_NO_BLOBS: Final = Struct("!iii").pack(0, 0, _BYTEA)


class Texts(list[str | None]):
    """A column of text; also of anything that PostgreSQL casts from text."""


class Blobs(list[bytes | None]):
    """A column of bytes."""


class _TextsDumper(Dumper):
    format = Format.BINARY
    oid = _TEXT_ARRAY

    def dump(self, obj: Any) -> bytes:
        if not obj:
            return _NO_TEXTS
        opening = _opening(1, None in obj, _TEXT, len(obj), 1)
        sent = [_NULL if text is None else _length(len(data := text.encode())) + data for text in obj]
        return opening + b"".join(sent)


class _BlobsDumper(Dumper):
    format = Format.BINARY
    oid = _BYTEA_ARRAY

    def dump(self, obj: Any) -> bytes:
        if not obj:
            return _NO_BLOBS
        opening = _opening(1, None in obj, _BYTEA, len(obj), 1)
        return opening + b"".join([_NULL if data is None else _length(len(data)) + data for data in obj])


def register(context: AdaptContext) -> None:
    """Teach a connection the two columns."""
    context.adapters.register_dumper(Texts, _TextsDumper)
    context.adapters.register_dumper(Blobs, _BlobsDumper)
