"""The terminal: headlines, lines, and a status that moves. At most 100 columns wide."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console, RenderableType
from rich.rule import Rule
from rich.status import Status
from rich.text import Text

from control.cli.output import visible

WIDTH: Final = 100


class Screen:
    """What came from a run is shown with its control characters spelled out, and never read as markup."""

    def __init__(self) -> None:
        terminal = sys.stdout.isatty()
        wide = Console().width if terminal else WIDTH
        self._console = Console(width=min(wide, WIDTH), markup=False, highlight=False, emoji=False)
        self._act = 0

    def act(self, title: str) -> None:
        """Begin a part."""
        self._act += 1
        self._console.print()
        self._console.print(Rule(Text(f"{self._act}. {title}", "bold"), align="left", style="dim"))

    def say(self, said: str, style: str = "") -> None:
        self._folded("  ", said, style)

    def event(self, at: str, said: str, *, style: str = "") -> None:
        """A line with its time before it; what does not fit is left off."""
        line = Text(f"  {at:>8}  ", "dim", overflow="ellipsis", no_wrap=True)
        self._console.print(line.append(visible(said), style or "default"))

    def tell(self, at: str, said: str) -> None:
        """A sentence with its time before it; what does not fit goes on below."""
        self._folded(f"  {at:>8}  ", said, "")

    def _folded(self, head: str, said: str, style: str) -> None:
        lines = Text(visible(said), style).wrap(self._console, self._console.width - len(head))
        for line in lines:
            line.rstrip()
            self._console.print(Text(head, "dim").append_text(line))
            head = " " * len(head)

    def draw(self, drawn: RenderableType) -> None:
        self._console.print(drawn)

    @contextmanager
    def moving(self) -> Iterator[Status]:
        """A status line below what is printed, on a terminal; nothing elsewhere."""
        with self._console.status("") as status:
            yield status
