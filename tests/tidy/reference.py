"""The reference page, drawn from the code: `python -m tests.tidy.reference` writes control/REFERENCE.md.

Settings, commands, exit codes, problems, status words and ledger entries each have one place in the code; the page
repeats them for people, and a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import typer

from control.cli.outcome import MEANINGS
from control.core.ledger import BODY_KEYS
from control.core.problem import CATALOGUE
from control.core.run_status import Status
from control.core.translation import WORDS
from control.settings import Settings, env_name
from tests.tidy import ROOT
from tests.tidy.test_documented import command_line, problem_codes

PAGE: Final = ROOT / "control" / "REFERENCE.md"


def reference() -> str:
    """The whole page."""
    problem_codes()  # imports every module, so that the catalogue is whole
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield "# Reference"
    yield "\nDrawn from the code by `python -m tests.tidy.reference`. Start with the [README](../README.md)."
    yield "\n## Commands\n"
    yield from _table(("command", "what it does"), sorted(_commands(typer.main.get_command(command_line()), "control")))
    yield "\nEvery command takes `--json`. It exits with:\n"
    yield from _table(("code", "meaning"), [(str(code), meaning) for code, meaning in sorted(MEANINGS.items())])
    yield "\n## Settings\n"
    yield from _table(("setting", "default", "meaning"), _settings())
    yield "\n## Status words\n"
    yield from _table(("status", "LangGraph run", "LangGraph thread", "A2A", "AG-UI", "for people"), _words())
    yield "\n## Problems\n"
    yield from _table(("code", "HTTP", "what", "what to do"), _problems())
    yield "\n## Ledger entries\n"
    yield from _table(("kind", "body"), [(f"`{kind}`", f"`{keys}`") for kind, keys in BODY_KEYS.items()])


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _commands(command: Any, name: str) -> Iterator[tuple[str, str]]:
    members = getattr(command, "commands", None)
    if members is None:
        yield f"`{name}`", (command.help or "").strip().splitlines()[0]
        return
    for member, below in members.items():
        if not below.hidden:
            yield from _commands(below, f"{name} {member}")


def _settings() -> Iterator[tuple[str, str, str]]:
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None or field.default == () else f"`{field.default}`"
        yield f"`{env_name(name)}`", default, str(field.description)


def _words() -> Iterator[tuple[str, ...]]:
    for status in Status:
        words = WORDS[status]
        yield f"`{status}`", *(str(getattr(words, part) or "") for part in words._fields)


def _problems() -> Iterator[tuple[str, ...]]:
    for code, problem in sorted(CATALOGUE.items()):
        yield f"`{code}`", str(problem.status), problem.title, problem.next_step


if __name__ == "__main__":
    Path(PAGE).write_text(reference(), encoding="utf-8")
