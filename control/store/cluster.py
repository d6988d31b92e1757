"""A PostgreSQL cluster on this machine's disk: which account runs it, from which binaries, and how it is launched.

PostgreSQL refuses to run as root. Started by root it therefore runs as the existing account `postgres`, or else
`nobody`; no account is made and no mode of a folder that is not ours is changed. What that account cannot reach,
because it lies below a 0700 folder such as /root, is put where it can: the binaries are copied, and the cluster is made
in `ELSEWHERE` with a link to it.
"""

from __future__ import annotations

import ctypes
import locale
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, TypeVar

SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "",  # the socket's folder is 0700, and that is the whole access control
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "log_min_messages": "log",  # an application's own errors are its own to report
    "log_checkpoints": "off",
}
ELSEWHERE: Final = Path("/var/lib/langgraph-control")
_PR_SET_PDEATHSIG: Final = 1
_PASSED_ON: Final = ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "TZ")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Account:
    """The operating system account that the server runs as."""

    name: str
    uid: int
    gid: int

    @classmethod
    def chosen(cls, cluster: Path) -> Account:
        """Ourselves; for root the owner of `cluster`, or `postgres` or `nobody` if it is not there yet.

        Raises `LookupError` if root's machine has neither.
        """
        if os.geteuid() != 0:
            return cls(str(os.geteuid()), os.geteuid(), os.getegid())
        if cluster.exists() and (owner := cluster.stat()).st_uid != 0:  # root's own is one that a kill left half made
            return cls(str(owner.st_uid), owner.st_uid, owner.st_gid)
        known = {entry.pw_name: entry for entry in pwd.getpwall()}
        for name in ("postgres", "nobody"):
            if entry := known.get(name):
                return cls(name, entry.pw_uid, entry.pw_gid)
        raise LookupError("PostgreSQL does not run as root, and there is no account `postgres` or `nobody` here.")

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command to its end as this account, its output captured."""
        return subprocess.run(
            command, cwd="/", env=environment(), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
            user=_if_root(self.uid), group=_if_root(self.gid), extra_groups=_if_root([]),
        )  # fmt: skip

    def start(
        self, command: Sequence[str | Path], *, log: IO[bytes], env: Mapping[str, str], first: Callable[[], None]
    ) -> subprocess.Popen[bytes]:
        """Start a command as this account in a session of its own; `first` runs in the child before it."""
        return subprocess.Popen(
            command, cwd="/", env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            preexec_fn=first,
            user=_if_root(self.uid), group=_if_root(self.gid), extra_groups=_if_root([]),
        )  # fmt: skip

    def reaches(self, path: Path) -> bool:
        """Whether this account may enter `path` (a folder) or execute it (a file)."""
        return self.run("test", "-x", path).returncode == 0

    def folder(self, path: Path) -> Path:
        """Make `path` a 0700 folder of this account, if it is not that yet."""
        path.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid)
        return path


def _if_root(value: T) -> T | None:
    return value if os.geteuid() == 0 else None


def environment() -> dict[str, str]:
    """The little that a server needs of ours: none of our secrets, nothing that steers PostgreSQL (`PGDATA`, ...)."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | {"LC_ALL": _utf8()}


def _utf8() -> str:
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        return locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    except locale.Error:
        return "C"
    finally:
        locale.setlocale(locale.LC_CTYPE, before)


def house(cluster: Path, *, account: Account) -> Path:
    """Make the folder of the cluster, or find it, and return its real path, which `account` can reach.

    Raises `LookupError` if it cannot, or if the link to a cluster elsewhere leads nowhere: the data were lost, and an
    empty database would hide that.
    """
    if cluster.is_symlink() and not cluster.exists():
        raise LookupError(f"The database of this folder was kept in {cluster.readlink()}, which is gone.")
    if not cluster.exists() and not account.reaches(cluster.parent):
        place = _elsewhere()
        os.chown(place, account.uid, account.gid)
        cluster.symlink_to(place)
        print(
            f"Account {account.name} cannot enter {cluster.parent}; the database is kept in {place}.", file=sys.stderr
        )
    real = account.folder(cluster.resolve())
    if not account.reaches(real):
        raise LookupError(f"Account {account.name} cannot enter {real}: it, or a folder above it, is closed to it.")
    return real


def reachable(bin_dir: Path, *, account: Account) -> Path:
    """`bin_dir`, or a copy of its installation where `account` cannot execute the original. Only root makes copies."""
    if os.geteuid() != 0 or account.reaches(bin_dir / "postgres"):
        return bin_dir
    install, package = bin_dir.parent, bin_dir.parent.parent
    copy = ELSEWHERE / f"postgres-{version(bin_dir)}"
    if not copy.exists():
        half = _elsewhere()
        _copy(install, half / package.name / install.name)
        libraries = package.with_name(package.name + ".libs")  # where a wheel's tools look for them, relatively
        if libraries.is_dir():
            _copy(libraries, half / libraries.name)
        _open(half)
        try:
            half.rename(copy)
        except OSError:  # another folder's keeper was quicker
            shutil.rmtree(half)
    return copy / package.name / install.name / bin_dir.name


def _copy(source: Path, to: Path) -> None:
    shutil.copytree(source, to, symlinks=True, ignore=shutil.ignore_patterns("include", "pkgconfig", "*.a"))


def _open(top: Path) -> None:
    """Let every account read what lies in `top`, and execute what its owner may."""
    for path in (top, *top.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def _elsewhere() -> Path:
    """A new 0700 folder in `ELSEWHERE`, which every account can pass through."""
    ELSEWHERE.mkdir(mode=0o711, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=ELSEWHERE))


def version(bin_dir: Path) -> str:
    """The version of these binaries, such as "18.4"."""
    said = subprocess.run([bin_dir / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+[.\w]*", said)
    assert found, f"{bin_dir / 'postgres'} says {said!r}"
    return found.group()


def initialise(data: Path, *, account: Account, bin_dir: Path) -> None:
    """Make the cluster unless it exists. It is made aside and renamed, so that a kill never leaves half of one.

    Raises `LookupError` if it was made by another major version, and `RuntimeError` with what `initdb` said.
    """
    if (data / "PG_VERSION").exists():
        made_by, ours = (data / "PG_VERSION").read_text().strip(), version(bin_dir)
        if made_by != ours.partition(".")[0]:
            raise LookupError(f"The database was made by PostgreSQL {made_by} and cannot be opened by {ours}.")
        return
    half = data.with_name(data.name + ".new")
    shutil.rmtree(half, ignore_errors=True)
    made = account.run(
        bin_dir / "initdb", "-D", half, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--no-instructions"
    )
    if made.returncode:
        raise RuntimeError(f"initdb failed: {made.stdout}{made.stderr}")
    half.rename(data)


def launch(
    data: Path, *, account: Account, bin_dir: Path, sockets: Path, settings: Sequence[str], log: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start the postmaster as a direct child that shuts down when we die, even of a kill -9 (on Linux)."""
    every = [f"{name}={value}" for name, value in SETTINGS.items()] + list(settings)
    options = [part for setting in every for part in ("-c", setting)]
    return account.start(
        [bin_dir / "postgres", "-D", data, "-k", sockets, *options],
        log=log, env=environment() | _overruling_stale_pid(data), first=_dies_with(os.getpid()),
    )  # fmt: skip


def postmaster(data: Path) -> int | None:
    """The process id of the postmaster that really runs on `data`, whatever a stale `postmaster.pid` says."""
    pid = recorded(data)
    return pid if pid is not None and _serves(pid, data) else None


def recorded(data: Path) -> int | None:
    """The process id in `postmaster.pid`, dead, alive or somebody else's by now."""
    try:
        return int((data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return None


def _serves(pid: int, data: Path) -> bool:
    """Whether `pid` is alive and works in `data`, as a postmaster does and no stranger. A zombie works nowhere."""
    try:
        os.kill(pid, 0)
        if not sys.platform.startswith("linux"):
            return True
        return Path(f"/proc/{pid}/cwd").samefile(data)
    except OSError:
        return False


def _overruling_stale_pid(data: Path) -> dict[str, str]:
    """The environment in which PostgreSQL starts although `postmaster.pid` names a zombie or a foreign process.

    PostgreSQL takes any live process of that number for its own earlier self, and containers reuse low numbers. It
    exempts the one that PG_GRANDPARENT_PID names. The file itself must stay: it leads PostgreSQL to orphaned backends.
    """
    pid = recorded(data)
    return {} if pid is None or _serves(pid, data) else {"PG_GRANDPARENT_PID": str(pid)}


def _dies_with(parent: int) -> Callable[[], None]:
    def first() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if sys.platform.startswith("linux"):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)

    return first
