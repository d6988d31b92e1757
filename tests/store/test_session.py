"""A process's sign of life: a lock that dies with it, and a lease that no busy event loop holds up."""

from __future__ import annotations

import asyncio
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from control.store.session import Session
from control.testing.database import as_role
from tests.store.holding import execute
from tests.store.test_embedded import eventually

pytestmark = pytest.mark.installed

HOLDERS = """
    select pid from pg_locks
    where locktype = 'advisory' and classid::bigint = %s and objsubid = 2 and granted
      and database = (select oid from pg_database where datname = current_database())
"""
CLASS = int.from_bytes(b"cntr", "big")


def holders(conninfo: str) -> list[int]:
    return [pid for (pid,) in execute(conninfo, HOLDERS, (CLASS,))]


@contextmanager
def session(conninfo: str, *, lease_s: float = 30, **callbacks: Any) -> Iterator[Session]:
    started = Session(as_role(conninfo, "control_claim"), "worker", timedelta(seconds=lease_s), **callbacks)
    started.start()
    try:
        yield started
    finally:
        started.stop()


def test_a_session_registers_holds_its_lock_and_signs_off(database: str) -> None:
    with session(database, digests=["g:1"]) as held:
        [row] = execute(database, "select worker_id, kind, digests, ended_at, lease_until > now() from control.worker")
        assert row == (held.worker_id, "worker", ["g:1"], None, True)
        assert len(holders(database)) == 1
    assert eventually(lambda: not holders(database)), "the server sees the session's end a moment later"
    assert execute(database, "select ended_at is not null, lease_until <= now() from control.worker") == [(True, True)]


async def test_the_lease_is_renewed_while_the_event_loop_is_blocked(database: str) -> None:
    with session(database, lease_s=1):
        # The very thing under test: a loop that answers nobody for three leases.
        time.sleep(3)  # noqa: ASYNC251  # blocking the loop is the point
        living = await asyncio.to_thread(
            execute, database, "select lease_until > clock_timestamp() from control.worker"
        )
        assert living == [(True,)]


@pytest.mark.parametrize("times", [1, 3])
def test_a_lost_session_says_so_and_is_held_again(database: str, times: int) -> None:
    lost, back = threading.Semaphore(0), threading.Semaphore(0)
    with session(database, on_lost=lost.release, on_back=back.release):
        for _ in range(times):
            [pid] = holders(database)
            execute(database, "select pg_terminate_backend(%s)", (pid,))
            assert lost.acquire(timeout=10)
            assert back.acquire(timeout=10)
            [again] = holders(database)
            assert again != pid
    assert execute(database, "select count(*) from control.worker") == [(1,)]


def test_a_server_that_is_starting_is_told_apart_from_one_that_is_gone() -> None:
    """It turns everybody away, so that no peer has a session either."""
    starting = threading.Semaphore(0)
    with turning_away() as port:
        conninfo = f"host=127.0.0.1 port={port} user=control_claim dbname=postgres sslmode=disable gssencmode=disable"
        waiting = Session(conninfo, "worker", timedelta(seconds=30), on_starting=starting.release)
        thread = threading.Thread(target=waiting._reopen)
        thread.start()
        told = [starting.acquire(timeout=10) for _ in range(2)]
        waiting.stop()
        thread.join()
    assert told == [True, True]


@contextmanager
def turning_away() -> Iterator[int]:
    """A server that answers as PostgreSQL does until it has recovered. Gives its port."""
    fields = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"
    refusal = b"E" + (len(fields) + 4).to_bytes(4, "big") + fields

    class TurnAway(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1024)
            self.request.sendall(refusal)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), TurnAway) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield server.server_address[1]
        server.shutdown()


def test_what_is_announced_is_passed_on(database: str) -> None:
    heard: list[tuple[str, str]] = []
    both = threading.Semaphore(0)

    def hear(channel: str, payload: str) -> None:
        heard.append((channel, payload))
        both.release()

    with session(database, on_notify=hear):
        execute(database, "select pg_notify('control_work', ''), pg_notify('control_orders', 'r')")
        assert both.acquire(timeout=10)
        assert both.acquire(timeout=10)
    assert sorted(heard) == [("control_orders", "r"), ("control_work", "")]
