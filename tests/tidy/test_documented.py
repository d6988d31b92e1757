"""What a person can set, type or run into is in the README or on a page that it links."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import typer

import control
import nodes
from control.core.problem import CATALOGUE
from control.settings import Settings, env_name
from tests.tidy import ROOT, finished

LINK: Final = re.compile(r"\]\((?!\w+:)([^)#\s]+\.md)")


def pages(root: Path) -> str:
    """The README and the pages that it links, as one text. A link that leads nowhere raises FileNotFoundError."""
    readme = (root / "README.md").read_text(encoding="utf-8")
    linked = sorted(set(LINK.findall(readme)))
    return "\n".join([readme, *((root / page).read_text(encoding="utf-8") for page in linked)])


def missing(names: Iterable[str], *, text: str) -> list[str]:
    """The names that the text does not hold as whole words."""
    return sorted(name for name in set(names) if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text))


def verbs(command: Any, name: str) -> Iterator[str]:
    """Every command as it is typed, `control db migrate`; a group counts through its members.

    `command` is of click's Command or Group, which typer brings with it as its own.
    """
    members: Mapping[str, Any] | None = getattr(command, "commands", None)
    if members is None:
        yield name
        return
    for member, below in members.items():
        if not below.hidden:
            yield from verbs(below, f"{name} {member}")


def modules() -> list[str]:
    found = [*pkgutil.walk_packages(control.__path__, "control."), *pkgutil.walk_packages(nodes.__path__, "nodes.")]
    return [module.name for module in found if not module.name.endswith("__main__")]


def problem_codes() -> set[str]:
    """Every code of the catalogue, which is whole once all modules are imported."""
    for name in modules():
        importlib.import_module(name)
    return set(CATALOGUE)


def command_line() -> typer.Typer:
    cli = importlib.import_module("control.cli")
    return next(value for value in vars(cli).values() if isinstance(value, typer.Typer))


def diagrams() -> list[str]:
    """The drawings of the core's tables, each made by a function `diagram()`."""
    cores = [importlib.import_module(name) for name in modules() if name.startswith("control.core.")]
    return [core.diagram() for core in cores if callable(getattr(core, "diagram", None))]


@finished
def test_every_setting_is_documented() -> None:
    assert missing([env_name(field) for field in Settings.model_fields], text=pages(ROOT)) == []


@finished
def test_every_command_is_documented() -> None:
    commands = list(verbs(typer.main.get_command(command_line()), "control"))
    assert len(commands) > 10
    assert missing(commands, text=pages(ROOT)) == []


@finished
def test_every_problem_is_documented() -> None:
    assert missing(problem_codes(), text=pages(ROOT)) == []


@finished
def test_the_status_diagram_is_drawn_from_the_table() -> None:
    drawn = diagrams()
    assert drawn, "no module of control.core draws its table: def diagram() -> str"
    assert [drawing for drawing in drawn if drawing.strip() not in pages(ROOT)] == []


def test_an_undocumented_name_is_found() -> None:
    text = "`CONTROL_POLL_S`, `control db migrate`, `claim-lost-again`"
    assert missing(["CONTROL_POLL_S", "control db migrate"], text=text) == []
    assert missing(["CONTROL_POLL", "POLL_S", "claim-lost"], text=text) == ["CONTROL_POLL", "POLL_S", "claim-lost"]


def test_commands_are_read_from_the_command_line() -> None:
    app, db = typer.Typer(), typer.Typer()
    app.command("runs")(lambda: None)
    app.command("secret", hidden=True)(lambda: None)
    db.command("migrate")(lambda: None)
    db.command("status")(lambda: None)
    app.add_typer(db, name="db")
    found = list(verbs(typer.main.get_command(app), "control"))
    assert found == ["control runs", "control db migrate", "control db status"]


def test_a_linked_page_counts_and_a_dead_link_does_not(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "problems.md").write_text("claim-lost")
    (tmp_path / "README.md").write_text("[Problems](docs/problems.md#all), [LangGraph](https://example.org/readme.md)")
    assert missing(["claim-lost"], text=pages(tmp_path)) == []
    (tmp_path / "README.md").write_text("[Problems](docs/gone.md)")
    with pytest.raises(FileNotFoundError):
        pages(tmp_path)


def test_the_catalogue_is_found() -> None:
    assert "setting-invalid" in CATALOGUE
    assert {"control.settings", "control.core.problem"} <= set(modules())


@finished
def test_the_reference_page_is_drawn_from_the_code() -> None:
    from tests.tidy.reference import PAGE, reference  # not at the top: it imports this module

    assert PAGE.read_text(encoding="utf-8") == reference(), "run `python -m tests.tidy.reference`"
