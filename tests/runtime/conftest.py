"""A folder that directs the nodes, and workers in processes of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.scenes import Cues
from tests.runtime.troupe import Troupe, open_nursery


@pytest.fixture
def cues(tmp_path: Path) -> Cues:
    return Cues(tmp_path)


@pytest.fixture(scope="session")
def nursery() -> Iterator[subprocess.Popen[str]]:
    with open_nursery() as nursery:
        yield nursery


@pytest.fixture
def troupe(nursery: subprocess.Popen[str], database: str) -> Iterator[Troupe]:
    troupe = Troupe(database, nursery)
    yield troupe
    troupe.dismiss()
