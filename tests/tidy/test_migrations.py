"""Migrations are numbered and never edited, equal the schema in order, and wall every tenant off."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Final

import psycopg
import pytest

from control.core.principal import TENANT
from control.store.migrations import migrate
from control.testing.database import Databases
from tests.tidy import ROOT, Source, finished, texts

FOLDER: Final = "control/store/migrations"
SHARED: Final = frozenset({"lineage", "migration", "server_seen", "signing_key", "worker"})
"""The tables of schema `control` that belong to no tenant."""

TABLES: Final = """
select c.relname, c.relrowsecurity and c.relforcerowsecurity,
       exists (select from pg_policy p where p.polrelid = c.oid),
       exists (select from pg_index i join pg_attribute a on a.attrelid = c.oid and a.attnum = any (i.indkey)
               where i.indrelid = c.oid and i.indisprimary and a.attname = 'tenant')
from pg_class c where c.relnamespace = 'control'::regnamespace and c.relkind in ('r', 'p') order by 1
"""
UNBOUND: Final = "select rolname from pg_roles where rolname like 'control%' and (rolsuper or rolbypassrls)"
CATALOGUE: Final = """
select 'column ' || attrelid::regclass || '.' || attname, concat_ws(' ', format_type(atttypid, atttypmod),
       case when attnotnull then 'not null' end, pg_get_expr(adbin, adrelid), attidentity, attacl)
from pg_attribute join pg_class c on c.oid = attrelid left join pg_attrdef on (adrelid, adnum) = (attrelid, attnum)
where c.relnamespace = 'control'::regnamespace and c.relkind in ('r', 'p', 'v') and attnum > 0 and not attisdropped
union all select 'table ' || oid::regclass, concat_ws(' ', relpersistence, relrowsecurity, relforcerowsecurity, relacl)
from pg_class where relnamespace = 'control'::regnamespace and relkind in ('r', 'p', 'v')
union all select 'constraint ' || conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
from pg_constraint where connamespace = 'control'::regnamespace and contype <> 'n' and conrelid <> 0
union all select 'index ' || indexname, indexdef from pg_indexes where schemaname = 'control'
union all select 'policy ' || tablename || '.' || policyname, concat_ws(' ', cmd, roles, qual, with_check)
from pg_policies where schemaname = 'control'
union all select 'trigger ' || tgname, pg_get_triggerdef(t.oid)
from pg_trigger t join pg_class c on c.oid = tgrelid where c.relnamespace = 'control'::regnamespace and not tgisinternal
union all select 'function ' || oid::regprocedure,
       case prokind when 'a' then 'aggregate' else pg_get_functiondef(oid) end || concat(proacl)
from pg_proc where pronamespace = 'control'::regnamespace
"""


def migrations() -> list[Source]:
    return [source for source in texts() if re.fullmatch(rf"{FOLDER}/[^/]+\.sql", source.path)]


def misnumbered(names: list[str]) -> Iterator[str]:
    """Names that are not 0001_..., 0002_..., and so on without a gap."""
    for number, name in enumerate(sorted(names), 1):
        if not re.fullmatch(rf"{number:04}_[a-z0-9_]+\.sql", name):
            yield f"{name} is not {number:04}_<what_it_brings>.sql"


def edited(files: Mapping[str, str], *, checksums: str) -> Iterator[str]:
    """Files ({name: text}) that differ from a list of checksums as `sha256sum` writes it."""
    listed = {name: digest for digest, name in (line.split() for line in checksums.splitlines())}
    for name in sorted(files.keys() | listed.keys()):
        if name not in files:
            yield f"{name} was released and is gone"
        elif listed.get(name) != sha256(files[name].encode()).hexdigest():
            yield f"{name} was edited after its release, or is new: sha256sum *.sql > checksums.txt"


def unwalled(conn: psycopg.Connection) -> Iterator[str]:
    """Tables of tenants that another tenant could reach."""
    for name, forced, has_policy, keyed in conn.execute(TABLES).fetchall():
        if name in SHARED:
            continue
        if not keyed:
            yield f"control.{name} has no tenant in its primary key"
        if not forced or not has_policy:
            yield f"control.{name} has no forced row security with a policy"


def described(conn: psycopg.Connection) -> dict[str, str]:
    """Everything that schema `control` is made of, whatever the order it was made in."""
    return dict(conn.execute(CATALOGUE).fetchall())


def differences(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    return sorted(key for key in first.keys() | second.keys() if first.get(key) != second.get(key))


def test_migrations_are_numbered() -> None:
    assert list(misnumbered([source.path.rpartition("/")[2] for source in migrations()])) == []


@finished
def test_a_released_migration_is_never_edited() -> None:
    checksums = (ROOT / FOLDER / "checksums.txt").read_text(encoding="utf-8")
    released = {source.path.rpartition("/")[2]: source.text for source in migrations()}
    assert list(edited(released, checksums=checksums)) == []


def test_every_tenant_is_walled_off(database: str) -> None:
    with psycopg.connect(database) as conn:
        assert list(unwalled(conn)) == []
        assert conn.execute(UNBOUND).fetchall() == []


def test_all_migrations_in_order_equal_the_schema(databases: Databases) -> None:
    """`control/store/schema.sql` says what they come to; `python -m tests.tidy.schema` writes it."""
    schema = (ROOT / "control/store/schema.sql").read_text(encoding="utf-8")
    with databases.empty() as migrated, databases.empty() as written:
        migrate(migrated)
        with psycopg.connect(migrated) as conn:
            expected = described(conn)
        with psycopg.connect(written) as conn:
            conn.execute(schema)
            assert differences(described(conn), expected) == []


def test_a_table_without_its_wall_is_found(database: str) -> None:
    with psycopg.connect(database) as conn:
        conn.execute("create table control.a (tenant text, id int primary key)")
        conn.execute("create table control.b (tenant text primary key)")
        conn.execute("alter table control.b enable row level security")
        conn.execute("create policy p on control.b using (true)")
        assert list(unwalled(conn)) == [
            "control.a has no tenant in its primary key",
            "control.a has no forced row security with a policy",
            "control.b has no forced row security with a policy",
        ]
        conn.rollback()


@pytest.mark.parametrize(
    "change",
    [
        "alter table control.run add column extra text",
        "alter table control.run alter column status drop not null",
        "create index extra on control.run (status)",
        "alter table control.run no force row level security",
        "alter table control.run add constraint extra check (status <> 'x')",
        "grant delete on control.run to control_claim",
        "grant insert (config) on control.run to control_claim",
        "create policy extra on control.run using (true)",
        "create function control.extra() returns int language sql as 'select 1'",
    ],
)
def test_a_difference_of_schemas_is_found(database: str, change: str) -> None:
    with psycopg.connect(database) as conn:
        before = described(conn)
        assert len(before) > 50
        conn.execute(change.encode())
        assert len(differences(before, described(conn))) == 1
        conn.rollback()


def test_a_gap_and_an_edit_are_found() -> None:
    assert list(misnumbered(["0001_a.sql", "0003_b.sql"])) == ["0003_b.sql is not 0002_<what_it_brings>.sql"]
    assert list(misnumbered(["1_a.sql"]))
    listed = f"{sha256(b'create').hexdigest()}  0001_a.sql\n"
    assert list(edited({"0001_a.sql": "create"}, checksums=listed)) == []
    assert list(edited({"0001_a.sql": "create "}, checksums=listed))
    assert list(edited({"0001_a.sql": "create", "0002_b.sql": ""}, checksums=listed))
    assert list(edited({}, checksums=listed)) == ["0001_a.sql was released and is gone"]


def indexes(sources: list[Source]) -> list[str]:
    """Every index that exists for speed alone."""
    return sorted({name for source in sources for name in re.findall(r"(?m)^create index (\w+)", source.text)})


def unexplained(names: list[str], *, tests: list[Source]) -> list[str]:
    """Indexes that no test with an EXPLAIN names: the hot query they are for is not shown to use them."""
    explaining = " ".join(source.text for source in tests if "explain" in source.text.lower())
    return [name for name in names if not re.search(rf"\b{name}\b", explaining)]


@finished
def test_every_index_is_shown_to_be_used() -> None:
    tests = [source for source in texts() if re.match(r"tests/(?!tidy/).*\.py", source.path)]
    assert unexplained(indexes(migrations()), tests=tests) == []


def test_an_unexplained_index_is_found() -> None:
    test = Source("tests/store/test_runs.py", "explain ... run_listed_by_status")
    assert unexplained(["run_listed", "run_listed_by_status"], tests=[test]) == ["run_listed"]
    made = "create index run_due on control.run (due_at);\ncreate unique index run_open on control.run (thread_id);"
    assert indexes([Source("0001_run.sql", made)]) == ["run_due"]


def test_the_named_exceptions_exist(database: str) -> None:
    with psycopg.connect(database) as conn:
        assert {name for name, *_ in conn.execute(TABLES).fetchall()} >= SHARED


def test_a_tenants_name_is_the_same_to_the_database_as_to_everybody_else() -> None:
    (schema,) = [source for source in texts() if source.path == "control/store/schema.sql"]
    (domain,) = re.findall(r"CREATE DOMAIN control\.tenant_id AS text\s+CONSTRAINT \S+ CHECK (.*);", schema.text)
    assert domain == f"((VALUE ~ '^{TENANT.pattern}$'::text))"
