"""SQL lives in files, one per noun; a query states its promise and what it locks, and is used."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import pytest

from tests.tidy import Source, assert_clean, faults, finished, python, texts

LINE_LENGTH: Final = 120  # as in pyproject.toml
NAME: Final = re.compile(r"^-- :name (\w+)(?: :\w+)?$")
WRITES: Final = re.compile(
    r"\b(update\s+[\w.]+\s+(as\s+)?(\w+\s+)?set|delete\s+from|merge\s+into|for\s+([\w ]*update|(key )?share))\b"
)
QUOTED: Final = re.compile(r"'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*.*?\*/", re.DOTALL)
QUERY: Final = re.compile(
    r"\s*(select\s|insert\s+into\s|update\s+[\w.]+\s+(\w+\s+)?set\s|delete\s+from\s|with\s+(recursive\s+)?\w+\s+as\s"
    r"|merge\s+into\s|values\s*\(|truncate\s|lock\s+table|create\s+(or|unique|table|index|function|policy|trigger|view))"
)
UTILITY: Final = re.compile(
    r"\s*(set\s+(local|role|session)\s|listen\s+\w+$|notify\s+\w+(,|$)|(grant|revoke)\s+[\w, ]+\s(on|to|from)\s"
    r"|(create|alter|drop)\s+(database|role|user|schema|table|system|type|domain|extension)\s)"
)


@dataclass(frozen=True)
class Query:
    """One named query of a file: its comment lines up to the statement, and the statement."""

    name: str
    line: int
    comments: tuple[str, ...]
    statement: str


def queries(source: Source) -> list[Query]:
    starts = [number for number, line in enumerate(source.lines) if line.startswith("-- :name")]
    return [_query(source.lines[start:end], start + 1) for start, end in pairwise([*starts, len(source.lines)])]


def _query(lines: list[str], line: int) -> Query:
    named = NAME.match(lines[0])
    length = next((n for n, text in enumerate(lines[1:], 1) if not text.startswith("--")), len(lines))
    comments = tuple(text.removeprefix("--").strip() for text in lines[1:length])
    return Query(named[1] if named else "", line, comments, "\n".join(lines[length:]).strip())


def unpromised(source: Source) -> Iterator[str]:
    """Queries that do not say what they promise or lock, or are not one statement."""
    seen: set[str] = set()
    for query in queries(source):
        yield from (source.fault(query.line, f"query {query.name or '?'} {what}") for what in wrongs(query, seen))
        seen.add(query.name)
    if not seen:
        yield source.fault(1, "no query is named here: -- :name <name>")


def wrongs(query: Query, earlier: Iterable[str]) -> Iterator[str]:
    if not query.name:
        yield "has no name of one word: -- :name <name>"
    if query.name in earlier:
        yield "is defined twice"
    locks = [text for text in query.comments if re.match(r"locks: \w", text)]
    if len(locks) != 1 or locks[0] != query.comments[-1]:
        yield "does not close its comment with -- locks: <tables in order> or -- locks: none"
    if not any(len(text.split()) > 2 for text in query.comments if text not in locks):
        yield "does not state its promise in a sentence"
    bare = QUOTED.sub("", query.statement).strip().removesuffix(";")
    if not bare or ";" in bare:
        yield "is not one statement"
    if locks == ["locks: none"] and WRITES.search(bare.lower()):
        yield "locks rows and says that it locks none"


def embedded(source: Source) -> Iterator[str]:
    """SQL in Python. A command that takes no parameters, like LISTEN, may stand where it is sent: in the store."""
    documentation = {id(node.value) for node in ast.walk(source.tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            text = re.sub(r"\b[A-Z]+\b", lambda word: word[0].lower(), node.value)  # but not "Select", which is English
            if QUERY.match(text) or (UTILITY.match(text) and not source.inside("control.store")):
                yield source.fault(node, f"SQL lives in control/store/sql: {node.value.strip()[:40]!r}")


def unused(source: Source, *, store: Iterable[Source]) -> Iterator[str]:
    """Queries of a file that no module of the store mentions."""
    used = {node.value for user in store for node in ast.walk(user.tree) if isinstance(node, ast.Constant)}
    for query in queries(source):
        if query.name not in used:
            yield source.fault(query.line, f"nothing uses query {query.name}")


def overlong(source: Source) -> Iterator[str]:
    """Lines longer than ruff would have them in Python."""
    for number, line in enumerate(source.lines, 1):
        if len(line) > LINE_LENGTH:
            yield source.fault(number, f"a line stops at {LINE_LENGTH} characters, this one has {len(line)}")


def sql_files() -> list[Source]:
    return [source for source in texts() if re.fullmatch(r"control/store/sql/\w+\.sql", source.path)]


def test_a_query_states_its_promise_and_its_locks() -> None:
    assert_clean(unpromised, sql_files())


def test_lines_fit_the_page() -> None:
    """A migration is never edited, and so keeps the lines it has. The schema is written by `pg_dump`."""
    ours = [s for s in texts() if s.path.endswith(".sql") and not s.path.endswith("/schema.sql")]
    assert_clean(overlong, [source for source in ours if "/migrations/" not in source.path])


def test_an_overlong_line_is_found() -> None:
    line = "-- " + "x" * (LINE_LENGTH - 3)
    assert faults(overlong, [Source("claims.sql", line)]) == []
    assert faults(overlong, [Source("claims.sql", f"select 1\n{line}y")]) == [
        "claims.sql:2: a line stops at 120 characters, this one has 121"
    ]


def test_sql_lives_in_files() -> None:
    sources = [source for source in python("control", "nodes", "graphs") if not source.inside("control.testing")]
    assert_clean(embedded, sources)


@finished
def test_every_query_is_used() -> None:
    store = [source for source in python("control") if source.inside("control.store")]
    assert_clean(lambda source: unused(source, store=store), sql_files())


GOOD: Final = """
-- :name close
-- Ends the attempt that holds the claim.
-- locks: run
update control.run set a = 'x;y';
"""


def test_a_good_query_is_allowed() -> None:
    assert faults(unpromised, [Source("claims.sql", "-- Of claims.\n" + GOOD)]) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("select 1", "no query is named"),
        (GOOD.replace("close", "close it"), "no name of one word"),
        (GOOD + GOOD, "defined twice"),
        (GOOD.replace("-- locks: run\n", ""), "does not close its comment with"),
        (GOOD.replace("locks: run", "locks:"), "does not close its comment with"),
        (GOOD.replace("-- Ends the attempt that holds the claim.\n", ""), "does not state its promise"),
        (GOOD + "select 1;", "not one statement"),
        (GOOD.replace("update control.run set a = 'x;y';", ""), "not one statement"),
        (GOOD.replace("locks: run", "locks: none"), "says that it locks none"),
        (GOOD.replace("locks: run", "locks: none").replace("update", "select 1 for no key update --"), "locks none"),
    ],
)
def test_a_query_without_its_promise_is_found(text: str, says: str) -> None:
    assert says in " ".join(faults(unpromised, [Source("claims.sql", text)]))


@pytest.mark.parametrize(
    "text",
    [
        "x = 'select 1'",
        'x = f"update control.run set a = {b}"',
        'x = """\n  WITH a AS (SELECT 1) SELECT * FROM a"""',
        "x = 'LISTEN work'",
    ],
)
def test_sql_in_python_is_found(text: str) -> None:
    assert faults(embedded, [Source("control/runtime/worker.py", text)])


@pytest.mark.parametrize(
    "text", ['"""select a run, says this docstring."""', "x = 'Select a run.'", "x = 'grant loan'"]
)
def test_english_is_not_sql(text: str) -> None:
    assert faults(embedded, [Source("control/cli/runs.py", text)]) == []


def test_an_unused_query_is_found() -> None:
    sql = Source("claims.sql", GOOD)
    assert list(unused(sql, store=[Source("claims.py", "x = _SQL['open']")]))
    assert not list(unused(sql, store=[Source("claims.py", "x = _SQL['close']")]))
