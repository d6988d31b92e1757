"""What the database's errors mean: one table from SQLSTATE and constraint to a problem. Nothing else reads driver
errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import psycopg
from psycopg_pool import PoolTimeout

from control.core.problem import Problem, Refusal

DATABASE_AWAY: Final = Problem(
    code="database-away",
    status=503,
    title="The database cannot be reached",
    next_step="Start it, or correct DATABASE_URL. Nothing was lost: what was committed stands, the rest is done again.",
)
READ_ONLY: Final = Problem(
    code="database-read-only",
    status=503,
    title="The database takes no writes",
    next_step="Point DATABASE_URL at the primary, or end its read-only mode. Nothing was changed.",
)
NOT_NOW: Final = frozenset({DATABASE_AWAY, READ_ONLY})
"""They say nothing of the run that met them. Being read-only is among them: where it stays so nothing can be recorded,
not even an end, and whoever can record one has learned that it is over."""
NOT_STORABLE: Final = Problem(
    code="value-not-storable",
    status=422,
    title="The database refuses a value of this run",
    next_step="Remove what it names (often a NUL character in a text) from the graph's state.",
)
THREAD_BUSY: Final = Problem(
    code="thread-busy",
    status=409,
    title="The thread has a run that has not ended",
    next_step="Answer or cancel that run, or start on another thread.",
)
THREAD_TAKEN: Final = Problem(
    code="thread-taken",
    status=409,
    title="The thread cannot be used",
    next_step="Choose another thread id.",
)

_BY_CONSTRAINT: Final[Mapping[str, Problem]] = {
    "run_open_on_thread": THREAD_BUSY,
    "thread_thread_id_key": THREAD_TAKEN,
}
_BY_STATE: Final[Mapping[str, Problem]] = {
    "25006": READ_ONLY,
    "57P01": DATABASE_AWAY,  # terminated by an administrator, or by a restart
    "57P02": DATABASE_AWAY,  # a crash of the server
    "57P03": DATABASE_AWAY,  # starting up
    "53300": DATABASE_AWAY,  # no connection left
}
_BY_CLASS: Final[Mapping[str, Problem]] = {
    "08": DATABASE_AWAY,
    "22": NOT_STORABLE,
    "54": NOT_STORABLE,
}


def refusal(error: Exception) -> Refusal | None:
    """The refusal that a driver's error amounts to, or None where it is a bug of ours."""
    if isinstance(error, PoolTimeout):
        return DATABASE_AWAY.because("No connection became free in time.")
    if not isinstance(error, psycopg.Error):
        return None
    problem = _problem(error)
    return problem.because(f"{_why(error)}.", sqlstate=error.sqlstate) if problem else None


def lost(error: psycopg.Error) -> bool:
    """Whether the same statement may succeed later: the database is back, takes writes, or has settled a deadlock."""
    problem = _problem(error)
    return problem in NOT_NOW or (isinstance(error, psycopg.OperationalError) and problem is None)


def misled(error: Exception) -> bool:
    """Whether the connection must be made anew: it leads to a server, or began in a mode, that takes no writes, and
    will not know when that is over.
    """
    return isinstance(error, psycopg.Error) and _problem(error) is READ_ONLY


def silent(error: Exception) -> bool:
    """Whether the server gave no reason: of a broken connection, that it fell without a farewell."""
    return isinstance(error, psycopg.Error) and error.sqlstate is None


def farewell(notice: psycopg.errors.Diagnostic) -> bool:
    """Whether a server ends the connection with this notice, for a reason of its own. After the crash of another
    process, and in an immediate shutdown, it warns in this way, and the connection then falls in silence.
    """
    return _BY_STATE.get(notice.sqlstate or "") is DATABASE_AWAY


def told(error: Exception) -> str:
    """The first line of what the driver says, without its full stop."""
    message = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return (message or str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _why(error: psycopg.Error) -> str:
    """Of a broken constraint, the detail: it names the value. Of anything else, the message."""
    return (error.diag.message_detail or told(error)).rstrip(".") if error.diag.constraint_name else told(error)


def _problem(error: psycopg.Error) -> Problem | None:
    if error.sqlstate is None:
        return DATABASE_AWAY if isinstance(error, psycopg.OperationalError) else None
    by_constraint = _BY_CONSTRAINT.get(error.diag.constraint_name or "")
    return by_constraint or _BY_STATE.get(error.sqlstate) or _BY_CLASS.get(error.sqlstate[:2])
