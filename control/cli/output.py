"""What the command line prints: JSON, tables and problems, and nothing else prints.

Text that came from a run, such as a title or an error, is shown with its control characters spelled out: an approver's
terminal must not be told by the evidence what to show.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from control.core.phrasing import instant
from control.core.problem import Refusal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

COLOURS: Final[Mapping[str, str]] = {
    "queued": "cyan", "running": "blue", "waiting": "cyan", "awaiting_approval": "bold yellow",
    "awaiting_input": "bold yellow", "paused": "magenta", "stalled": "bold red", "cancelling": "magenta",
    "compensating": "magenta", "blocked": "bold red", "succeeded": "green", "partial": "yellow", "failed": "red",
    "cancelled": "magenta", "abandoned": "red",
}  # fmt: skip
_HIDDEN: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def console(*, stderr: bool = False) -> Console:
    """A terminal, or whatever stands in for one. Markup is off: what a run says is never a command to the terminal."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=not sys.stdout.isatty())


def say(text: str) -> None:
    """One line or more for people."""
    print(visible(text), flush=True)


def emit(value: Any, *, line: bool = False) -> None:
    """A JSON document on standard output; with `line`, on one line, as one of a stream."""
    print(json.dumps(value, ensure_ascii=False, default=plain, indent=None if line else 2), flush=True)


def plain(value: Any) -> Any:
    """What JSON lacks: instants in ISO 8601, everything else as its text."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def problem(refusal: Refusal, *, as_json: bool) -> None:
    """What, why and what to do, on standard error: three lines, or the body that HTTP would send."""
    if as_json:
        print(json.dumps(refusal.as_json(), ensure_ascii=False, default=plain), file=sys.stderr, flush=True)
        return
    what, why, next_step = (visible(" ".join(line.split())) for line in refusal.lines())
    if sys.stderr.isatty():
        what, next_step = f"\x1b[1;31m{what}\x1b[0m", f"\x1b[2m{next_step}\x1b[0m"
    print(what, why, next_step, sep="\n", file=sys.stderr, flush=True)


def visible(text: Any) -> str:
    """The text with control characters and changes of writing direction spelled out. Line breaks and tabs stay."""
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def text(value: Any, style: str = "") -> Text:
    """A cell or a line: visible, and free of markup."""
    from rich.text import Text

    return Text(visible(value), style=style)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> Table:
    """A table without rules. A cell is shown as its text unless it is a `Text` already."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(box=SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else text(cell) for cell in row))
    return made


def word(status: str) -> Text:
    """A status word in its colour."""
    return text(status.replace("_", " "), COLOURS.get(status, ""))


def moment(at: datetime | None) -> str:
    """An instant, to the second, in UTC."""
    return instant(at) if at else ""


def span(length: timedelta) -> str:
    """A span in its largest unit, rounded down."""
    seconds = max(0, int(length.total_seconds()))
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size), (1, "s"))
    return f"{seconds // size} {unit}"
