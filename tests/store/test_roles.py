"""The walls between tenants, held by the database: every role logs in and meets them."""

from __future__ import annotations

from typing import Final

import psycopg
import pytest
from psycopg import sql

from control.testing.database import as_role
from tests.store.holding import claimed, execute

ROLES: Final = {"control_command": "control.tenant", "control_flush": "control.tenants"}
COLUMNS: Final = {  # what each table needs beside its tenant and the run, in a row of the other tenant
    "approval": "interrupt_id, checkpoint_id, node, kind, title, packet, packet_digest, opened_at"
    " values (%(t)s, %(r)s, 'i', 'c', 'n', 'input', 't', '{}', '', now())",
    "run_input": "type, data values (%(t)s, %(r)s, 'msgpack', '')",
    "wait": "interrupt_id, checkpoint_id, node, kind, signal, opened_at"
    " values (%(t)s, %(r)s, 'i', 'c', 'n', 'signal', 's', now())",
    "signal": "name, payload, sent_by, sent_at values (%(t)s, %(r)s, 's', 'null', 'me', now())",
    "effect": "effect_key, name, kind, state, epoch, began_at"
    " values (%(t)s, %(r)s, 'k', 'n', 'effect', 'began', 1, now())",
    "ledger": "seq, at, kind, actor, epoch, body, digest, hash"
    " values (%(t)s, %(r)s, 1, now(), 'accepted', 'me', 0, '{}', '', '')",
}


def insert(table: str) -> str:
    columns, _, values = COLUMNS[table].partition(" values ")
    return f"insert into control.{table} (tenant, run_id, {columns}) values {values}"


@pytest.fixture
def peopled(database: str) -> str:
    """A database in which the tenants `ours` and `theirs` have a row in every table."""
    for tenant in ("ours", "theirs"):
        fence = claimed(database, tenant=tenant, thread=f"{tenant}-thread")
        for table in COLUMNS:
            execute(database, insert(table), {"t": tenant, "r": fence.run_id})
    return database


def tenant_tables(conninfo: str) -> list[str]:
    query = """
        select table_name from information_schema.columns
        where table_schema = 'control' and column_name = 'tenant' order by table_name
    """
    return [name for (name,) in execute(conninfo, query)]


def test_every_table_with_a_tenant_is_walled_and_peopled_here(peopled: str) -> None:
    tables = tenant_tables(peopled)
    assert tables == sorted([*COLUMNS, "run", "thread"])
    walled = execute(
        peopled,
        "select relname from pg_class where relnamespace = 'control'::regnamespace and relrowsecurity"
        " and relforcerowsecurity order by relname",
    )
    assert [name for (name,) in walled] == tables


@pytest.mark.parametrize("role", ROLES)
def test_without_a_tenant_no_row_is_seen(peopled: str, role: str) -> None:
    with psycopg.connect(as_role(peopled, role)) as conn:
        for table in tenant_tables(peopled):
            if allowed(conn, table, "select"):
                assert count(conn, table) == 0, table


@pytest.mark.parametrize("role", ROLES)
def test_a_tenant_sees_and_changes_its_own_rows_alone(peopled: str, role: str) -> None:
    theirs = execute(peopled, "select run_id from control.run where tenant = 'theirs'")[0][0]
    with psycopg.connect(as_role(peopled, role), autocommit=True) as conn:
        conn.execute("select set_config(%s, 'ours', false)", (ROLES[role],))
        for table in tenant_tables(peopled):
            name = sql.Identifier("control", table)
            if allowed(conn, table, "select"):
                assert count(conn, table) == 1, table
            if allowed(conn, table, "update"):
                moved = conn.execute(sql.SQL("update {} set tenant = tenant where tenant = 'theirs'").format(name))
                assert moved.rowcount == 0, table
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
                    conn.execute(sql.SQL("update {} set tenant = 'theirs'").format(name))
            if allowed(conn, table, "delete"):
                gone = conn.execute(sql.SQL("delete from {} where tenant = 'theirs'").format(name))
                assert gone.rowcount == 0, table
            if allowed(conn, table, "insert") and table in COLUMNS:
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
                    conn.execute(sql.SQL(insert(table)), {"t": "theirs", "r": theirs})  # type: ignore[arg-type]  # made from a literal


def test_the_walls_bind_the_tables_owner_too(peopled: str) -> None:
    """An owner that is no superuser, as where somebody else runs the server."""
    execute(peopled, "drop role if exists control_test_owner")
    execute(peopled, "create role control_test_owner")
    try:
        execute(peopled, "grant usage on schema control to control_test_owner")
        for table in tenant_tables(peopled):
            execute(peopled, f"alter table control.{table} owner to control_test_owner")
        with psycopg.connect(peopled) as conn:
            conn.execute("set role control_test_owner")
            assert [count(conn, table) for table in tenant_tables(peopled)] == [0] * len(tenant_tables(peopled))
    finally:
        execute(peopled, "reassign owned by control_test_owner to current_user")
        execute(peopled, "drop owned by control_test_owner")
        execute(peopled, "drop role control_test_owner")


@pytest.mark.parametrize("table", ["approval", "effect", "ledger", "thread"])
def test_the_claiming_role_cannot_read_what_claiming_does_not_take(peopled: str, table: str) -> None:
    with psycopg.connect(as_role(peopled, "control_claim"), autocommit=True) as conn:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(sql.SQL("select from {}").format(sql.Identifier("control", table)))
        for verb in ("update", "delete") if table == "ledger" else ("insert", "update", "delete"):
            assert not allowed(conn, table, verb)


@pytest.mark.parametrize("column", ["created_by", "last_flush", "restarted_from"])
def test_the_claiming_role_cannot_read_every_column(peopled: str, column: str) -> None:
    with psycopg.connect(as_role(peopled, "control_claim"), autocommit=True) as conn:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(sql.SQL("select {} from control.run").format(sql.Identifier(column)))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(sql.SQL("update control.run set priority = 1"))


def allowed(conn: psycopg.Connection[tuple[object, ...]], table: str, verb: str) -> bool:
    found = conn.execute("select has_table_privilege(%s, %s)", (f"control.{table}", verb)).fetchone()
    return bool(found and found[0])


def count(conn: psycopg.Connection[tuple[object, ...]], table: str) -> object:
    found = conn.execute(sql.SQL("select count(*) from {}").format(sql.Identifier("control", table))).fetchone()
    assert found
    return found[0]
