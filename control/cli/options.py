"""What several verbs take, declared once, and the reading of what people type: JSON, instants and spans."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID

import typer

JSON: Final = "--json"

RunName = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run: its id, the first letters of it, or its thread.", show_default=False),
]
AsJson = Annotated[bool, typer.Option(JSON, help="Print JSON. A problem is JSON too, on standard error.")]
Wait = Annotated[
    bool, typer.Option("--wait", "-w", help="Follow the run until it ends or needs a person; exit by its outcome.")
]
Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="A sentence for the record.")]
Note = Annotated[str | None, typer.Option("--note", metavar="TEXT", help="A sentence for the record.")]
Question = Annotated[
    str | None, typer.Option("--question", metavar="ID", help="Which of several; `control show` lists them.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Keep looking, until Ctrl-C.")]

_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)")
_UNIT: Final = {"s": "seconds", "m": "minutes", "min": "minutes", "h": "hours", "d": "days"}


def json_text(given: str | None) -> Any:
    """JSON as it was typed, from the file after `@`, or from standard input for `-`; None stays None."""
    if given is None:
        return None
    source = _source(given)
    try:
        return json.loads(source)
    except ValueError as error:
        raise typer.BadParameter(f"this is no JSON: {error}") from None


def instant(given: str | None) -> datetime | None:
    """An instant (ISO 8601; UTC where it names no zone), or a span from now such as 90s, 15min, 2h or 3d."""
    if given is None:
        return None
    if _SPAN.fullmatch(given.strip()):
        return datetime.now(UTC) + span(given)
    try:
        at = datetime.fromisoformat(given)
    except ValueError:
        raise typer.BadParameter(f"{given!r} is neither an instant, such as 2030-01-31T09:00, nor a span") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def span(given: str) -> timedelta:
    """A span such as 90s, 15min, 2h or 3d."""
    found = _SPAN.fullmatch(given.strip())
    if found is None:
        raise typer.BadParameter(f"{given!r} is no span, such as 90s, 15min, 2h or 3d")
    try:
        return timedelta(**{_UNIT[found[2]]: float(found[1])})
    except OverflowError:
        raise typer.BadParameter(f"{given!r} is longer than time lasts") from None


def identity(given: str | None) -> UUID | None:
    """A UUID as it was typed."""
    try:
        return UUID(given) if given else None
    except ValueError:
        raise typer.BadParameter(f"{given!r} is no UUID") from None


def _source(given: str) -> str:
    if given == "-":
        return sys.stdin.read()
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{given[1:]} cannot be read: {error}") from None
