"""Who counts as alive: the commands, the scripts' writers and the workers' sweep give one answer."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Event
from uuid import uuid4

import psycopg
import pytest
from pytest import MonkeyPatch

from control.app import App
from control.core.problem import Refusal
from control.store import runs
from control.store.claims import Claims, workers
from control.store.embedded import ensure
from control.store.session import Session
from control.testing.database import Databases, as_role
from control.testing.server import accepts, restart
from tests.store.holding import checkpoint, claimed, execute, installation

LONG_S, SHORT_S = 3.0, 0.05
STARTED = "select clock_timestamp() > pg_postmaster_start_time() + make_interval(secs => %s)"
SEEN = "select clock_timestamp() > control.server_seen_at() + make_interval(secs => %s)"


@contextmanager
def holding(conninfo: str, *threads: str) -> Iterator[list[Session]]:
    """A session for each thread, which holds a script's run on it."""
    held = [Session(as_role(conninfo, "control_claim"), "writer", timedelta(hours=1)) for _ in threads]
    for thread, session in zip(threads, held, strict=True):
        fence = claimed(conninfo, thread=thread)
        session.start()
        given = (session.worker_id, fence.run_id)
        execute(conninfo, "update control.run set workflow = null, worker_id = %s where run_id = %s", given)
    try:
        yield held
    finally:
        for session in held:
            session.stop()


async def verdicts(app: App, conninfo: str, session: Session, thread: str) -> tuple[bool, bool, bool, bool]:
    """Whether the holder of the run on a thread lives: say a command, the list of workers, a script, and a sweep."""
    [(run_id,)] = execute(conninfo, "select run_id from control.run where worker_id = %s", (session.worker_id,))
    control = app.control()
    async with control.transaction() as conn:
        facts = (await control.look(conn, await runs.read_run(conn, "default", run_id))).facts
        listed = {row["worker_id"]: row["alive"] for row in await workers(conn, grace=control.failover_wait)}
    sweep = Claims(app.database)
    orphans = await sweep.orphans(uuid4(), grace=control.failover_wait)
    await sweep.close()
    assert facts.claim is not None
    gone = session.worker_id in {orphan.worker_id for orphan in orphans}
    return facts.claim.alive, listed[session.worker_id], await refused(app, thread), not gone


async def refused(app: App, thread: str) -> bool:
    """Whether a script is kept from the thread. One that is not takes the run."""
    made, versions = checkpoint()
    at = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
    try:
        await app.saver.aput(at, made, {"source": "loop", "step": 0, "parents": {}}, versions)
    except Refusal as refusal:
        assert refusal.problem.code == "claim-held"
        return True
    return False


def restarted(how: str, folder: Path, conninfo: str) -> None:
    """By its operator, or as a lack of memory does it: a process dies, the server ends all others and goes on."""
    if how == "fast":
        restart(folder, mode="fast")
        return
    with psycopg.connect(conninfo) as victim, psycopg.connect(conninfo) as other:
        os.kill(victim.info.backend_pid, signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            while other.execute("select 1"):
                pass
    until(lambda: accepts(conninfo))


@pytest.mark.parametrize("how", ["fast", "one process"])
async def test_after_a_long_recovery_a_holder_has_its_time_to_come_back(
    how: str, own_server: Path, monkeypatch: MonkeyPatch
) -> None:
    """The server turns holders away for longer than their time. The first who gets in judges nobody, whoever judges;
    from then on one comes back, and one does not.
    """
    databases, kept_out, opening = Databases(partial(ensure, own_server)), set[Session](), Session._open

    def recovering(session: Session) -> psycopg.Connection[tuple[object, ...]]:
        if session in kept_out:
            raise psycopg.OperationalError("the database system is starting up")
        return opening(session)

    monkeypatch.setattr(Session, "_open", recovering)
    with databases.cloned() as database, holding(database, "t0", "t1") as (back, away):
        kept_out.update((back, away))
        back.on_back = (returned := Event()).set
        await asyncio.to_thread(restarted, how, own_server, database)
        await asyncio.to_thread(until, lambda: execute(database, STARTED, (LONG_S,))[0][0])
        async with installation(database, failover_wait_s=LONG_S) as app:
            assert await verdicts(app, database, away, "t1") == (True,) * 4
            assert await verdicts(app, database, back, "t0") == (True,) * 4
        kept_out.remove(back)
        assert await asyncio.to_thread(returned.wait, 10)
        await asyncio.to_thread(until, lambda: execute(database, SEEN, (SHORT_S,))[0][0])
        async with installation(database, failover_wait_s=SHORT_S) as app:
            assert await verdicts(app, database, back, "t0") == (True,) * 4
            assert await verdicts(app, database, away, "t1") == (False,) * 4
    databases.close()


async def test_nobody_is_kept_waiting_by_who_first_sees_the_server(database: str) -> None:
    """Until that is committed, everybody else has just come as well."""
    with psycopg.connect(database) as first, psycopg.connect(database) as second:
        seen = "select control.server_seen_at()"
        [told, later] = [conn.execute(seen).fetchone() for conn in (first, second)]
        assert told and later and told < later
        first.commit()
        assert second.execute(seen).fetchone() == told
        second.execute("set transaction_read_only = on")
        assert second.execute(seen).fetchone() == told


def until(holds: Callable[[], bool], timeout_s: float = 15) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)
