"""What a benchmark returns, and how the rows are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on what was measured of us, or on its ratio to the peer."""

    limit: float
    kind: Literal["least", "most"]
    of: Literal["ours", "ratio"]

    def met(self, value: float) -> bool:
        return value >= self.limit if self.kind == "least" else value <= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `peer` and `ratio` (ours to the peer's) are None where nothing comparable exists."""

    what: str
    unit: str
    ours: float
    peer: float | None = None
    ratio: float | None = None
    goal: Goal | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None for a figure that is only published."""
        if self.goal is None:
            return None
        value = self.ours if self.goal.of == "ours" else self.ratio
        assert value is not None, f"{self.what} has a goal for a ratio and no peer"
        return self.goal.met(value)

    def cells(self) -> list[str]:
        """As text: what, ours, peer, ratio, goal, met."""
        unit = f" {self.unit}"
        return [
            self.what,
            figure(self.ours) + unit,
            figure(self.peer) + unit if self.peer is not None else "",
            f"{figure(self.ratio)}×" if self.ratio is not None else "",
            self._goal(),
            _MET[self.met],
        ]

    def _goal(self) -> str:
        if self.goal is None:
            return ""
        sign = "≥" if self.goal.kind == "least" else "≤"
        return f"{sign} {self.goal.limit:g}" + (f" {self.unit}" if self.goal.of == "ours" else "×")

    def values(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "what": self.what,
            "unit": self.unit,
            "ours": self.ours,
            "peer": self.peer,
            "ratio": self.ratio,
            "goal": self._goal() or None,
            "met": self.met,
            "note": self.note or None,
        }


HEADINGS: Sequence[str] = ("measured", "ours", "stock", "ratio", "goal", "met")
_MET: Mapping[bool | None, str] = {True: "yes", False: "MISSED", None: ""}


def at_least(limit: float, of: Literal["ours", "ratio"] = "ours") -> Goal:
    return Goal(limit, "least", of)


def at_most(limit: float, of: Literal["ours", "ratio"] = "ours") -> Goal:
    return Goal(limit, "most", of)


def figure(value: float) -> str:
    """Three digits that count, without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(name: str, rows: Iterable[Row]) -> Table:
    """For a terminal; notes stand below the line they belong to."""
    made = Table(title=name, title_justify="left", title_style="bold")
    for number, heading in enumerate(HEADINGS):
        made.add_column(heading, justify="right" if 0 < number < 5 else "left", no_wrap=number > 0)
    for row in rows:
        first, *rest = row.cells()
        told = f"{first}\n[dim]{row.note}[/]" if row.note else first
        made.add_row(told, *rest, style="red" if row.met is False else "")
    return made


def markdown(rows: Iterable[Row]) -> str:
    """For the README."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|---|---:|---:|---:|---:|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row.cells())} |" for row in rows)])
