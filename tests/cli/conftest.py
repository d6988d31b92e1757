"""The console script in processes of its own, on a real database, with graphs from a file and a worker beside it.

Most commands are forked from a process that has everything imported already (`zygote.py`), since imports would be most
of the time; `cli.fresh` and `cli.process` start the script anew.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from control.settings import Settings, env_name

if TYPE_CHECKING:
    from control.testing.database import Databases

CHECKOUT: Final = Path(__file__).parents[2]
ZYGOTE: Final = Path(__file__).with_name("zygote.py")
TROUPE: Final = Path(__file__).with_name("troupe.py")
DEADLINE_S: Final = 60
_SETTINGS: Final = frozenset(env_name(name) for name in Settings.model_fields)


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def stream(self) -> list[Any]:
        """One JSON document a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def problem(self) -> list[str]:
        """The lines on standard error, with nothing on standard output."""
        assert self.out == "", self.out
        return self.err.splitlines()


class Zygote:
    """See `zygote.py`. One for the test run; it ends when its standard input does."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(ZYGOTE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        )  # fmt: skip

    def run(self, **order: Any) -> int:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


@dataclass
class Cli:
    """`cli("runs", "--json")` runs the console script to its end; `cli.process(...)` leaves it running."""

    folder: Path
    zygote: Zygote
    settings: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, given: str = "", **settings: str) -> Done:
        with tempfile.TemporaryDirectory() as temporary:
            files = {name: Path(temporary) / name for name in ("given", "out", "err")}
            for name, file in files.items():
                file.write_text(given if name == "given" else "", encoding="utf-8")
            code = self.zygote.run(
                arguments=arguments, folder=str(self.folder), environment=self.environment(settings),
                **{name: str(file) for name, file in files.items()},
            )  # fmt: skip
            return Done(code, files["out"].read_text(encoding="utf-8"), files["err"].read_text(encoding="utf-8"))

    def fresh(self, *arguments: str, **settings: str) -> Done:
        """The same, as the shell does it."""
        done = subprocess.run(
            self.command(arguments), cwd=self.folder, env=self.environment(settings), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def process(self, *arguments: str, **settings: str) -> Iterator[Process]:
        """A process that stays; killed when the block ends if it is still there."""
        with tempfile.TemporaryFile("w+", encoding="utf-8") as out:
            child = subprocess.Popen(
                self.command(arguments), cwd=self.folder, env=self.environment(settings), stdout=out,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                yield Process(child, out.fileno())
            finally:
                child.kill()
                child.wait()

    def command(self, arguments: tuple[str, ...]) -> list[str]:
        installed = Path(sys.executable).with_name("control")
        start = [str(installed)] if installed.exists() else [sys.executable, "-m", "control.cli"]
        return [*start, *arguments]

    def environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        """This process's, without its settings: those of the test alone count."""
        kept = {name: value for name, value in os.environ.items() if name not in _SETTINGS}
        return kept | {"PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1", **self.settings, **settings}


@dataclass
class Process:
    child: subprocess.Popen[bytes]
    out: int

    @property
    def text(self) -> str:
        return os.pread(self.out, 10_000_000, 0).decode()

    def wait_for(self, text: str) -> str:
        """Everything it has said, once this is part of it."""
        end = time.monotonic() + DEADLINE_S
        while text not in (said := self.text):
            assert self.child.poll() is None, f"ended with {self.child.returncode}:\n{self.text}"
            assert time.monotonic() < end, f"no {text!r} in:\n{said}"
            time.sleep(0.02)
        return said

    def ends(self) -> int:
        return self.child.wait(DEADLINE_S)


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    zygote = Zygote()
    yield zygote
    zygote.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the graphs of `troupe.py` and a langgraph.json that names them."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "troupe.py").write_text(TROUPE.read_text(encoding="utf-8"), encoding="utf-8")
    names = ("count", "pay", "inquire", "review", "fail", "listen", "slow", "grant")
    graphs = {name: f"./troupe.py:{name}" for name in names}
    (folder / "langgraph.json").write_text(json.dumps({"dependencies": ["."], "graphs": graphs}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def conninfo(databases: Databases) -> Iterator[str]:
    """The superuser's conninfo of the module's database."""
    with databases.cloned() as conninfo:
        yield conninfo


@pytest.fixture(scope="module")
def cli(place: Path, zygote: Zygote, conninfo: str) -> Cli:
    return Cli(place, zygote, {"DATABASE_URL": conninfo, "CONTROL_POLL_S": "0.1", "CONTROL_DRAIN_GRACE_S": "10"})


@pytest.fixture(scope="module")
def worker(cli: Cli) -> Iterator[Process]:
    """One `control worker` for the module."""
    with cli.process("worker") as process:
        process.wait_for("is at work on")
        yield process
