"""The PostgreSQL server that tests run on, and the means to take it away from under them.

By default it is the embedded one; `CONTROL_TEST_POSTGRES=installed` runs the newest server that the operating system's
packages installed, kept by the same code; `CONTROL_TEST_DATABASE_URL` names any other. It listens to a superuser.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import psycopg

from control.core.problem import Refusal
from control.store.cluster import postmaster
from control.store.embedded import Folder, binaries, ensure, installed_binaries, kept

IDLE_S: Final = 20
_BINARIES: Final = {"embedded": binaries, "installed": installed_binaries, "15": installed_binaries}
_SIGNAL: Final = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


def conninfo() -> str:
    """The conninfo of the test server's database `postgres`, the server started at need.

    The embedded server's folder is one per operating system user and kind of binaries, so that parallel test runs
    share it. A kind that is not known raises `ValueError`.
    """
    if url := os.environ.get("CONTROL_TEST_DATABASE_URL"):
        return url
    bin_dir = programs()
    name = "embedded" if _kind() == "embedded" else f"installed-{bin_dir.parent.name}"
    return ensure(Path(tempfile.gettempdir()) / f"control-test-{os.geteuid()}-{name}", bin_dir=bin_dir, idle_s=IDLE_S)


def programs() -> Path:
    """The folder of the test server's own programs (`pg_dump` and the like), which fit its version.

    Raises `database-binaries-missing` where none is installed, `ValueError` for a kind that is not known.
    """
    if _kind() not in _BINARIES:
        raise ValueError(f"CONTROL_TEST_POSTGRES is {_kind()!r}; it is one of {', '.join(_BINARIES)}.")
    return _BINARIES[_kind()]()


def is_missing() -> bool:
    """Whether the operating system's server is asked for, and it has none."""
    try:
        return _kind() != "embedded" and not programs()
    except Refusal:
        return True


def _kind() -> str:
    return os.environ.get("CONTROL_TEST_POSTGRES") or "embedded"


def restart(data_dir: Path, *, mode: Literal["fast", "immediate"], timeout_s: float = 30) -> None:
    """Restart the embedded server of `data_dir` as an operator would; return when the new one accepts connections.

    Both modes cut every connection. `fast` ends with a checkpoint, `immediate` is a crash with recovery after it.
    For a server of the caller's own: others may be using the one that `conninfo` names.
    """
    folder = Folder(data_dir)
    before = postmaster(folder.data)
    assert before is not None, f"no server runs on {data_dir}"
    os.kill(before, _SIGNAL[mode])
    end = time.monotonic() + timeout_s
    while (now := postmaster(folder.data)) in (None, before) or not accepts(folder.conninfo()):
        assert time.monotonic() < end, f"server {before} of {data_dir} was stopped; {now} does not answer"
        time.sleep(0.01)


def stop(data_dir: Path, *, timeout_s: float = 30) -> None:
    """Have the keeper of `data_dir` stop its server, and return when both are gone. Harmless where none runs."""
    folder = Folder(data_dir)
    end = time.monotonic() + timeout_s
    while kept(folder):
        with suppress(ValueError, ProcessLookupError, FileNotFoundError):  # just come, or just gone
            os.kill(int(folder.election.read_text()), signal.SIGTERM)
        assert time.monotonic() < end, f"the keeper of {data_dir} does not stop"
        time.sleep(0.01)


def accepts(address: str) -> bool:
    """Whether a server accepts connections at this conninfo."""
    try:
        psycopg.connect(address, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
