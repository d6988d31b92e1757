"""Connections: who logs in as what, and what a transaction may see.

Three database roles do the work (see the first migration). Commands run in `Database.scope`, a transaction that acts as
one role for one tenant and so can be served by a pooler as well. The flush, the saver's reads and the worker's session
keep state in their session and use the direct address.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

import psycopg
from psycopg import AsyncClientCursor, AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from control.core.problem import Problem
from control.store import arrays
from control.store.errors import READ_ONLY, misled, refusal
from control.store.migrations import SCHEMA_OLDER, check_current
from control.store.sql import read

Connection = AsyncConnection[Any]
Role = Literal["control_command", "control_flush", "control_claim"]

POOLER: Final = Problem(
    code="address-is-a-pooler",
    status=503,
    title="The database address leads to a connection pooler",
    next_step="Set DATABASE_DIRECT_URL to the server's own address; locks and notifications need a session there.",
)
_BEGIN: Final = "begin; " + read("runs")["scope"]
TENANTS: Final = read("flush")["tenants"]
_SCHEMA: Final = read("schema")
_SESSION_OPTIONS: Final = (
    "-c plan_cache_mode=force_generic_plan -c jit=off"  # short statements, always the same
    " -c tcp_keepalives_idle=5 -c tcp_user_timeout=8000"  # a client that vanished lets go of its locks
)
_PATIENCE: Final = {"connect_timeout": 5, "keepalives_idle": 5, "tcp_user_timeout": 8000}
"""A server that does not answer is given up: seconds, seconds, milliseconds. Without effect on a Unix socket."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the database is. `direct` bypasses any pooler. `login`: the roles log in themselves (trust or certificates)
    instead of being assumed by the main login."""

    main: str
    direct: str
    login: bool = False

    @classmethod
    def of(cls, main: str, direct: str | None = None, *, login: bool = False) -> Address:
        return cls(main, direct or main, login)

    def session(self, role: Role) -> str:
        """A direct connection string that acts as the role for its whole session."""
        if self.login:
            return make_conninfo(self.direct, user=role, options=_SESSION_OPTIONS, **_PATIENCE)
        given = conninfo_to_dict(self.direct).get("options") or ""
        options = f"{given} -c role={role} {_SESSION_OPTIONS}".strip()
        return make_conninfo(self.direct, options=options, **_PATIENCE)

    def scoped(self, role: Role) -> str:
        """A connection string for transactions that name their role themselves."""
        return make_conninfo(self.main, **_PATIENCE, **({"user": role} if self.login else {}))


class Database:
    """The pools of one process. Opened and closed by `control.app`."""

    def __init__(self, address: Address, *, size: int = 8) -> None:
        self.address = address
        pooled = address.main != address.direct  # a transaction pooler does not keep prepared statements
        self._commands = _pool(address.scoped("control_command"), size, prepare=not pooled)
        scoped = address.scoped("control_flush")
        self._flushes = _pool(scoped, size, prepare=not pooled) if address.login else self._commands
        self.reader = _pool(address.session("control_flush"), size, reset=_forget)  # its sessions bear a tenant

    async def open(self) -> None:
        """Connect, and refuse a database that is away, read-only, of another version, or behind a pooler."""
        await self._check()
        for pool in {self._commands, self._flushes, self.reader}:
            await pool.open()

    async def close(self) -> None:
        for pool in {self._commands, self._flushes, self.reader}:
            await pool.close()

    async def connect(self, role: Role) -> AsyncConnection[Any]:
        """A direct connection of one's own, acting as the role, in autocommit."""
        conn = await AsyncConnection.connect(self.address.session(role), autocommit=True, prepare_threshold=0)
        arrays.register(conn)
        return conn

    @asynccontextmanager
    async def scope(self, role: Role, tenant: str) -> AsyncIterator[AsyncConnection[Any]]:
        """A transaction that acts as the role and sees this tenant alone. Raises what `store.errors` makes of the
        driver's.
        """
        pool = self._flushes if role == "control_flush" else self._commands
        try:
            async with pool.connection() as conn:
                try:
                    async with acting(conn, role, tenant):
                        yield conn
                except psycopg.Error as error:
                    if misled(error):
                        await pool.drain()  # its others may be so as well: the next order gets a new one
                    raise
        except (PoolTimeout, psycopg.Error) as error:
            raise refusal(error) or error from error

    async def _check(self) -> None:
        try:
            async with await AsyncConnection.connect(self.address.direct, autocommit=True, connect_timeout=5) as conn:
                await _check_direct(conn)
                await _check_schema(conn)
        except psycopg.Error as error:
            raise refusal(error) or error from error


async def _check_direct(conn: AsyncConnection[Any]) -> None:
    """A pooler answers with a process id of its own; the server names the process that really serves the session."""
    row = await (await conn.execute(_SCHEMA["server"])).fetchone()
    assert row is not None
    if row[0] != conn.info.backend_pid:
        raise POOLER.because("The session is served by another process than the one that answered.")
    if row[1]:
        raise READ_ONLY.because("It is a standby, or its transactions are read-only by default.")


async def _check_schema(conn: AsyncConnection[Any]) -> None:
    if not await (await conn.execute(_SCHEMA["has_migrations"])).fetchone():
        check_current({})
    check_current(dict(await (await conn.execute(_SCHEMA["applied"])).fetchall()))
    if not await (await conn.execute(_SCHEMA["walled"])).fetchone():
        raise SCHEMA_OLDER.because("LangGraph's tables were ejected: they have no row security.")


@asynccontextmanager
async def acting(conn: AsyncConnection[Any], role: Role, tenant: str) -> AsyncIterator[None]:
    """As `conn.transaction()`, but it acts as the role for this tenant alone. It begins and is scoped in one message to
    the server; with the transaction the scope is gone.
    """
    await AsyncClientCursor(conn).execute(_BEGIN, {"role": role, "tenant": tenant})
    try:
        yield
    except BaseException:
        with suppress(psycopg.Error):  # where the connection is gone it must not take the place of what went wrong
            await conn.rollback()
        raise
    await conn.commit()


def _pool(
    conninfo: str, size: int, *, prepare: bool = True, reset: Callable[[Connection], Awaitable[None]] | None = None
) -> AsyncConnectionPool[Connection]:
    threshold = 0 if prepare else None
    return AsyncConnectionPool(
        conninfo,
        min_size=1,
        max_size=size,
        open=False,
        timeout=10,
        configure=_configure,
        reset=reset,
        kwargs={"autocommit": True, "prepare_threshold": threshold, "row_factory": dict_row},
    )


async def _configure(conn: AsyncConnection[Any]) -> None:
    arrays.register(conn)


async def _forget(conn: Connection) -> None:
    """What the pool does with a connection before anybody gets it again; one on which it fails is closed."""
    await conn.execute(TENANTS, {"tenants": ""})
