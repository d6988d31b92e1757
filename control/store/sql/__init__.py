"""The SQL of the store: one `.sql` file per noun, read once, named query by named query.

A query opens with `-- :name <name>`, then comment lines that state its promise, then `-- locks: <tables>` or
`-- locks: none`, then one statement. Parameters are psycopg's `%(name)s`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, LiteralString, NamedTuple, cast

_NAME = re.compile(r"^-- :name (\w+)[^\n]*\n", re.MULTILINE)
_COMMENT = re.compile(r"^\s*--[^\n]*\n?", re.MULTILINE)


_PARAMETER = re.compile(r"%\((\w+)\)s")


class Numbered(NamedTuple):
    """A query with `$1`, `$2`, ... for its parameters, as the server takes it, and their names in that order.

    For psycopg's raw cursors: named parameters of a long query are parsed anew each time it is sent.
    """

    text: LiteralString
    names: tuple[str, ...]

    def values(self, params: Mapping[str, Any]) -> list[Any]:
        """The parameters in the query's order."""
        return [params[name] for name in self.names]


def numbered(query: LiteralString) -> Numbered:
    """The query with its parameters numbered in the order in which they first appear."""
    names = tuple(dict.fromkeys(_PARAMETER.findall(query)))
    text = _PARAMETER.sub(lambda match: f"${names.index(match[1]) + 1}", query)
    return Numbered(text.replace("%%", "%"), names)


def without(query: LiteralString, mark: str) -> LiteralString:
    """The query without its lines that end in `-- <mark>`."""
    return re.sub(rf"^.* -- {mark}\n", "", query, flags=re.MULTILINE)


def read(noun: str) -> Mapping[str, LiteralString]:
    """Every query of `<noun>.sql` by its name, without comments. The files ship with the package, hence literal."""
    text = files(__package__).joinpath(f"{noun}.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    queries = {
        name: _COMMENT.sub("", body).strip().rstrip(";") for name, body in zip(parts[::2], parts[1::2], strict=True)
    }
    return cast("Mapping[str, LiteralString]", queries)
