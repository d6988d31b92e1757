"""Schema migrations: numbered, checksummed, never edited.

`migrate` brings a database up to this version: LangGraph's own tables first (its saver's migrations, untouched), then
Procrastinate's (untouched as well, in schema `control_queue`), then every `NNNN_*.sql` of this folder in order, each in
a transaction of its own, last the walls around those of their tables that have none yet. One advisory lock is held
meanwhile, so that several processes may start at once. A database that is newer than this program, or in which an
applied file no longer has the checksum it was applied with, is refused and left as it is.
"""

from __future__ import annotations

import time
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Final, LiteralString, NamedTuple

import psycopg
from langgraph.checkpoint.postgres import PostgresSaver

from control.core.problem import Problem
from control.store.sql import read

SCHEMA_NEWER: Final = Problem(
    code="schema-newer",
    status=503,
    title="The database belongs to a newer version",
    next_step="Run the version that migrated it, or restore a backup made before.",
)
SCHEMA_CHANGED: Final = Problem(
    code="schema-changed",
    status=503,
    title="An applied migration was edited",
    next_step="Restore the file as it was released; schema changes go into a new migration.",
)
SCHEMA_OLDER: Final = Problem(
    code="schema-older",
    status=503,
    title="The database has not been migrated to this version",
    next_step="Run `control db migrate` with the address of the database's owner.",
)

_SQL: Final = read("schema")
_TURN_S: Final = 0.05
_KNOWS_IS_JSON: Final = 160000  # PostgreSQL 16
_LOCK: Final = 0x636F6E74726F6C  # "control": one migration at a time in a database


class Migration(NamedTuple):
    version: int
    name: str
    sql: LiteralString
    checksum: str


def migrations() -> list[Migration]:
    """Every migration that ships with this version, in order."""
    paths = sorted((p for p in files(__package__).iterdir() if p.name.endswith(".sql")), key=lambda p: p.name)
    return [_migration(path.name, path.read_text(encoding="utf-8")) for path in paths]


def _migration(name: str, text: str) -> Migration:
    return Migration(int(name[:4]), name, text, sha256(text.encode()).hexdigest())


def migrate(conninfo: str) -> list[str]:
    """Apply what is missing and return the names applied. Needs a login that may create schemas and roles.

    Raises `schema-newer` and `schema-changed`; nothing is applied then.
    """
    with psycopg.connect(conninfo, autocommit=True) as conn:
        while conn.execute(_SQL["lock"], {"key": _LOCK}).fetchone() != (True,):
            time.sleep(_TURN_S)
        try:
            _langgraph_tables(conn)
            applied = _applied(conn)
            check(applied)
            _queue_tables(conn)
            missing = [migration for migration in migrations() if migration.version not in applied]
            names = [_apply(conn, migration) for migration in missing]
            conn.execute(_SQL["build_walls"])
            conn.execute(_SQL["build_queue"])
            return names
        finally:
            conn.execute(_SQL["unlock"], {"key": _LOCK})


def check(applied: dict[int, str]) -> None:
    """Refuse a database whose applied migrations ({version: checksum}) are not a prefix of ours."""
    known = {m.version: m for m in migrations()}
    for version, checksum in applied.items():
        if version not in known:
            raise SCHEMA_NEWER.because(f"Migration {version} is unknown here.", version=version)
        if checksum != known[version].checksum:
            raise SCHEMA_CHANGED.because(f"{known[version].name} differs from what was applied.", version=version)


def check_current(applied: dict[int, str]) -> None:
    """Refuse also a database that lacks one of our migrations."""
    check(applied)
    if missing := [m.name for m in migrations() if m.version not in applied]:
        raise SCHEMA_OLDER.because(f"It lacks {', '.join(missing)}.", missing=missing)


def _langgraph_tables(conn: psycopg.Connection) -> None:
    """LangGraph's stock tables. Its last migration wants autocommit, and finds nothing to do a second time."""
    saver = PostgresSaver(conn)  # type: ignore[arg-type]  # the saver sets the row factory of each cursor itself
    saver.setup()


def _queue_tables(conn: psycopg.Connection) -> None:
    """Procrastinate's tables as the installed version makes them, or what its migrations add to those that are here."""
    from procrastinate.schema import SchemaManager  # only here: every command imports this module

    theirs = sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"), key=lambda path: path.name)
    with conn.transaction():
        conn.execute(_SQL["add_queue"])
        ((_, last),) = conn.execute(_SQL["in_queue"]).fetchall()
        if last is None:
            conn.execute(SchemaManager.get_schema())
        for later in [path for path in theirs if last is not None and path.name > last]:
            conn.execute(later.read_bytes())
        psycopg.ClientCursor(conn).execute(_SQL["mark_queue"], {"last": theirs[-1].name})


def _applied(conn: psycopg.Connection) -> dict[int, str]:
    if not conn.execute(_SQL["has_migrations"]).fetchone():
        return {}
    return dict(conn.execute(_SQL["applied"]).fetchall())


def _apply(conn: psycopg.Connection, migration: Migration) -> str:
    with conn.transaction():
        conn.execute(spelled_for(conn.info.server_version, migration.sql))
        conn.execute(_SQL["record"], {"version": migration.version, "name": migration.name, "sum": migration.checksum})
    return migration.name


def spelled_for(server_version: int, sql: LiteralString) -> LiteralString:
    """A migration as a server of that version can read it: PostgreSQL 15 knows no `is json`, and casts instead."""
    return sql if server_version >= _KNOWS_IS_JSON else sql.replace("value is json", "value::json is not null")
