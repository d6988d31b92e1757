"""The benchmarks run, at a size that says nothing about speed, and their rows can be shown."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Final

import pytest

from control.testing.database import Databases
from tests.bench.__main__ import NAMES
from tests.bench.row import HEADINGS, Row, at_least, at_most, markdown, table
from tests.bench.site import Site

TINY: Final = 1e-6  # each benchmark then takes the fewest that it can
ALONE: Final = {"recovery", "page", "memory", "policy"}
FOR_COMPARISON: Final = {
    "what `select 1` took longer, measured",
    "a superstep without any checkpointer, for comparison",
}
WITHOUT_GOAL: Final = {"overhead"}


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_returns_rows(databases: Databases, postgres: str, tmp_path: Path, name: str) -> None:
    measure: Callable[[Site], list[Row]] = importlib.import_module(f"tests.bench.{name}").measure
    rows = measure(Site(postgres, tmp_path, scale=TINY, rounds=1, cloned=databases.cloned))
    assert len(rows) >= 2
    for row in rows:
        assert isfinite(row.ours) and (row.ours > 0 or row.unit == "%")
        assert (row.peer is None) == (row.ratio is None) == (name in ALONE or row.what in FOR_COMPARISON)
        assert row.peer is None or row.peer > 0
        assert row.met is None if row.goal is None else row.met in (True, False)
    assert any(row.goal is not None for row in rows) or name in WITHOUT_GOAL
    assert [json.loads(json.dumps(row.values()))["ours"] for row in rows] == [row.ours for row in rows]
    assert table("any", rows).row_count == len(rows)
    assert len(markdown(rows).splitlines()) == len(rows) + 2


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (Row("x", "ms", 2.0, goal=at_most(2)), True),
        (Row("x", "ms", 2.1, goal=at_most(2)), False),
        (Row("x", "runs/s", 1.0, 3.0, 3.0, at_least(3, "ratio")), True),
        (Row("x", "runs/s", 9.0, 3.0, 2.9, at_least(3, "ratio")), False),
        (Row("x", "ms", 5.0), None),
    ],
)
def test_a_goal_bounds_ours_or_the_ratio(row: Row, met: bool | None) -> None:
    assert row.met is met
    assert len(row.cells()) == len(HEADINGS)
    assert ("MISSED" in row.cells()) is (met is False)
