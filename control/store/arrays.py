"""Whole columns as parameters.

A flush sends many rows as parallel arrays. psycopg's own list adaptation writes text arrays element by element, and
its parameter type depends on the values, which would make a new prepared statement for every mixture of nulls. `Texts`
and `Blobs` always travel as binary `text[]` and `bytea[]`; SQL casts the former to what the column is.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import pack
from typing import Any, Final

from psycopg.abc import AdaptContext
from psycopg.adapt import Dumper
from psycopg.pq import Format

_TEXT: Final = 25  # PostgreSQL's own numbers of its types
_TEXT_ARRAY: Final = 1009
_BYTEA: Final = 17
_BYTEA_ARRAY: Final = 1001
_NULL: Final = pack("!i", -1)


class Texts(list[str | None]):
    """A column of text; also of anything that PostgreSQL casts from text."""


class Blobs(list[bytes | None]):
    """A column of bytes."""


class _TextsDumper(Dumper):
    format = Format.BINARY
    oid = _TEXT_ARRAY

    def dump(self, obj: Any) -> bytes:
        return _array(_TEXT, [None if text is None else text.encode() for text in obj])


class _BlobsDumper(Dumper):
    format = Format.BINARY
    oid = _BYTEA_ARRAY

    def dump(self, obj: Any) -> bytes:
        return _array(_BYTEA, obj)


def _array(element: int, values: Iterable[bytes | None]) -> bytes:
    """PostgreSQL's binary one-dimensional array: dimensions, has nulls, element type, length, lower bound, elements."""
    parts = [_NULL if value is None else pack("!i", len(value)) + value for value in values]
    if not parts:
        return pack("!iii", 0, 0, element)
    return pack("!iiiii", 1, int(_NULL in parts), element, len(parts), 1) + b"".join(parts)


def register(context: AdaptContext) -> None:
    """Teach a connection the two columns."""
    context.adapters.register_dumper(Texts, _TextsDumper)
    context.adapters.register_dumper(Blobs, _BlobsDumper)
