"""A database for each test: cloned from a migrated template in about 20 ms, dropped when the test is over.

The template is made once per server and version of the migrations, whose digest is its name. It differs from
production in two things: its clock can be moved (`control.testing.clock`), and it has no lineage. Each clone is given
its own, so that none is taken for an older copy of another.

A test run is alive while its session is connected under the run's name; what a dead run left is dropped by the next.
"""

from __future__ import annotations

import hashlib
import importlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Final, LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from control.testing import clock

_STORE: Final = Path(__file__).parents[1] / "store"
_PREFIX: Final = "control_test_"
_TEMPLATE: Final = "control_template_"
_LOCK: Final = 7_303_014_501_662_213_991  # our own; whoever makes or drops what others may use holds it
_DEAD: Final[LiteralString] = """
select d.datname from pg_database d where starts_with(d.datname, %(prefix)s) and not exists (
    select from pg_stat_activity a where a.datname = d.datname
    or a.application_name <> '' and starts_with(d.datname, a.application_name || '_'))
"""
_UNUSED: Final[LiteralString] = """
select datname from pg_database where starts_with(datname, %(prefix)s)
and coalesce(shobj_description(oid, 'pg_database')::timestamptz < clock_timestamp() - interval '1 day', true)
"""
_NO_LINEAGE: Final[LiteralString] = """
alter table control.lineage disable trigger user; delete from control.lineage;
alter table control.lineage enable trigger user;
"""
_LINEAGE: Final[LiteralString] = "insert into control.lineage (lineage) values (gen_random_uuid())"
_MARK: Final[LiteralString] = "select exists (select from pg_database where datname = %s), clock_timestamp()::text"


@dataclass
class Databases:
    """The databases of one test run. `server` starts the server at need and returns a superuser's conninfo."""

    server: Callable[[], str]
    run: str = field(default_factory=lambda: _PREFIX + secrets.token_hex(4))
    made: int = 0
    _conn: psycopg.Connection[tuple[str, ...]] | None = None

    @cached_property
    def template(self) -> str:
        """The name of the template, made at need. Tidies up after dead runs, since this comes once per run."""
        name = _TEMPLATE + checksum()
        with self._alone():
            self._sweep(keep=name)
            found = self._execute(_MARK, (name,)).fetchone()
            assert found
            if not found[0]:
                self._make_template(name)
            self._execute(sql.SQL("comment on database {} is {}").format(sql.Identifier(name), sql.Literal(found[1])))
        return name

    @contextmanager
    def cloned(self) -> Iterator[str]:
        """The conninfo of a fresh clone of the template, which is dropped after."""
        with self._lent(self.template) as conninfo:
            with psycopg.connect(conninfo, autocommit=True) as conn:
                conn.execute(_LINEAGE)
            yield conninfo

    @contextmanager
    def empty(self) -> Iterator[str]:
        """The conninfo of a database without any of our tables."""
        with self._lent("template1") as conninfo:
            yield conninfo

    def close(self) -> None:
        if self._conn is not None:
            self._conn.close()

    @contextmanager
    def _lent(self, template: str) -> Iterator[str]:
        """Writing the copy to the log is 2 to 3 times as quick as copying files, which forces checkpoints."""
        self.made += 1
        name = f"{self.run}_{self.made}"
        create = sql.SQL("create database {} template {} strategy wal_log")
        self._execute(create.format(sql.Identifier(name), sql.Identifier(template)))
        try:
            yield make_conninfo(self.server(), dbname=name)
        finally:
            self._drop(name)

    def _make_template(self, name: str) -> None:
        """Under another name until it is whole, so that a kill leaves no half-migrated template."""
        half = f"{self.run}_template"
        self._execute(sql.SQL("create database {}").format(sql.Identifier(half)))
        conninfo = make_conninfo(self.server(), dbname=half)
        migrate(conninfo)
        with psycopg.connect(conninfo) as conn:
            clock.replace(conn)
            conn.execute(_NO_LINEAGE)
        self._execute(sql.SQL("alter database {} rename to {}").format(sql.Identifier(half), sql.Identifier(name)))
        self._execute(sql.SQL("alter database {} allow_connections false").format(sql.Identifier(name)))

    def _sweep(self, *, keep: str) -> None:
        """Drop the databases of dead runs, and templates that nobody has asked for since yesterday."""
        dead = self._execute(_DEAD, {"prefix": _PREFIX}).fetchall()
        unused = self._execute(_UNUSED, {"prefix": _TEMPLATE}).fetchall()
        for (name,) in dead + unused:
            if name != keep:
                with suppress(psycopg.Error):
                    self._drop(name)

    def _drop(self, name: str) -> None:
        self._execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._execute("select pg_advisory_lock(%s)", (_LOCK,))
        try:
            yield
        finally:
            self._execute("select pg_advisory_unlock(%s)", (_LOCK,))

    def _execute(
        self, query: LiteralString | sql.Composed, params: tuple[object, ...] | dict[str, object] | None = None
    ) -> psycopg.Cursor[tuple[str, ...]]:
        """Run on the run's own connection; once more on a new one if a test restarted the server meanwhile."""
        if self._conn is not None:
            try:
                return self._conn.execute(query, params)
            except psycopg.OperationalError:
                if not self._conn.closed:
                    raise
        self._conn = psycopg.connect(self.server(), autocommit=True, application_name=self.run)
        return self._conn.execute(query, params)


def checksum() -> str:
    """A short digest of everything that shapes the template."""
    files = sorted([*_STORE.glob("migrations/*"), *_STORE.glob("migrations.py"), Path(__file__), Path(clock.__file__)])
    digest = hashlib.sha256(version("langgraph-checkpoint-postgres").encode())
    for file in files:
        if file.is_file():
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def migrate(conninfo: str) -> None:
    """Bring a database to the newest schema."""
    with suppress(ModuleNotFoundError):
        module = importlib.import_module("control.store.migrations")
        if run := getattr(module, "migrate", None):
            run(conninfo)


def as_role(conninfo: str, role: str) -> str:
    """The same database as one of the migration's roles, which log in without a password, as on the test server."""
    return make_conninfo(conninfo, user=role)
