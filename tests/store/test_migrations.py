"""Migrating: once, by whoever comes first, and never onto a database that is not ours to touch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from procrastinate.schema import SchemaManager

from control.core.problem import Refusal
from control.store.database import Address, Database
from control.store.migrations import migrate, migrations, spelled_for
from control.testing.database import as_role
from tests.store.holding import claimed, execute

pytestmark = pytest.mark.installed


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


def test_a_later_version_of_the_queue_brings_its_own_migrations_once(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = tmp_path / "99.00.00_01_pre_more.sql"
    later.write_text("create table procrastinate_more (id int); create function procrastinate_do() returns int"
                     " language sql as 'select count(*)::int from procrastinate_jobs'")  # fmt: skip
    monkeypatch.setattr(SchemaManager, "get_migrations_path", lambda: str(tmp_path))
    for _ in range(2):
        migrate(database)
    with psycopg.connect(as_role(database, "control_claim")) as conn:
        conn.execute("insert into control_queue.procrastinate_more values (1)")
        assert conn.execute("select control_queue.procrastinate_do()").fetchone() == (0,)
    assert execute(database, "select obj_description('control_queue'::regnamespace)") == [(later.name,)]


def test_the_owner_need_not_be_a_superuser(empty_database: str) -> None:
    """What the owner's rights are lent to is the queue's own triggers; a question is announced all the same."""
    with owned(empty_database) as conninfo:
        migrate(conninfo)
        fence = claimed(empty_database, tenant="a", thread="t")
        execute(empty_database, "insert into control.sink (tenant, sink_id, kind, target, events, made_by, made_at)"
                " values ('a', '0badcafe', 'mail', 'desk@example.org', '{asked}', 'me', now())")  # fmt: skip
        with psycopg.connect(as_role(empty_database, "control_flush")) as conn:
            conn.execute("set control.tenants = 'a'")
            conn.execute("insert into control.ledger (tenant, run_id, seq, at, kind, actor, epoch, body, digest, hash)"
                         " values ('a', %s, 100, now(), 'asked', 'me', 1, '{}', '', '')", (fence.run_id,))  # fmt: skip
        for table in ("control.notice", "control_queue.procrastinate_jobs", "control_queue.procrastinate_events"):
            assert execute(empty_database, f"select count(*) from {table}") == [(1,)], table


@contextmanager
def owned(conninfo: str) -> Iterator[str]:
    """The database in the hands of somebody with no other rights."""
    name = f"owner_{uuid4().hex[:12]}"
    database = psycopg.conninfo.conninfo_to_dict(conninfo)["dbname"]
    execute(conninfo, f"create role {name} login")
    execute(conninfo, f"alter database {database} owner to {name}")
    try:
        yield as_role(conninfo, name)
    finally:
        execute(conninfo, f"reassign owned by {name} to current_user")
        execute(conninfo, f"alter database {database} owner to current_user")
        execute(conninfo, f"drop owned by {name}")
        execute(conninfo, f"drop role {name}")


def test_postgresql_15_is_asked_for_nothing_it_lacks() -> None:
    """A migration's text stays as it was released, and is spelled for the server that reads it."""
    for migration in migrations():
        assert " is json" not in spelled_for(150000, migration.sql)
        assert spelled_for(160000, migration.sql) is migration.sql
