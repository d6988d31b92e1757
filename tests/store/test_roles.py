"""The walls between tenants, held by the database: every role logs in and meets them, in every table there is.

A table that is neither listed nor shared fails here: give it a row of a tenant in `ROWS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import psycopg
import pytest
from langgraph.store.postgres import PostgresStore
from psycopg import sql

from control.store.migrations import migrate
from control.testing.database import Databases, as_role
from tests.store.holding import claimed, execute

pytestmark = pytest.mark.installed

ROLES: Final = {"control_command": "control.tenant", "control_flush": "control.tenants"}
SHARED: Final = frozenset(
    {
        "control.migration",
        "control.worker",
        "control.living",
        "control.lineage",
        "control.server_seen",
        "control.signing_key",
        "testing.clock",
        "checkpoint_migrations",
        "store_migrations",
        "vector_migrations",
    }
)
"""Tables of which no row is a tenant's."""
ROWS: Final = {  # a row of tenant %(t)s with its run %(r)s and its thread %(h)s
    "control.thread": "(tenant, thread_id) values (%(t)s, %(h)s)",
    "control.run": "(tenant, run_id, thread_id, created_at, created_by, since)"
    " values (%(t)s, %(r)s, %(h)s, now(), 'me', now())",
    "control.approval": "(tenant, run_id, interrupt_id, checkpoint_id, node, kind, title, packet, packet_digest,"
    " opened_at) values (%(t)s, %(r)s, 'i', 'c', 'n', 'input', 't', '{}', '', now())",
    "control.vote": "(tenant, run_id, interrupt_id, voter, vote, seat, digest, at)"
    " values (%(t)s, %(r)s, 'i', 'me', 'yes', 'me', '', now())",
    "control.delegation": "(tenant, delegation_id, giver, taker, starts_at, ends_at, made_by, made_at)"
    " values (%(t)s, %(r)s, 'me', 'you', now(), now() + interval '1 day', 'me', now())",
    "control.assignee": "(tenant, name, capacity, set_by, set_at) values (%(t)s, 'me', 1, 'me', now())",
    "control.fact": "(tenant, name, value, set_at, set_by) values (%(t)s, 'rate', '1', now(), 'me')",
    "control.tenant_limit": "(tenant, version, set_at, set_by) values (%(t)s, 1, now(), 'me')",
    "control.spend": "(tenant, run_id, spend_key, usd, tokens, at) values (%(t)s, %(r)s, 'k', 1, 1, now())",
    "control.spend_hour": "(tenant, hour, usd, tokens) values (%(t)s, date_trunc('hour', now(), 'UTC'), 1, 1)",
    "control.run_input": "(tenant, run_id, type, data) values (%(t)s, %(r)s, 'msgpack', '')",
    "control.wait": "(tenant, run_id, interrupt_id, checkpoint_id, node, kind, signal, opened_at)"
    " values (%(t)s, %(r)s, 'i', 'c', 'n', 'signal', 's', now())",
    "control.signal": "(tenant, run_id, name, payload, sent_by, sent_at)"
    " values (%(t)s, %(r)s, 's', 'null', 'me', now())",
    "control.effect": "(tenant, run_id, effect_key, name, kind, state, epoch, began_at)"
    " values (%(t)s, %(r)s, 'k', 'n', 'effect', 'began', 1, now())",
    "control.run_subject": "(tenant, run_id, subject) values (%(t)s, %(r)s, 'them')",
    "control.retention": "(tenant, days, set_by, set_at) values (%(t)s, 200, 'me', now())",
    "control.tree": "(tenant, number, at, size, text, digest) values (%(t)s, 1, now(), 0, '{}', '')",
    "control.tree_leaf": "(tenant, number, place, run_id, seq, hash) values (%(t)s, 1, 0, %(r)s, 1, '')",
    "control.api_key": "(tenant, key_id, digest, name, kind, roles, created_by, created_at, expires_at) values (%(t)s,"
    " substr(md5(%(r)s::text), 1, 16), sha256(%(r)s::text::bytea), 'ci', 'service', '{service}', 'me', now(), now() +"
    " interval '1 day')",
    "control.sink": "(tenant, sink_id, kind, target, events, made_by, made_at)"
    " values (%(t)s, '0badcafe', 'webhook', 'https://example.org', '{asked}', 'me', now())",
    "control.sink_secret": "(tenant, sink_id, secret) values (%(t)s, '0badcafe', sha256(''))",
    "control.notice": "(tenant, sink_id, event, made_at) values (%(t)s, '0badcafe', 'test', now())",
    "control.ledger": "(tenant, run_id, seq, at, kind, actor, epoch, body, digest, hash)"
    " values (%(t)s, %(r)s, 1, now(), 'accepted', 'me', 0, '{}', '', '')",
    "control.policy": "(tenant, version, digest, text, applied_at, applied_by)"
    " values (%(t)s, 1, encode(sha256(''), 'hex'), '', now(), 'me')",
    "checkpoints": "(thread_id, checkpoint_id, checkpoint) values (%(h)s, 'c', '{}')",
    "checkpoint_blobs": "(thread_id, channel, version, type) values (%(h)s, 'c', '1', 'empty')",
    "checkpoint_writes": "(thread_id, checkpoint_id, task_id, idx, channel, blob) values (%(h)s, 'c', 't', 0, 'c', '')",
    "store": "(prefix, key, value) values (%(t)s || '.notes', 'k', '{}')",
    "store_vectors": "(prefix, key, field_name) values (%(t)s || '.notes', 'k', 'f')",
}
JOBS: Final = "control_queue.procrastinate_jobs"
"""Jobs name their tenant in what they hold, which is ids alone. Nobody who acts for a tenant sees any."""
MADE: Final = ("control.thread", "control.run")
"""Tables whose rows the claim made; the others are filled here."""
OWNER: Final = {"checkpoints": "thread_id", "checkpoint_blobs": "thread_id", "checkpoint_writes": "thread_id",
                "store": "prefix", "store_vectors": "prefix"}  # fmt: skip
"""Whose a row is, where no column is called `tenant`. The value begins with the tenant."""
VECTORS: Final = """
create table store_vectors (prefix text, key text, field_name text, embedding text,
    primary key (prefix, key, field_name), foreign key (prefix, key) references store (prefix, key) on delete cascade)
"""
"""As PostgresStore makes it where the server has pgvector, but for the type of the vectors."""

Conn = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def peopled(databases: Databases) -> Iterator[str]:
    """A database in which the tenants `ours` and `theirs` have a row in every table; tests roll back what they do."""
    with databases.cloned() as conninfo:
        with PostgresStore.from_conn_string(conninfo) as store:
            store.setup()
        execute(conninfo, VECTORS)
        migrate(conninfo)
        for tenant in ("ours", "theirs"):
            fence = claimed(conninfo, tenant=tenant, thread=f"{tenant}-thread")
            for table in (name for name in ROWS if name not in (*MADE, "store_vectors")):  # a leaf after its tree
                execute(conninfo, inserting(table), {"t": tenant, "r": fence.run_id, "h": fence.thread_id})
            execute(conninfo, inserting("store_vectors"), {"t": tenant})
        yield conninfo


@pytest.fixture(params=ROLES)
def session(peopled: str, request: pytest.FixtureRequest) -> Iterator[Conn]:
    """A session of a role that works for `ours`, in a transaction."""
    with psycopg.connect(as_role(peopled, request.param)) as conn:
        conn.execute("select set_config(%s, 'ours', false)", (ROLES[request.param],))
        yield conn
        conn.rollback()


def inserting(table: str) -> str:
    return f"insert into {table} {ROWS[table]}"


def tables(conninfo: str) -> list[str]:
    """Every table and view, in whichever schema, that may hold a tenant's rows; the jobs have a test of their own."""
    query = """
        select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = relnamespace
        where nspname not in ('pg_catalog', 'pg_toast', 'information_schema', 'control_queue')
          and relkind in ('r', 'p', 'v', 'm', 'f')
        order by 1
    """
    return [name for (name,) in execute(conninfo, query) if name not in SHARED]


def of(tenant: str, table: str) -> sql.SQL:
    """The condition of a tenant's rows."""
    return sql.SQL(f"starts_with({OWNER.get(table, 'tenant')}, '{tenant}')")  # type: ignore[arg-type]  # a test's own text


def rows(conn: Conn, table: str, tenant: str) -> int:
    query = sql.SQL("select count(*) from {} where {}").format(named(table), of(tenant, table))
    found = conn.execute(query).fetchone()
    assert found
    return int(found[0])


def named(table: str) -> sql.Identifier:
    return sql.Identifier(*table.split("."))


def may(conn: Conn, table: str, verb: str) -> bool:
    found = conn.execute("select has_table_privilege(%s, %s)", (table, verb)).fetchone()
    return bool(found and found[0])


def test_every_table_is_walled_and_peopled_here(peopled: str) -> None:
    assert tables(peopled) == sorted(ROWS)
    walled = execute(peopled, "select oid::regclass::text from pg_class where relrowsecurity order by 1")
    assert [name for (name,) in walled] == sorted([*ROWS, JOBS])
    forced = execute(peopled, "select oid::regclass::text from pg_class where relforcerowsecurity order by 1")
    assert [name for (name,) in forced] == sorted([*(ROWS.keys() - OWNER.keys()), JOBS])
    with psycopg.connect(peopled) as conn:
        for table in ROWS:
            assert (rows(conn, table, "ours"), rows(conn, table, "theirs")) == (1, 1), table


def test_what_is_shared_says_nothing_of_a_tenant(peopled: str) -> None:
    """A table is not taken for shared because somebody has listed it there."""
    query = """
        select attrelid::regclass::text, attname from pg_attribute
        where attrelid = any (%(shared)s::regclass[]) and attnum > 0 and not attisdropped
          and (attname in ('tenant', 'thread_id', 'run_id', 'prefix') or atttypid = 'control.tenant_id'::regtype)
    """
    found = execute(peopled, "select to_regclass(name)::text from unnest(%s::text[]) name", (list(SHARED),))
    there = [name for (name,) in found if name is not None]
    assert {"control.worker", "control.living"} < set(there)
    assert execute(peopled, query, {"shared": there}) == []


def test_no_view_reads_a_walled_table(peopled: str) -> None:
    """A view reads with its owner's rights, and a materialized one has no walls at all."""
    query = """
        select distinct ev_class::regclass::text, refobjid::regclass::text
        from pg_depend d join pg_rewrite w on w.oid = d.objid join pg_class t on t.oid = d.refobjid
        where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass and t.relrowsecurity
    """
    assert execute(peopled, query) == []
    with psycopg.connect(peopled) as conn:
        conn.execute("create view control.leak as select * from control.run")
        assert conn.execute(query).fetchall() == [("control.leak", "control.run")], "the query finds one"
        conn.rollback()


def test_no_function_lends_its_owners_rights(peopled: str) -> None:
    """But for the triggers that Procrastinate's jobs have: nobody can call a trigger."""
    lent = execute(peopled, "select pronamespace::regnamespace::text, prorettype::regtype::text from pg_proc"
                   " where prosecdef and pronamespace <> 'pg_catalog'::regnamespace")  # fmt: skip
    assert set(lent) == {("control_queue", "trigger")}


def test_a_tenant_adds_jobs_of_its_own_and_sees_none(session: Conn) -> None:
    add = sql.SQL("insert into {} (queue_name, task_name, args) values ('q', 't', jsonb_build_object('tenant', {}))")
    refused(session, add.format(named(JOBS), "theirs"))
    refused(session, sql.SQL("insert into {} (queue_name, task_name) values ('q', 't')").format(named(JOBS)))
    session.execute(add.format(named(JOBS), "ours"))
    made = "select oid::regclass::text from pg_class where relnamespace = 'control_queue'::regnamespace"
    for (table,) in session.execute(f"{made} and relkind in ('r', 'v', 'p')").fetchall():
        for verb in ("select", "update", "delete", "truncate", "insert"):
            assert may(session, table, verb) == (table == JOBS and verb == "insert"), (table, verb)


@pytest.mark.parametrize("role", [*ROLES, "control_claim"])
def test_a_role_cannot_step_out_of_its_walls(peopled: str, role: str) -> None:
    """Not as another role, not with row security off, and not by taking the walls down."""
    with psycopg.connect(as_role(peopled, role)) as conn:
        for other in ({*ROLES, "control_claim"} - {role}) | {"postgres", "pg_read_all_data"}:
            refused(conn, sql.SQL("set role {}").format(sql.Identifier(other)))
        refused(conn, sql.SQL("set local row_security = off; select count(run_id) from control.run"))
        refused(conn, sql.SQL("select control.remove_walls()"))
        refused(conn, sql.SQL("alter table control.run no force row level security"))


@pytest.mark.parametrize("role", [*ROLES, "control_claim"])
def test_a_sequence_tells_nobody_how_much_there_is(peopled: str, role: str) -> None:
    """Its last value would count the rows of all tenants."""
    query = """
        select c.oid::regclass::text, has_sequence_privilege(%s, c.oid, 'select, update') from pg_class c
        join pg_namespace n on n.oid = relnamespace where relkind = 'S' and nspname not in ('pg_catalog')
    """
    found = execute(peopled, query, (role,))
    assert len(found) >= 2 and [name for name, readable in found if readable] == []


@pytest.mark.parametrize("role", ROLES)
def test_without_a_tenant_no_row_is_seen(peopled: str, role: str) -> None:
    with psycopg.connect(as_role(peopled, role)) as conn:
        for table in filter(lambda table: may(conn, table, "select"), tables(peopled)):
            assert rows(conn, table, "") == 0, table


def test_a_tenant_sees_its_own_rows_alone(peopled: str, session: Conn) -> None:
    for table in tables(peopled):
        if may(session, table, "select"):
            assert (rows(session, table, "ours"), rows(session, table, "theirs")) == (1, 0), table
        else:
            refused(session, sql.SQL("select from {}").format(named(table)))


def test_a_tenant_inserts_no_row_of_another(peopled: str, session: Conn) -> None:
    theirs = {"t": "theirs", "r": execute(peopled, "select run_id from control.run where tenant = 'theirs'")[0][0]}
    for table in tables(peopled):
        given = theirs | {"h": "theirs-thread"}
        refused(session, sql.SQL(inserting(table)), given)  # type: ignore[arg-type]  # a test's own text
        over = inserting(table) + " on conflict do nothing"
        refused(session, sql.SQL(over), given)  # type: ignore[arg-type]  # a test's own text


def test_a_tenant_updates_no_row_of_another(peopled: str, session: Conn) -> None:
    for table in tables(peopled):
        column = OWNER.get(table, "tenant")
        same = sql.SQL("update {} set {} = {}").format(named(table), *[sql.Identifier(column)] * 2)
        if not may(session, table, "update"):
            refused(session, same)
            continue
        assert session.execute(same).rowcount == 1, table
        given_away = sql.SQL("update {} set {} = replace({}, 'ours', 'theirs')")
        refused(session, given_away.format(named(table), *[sql.Identifier(column)] * 2))


def test_a_tenant_updates_no_column_of_another(peopled: str, session: Conn) -> None:
    """Where a role may update some columns alone, as of the ledger, walls hold as well."""
    query = """
        select attrelid::regclass::text, attname from pg_attribute
        where attrelid = any (%s::regclass[]) and attnum > 0 and not attisdropped
          and attidentity <> 'a' and has_column_privilege(%s, attrelid, attnum, 'update')
    """
    columns = execute(peopled, query, (tables(peopled), session.info.user))
    assert len({table for table, _ in columns}) > 5
    for table, column in columns:
        same = sql.SQL("update {} set {} = {} where {}")
        found = session.execute(same.format(named(table), *[sql.Identifier(column)] * 2, of("theirs", table)))
        assert found.rowcount == 0, (table, column)


def test_a_tenant_deletes_no_row_of_another(peopled: str, session: Conn) -> None:
    for table in reversed(tables(peopled)):  # vectors go with what they index
        everything = sql.SQL("delete from {}").format(named(table))
        if may(session, table, "delete"):
            assert session.execute(everything).rowcount == 1, table
        else:
            refused(session, everything)
        refused(session, sql.SQL("truncate {}").format(named(table)))


def refused(conn: Conn, statement: sql.SQL | sql.Composed, params: dict[str, Any] | None = None) -> None:
    """It fails for want of rights, and the transaction goes on."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege), conn.transaction():
        conn.execute(statement, params)


def test_a_tenant_whose_name_begins_another_stays_out(peopled: str) -> None:
    with psycopg.connect(as_role(peopled, "control_flush")) as conn:
        conn.execute("set control.tenants = 'our,theirs-thread,theirs.notes'")
        for table in filter(lambda table: may(conn, table, "select"), tables(peopled)):
            assert rows(conn, table, "") == 0, table


@pytest.mark.parametrize("table", sorted(OWNER))
def test_the_claiming_role_has_nothing_to_do_with_langgraphs_tables(peopled: str, table: str) -> None:
    with psycopg.connect(as_role(peopled, "control_claim")) as conn:
        for verb in ("select", "insert", "update", "delete", "truncate", "references", "trigger"):
            assert not may(conn, table, verb)


def test_the_owner_meets_the_walls_of_our_tables_and_not_those_of_langgraphs(peopled: str) -> None:
    """An owner that is no superuser, as where somebody else runs the server, may run plain LangGraph beside us."""
    execute(peopled, "drop role if exists control_test_owner")
    execute(peopled, "create role control_test_owner")
    try:
        execute(peopled, "grant usage on schema control, public to control_test_owner")
        for table in tables(peopled):
            execute(peopled, f"alter table {table} owner to control_test_owner")
        with psycopg.connect(peopled) as conn:
            conn.execute("set role control_test_owner")
            seen = {table: rows(conn, table, "") for table in tables(peopled)}
        assert seen == {table: 2 if table in OWNER else 0 for table in ROWS}
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
            assert not may(conn, f"control.{table}", verb)


@pytest.mark.parametrize("column", ["created_by", "last_flush", "restarted_from"])
def test_the_claiming_role_cannot_read_every_column(peopled: str, column: str) -> None:
    with psycopg.connect(as_role(peopled, "control_claim"), autocommit=True) as conn:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(sql.SQL("select {} from control.run").format(sql.Identifier(column)))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(sql.SQL("update control.run set priority = 1"))
