"""Processes to be killed, stopped and started again, and none of them left behind.

A `Fleet` forks its members from a server that has imported everything already, so that a new one works within a tenth
of a second and a test can kill one every second on two cores. A member that is killed leaves nothing running: its
sessions end with its sockets. If the test itself dies, each member sees that and ends.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

_LEAVE_S: Final = 60.0

Act = Callable[..., None]
"""What a member does. It is called with a connection to say its name on, and the fleet's arguments."""


@dataclass(eq=False)
class Member:
    """One process. `given`: what it was started with, beside what its whole fleet is."""

    process: Any  # what a multiprocessing context makes has no common public type
    said: Connection
    given: tuple[Any, ...]
    _name: str | None = None

    @property
    def name(self) -> str | None:
        """What it called itself last, before it began; None while it has not. Known after its death as well."""
        with suppress(EOFError):  # it has died: nothing more is said
            while self.said.poll():
                self._name = self.said.recv()
        return self._name

    @property
    def alive(self) -> bool:
        return bool(self.process.is_alive())

    def until_named(self, timeout_s: float = 30) -> str:
        """Wait until it begins."""
        assert self.name or self.said.poll(timeout_s), f"process {self.process.pid} has not begun in {timeout_s:g} s"
        assert self.name is not None
        return self.name

    def kill(self) -> None:
        """SIGKILL: returns once the process is gone."""
        self._signal(signal.SIGKILL)
        self.process.join()

    def stop(self) -> None:
        """SIGSTOP: it lives, holds its sessions and does nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: it goes on as if no time had passed."""
        self._signal(signal.SIGCONT)

    def leave(self) -> None:
        """SIGTERM, once it has begun: it ends in order. Fails if it does not, or ends with an error."""
        self.until_named()
        self._signal(signal.SIGTERM)
        self.process.join(_LEAVE_S)
        assert self.process.exitcode == 0, f"process {self.process.pid} ended with {self.process.exitcode}"

    def _signal(self, number: signal.Signals) -> None:
        if self.alive:
            os.kill(self.process.pid, number)


@dataclass(eq=False)
class Fleet:
    """The members that live, in the order in which they were started. `log` gathers what all of them log."""

    act: Act
    args: Sequence[Any]
    log: Path
    preload: Sequence[str] = ()
    members: list[Member] = field(default_factory=list)

    def start(self, *more: Any) -> Member:
        """One more process; `more` follows the fleet's arguments."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*_PRELOAD, *self.preload])
        said, says = context.Pipe(duplex=False)
        given = {"log": self.log, "args": (*self.args, *more)}
        process = context.Process(target=_live, args=(self.act, says), kwargs=given, daemon=True)
        process.start()
        says.close()
        member = Member(process, said, more)
        self.members.append(member)
        return member

    def remove(self, member: Member) -> None:
        """Kill it for good."""
        member.kill()
        self.members.remove(member)

    def leave(self) -> None:
        """Have all end in order. Fails if one does not."""
        for member in self.members:
            member.resume()
        for member in list(self.members):
            member.leave()
            self.members.remove(member)


@contextmanager
def fleet(act: Act, *args: Any, log: Path, preload: Sequence[str] = ()) -> Iterator[Fleet]:
    """An empty fleet, none of whose members outlives the block."""
    made = Fleet(act, args, log, preload)
    try:
        yield made
    finally:
        for member in list(made.members):
            made.remove(member)


_PRELOAD: Final = ("control.app", "control.testing.faults")


def _live(act: Act, says: Connection, *, log: Path, args: Sequence[Any]) -> None:
    """The whole life of a member. Its process group is its own, so that a terminal's Ctrl-C is the test's alone."""
    os.setpgid(0, 0)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    logging.basicConfig(filename=log, level=logging.WARNING, format="%(process)d %(levelname)s %(name)s %(message)s")
    act(says, *args)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
