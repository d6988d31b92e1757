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

WORK_GOES_ON: Final = Problem(
    code="work-goes-on",
    status=409,
    title="Somebody still works under control in this database",
    next_step="Stop the workers and scripts (`control workers` lists them), then try again.",
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


def eject(conninfo: str, *, schema: bool) -> list[str]:
    """Leave LangGraph's tables as its own saver made them, and return their names; with `schema`, drop ours for good.

    Without it, `migrate` puts the walls back. Raises `work-goes-on`, `database-away`, `database-not-owned`.
    """
    try:
        with psycopg.connect(conninfo, connect_timeout=5) as conn:
            migrated = conn.execute(_SCHEMA["has_migrations"]).fetchone()
            if migrated is None:
                return []
            (connected,) = conn.execute(_SCHEMA["connected"]).fetchone() or (0,)
            if connected:
                raise WORK_GOES_ON.because(f"{connected} of them hold a sign of life.", connected=connected)
            (freed,) = conn.execute(_SCHEMA["remove_walls"]).fetchone() or ([],)
            if schema:
                conn.execute(_SCHEMA["drop_schema"])
            return list(freed)
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
