"""The kit that gives every test its database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from control.testing import database as kit
from control.testing.clock import advance, advance_sync
from control.testing.database import Databases, as_role

AHEAD = "select extract(epoch from control.clock() - clock_timestamp())::float"


@pytest.fixture
def other_run(postgres: str) -> Iterator[Databases]:
    """A second test run on the same server."""
    other = Databases(lambda: postgres)
    yield other
    other.close()


def value(conninfo: str, query: str, *params: object) -> object:
    with psycopg.connect(conninfo, autocommit=True) as conn:
        row = conn.execute(query.encode(), params).fetchone()
        return row and row[0]


def names(conninfo: str) -> set[str]:
    with psycopg.connect(conninfo) as conn:
        return {row[0] for row in conn.execute("select datname from pg_database")}


def name_of(conninfo: str) -> str:
    return str(conninfo_to_dict(conninfo)["dbname"])


def execute(conninfo: str, statement: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute(statement.encode())


def test_clone_has_the_schema_and_an_empty_database_has_not(database: str, empty_database: str) -> None:
    exists = "select to_regclass('control.run') is not null and to_regclass('public.checkpoints') is not null"
    assert value(database, exists) is True
    assert value(empty_database, exists) is False


def test_what_one_test_writes_no_other_sees(databases: Databases) -> None:
    with databases.cloned() as one, databases.cloned() as two:
        execute(one, "create table public.mine ()")
        assert value(two, "select to_regclass('public.mine')") is None


def test_database_is_dropped_under_a_forgotten_connection(databases: Databases, postgres: str) -> None:
    with databases.cloned() as conninfo:
        forgotten = psycopg.connect(conninfo)
    assert name_of(conninfo) not in names(postgres)
    forgotten.close()


async def test_time_moves_in_this_database_alone(databases: Databases) -> None:
    with databases.cloned() as moved, databases.cloned() as unmoved:
        await advance(moved, timedelta(hours=2))
        advance_sync(moved, timedelta(minutes=-30))
        assert value(moved, AHEAD) == pytest.approx(5400, abs=1)
        assert value(unmoved, AHEAD) == pytest.approx(0, abs=1)


def test_roles_of_the_migration_log_in_and_see_the_moved_time(database: str) -> None:
    advance_sync(database, timedelta(days=1))
    for role in ("control_command", "control_flush", "control_claim"):
        assert value(as_role(database, role), "select session_user::text") == role
        assert value(as_role(database, role), AHEAD) == pytest.approx(86400, abs=1)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            advance_sync(as_role(database, role), timedelta(days=1))


def test_databases_of_a_dead_run_are_dropped_and_of_a_living_one_kept(
    database: str, postgres: str, other_run: Databases
) -> None:
    dead = Databases(lambda: postgres)
    left = dead.cloned()
    name = name_of(left.__enter__())
    assert name in names(postgres)
    dead.close()
    assert other_run.template
    assert name not in names(postgres)
    assert name_of(database) in names(postgres)


def test_template_that_nobody_uses_any_more_is_dropped(postgres: str, other_run: Databases) -> None:
    execute(postgres, "create database control_template_of_yesterday")
    execute(postgres, "comment on database control_template_of_yesterday is '2001-01-01'")
    assert other_run.template in names(postgres)
    assert "control_template_of_yesterday" not in names(postgres)


def test_changed_migrations_make_another_template(
    databases: Databases, postgres: str, other_run: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kit, "checksum", lambda: f"of_{other_run.run}")
    try:
        assert other_run.template != databases.template
        assert {other_run.template, databases.template} <= names(postgres)
        with other_run.cloned() as conninfo:
            assert value(conninfo, AHEAD) == pytest.approx(0, abs=1)
    finally:
        execute(postgres, f"drop database if exists {other_run.template}")


def test_run_carries_on_when_its_own_connection_was_cut(postgres: str, other_run: Databases) -> None:
    assert other_run.template
    cut = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s"
    assert value(postgres, cut, other_run.run) is True
    with other_run.cloned() as conninfo:
        assert value(conninfo, "select 1") == 1
