"""The pytest plugin: a real PostgreSQL server, and a database of its own for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from control.testing.database import Databases


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """What the fixtures below draw from; for a test that needs several databases."""
    from control.testing import server
    from control.testing.database import Databases

    if server.is_missing():
        pytest.skip("no PostgreSQL is installed; on Debian: apt-get install postgresql")
    databases = Databases(server.conninfo)
    with TemporaryDirectory(prefix="control-audit-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTROL_AUDIT_DIR", folder)  # the keys and the memory of whoever runs the tests are their own
        yield databases
    databases.close()


@pytest.fixture(scope="session")
def postgres(databases: Databases) -> str:
    """The conninfo of the test server's database `postgres`, as superuser. Shared: leave no traces."""
    return databases.server()


@pytest.fixture
def database(databases: Databases) -> Iterator[str]:
    """The conninfo, as superuser, of a fresh database with our schema and a clock that can be moved."""
    with databases.cloned() as conninfo:
        yield conninfo


@pytest.fixture
def empty_database(databases: Databases) -> Iterator[str]:
    """The conninfo, as superuser, of a fresh database with nothing in it."""
    with databases.empty() as conninfo:
        yield conninfo


@pytest.fixture
def own_server() -> Iterator[Path]:
    """The data folder of a server that this test may restart; `embedded.ensure` starts it."""
    from control.testing.server import stop

    ground = Path(mkdtemp(prefix="control-own-"))
    ground.chmod(0o755)  # the account that runs the server has to pass through
    yield ground / "data"
    stop(ground / "data")
    shutil.rmtree(ground)
