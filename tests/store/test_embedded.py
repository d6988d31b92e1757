"""The embedded server against everything that happens to real processes: kills, races, stale files, other users.

Each test names the processes of its own folder through /proc, so nothing else on the machine is looked at or harmed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psycopg
import pytest

from control.core.problem import Refusal
from control.store.cluster import ELSEWHERE, Account, postmaster, recorded
from control.store.embedded import Folder, binaries, ensure, installed_binaries, kept
from control.testing.server import restart, stop

CHECKOUT: Final = Path(__file__).parents[2]
MODULES: Final = os.pathsep.join((str(CHECKOUT), str(Path(psycopg.__file__).parents[1])))
NOBODY: Final = 65534
DEADLINE_S: Final = 15
USER: Final = """
import sys
from pathlib import Path
from control.store.embedded import ensure
print(ensure(Path(sys.argv[1]), idle_s=float(sys.argv[2])), flush=True)
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as a second operating system user")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the process table from /proc")
pytestmark = linux


@pytest.fixture(scope="module")
def ground() -> Iterator[Path]:
    """A folder that every account can pass through, as pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="control-embedded-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def folder(ground: Path) -> Iterator[Path]:
    """One data folder for the tests that leave it usable; making a cluster is what takes the time."""
    yield ground / "shared"
    stop(ground / "shared")


@pytest.fixture
def fresh(ground: Path) -> Iterator[Path]:
    path = ground / f"fresh-{time.monotonic_ns()}"
    yield path
    if path.exists():
        stop(path)
        assert eventually(lambda: not processes(path)), processes(path)


def eventually(condition: Callable[[], object], *, within_s: float = DEADLINE_S) -> bool:
    """Poll until the condition holds; False when it still does not at the deadline."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def processes(path: Path) -> dict[int, str]:
    """Living processes (no zombies) that name this data folder or work in it: keeper, postmaster and backends."""
    cluster, found = Folder(path).cluster.resolve(), {}
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            if int(proc.name) != os.getpid() and (proc / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                command = (proc / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if str(path) in command or cluster in (proc / "cwd").resolve().parents:
                    found[int(proc.name)] = command
        except OSError:
            continue
    return found


def keeper(path: Path) -> int:
    assert eventually(lambda: kept(Folder(path)) and Folder(path).election.read_text().strip())
    return int(Folder(path).election.read_text())


def kill(path: Path, *pids: int) -> None:
    """Kill outright, and wait until the kernel is done with them."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not processes(path).keys() & set(pids))


def ask(conninfo: str, query: str = "select 1") -> object:
    with psycopg.connect(conninfo, connect_timeout=5) as conn:
        row = conn.execute(query.encode()).fetchone()
        return row and row[0]


def change(conninfo: str, statement: str) -> None:
    with psycopg.connect(conninfo, connect_timeout=5) as conn:
        conn.execute(statement.encode())


def user(path: Path, *, idle_s: float = 10) -> subprocess.Popen[str]:
    """A process that makes sure of the server and ends."""
    return subprocess.Popen(
        [sys.executable, "-P", "-c", USER, str(path), str(idle_s)], cwd="/", text=True,
        env={"PYTHONPATH": MODULES}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def as_nobody() -> Callable[..., tuple[str, str]]:
    """Runs Python code with arguments as another user, to its end, and returns what it printed: (output, errors)."""
    account = Account("nobody", NOBODY, NOBODY)
    candidates = (Path(sys.executable), Path(f"/usr/bin/python3.{sys.version_info.minor}"))
    python = next((path for path in candidates if account.reaches(path)), None)
    if python is None or not account.reaches(Path(psycopg.__file__).parent) or not account.reaches(CHECKOUT):
        pytest.skip("another user cannot execute this Python, or cannot read its packages")

    def run(code: str, *args: object) -> tuple[str, str]:
        done = subprocess.run(
            [python, "-P", "-c", code, *map(str, args)], cwd="/", timeout=DEADLINE_S, check=False,
            env={"PYTHONPATH": MODULES, "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True,
            user=NOBODY, group=NOBODY, extra_groups=[],
        )  # fmt: skip
        return done.stdout, done.stderr

    return run


def test_first_start_makes_a_durable_server_that_a_later_call_finds(folder: Path) -> None:
    conninfo = ensure(folder)
    assert ask(conninfo, "show fsync") == "on"
    assert ask(conninfo, "show max_connections") == "200"
    assert ask(conninfo, "show server_encoding") == "UTF8"
    before = processes(folder).keys()
    began = time.monotonic()
    assert ensure(folder) == conninfo
    assert time.monotonic() - began < 0.5
    assert keeper(folder) in before and postmaster(Folder(folder).data) in before


def test_nobody_but_its_owner_enters_the_data_or_the_socket(folder: Path) -> None:
    ensure(folder)
    assert folder.stat().st_mode & 0o777 in (0o700, 0o710)
    assert Folder(folder).cluster.stat().st_mode & 0o777 == 0o700


def test_three_simultaneous_first_starts_share_one_server(fresh: Path) -> None:
    users = [user(fresh) for _ in range(3)]
    said = [one.communicate(timeout=DEADLINE_S) for one in users]
    assert [one.returncode for one in users] == [0, 0, 0], said
    assert len({out for out, _ in said}) == 1
    assert eventually(lambda: sum("control.store.keeper" in command for command in processes(fresh).values()) == 1)
    assert sum("cluster/data" in command for command in processes(fresh).values()) == 1


def test_killed_postmaster_is_replaced_without_anybody_asking(folder: Path) -> None:
    conninfo = ensure(folder)
    change(conninfo, "create table if not exists kept as select 7 as n")
    with psycopg.connect(conninfo):
        before = postmaster(Folder(folder).data)
        assert before
        os.kill(before, signal.SIGKILL)
        assert eventually(lambda: postmaster(Folder(folder).data) not in (None, before))
    assert ask(ensure(folder), "select n from kept") == 7


def test_killed_keeper_takes_its_server_along_and_is_replaced(folder: Path) -> None:
    conninfo = ensure(folder)
    server, before = postmaster(Folder(folder).data), keeper(folder)
    kill(folder, before)
    assert eventually(lambda: server not in processes(folder))
    assert ensure(folder) == conninfo
    assert ask(conninfo) == 1
    assert keeper(folder) != before


def test_keeper_and_server_killed_at_once_are_replaced(folder: Path) -> None:
    ensure(folder)
    server = postmaster(Folder(folder).data)
    assert server
    kill(folder, keeper(folder), server)
    assert ask(ensure(folder)) == 1


@pytest.mark.parametrize(("command", "state"), [(["sleep", "600"], "S"), (["true"], "Z")], ids=["stranger", "zombie"])
def test_pid_file_that_names_another_process_does_not_prevent_a_start(
    folder: Path, command: list[str], state: str
) -> None:
    """Of the server's own account: PostgreSQL ignores by itself what it may not signal."""
    ensure(folder)
    stop(folder)
    data = Folder(folder).data
    owner = data.stat()
    other = subprocess.Popen(command, user=owner.st_uid if os.geteuid() == 0 else None)
    try:
        assert eventually(lambda: Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()[0] == state)
        (data / "postmaster.pid").write_text(f"{other.pid}\n{data}\n1\n5432\n/nowhere\n\n        1        1\nready\n")
        os.chown(data / "postmaster.pid", owner.st_uid, owner.st_gid)
        assert (recorded(data), postmaster(data)) == (other.pid, None)
        assert ask(ensure(folder)) == 1
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_restart_keeps_data_and_cuts_connections(folder: Path, mode: str) -> None:
    conninfo = ensure(folder)
    change(conninfo, f"create table if not exists before_{mode} as select 1")
    with psycopg.connect(conninfo) as conn:
        restart(folder, mode=mode)  # type: ignore[arg-type]  # parametrised over the two literals
        with pytest.raises(psycopg.OperationalError):
            conn.execute("select 1")
    assert ask(conninfo, f"select count(*) from before_{mode}") == 1


def test_killed_user_counts_as_gone_and_nothing_is_left_running(folder: Path) -> None:
    stop(folder)
    ensure(folder, idle_s=0.5)
    hold = "import psycopg, sys, time\nc = psycopg.connect(sys.argv[1]); print('in', flush=True); time.sleep(600)"
    holder = subprocess.Popen([sys.executable, "-c", hold, ensure(folder)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout and holder.stdout.readline() == "in\n"
    keeps = keeper(folder)
    assert not eventually(lambda: keeps not in processes(folder), within_s=1.5), "it stopped under a connected user"
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert eventually(lambda: not processes(folder)), processes(folder)
    assert recorded(Folder(folder).data) is None, "the server was not shut down in order"


def test_removed_folder_takes_its_processes_along(fresh: Path) -> None:
    def removed() -> bool:
        shutil.rmtree(fresh, ignore_errors=True)  # the server removes files of its own meanwhile
        return not fresh.exists()

    ensure(fresh, idle_s=600)
    assert len(processes(fresh)) > 2
    assert eventually(removed)
    assert eventually(lambda: not processes(fresh)), processes(fresh)


def test_call_while_the_server_stops_for_idleness_gets_a_running_one(folder: Path) -> None:
    def stopping() -> bool:
        with Folder(folder).gate.open("rb") as gate:
            try:
                fcntl.flock(gate, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return not kept(Folder(folder))

    stop(folder)
    ensure(folder, idle_s=0.2)
    before = keeper(folder)
    assert eventually(stopping)
    assert ask(ensure(folder)) == 1
    assert keeper(folder) != before


def test_pipe_of_the_starter_closes_and_an_interrupt_of_its_group_spares_the_keeper(folder: Path) -> None:
    stop(folder)
    code = USER + "import signal\nprint('ready', flush=True)\nsignal.pause()"
    starter = subprocess.Popen(
        [sys.executable, "-P", "-c", code, str(folder), "10"], cwd="/", env={"PYTHONPATH": MODULES},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert starter.stdout
    conninfo = starter.stdout.readline().strip()
    assert starter.stdout.readline() == "ready\n"
    os.killpg(starter.pid, signal.SIGINT)
    starter.communicate(timeout=5)  # returns at the end of the output: nobody else holds the pipe open
    assert keeper(folder) in processes(folder)
    assert ask(conninfo) == 1


def open_files(pid: int) -> list[str]:
    """None of a process that has ended: the server's come and go."""
    try:
        return [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    except FileNotFoundError:
        return []


def test_neither_keeper_nor_server_inherits_an_open_file(folder: Path, tmp_path: Path) -> None:
    stop(folder)
    with (tmp_path / "lock").open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        ensure(folder)
        for pid in processes(folder):
            opened = open_files(pid)
            assert not [name for name in opened if name == lock.name]
            assert pid == keeper(folder) or not [name for name in opened if name.endswith("keeper.lock")]


def test_long_path_is_served_by_a_short_private_socket_folder(ground: Path) -> None:
    path = ground / ("long-" + "x" * 120)
    sockets: Path | None = None
    try:
        conninfo = ensure(path)
        assert ask(conninfo) == 1
        sockets = Path(Folder(path).address.read_text())
        assert sockets.stat().st_mode & 0o777 == 0o700
        assert len(str(sockets / ".s.PGSQL.5432")) <= 103
        kill(path, keeper(path))
        assert ensure(path) == conninfo, "users that reconnect would look in the wrong place"
    finally:
        stop(path)
    assert not sockets.exists(), "an orderly end leaves nothing in /tmp"


def test_server_that_refuses_to_start_is_reported_with_its_log(fresh: Path) -> None:
    with pytest.raises(Refusal) as refused:
        ensure(fresh, settings={"max_connections": "plenty"})
    assert refused.value.code == "database-failed-start"
    assert 'invalid value for parameter "max_connections": "plenty"' in str(refused.value)
    assert eventually(lambda: not processes(fresh))
    assert ask(ensure(fresh, settings={"max_connections": "20"}), "show max_connections") == "20"


def test_folder_of_another_major_version_is_reported_with_its_log(folder: Path) -> None:
    try:
        other = installed_binaries()
    except Refusal:
        pytest.skip("no second PostgreSQL is installed")
    ensure(folder)
    stop(folder)
    with pytest.raises(Refusal, match=r"made by PostgreSQL [0-9]+ and cannot be opened by [0-9.]+"):
        ensure(folder, bin_dir=other)


def test_folder_without_binaries_is_refused(fresh: Path, tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        ensure(fresh, bin_dir=tmp_path)
    assert refused.value.code == "database-binaries-missing"


def test_folder_that_holds_something_else_is_refused_and_left_as_it_was(ground: Path) -> None:
    home = ground / "home"
    home.mkdir(mode=0o755)
    (home / "letter").touch()
    with pytest.raises(Refusal, match="holds files that are no database of ours") as refused:
        ensure(home)
    assert refused.value.code == "database-folder-not-yours"
    assert [entry.name for entry in home.iterdir()] == ["letter"]
    assert home.stat().st_mode & 0o777 == 0o755


@as_root
def test_second_user_is_refused_in_words(folder: Path, as_nobody: Callable[..., tuple[str, str]]) -> None:
    ensure(folder)
    out, err = as_nobody(USER, folder, 1)
    assert not out
    assert "The database folder is not yours to use" in err
    assert "Run as its owner" in err


@as_root
def test_second_user_cannot_connect(folder: Path, as_nobody: Callable[..., tuple[str, str]]) -> None:
    ensure(folder)
    connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    path = Path(Folder(folder).address.read_text()) / ".s.PGSQL.5432"
    with socket.socket(socket.AF_UNIX) as ours:
        ours.connect(str(path))
    assert "PermissionError" in as_nobody(connect, path)[1]


@as_root
def test_ordinary_user_runs_a_server_of_its_own(ground: Path, as_nobody: Callable[..., tuple[str, str]]) -> None:
    theirs = ground / "theirs"
    theirs.mkdir(mode=0o755)
    os.chown(theirs, NOBODY, NOBODY)
    out, err = as_nobody(USER, theirs / "data", 0.5)
    assert ask(out.strip()) == 1, err
    assert (theirs / "data" / "cluster" / "data").stat().st_uid == NOBODY
    assert eventually(lambda: not processes(theirs / "data"))
    with pytest.raises(Refusal, match=f"belongs to user {NOBODY}"):
        ensure(theirs / "data")


@as_root
def test_root_below_a_closed_folder_keeps_data_and_binaries_elsewhere(ground: Path) -> None:
    closed = ground / "closed"
    closed.mkdir(mode=0o700)
    package = binaries().parents[1]
    for part in (package, package.with_name(package.name + ".libs")):
        (closed / part.name).symlink_to(part)
    bin_dir = closed / binaries().relative_to(package.parent)
    path = closed / "data"
    before = set(ELSEWHERE.glob("*"))
    try:
        assert ask(ensure(path, bin_dir=bin_dir)) == 1
        assert closed.stat().st_mode & 0o777 == 0o700
        place = Folder(path).cluster.readlink()
        assert place.parent == ELSEWHERE and place.stat().st_mode & 0o777 == 0o700
        stop(path)
        shutil.rmtree(place)
        with pytest.raises(Refusal, match=f"kept in {place}, which is gone"):
            ensure(path, bin_dir=bin_dir)
    finally:
        stop(path)
        for left in set(ELSEWHERE.glob("*")) - before:
            shutil.rmtree(left)
