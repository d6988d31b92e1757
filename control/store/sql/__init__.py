"""The SQL of the store: one `.sql` file per noun, read once, named query by named query.

A query opens with `-- :name <name>`, then comment lines that state its promise, then `-- locks: <tables>` or
`-- locks: none`, then one statement. Parameters are psycopg's `%(name)s`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import LiteralString, cast

_NAME = re.compile(r"^-- :name (\w+)[^\n]*\n", re.MULTILINE)
_COMMENT = re.compile(r"^\s*--[^\n]*\n?", re.MULTILINE)


def read(noun: str) -> Mapping[str, LiteralString]:
    """Every query of `<noun>.sql` by its name, without comments. The files ship with the package, hence literal."""
    text = files(__package__).joinpath(f"{noun}.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    queries = {
        name: _COMMENT.sub("", body).strip().rstrip(";") for name, body in zip(parts[::2], parts[1::2], strict=True)
    }
    return cast("Mapping[str, LiteralString]", queries)
