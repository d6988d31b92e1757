"""The processes of the demonstration: services, workers and commands. None outlives it, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Final

from control import app
from control import settings as configuration
from control.settings import Settings
from control.store import embedded
from graphs.services.launch import loan_services

ROOT: Final = Path(__file__).parents[2]
RISK_FAILURES: Final = 2
MODEL_THINKS_S: Final = 1.5
_DRAIN_S: Final = 10
_TAIL: Final = 600


class Fault(Exception):
    """The demonstration cannot go on; the message says what went wrong."""


class Crew:
    """Starts processes in sessions of their own, so that Ctrl-C reaches the demonstration alone."""

    def __init__(self, settings: Settings, environment: dict[str, str], folder: Path) -> None:
        self.settings = settings
        self.environment = environment
        self.model_log = folder / "model.jsonl"
        self._folder = folder
        self._workers: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def scripted(self) -> bool:
        """Whether the chat model is a script."""
        return not self.environment.get("OPENAI_API_KEY")

    def hire(self) -> int:
        """Start `control worker`; its process id. What it logs goes to a file."""
        with (self._folder / f"worker-{len(self._workers)}.log").open("wb") as log:
            worker = self._start("worker", stdout=log, stderr=subprocess.STDOUT)
        self._workers[worker.pid] = worker
        return worker.pid

    @property
    def working(self) -> list[int]:
        """The process ids of the workers. Raises `Fault` where one ended that nobody killed."""
        ended = [pid for pid, worker in self._workers.items() if worker.poll() not in (None, -signal.SIGKILL)]
        if ended:
            log = self._folder / f"worker-{list(self._workers).index(ended[0])}.log"
            raise Fault(f"Worker {ended[0]} ended by itself:\n{log.read_text(encoding='utf-8')[-_TAIL:]}")
        return [pid for pid, worker in self._workers.items() if worker.returncode is None]

    def kill(self, pid: int) -> int:
        """SIGKILL a worker and wait until it is gone; returns its exit code, which names the signal."""
        self._workers[pid].send_signal(signal.SIGKILL)
        return self._workers[pid].wait()

    def control(self, *command: str, by: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command of `control` to its end."""
        given = [*(["--by", by] if by else []), *command]
        with self._start(*given, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                out, err = process.communicate()
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(given, process.returncode, out.decode(), err.decode())

    def dismiss(self) -> None:
        """Let the workers drain, and kill what has not ended then."""
        alive = [worker for worker in self._workers.values() if worker.poll() is None]
        for worker in alive:
            worker.terminate()
        for worker in alive:
            try:
                worker.wait(_DRAIN_S)
            except (subprocess.TimeoutExpired, KeyboardInterrupt, SystemExit):  # or whoever waits has lost patience
                worker.kill()
                worker.wait()

    def _start(self, *command: str, stdout: int | IO[bytes], stderr: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "control.cli", *command], cwd=ROOT, env=self.environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
        )  # fmt: skip


@contextmanager
def crew() -> Iterator[Crew]:
    """The database and the services at work, and a crew without workers. Stops whatever it started."""
    with ExitStack() as stack:
        settings = _settings(stack)
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="loan-demo-")))
        with ThreadPoolExecutor(1) as beside:  # the database starts while the services do
            database = beside.submit(app.address, settings)
            services = stack.enter_context(loan_services(folder, risk_failures=RISK_FAILURES))
            database.result()
        made = Crew(settings, {**os.environ, **services}, folder)
        made.environment |= {
            "SCRIPTED_MODEL_LOG": str(made.model_log), "SCRIPTED_MODEL_DELAY_S": str(MODEL_THINKS_S),
        }  # fmt: skip
        stack.callback(made.dismiss)
        yield made


def _settings(stack: ExitStack) -> Settings:
    """The user's own settings, except for the database: killing workers is not for one that others use."""
    around = embedded.claim(Path(os.environ.get("CONTROL_DATA_DIR") or ROOT / ".control").absolute())
    lock = stack.enter_context((around.path / "demo.lock").open("w"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Fault(f"Another demonstration runs on {around.path / 'demo'}; wait until it has ended.") from None
    os.environ |= {
        "DATABASE_URL": "", "DATABASE_DIRECT_URL": "", "CONTROL_TENANT": "demo",
        "CONTROL_DATA_DIR": str(around.path / "demo"), "CONTROL_CONFIG": str(ROOT / "langgraph.json"),
    }  # fmt: skip
    with contextlib.chdir(ROOT):
        return configuration.read()
