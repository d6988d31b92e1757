"""A process's sign of life.

A session of its own holds an advisory lock; when the process dies, the server's kernel closes the connection and the
lock is free at once, so that peers take its runs over without waiting for a timeout. It runs in a thread, because an
event loop that is busy with agents answers late, and lateness must not look like death. A slow lease, renewed by the
same thread, covers what a lock cannot see: a frozen process, a lost machine, a cut network.

The same session listens for notifications. If it is lost it is opened again at once; `on_lost` is told, since peers may
have taken the runs meanwhile, and `on_back` when it is held again. While the server turns everybody away, as it does
until it has recovered from a crash, `on_starting` is told again and again: no peer has a session then either.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal
from uuid import UUID, uuid4

import psycopg

from control.store.errors import refusal
from control.store.runs import ORDERS, WORK
from control.store.sql import read

_SQL: Final = read("claims")
_RENEWALS: Final = 3  # per lease
_LISTEN_S: Final = 0.5  # how long the thread waits for a notification before it looks at the lease
_RECONNECT_S: Final = 0.1
_TURNED_AWAY: Final = "the database system is "  # starting up, shutting down, ...: the driver gives no SQLSTATE for it
_log: Final = logging.getLogger(__name__)

Notify = Callable[[str, str], None]


@dataclass(eq=False)
class Session:
    """conninfo: direct, as the claim role. Callbacks come from the session's own thread; they must not block.

    on_notify is called with channel and payload.
    """

    conninfo: str
    kind: Literal["worker", "writer"]
    lease: timedelta
    digests: Sequence[str] = ()
    on_notify: Notify = lambda channel, payload: None
    on_lost: Callable[[], None] = lambda: None
    on_starting: Callable[[], None] = lambda: None
    on_back: Callable[[], None] = lambda: None
    worker_id: UUID = field(default_factory=uuid4)
    _lock_id: int = 0
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _conn: psycopg.Connection[Any] | None = None

    def start(self) -> None:
        """Register, take the lock, and keep both from a thread. Blocks. Raises `database-away`."""
        try:
            self._conn = self._open()
        except psycopg.Error as error:
            raise refusal(error) or error from error
        self._thread = threading.Thread(target=self._keep, name="session", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Sign off: the lock is free, and whatever is still claimed is taken over at once."""
        self._stopping.set()
        if self._thread:
            self._thread.join(timeout=_LISTEN_S * 4)

    def _open(self) -> psycopg.Connection[Any]:
        conn = psycopg.connect(self.conninfo, autocommit=True)
        if not self._lock_id:
            self._lock_id = self._register(conn)
        held = conn.execute(_SQL["hold"], {"lock_id": self._lock_id}).fetchone()
        if not held or not held[0]:  # the server has not noticed yet that the last session is gone
            conn.close()
            raise psycopg.OperationalError("the session lock is still held by the session that was lost")
        self._renew(conn)
        for channel in (WORK, ORDERS):
            conn.execute(psycopg.sql.SQL("listen {}").format(psycopg.sql.Identifier(channel)))
        return conn

    def _register(self, conn: psycopg.Connection[Any]) -> int:
        row = conn.execute(
            _SQL["register"],
            {
                "worker_id": self.worker_id,
                "kind": self.kind,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "digests": list(self.digests),
                "lease": self.lease,
            },
        ).fetchone()
        assert row is not None
        return int(row[0])

    def _renew(self, conn: psycopg.Connection[Any]) -> None:
        conn.execute(_SQL["renew"], {"worker_id": self.worker_id, "lease": self.lease})

    def _keep(self) -> None:
        while not self._stopping.is_set():
            try:
                self._attend()
            except Exception as error:  # a callback's too: the sign of life must not end with it
                _log.warning("the session broke: %s", error)
                self._tell(self.on_lost)
                self._reopen()
        self._sign_off()

    def _tell(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # its event loop is closed: nobody is left to hear it
            callback()

    def _attend(self) -> None:
        """Pass notifications on and renew the lease, until told to stop or the connection breaks."""
        assert self._conn is not None
        renewed_at, every_s = time.monotonic(), self.lease.total_seconds() / _RENEWALS
        while not self._stopping.is_set():
            for notice in self._conn.notifies(timeout=min(_LISTEN_S, every_s / 2), stop_after=1):
                self.on_notify(notice.channel, notice.payload)
            if time.monotonic() - renewed_at > every_s:
                self._renew(self._conn)
                renewed_at = time.monotonic()

    def _reopen(self) -> None:
        if self._conn is not None:
            self._conn.close()
        while not self._stopping.is_set():
            try:
                self._conn = self._open()
            except psycopg.Error as error:
                if _TURNED_AWAY in str(error):
                    self._tell(self.on_starting)
                self._stopping.wait(_RECONNECT_S)
            else:
                self._tell(self.on_back)
                return

    def _sign_off(self) -> None:
        try:
            if self._conn and not self._conn.closed:
                self._conn.execute(_SQL["sign_off"], {"worker_id": self.worker_id})
                self._conn.close()
        except psycopg.Error:
            pass  # the lock is free all the same
