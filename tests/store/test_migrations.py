"""Migrating: once, by whoever comes first, and never onto a database that is not ours to touch."""

from __future__ import annotations

import subprocess
import sys

import psycopg
import pytest

from control.core.problem import Refusal
from control.store.database import Address, Database
from control.store.migrations import migrate, migrations
from tests.store.holding import execute


async def opening(address: Address) -> str:
    """The code of the problem that opening the database meets."""
    database = Database(address)
    with pytest.raises(Refusal) as refusal:
        await database.open()
    return refusal.value.problem.code


def test_migrating_again_does_nothing(empty_database: str) -> None:
    assert migrate(empty_database) == [m.name for m in migrations()]
    assert migrate(empty_database) == []


def test_three_processes_at_once_migrate_once(empty_database: str) -> None:
    script = "import sys; from control.store.migrations import migrate; print(len(migrate(sys.argv[1])))"
    started = [
        subprocess.Popen([sys.executable, "-c", script, empty_database], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    applied = [process.communicate(timeout=60)[0].strip() for process in started]
    assert sorted(applied) == ["0", "0", str(len(migrations()))]
    assert [process.returncode for process in started] == [0, 0, 0]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("insert into control.migration (version, name, checksum) values (9999, '9999_later.sql', '')", "schema-newer"),
        ("update control.migration set checksum = 'edited'", "schema-changed"),
    ],
)
async def test_a_database_of_another_version_is_refused_and_left_as_it_is(
    database: str, change: str, code: str
) -> None:
    execute(database, change)
    with pytest.raises(Refusal) as refusal:
        migrate(database)
    assert refusal.value.problem.code == code
    assert await opening(Address.of(database)) == code


async def test_an_older_database_is_refused_when_it_is_opened(database: str, empty_database: str) -> None:
    assert await opening(Address.of(empty_database)) == "schema-older"
    execute(database, "delete from control.migration where version = (select max(version) from control.migration)")
    assert await opening(Address.of(database)) == "schema-older"


async def test_a_database_that_takes_no_writes_is_refused(database: str) -> None:
    options = "-c default_transaction_read_only=on"
    assert await opening(Address.of(psycopg.conninfo.make_conninfo(database, options=options))) == "database-read-only"
