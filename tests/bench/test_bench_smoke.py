"""The benchmarks run, at a size that says nothing about speed, and their rows can be shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench import status, throughput
from tests.bench.row import HEADINGS, Row, at_least, at_most, markdown, table
from tests.bench.site import Site


@pytest.mark.parametrize("measure", [throughput.measure, status.measure])
def test_a_benchmark_returns_rows(postgres: str, tmp_path: Path, measure: Callable[[Site], list[Row]]) -> None:
    rows = measure(Site(postgres, tmp_path, scale=0.001, rounds=1))
    assert len(rows) >= 3
    for row in rows:
        assert row.ours > 0
        assert row.peer is not None and row.peer > 0
        assert row.ratio is not None and row.ratio == pytest.approx(row.ours / row.peer)
    assert any(row.goal is not None for row in rows)
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
