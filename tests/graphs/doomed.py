"""A worker that kills its own process, for `test_loan_killed`.

It loads the workflow, prints a line, and reads what to do as JSON: `conninfo`, `at` (the commit to die at, from 1; 0 is
never) and `moment` (before or after it). Every checkpoint, every task's writes and the intent and outcome of every
effect reach the database in such a commit, so these are all the places where what is recorded and what happened can
differ. Told to stop, it prints how many commits there were.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

from control.app import opened
from control.runtime.workflows import describe
from control.settings import Settings
from control.store.database import Address
from control.store.flush import Flusher
from graphs.loan_approval import graph


class Doom(Flusher):
    """Counts commits, and kills at the chosen one."""

    at, moment, commits = 0, "", 0

    async def _flush(self, batch: Any) -> None:
        Doom.commits += 1
        mine = Doom.commits
        self._die_if(mine, "before")
        await super()._flush(batch)
        self._die_if(mine, "after")

    def _die_if(self, commit: int, moment: str) -> None:
        if (commit, moment) == (self.at, self.moment):
            os.kill(os.getpid(), signal.SIGKILL)


async def work(conninfo: str) -> None:
    settings = Settings(poll_s=0.05, takeover_poll_s=0.05)
    workflows = {"loan_approval": describe("loan_approval", graph)}
    async with opened(settings, Address.of(conninfo, login=True), workflows) as app:
        app.flusher.__class__ = Doom
        worker = app.worker()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.drain)
        await worker.run()


def main() -> None:
    print("ready", flush=True)
    task = json.loads(sys.stdin.readline())
    Doom.at, Doom.moment = task["at"], task["moment"]
    asyncio.run(work(task["conninfo"]))
    print(Doom.commits, flush=True)


if __name__ == "__main__":
    main()
