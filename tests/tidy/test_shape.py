"""Names that say something, and sizes that fit a head."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

import pytest

from tests.tidy import Source, assert_clean, faults, python

EMPTY_NAMES: Final = frozenset({
    "utils", "util", "common", "commons", "helpers", "helper", "base", "bases", "manager", "managers", "misc",
})  # fmt: skip
FUNCTION_LINES: Final = 50
MODULE_LINES: Final = 400
POSITIONAL: Final = 3

Function = ast.FunctionDef | ast.AsyncFunctionDef


def named_emptily(source: Source) -> Iterator[str]:
    """Modules and packages whose name says nothing about what is in them."""
    for name in EMPTY_NAMES.intersection(source.module.split(".")):
        yield source.fault(1, f"`{name}` names nothing; call it after its noun")


def oversized(source: Source) -> Iterator[str]:
    """Modules and functions that are too long, and functions with too many positional parameters."""
    if len(source.lines) > MODULE_LINES:
        yield source.fault(MODULE_LINES, f"a module stops at {MODULE_LINES} lines, this one has {len(source.lines)}")
    for function, is_method in functions(source.tree):
        if (size := lines(function)) > FUNCTION_LINES:
            yield source.fault(function, f"{function.name} has {size} lines; a function stops at {FUNCTION_LINES}")
        if (count := positional(function, is_method=is_method)) > POSITIONAL and not overrides(function):
            yield source.fault(function, f"{function.name} has {count} positional parameters, over {POSITIONAL}")


def functions(tree: ast.Module) -> Iterator[tuple[Function, bool]]:
    """Every function, and whether it stands directly in a class."""
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                yield child, isinstance(node, ast.ClassDef)


def lines(function: Function) -> int:
    """Without the docstring: explaining costs nothing."""
    assert function.end_lineno is not None
    said = function.body[0] if ast.get_docstring(function) is not None else None
    documented = said.end_lineno - said.lineno + 1 if said is not None and said.end_lineno is not None else 0
    return function.end_lineno - function.lineno + 1 - documented


def positional(function: Function, *, is_method: bool) -> int:
    count = len(function.args.posonlyargs) + len(function.args.args)
    return count - 1 if is_method and "staticmethod" not in decorators(function) else count


def overrides(function: Function) -> bool:
    """Somebody else's interface decided on the parameters. `@override` makes mypy hold it to that."""
    return "override" in decorators(function)


def decorators(function: Function) -> set[str]:
    return {ast.unparse(decorator).rpartition(".")[2] for decorator in function.decorator_list}


def test_no_module_has_an_empty_name() -> None:
    assert_clean(named_emptily, python("control", "nodes", "graphs", "tests"))


def test_sizes_fit_a_head() -> None:
    assert_clean(oversized, python("control", "nodes", "graphs"))


@pytest.mark.parametrize("path", ["control/store/utils.py", "control/common/__init__.py", "tests/helpers/claims.py"])
def test_an_empty_name_is_found(path: str) -> None:
    assert faults(named_emptily, [Source(path, "")])


@pytest.mark.parametrize(
    "text",
    [
        "\n" * (MODULE_LINES + 1),
        "def long():\n" + "    x = 1\n" * FUNCTION_LINES,
        "class C:\n    async def long(self):\n" + "        x = 1\n" * FUNCTION_LINES,
        "def wide(a, b, c, d): ...",
        "class C:\n    def wide(self, a, b, c, d=1): ...",
        "class C:\n    @staticmethod\n    def wide(a, b, c, d): ...",
    ],
)
def test_an_oversize_is_found(text: str) -> None:
    assert faults(oversized, [Source("control/core/claim.py", text)])


@pytest.mark.parametrize(
    "text",
    [
        "def f(a, b, c, *, d, e): ...",
        "class C:\n    def f(self, a, b, c): ...",
        "class C:\n    @override\n    def put(self, a, b, c, d): ...",
        'def f():\n    """' + "\n" * 60 + '"""\n    return 1',
    ],
)
def test_what_fits_is_allowed(text: str) -> None:
    assert faults(oversized, [Source("control/core/claim.py", text)]) == []
