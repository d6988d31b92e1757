"""Worker processes that a test may kill, stop and continue.

Run as a program it is a nursery: it imports everything once, then forks a worker for each line it reads, so that a
process costs a few milliseconds instead of an import. A worker announces itself in the nursery's answer, drains at
SIGTERM, and ends with the nursery.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

PACE: dict[str, Any] = {"poll_s": 0.1, "takeover_poll_s": 0.1}


@dataclass
class Troupe:
    """The test's side. `hire` starts a worker on a database; `dismiss` kills all that are left."""

    conninfo: str
    nursery: subprocess.Popen[str]
    hired: dict[int, UUID] = field(default_factory=dict)

    def hire(self, *graphs: str, **settings: Any) -> int:
        """The process id of a new worker that holds these graphs of `scenes` ("name=other" renames) and works."""
        assert self.nursery.stdin and self.nursery.stdout
        job = {"conninfo": self.conninfo, "graphs": graphs, "settings": PACE | settings}
        self.nursery.stdin.write(json.dumps(job) + "\n")
        self.nursery.stdin.flush()
        said = json.loads(self.nursery.stdout.readline())
        assert "worker" in said, said
        self.hired[said["pid"]] = UUID(said["worker"])
        return int(said["pid"])

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    def dismiss(self) -> None:
        for pid in self.hired:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def until_gone(self, pid: int, timeout_s: float = 10) -> None:
        deadline = time.monotonic() + timeout_s
        while alive(pid):
            assert time.monotonic() < deadline, f"process {pid} is still there"
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def open_nursery() -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.runtime.troupe"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the dead
    for name in ("control.testing.stage", "tests.runtime.scenes"):
        importlib.import_module(name)  # before the first fork

    for request in sys.stdin:
        read, write = os.pipe()
        if os.fork() == 0:
            os.close(read)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _perform(json.loads(request), write)
        os.close(write)
        with os.fdopen(read) as answer:
            print(answer.readline().strip() or '{"error": "the worker died before it worked"}', flush=True)


def _perform(job: dict[str, Any], announce: int) -> None:
    code = 1
    try:
        asyncio.run(_work(job, announce))
        code = 0
    finally:
        os._exit(code)


async def _work(job: dict[str, Any], announce: int) -> None:
    from control.testing.stage import staged
    from tests.runtime.scenes import GRAPHS

    async with staged(job["conninfo"], dict(_named(job["graphs"], GRAPHS)), work=False, **job["settings"]) as stage:
        worker = stage.app.worker()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.drain)
        working = asyncio.create_task(worker.run())
        swept = asyncio.create_task(worker.swept.wait())  # the first sweep comes once the session is held
        await asyncio.wait([working, swept], return_when=asyncio.FIRST_COMPLETED)
        os.write(announce, (json.dumps({"pid": os.getpid(), "worker": str(worker.worker_id)}) + "\n").encode())
        os.close(announce)
        await working


def _named(names: Iterable[str], known: Any) -> Iterable[tuple[str, Any]]:
    for name in names:
        shown, _, of = name.partition("=")
        yield shown, known[of or shown]()


if __name__ == "__main__":
    main()
