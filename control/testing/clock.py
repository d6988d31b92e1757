"""The database's time, moved by a test.

Production's `control.clock()` is the server's clock and has no switch. The template database of the tests replaces it
by one that adds `testing.clock.ahead`, so every session on a test's database sees the moved time at its next statement.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final, LiteralString

import psycopg

_REPLACEMENT: Final[LiteralString] = """
create schema if not exists testing;
create table testing.clock (one boolean primary key default true check (one), ahead interval not null default '0');
insert into testing.clock default values;
grant usage on schema testing to public;
grant select on testing.clock to public;
"""
_CLOCK: Final[LiteralString] = """
create or replace function control.clock() returns timestamptz language sql {volatility} as
$$ select clock_timestamp() + coalesce((select ahead from testing.clock), '0') $$
"""
_VOLATILITY: Final[LiteralString] = """
select case provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end
from pg_proc where oid = to_regprocedure('control.clock()')
"""
_ADVANCE: Final[LiteralString] = "update testing.clock set ahead = ahead + %s"


def replace(conn: psycopg.Connection[tuple[str]]) -> None:
    """Put the movable clock in place of `control.clock()`, as volatile as that was; nothing where there is none."""
    found = conn.execute(_VOLATILITY).fetchone()
    if found:
        conn.execute(_REPLACEMENT)
        conn.execute(_CLOCK.replace("{volatility}", found[0]))
        conn.commit()


async def advance(conninfo: str, by: timedelta) -> None:
    """Move the time of the test's database; a negative `by` moves it back. Needs the superuser's conninfo."""
    async with await psycopg.AsyncConnection.connect(conninfo) as conn:
        moved = await conn.execute(_ADVANCE, (by,))
        assert moved.rowcount == 1, "this database has no clock to move; it was not cloned from the test template"


def advance_sync(conninfo: str, by: timedelta) -> None:
    """`advance` for a test that runs no event loop."""
    with psycopg.connect(conninfo) as conn:
        moved = conn.execute(_ADVANCE, (by,))
        assert moved.rowcount == 1, "this database has no clock to move; it was not cloned from the test template"
