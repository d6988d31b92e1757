"""Imports point inward, and the core is arithmetic."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from typing import Final

import pytest

from tests.tidy import Source, assert_clean, faults, python

LAYERS: Final = (
    {"control.core", "control.audit_verifier"},
    {"control.settings"},
    {"control.store", "control.policy", "control.sdk", "control.identity"},
    {"control.runtime"},
    {"control.app"},
    {"control.server", "control.console", "control.cli", "control.__main__"},
)
"""Innermost first. A part may import the layers before its own, and of its own layer only itself."""

SEAMS: Final = {("control.store", "control.sdk.ports")}
"""A port is declared where it is called from, and implemented elsewhere on the same layer."""

FREE: Final = ("control.testing", "graphs.loan_demo")
"""They drive the product from outside. Nothing of the product imports them."""

DRIVER: Final = ("psycopg", "psycopg_pool", "psycopg_binary")
IMPURE: Final = frozenset({
    "asyncio", "concurrent", "glob", "http", "io", "logging", "multiprocessing", "os", "pathlib", "queue",
    "random", "secrets", "select", "selectors", "shutil", "signal", "socket", "sqlite3", "subprocess", "sys",
    "tempfile", "threading", "time", "urllib",
})  # fmt: skip
IMPURE_CALLS: Final = frozenset({
    "open", "print", "input", "exec", "eval", "breakpoint", "datetime.now", "datetime.utcnow",
    "datetime.today", "date.today", "uuid.uuid1", "uuid.uuid4", "uuid1", "uuid4",
})  # fmt: skip


def imported(source: Source) -> Iterator[tuple[ast.AST, str]]:
    """Every module imported anywhere in the file; `from a import b` counts as `a.b`, which is enough for prefixes."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = source.package.split(".")
            above = start[: len(start) - node.level + 1] if node.level else []
            name = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node, f"{name}.{alias.name}") for alias in node.names)


def below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def part(name: str) -> tuple[int, str] | None:
    """The layer's number and the part of `control` that a module belongs to."""
    for rank, layer in enumerate(LAYERS):
        for member in layer:
            if below(name, member):
                return rank, member
    return None


def outward(source: Source) -> Iterator[str]:
    """Imports within `control` that point outward or sideways."""
    if source.inside(*FREE):
        return
    own = part(source.module)
    if own is None:
        if source.module != "control":
            yield source.fault(1, f"{source.module} belongs to no layer; name it in tests/tidy/test_layers.py")
        return
    for node, name in imported(source):
        other = part(name)
        if other is None or other == own or other[0] < own[0]:
            continue
        if not any(below(own[1], user) and below(name, port) for user, port in SEAMS):
            yield source.fault(node, f"{own[1]} may not import {name}")


def across(source: Source) -> Iterator[str]:
    """Imports between the product and what is built with it, and into what drives it from outside."""
    if source.inside(*FREE):
        return
    for node, name in imported(source):
        if source.inside("control"):
            banned = name.split(".")[0] in ("nodes", "graphs", "tests") or below(name, "control.testing")
        else:
            banned = below(name, "control") and not below(name, "control.sdk")
        if banned:
            yield source.fault(node, f"{source.module} may not import {name}")


def driven(source: Source) -> Iterator[str]:
    """Uses of the database driver outside the store."""
    if not source.inside("control.store", *FREE):
        for node, name in imported(source):
            if name.split(".")[0] in DRIVER:
                yield source.fault(node, f"only control.store imports {name}")


def impure(source: Source) -> Iterator[str]:
    """What has no place in arithmetic: other packages, awaiting, clocks, randomness, the environment, output."""
    for node, name in imported(source):
        top = name.split(".")[0]
        if not below(name, "control.core") and (top not in sys.stdlib_module_names or top in IMPURE):
            yield source.fault(node, f"the core may not import {name}")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield source.fault(node, "the core does not wait")
        elif isinstance(node, ast.Call) and ".".join(ast.unparse(node.func).split(".")[-2:]) in IMPURE_CALLS:
            yield source.fault(node, f"the core does not call {ast.unparse(node.func)}")


def test_imports_point_inward() -> None:
    assert_clean(outward, python("control"))


def test_the_product_and_what_is_built_with_it_meet_in_the_sdk() -> None:
    assert_clean(across, python("control", "nodes", "graphs"))


def test_only_the_store_knows_the_driver() -> None:
    assert_clean(driven, python("control", "nodes", "graphs"))


def test_the_core_is_arithmetic() -> None:
    assert_clean(impure, [source for source in python("control") if source.inside("control.core")])


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("control/core/claim.py", "from control.store import claims"),
        ("control/core/claim.py", "from control import settings"),
        ("control/core/claim.py", "from ..store import claims"),
        ("control/store/claims.py", "import control.runtime.worker"),
        ("control/store/claims.py", "from control.sdk import approval"),
        ("control/sdk/ports.py", "def late():\n    from control.store import saver"),
        ("control/server/routes.py", "from control.console import pages"),
        ("control/runtime/worker.py", "from control import app"),
        ("control/unheard_of.py", ""),
    ],
)
def test_an_outward_import_is_found(path: str, text: str) -> None:
    assert faults(outward, [Source(path, text)])


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("control/cli/__init__.py", "from control.app import build\nfrom control.core.problem import Refusal"),
        ("control/store/saver.py", "from control.sdk.ports import Begun\nfrom . import claims"),
        ("control/runtime/commands/start.py", "from ..worker import Worker\nfrom control.settings import Settings"),
    ],
)
def test_an_inward_import_is_allowed(path: str, text: str) -> None:
    assert faults(outward, [Source(path, text)]) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("control/runtime/worker.py", "import graphs.loan_approval"),
        ("control/store/pool.py", "from control.testing.clock import replace"),
        ("nodes/mail.py", "from control.store import saver"),
        ("graphs/loan_approval.py", "import control"),
    ],
)
def test_an_import_across_is_found(path: str, text: str) -> None:
    assert faults(across, [Source(path, text)])


def test_the_sdk_is_open_to_nodes() -> None:
    assert faults(across, [Source("nodes/mail.py", "from control.sdk import effect")]) == []


def test_a_driver_outside_the_store_is_found() -> None:
    text = "from psycopg_pool import AsyncConnectionPool"
    assert faults(driven, [Source("control/runtime/worker.py", text)])
    assert not faults(driven, [Source("control/store/pool.py", text)])


@pytest.mark.parametrize(
    "text",
    [
        "import pydantic",
        "import time",
        "from os import environ",
        "async def f(): ...",
        "x = datetime.datetime.now(UTC)",
        "x = uuid4()",
        "print(1)",
    ],
)
def test_an_impurity_is_found(text: str) -> None:
    assert faults(impure, [Source("control/core/claim.py", text)])


def test_arithmetic_is_allowed() -> None:
    text = "from datetime import datetime\nfrom control.core.problem import Problem\ndef f(now: datetime): return now"
    assert faults(impure, [Source("control/core/claim.py", text)]) == []
