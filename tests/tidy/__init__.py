"""The rules of the house, as tests. Each check is a function from a source to its faults, and is shown to find some."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
FOLDERS: Final = ("control", "docs", "graphs", "nodes", "tests")

finished: Final = pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="README.md is not written yet")
"""For rules about the whole, which hold once its parts are there. The README comes last."""


@dataclass(frozen=True)
class Source:
    """A file of the repository: its path below the root, and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def module(self) -> str:
        """The dotted name, a package without its `__init__`."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def package(self) -> str:
        """What a relative import starts from."""
        return self.module if self.path.endswith("/__init__.py") else self.module.rpartition(".")[0]

    def inside(self, *prefixes: str) -> bool:
        """Whether the module is one of `prefixes` or below one."""
        return any(self.module == prefix or self.module.startswith(prefix + ".") for prefix in prefixes)

    def fault(self, line: int | ast.AST, says: str) -> str:
        number = line if isinstance(line, int) else getattr(line, "lineno", 0)
        return f"{self.path}:{number}: {says}"


def python(*folders: str) -> list[Source]:
    """The Python files below these folders."""
    return [Source(path, text) for path, text in _texts() if path.endswith(".py") and path.split("/")[0] in folders]


def texts() -> list[Source]:
    """Every text file that is committed, or lies where it would be."""
    return [Source(path, text) for path, text in _texts()]


def faults(check: Callable[[Source], Iterable[str]], sources: Iterable[Source]) -> list[str]:
    """What `check` finds in all of them. A file that is not Python is a fault, not a crash."""
    return [fault for source in sources for fault in _found(check, source)]


def assert_clean(check: Callable[[Source], Iterable[str]], sources: Iterable[Source]) -> None:
    """Fail with every fault, one a line."""
    found = faults(check, sources)
    assert not found, "\n".join(["", *found])


def _found(check: Callable[[Source], Iterable[str]], source: Source) -> list[str]:
    try:
        return list(check(source))
    except SyntaxError as error:
        return [source.fault(error.lineno or 0, f"this is not Python: {error.msg}")]


def _texts() -> Iterator[tuple[str, str]]:
    """Read anew each time: there are few files, and other tests write none."""
    for path in _committed():
        try:
            yield path, (ROOT / path).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue  # a picture, a PDF, or a file that was just deleted


def _committed() -> list[str]:
    """What git knows, or would add to the folders of ours; without git, everything that is not hidden."""
    try:
        return sorted({*_listed("--cached"), *_listed("--others", "--exclude-standard", "--", *FOLDERS)})
    except (OSError, subprocess.CalledProcessError):
        return sorted(_visible())


def _listed(*options: str) -> list[str]:
    command = ["git", "-C", str(ROOT), "ls-files", "-z", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")[:-1]


def _visible() -> Iterator[str]:
    for path in ROOT.rglob("*"):
        relative = path.relative_to(ROOT)
        if path.is_file() and not any(part.startswith((".venv", ".git", "__pycache__")) for part in relative.parts):
            yield relative.as_posix()
