"""The process that keeps one embedded server: `python -m control.store.keeper <order>`, started by `embedded.ensure`.

Several candidates may be started for one folder at once; the file lock elects one, the others end with status 0. The
keeper makes the cluster at need, starts the server as its child, starts it again if it dies, and stops it when nobody
has been connected for `idle_s`. It ends with status 1 if the server cannot be started; the log says why.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, NoReturn

import psycopg

from control.store import sql
from control.store.cluster import Account, house, initialise, launch, postmaster, reachable, recorded
from control.store.embedded import Folder

POLL_S: Final = 0.25
STOP_S: Final = 20  # an orderly shutdown that takes longer becomes an immediate one
ATTEMPTS: Final = 8  # starts in a row that fail while remnants of a killed server die; about six seconds
LOG_BYTES: Final = 1_000_000
ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SOCKET_PATH_BYTES: Final = 103  # of sockaddr_un: 104 on macOS, 108 on Linux, with a closing zero
_SOCKET_NAME: Final = "/.s.PGSQL.5432"
_SQL: Final = sql.read("keeper")


@dataclass(frozen=True, slots=True)
class Server:
    """How to start the server of one folder."""

    folder: Folder
    account: Account
    bin_dir: Path
    sockets: Path
    settings: tuple[str, ...]

    def start(self) -> subprocess.Popen[bytes]:
        with self.folder.log.open("ab") as log:
            return launch(
                self.folder.data, account=self.account, bin_dir=self.bin_dir, sockets=self.sockets,
                settings=self.settings, log=log,
            )  # fmt: skip


@dataclass(slots=True)
class Watch:
    """Tells how long the server has had no user. A touched gate counts as one; so does a server that cannot answer."""

    folder: Folder
    since: float = field(default_factory=time.monotonic)
    passed_ns: int = 0
    conn: psycopg.Connection[tuple[int]] | None = None

    def idle_s(self) -> float:
        touched_ns = self.folder.gate.stat().st_mtime_ns
        if self._users() or touched_ns != self.passed_ns:
            self.since, self.passed_ns = time.monotonic(), touched_ns
        return time.monotonic() - self.since

    def ready(self) -> bool:
        """Whether the server answered when it was last asked."""
        return self.conn is not None

    def _users(self) -> int:
        try:
            if self.conn is None:
                self.conn = psycopg.connect(
                    self.folder.conninfo(), autocommit=True, application_name="control-keeper", connect_timeout=5
                )
            row = self.conn.execute(_SQL["users"]).fetchone()
        except psycopg.Error:
            self.forget()
            return 1
        return row[0] if row else 0

    def forget(self) -> None:
        if self.conn is not None:
            with suppress(psycopg.Error):
                self.conn.close()
            self.conn = None


def main(order: str) -> int:
    """Keep the server that `order` (JSON: folder, bin_dir, idle_s, settings) describes until it is idle or stopped."""
    os.umask(0o022)  # what is meant to be private is made so by name
    wanted = json.loads(order)
    folder = Folder(Path(wanted["folder"]))
    with folder.election.open("r+b", buffering=0) as lock:
        if not elected(lock):
            return 0
        lock.write(b"%-20d" % os.getpid())
        for asked in ENDING:
            signal.signal(asked, end)
        try:
            server = prepare(folder, Path(wanted["bin_dir"]), [f"{k}={v}" for k, v in wanted["settings"].items()])
        except (OSError, LookupError, RuntimeError, subprocess.SubprocessError) as error:
            print(error, file=sys.stderr)
            return 1
        return keep(server, idle_s=wanted["idle_s"])


def end(*_: object) -> NoReturn:
    """Unwind, and with it stop the server; being asked again does not interrupt that."""
    for asked in ENDING:
        signal.signal(asked, signal.SIG_IGN)
    sys.exit(0)


def elected(lock: IO[bytes]) -> bool:
    """Become the folder's keeper, unless there is one; then wait a moment, in case it is about to end."""
    for wait_s in (0, 0.1, 0.1):
        time.sleep(wait_s)
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


def prepare(folder: Folder, bin_dir: Path, settings: list[str]) -> Server:
    """Everything before the first start: the log, the account's folder, binaries it can reach, cluster and socket."""
    if folder.log.stat().st_size > LOG_BYTES:
        os.truncate(folder.log, 0)
    account = Account.chosen(folder.cluster)
    if os.geteuid() == 0:  # the account may pass through, and nobody else; it owns `cluster` alone
        os.chown(folder.path, 0, account.gid)
        folder.path.chmod(0o710)
    cluster = house(folder.cluster, account=account)
    bin_dir = reachable(bin_dir, account=account)
    stop_orphan(folder, account=account, bin_dir=bin_dir)
    initialise(folder.data, account=account, bin_dir=bin_dir)
    return Server(folder, account, bin_dir, socket_folder(folder, cluster, account), tuple(settings))


def stop_orphan(folder: Folder, *, account: Account, bin_dir: Path) -> None:
    """Stop a server whose keeper died without taking it along, as can happen where the system is not Linux."""
    if postmaster(folder.data):
        account.run(bin_dir / "pg_ctl", "stop", "-D", folder.data, "-m", "fast", "-t", str(STOP_S))


def socket_folder(folder: Folder, cluster: Path, account: Account) -> Path:
    """A 0700 folder for the socket, whose path must be short: within the cluster, or else a new one in /tmp.

    Its name is recorded in `address` and used again, so that a conninfo stays true when the keeper was killed. A
    keeper that ends in order removes the folder from /tmp.
    """
    inside = cluster / "s"
    if len(os.fsencode(inside)) + len(_SOCKET_NAME) <= SOCKET_PATH_BYTES:
        chosen = account.folder(inside)
    elif (recorded_here := _recorded_address(folder)) and _private(recorded_here, account):
        chosen = recorded_here
    else:
        chosen = Path(tempfile.mkdtemp(prefix="control-", dir="/tmp"))
        if os.geteuid() == 0:
            os.chown(chosen, account.uid, account.gid)
    fresh = folder.address.with_suffix(".new")
    fresh.write_text(str(chosen), encoding="utf-8")
    fresh.rename(folder.address)
    return chosen


def _recorded_address(folder: Folder) -> Path | None:
    return Path(folder.address.read_text(encoding="utf-8")) if folder.address.exists() else None


def _private(path: Path, account: Account) -> bool:
    """Whether `path` is still a folder that only `account` may enter: /tmp is everybody's."""
    try:
        seen = path.lstat()
    except OSError:
        return False
    return seen.st_uid == account.uid and seen.st_mode & 0o170777 == 0o040700


def keep(server: Server, *, idle_s: float) -> int:
    """Run the server until it is idle, its folder is removed, a signal ends us, or it will not start."""
    watch, failures, running = Watch(server.folder), 0, server.start()
    try:
        while failures < ATTEMPTS:
            if ended(running, within_s=min(POLL_S, 0.02 + idle_s / 4)):
                failures = 0 if running.returncode == 0 or watch.ready() else failures + 1
                watch.forget()
                if failures and recorded(server.folder.data) is None:
                    return 1  # a server that leaves no pid file has refused to start, and will again
                time.sleep(min(0.05 * 2**failures, 2) if failures else 0)
                running = server.start()
            elif watch.idle_s() > idle_s:
                with server.folder.gate.open("rb") as gate:
                    fcntl.flock(gate, fcntl.LOCK_EX)
                    if watch.idle_s() > idle_s:
                        watch.forget()
                        stop(running)
                        return 0
        return 1
    finally:
        watch.forget()
        stop(running)
        if server.folder.data.parent not in server.sockets.parents:
            shutil.rmtree(server.sockets, ignore_errors=True)


def ended(running: subprocess.Popen[bytes], *, within_s: float) -> bool:
    with suppress(subprocess.TimeoutExpired):
        running.wait(within_s)
    return running.poll() is not None


def stop(running: subprocess.Popen[bytes]) -> None:
    """Shut down in order, cutting connections; after `STOP_S` at once. Does nothing to a server that has ended."""
    for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if running.poll() is None:
            running.send_signal(how)
            ended(running, within_s=STOP_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
