"""The linter and the type checker find nothing, and are set to find something."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.tidy import ROOT, finished


def tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@finished
@pytest.mark.parametrize(
    "arguments",
    [("ruff", "check", "--output-format", "concise", "."), ("ruff", "format", "--check", "."), ("mypy",)],
    ids=["lint", "format", "types"],
)
def test_the_checkers_find_nothing(arguments: tuple[str, ...]) -> None:
    done = tool(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("ruff", "check", "--config", "pyproject.toml"), "`os` imported but unused"),
        (("ruff", "format", "--check"), "would be reformatted"),
        (("mypy", "--cache-dir", os.devnull), "Function is missing a type annotation"),
    ],
    ids=["lint", "format", "types"],
)
def test_the_checkers_find_a_fault(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("import os\n\ndef double(x):\n    return x * 2\n")
    done = tool(*arguments, str(bad))
    assert done.returncode == 1, done.stderr
    assert says in done.stdout


def test_types_are_strict_everywhere() -> None:
    mypy = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    assert mypy == {"strict": True, "python_version": "3.11", "packages": ["control", "nodes", "graphs"]}
