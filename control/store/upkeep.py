"""Upkeep of the database from outside: bringing it up to date, and saying what it is, without opening it for work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from control.core.problem import Problem
from control.store.errors import DATABASE_AWAY
from control.store.migrations import migrate, migrations
from control.store.sql import read

NOT_OWNER: Final = Problem(
    code="database-not-owned",
    status=403,
    title="This login may not change the database's schema",
    next_step="Run `control db migrate` with the address of the database's owner in DATABASE_URL.",
)

_SCHEMA: Final = read("schema")
_SERVER: Final = read("doctor")["server"]


@dataclass(frozen=True, slots=True)
class Condition:
    """applied, missing: names of migrations. strange: versions applied that are unknown here, or were edited."""

    where: str
    version: str
    applied: list[str]
    missing: list[str]
    strange: list[int]


def bring_up_to_date(conninfo: str) -> list[str]:
    """Apply what is missing, and return its names. Raises `database-away`, `database-not-owned`."""
    try:
        return migrate(conninfo)
    except psycopg.OperationalError as error:
        raise DATABASE_AWAY.because(_said(error)) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise NOT_OWNER.because(_said(error)) from error


def condition(conninfo: str) -> Condition:
    """What is there. Raises `database-away`."""
    try:
        with psycopg.connect(conninfo, autocommit=True, connect_timeout=5) as conn:
            _, version = conn.execute(_SERVER).fetchone() or (0, "unknown")
            migrated = conn.execute(_SCHEMA["has_migrations"]).fetchone()
            applied: dict[int, str] = dict(conn.execute(_SCHEMA["applied"]).fetchall()) if migrated else {}
    except psycopg.OperationalError as error:
        raise DATABASE_AWAY.because(_said(error)) from error
    ours = {migration.version: migration for migration in migrations()}
    return Condition(
        where(conninfo),
        version,
        applied=[ours[n].name for n in applied if n in ours],
        missing=[migration.name for n, migration in ours.items() if n not in applied],
        strange=[n for n, checksum in applied.items() if n not in ours or ours[n].checksum != checksum],
    )


def where(conninfo: str) -> str:
    """The address for people, without its password."""
    given = conninfo_to_dict(conninfo)
    return " ".join(f"{name}={given[name]}" for name in ("host", "port", "user", "dbname") if given.get(name))


def _said(error: psycopg.Error) -> str:
    return f"{(str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')}."
