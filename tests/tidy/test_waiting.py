"""Tests wait for what they wait for, never for a span of time.

A test that sleeps passes on a quiet machine and fails on a busy one. What is left: the loop of a function that polls
(`until_...`, `wait_...`, `poll_...`), a yield to the event loop (`sleep(0)`), and a sleep that a comment gives a reason
for, such as a node that is meant to be slow.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final

import pytest

from tests.tidy import Source, assert_clean, faults, python

POLLS: Final = re.compile(r"_*(until|wait|poll|eventually)(_|s_|ed_|$)")
SLEEPS: Final = frozenset({"time.sleep", "asyncio.sleep", "anyio.sleep", "sleep"})


def naps(source: Source) -> Iterator[str]:
    """Sleeps, in Python or in SQL, that are neither a poll's nor explained."""
    for node in ast.walk(source.tree):
        if sleeps(node) and not explained(source, node) and node not in polling(source.tree):
            yield source.fault(node, "wait for the thing itself (pg_stat_activity, a signal), or say why")


def sleeps(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and re.search(r"\bpg_sleep(_for|_until)?\(", node.value) is not None
    if not isinstance(node, ast.Call) or ast.unparse(node.func) not in SLEEPS:
        return False
    return not (node.args and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0)


def explained(source: Source, node: ast.AST) -> bool:
    """Whether a comment stands on the line or above it."""
    assert isinstance(node, ast.expr)
    above = source.lines[node.lineno - 2].strip() if node.lineno > 1 else ""
    return above.startswith("#") or re.search(r"\s#\s+\w+ \w+", source.lines[node.lineno - 1]) is not None


def polling(tree: ast.Module) -> set[ast.AST]:
    """Everything inside a loop of a function that says that it polls."""
    found: set[ast.AST] = set()
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and POLLS.match(function.name):
            for loop in ast.walk(function):
                if isinstance(loop, ast.While | ast.For | ast.AsyncFor):
                    found.update(ast.walk(loop))
    return found


def test_no_test_waits_for_a_span_of_time() -> None:
    assert_clean(naps, [source for source in python("tests") if not source.inside("tests.tidy", "tests.bench")])


@pytest.mark.parametrize(
    "text",
    [
        "def test_race():\n    time.sleep(0.1)",
        "async def test_race():\n    await asyncio.sleep(1)",
        "def until_ready():\n    sleep(0.1)",
        "def test_race():\n    while not ready():\n        time.sleep(0.1)",
        "def test_race(conn):\n    conn.execute('select pg_sleep(1)')",
        "time.sleep(1)  # noqa",
    ],
)
def test_a_nap_is_found(text: str) -> None:
    assert faults(naps, [Source("tests/store/test_claims.py", text)])


@pytest.mark.parametrize(
    "text",
    [
        "def until_ready():\n    while not ready():\n        time.sleep(0.01)",
        "async def wait_for(signal):\n    for _ in range(9):\n        await asyncio.sleep(0.01)",
        "await asyncio.sleep(0)",
        "await asyncio.sleep(0.0)",
        "time.sleep(60)  # a node that hangs",
        "# The lease must run out, and it is the database's own clock that measures it.\ntime.sleep(1)",
    ],
)
def test_a_poll_and_a_reason_are_allowed(text: str) -> None:
    assert faults(naps, [Source("tests/store/test_claims.py", text)]) == []
