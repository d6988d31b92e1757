"""An installation that the state machine's examples share: a database, commands, and two worker processes.

Runs are waited for by the word that lists are searched by, all at once, since to derive each one's status would take
longer than what is tested.
"""

from __future__ import annotations

import asyncio
import itertools
import traceback
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, LiteralString
from uuid import UUID

import psycopg

from control.runtime.commands import Control
from control.testing.faults import Fleet, fleet
from control.testing.stage import Stage, staged
from tests.decisions import crew
from tests.decisions.outside import Outside
from tests.decisions.world import PEOPLE, World


@dataclass
class Site:
    """An installation that all examples share, each with runs of its own."""

    conninfo: str
    folder: Path
    workers: Fleet
    loop: asyncio.AbstractEventLoop
    world: World
    stage: Stage
    watch: psycopg.AsyncConnection[Any]
    numbers: Iterator[int] = field(default_factory=itertools.count)
    words: dict[UUID, str] = field(default_factory=dict)
    watched: dict[UUID, object] = field(default_factory=dict)

    def do(self, what: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(what)

    def acting(self, who: str) -> Control:
        return self.stage.acting(*PEOPLE[who], id=who)

    def together(self, *acts: Coroutine[Any, Any, Any]) -> None:
        """All of them at once, and the workers that are killed meanwhile replaced."""
        self.do(self._together(acts))

    async def _together(self, acts: tuple[Coroutine[Any, Any, Any], ...]) -> None:
        looking = asyncio.create_task(self._poll_words())
        try:
            async with asyncio.TaskGroup() as group:  # what one of them finds wrong ends the others
                for act in acts:
                    group.create_task(act)
        except ExceptionGroup:  # Hypothesis tries again before it tells, and finds a database that has gone on
            traceback.print_exc()
            raise
        finally:
            looking.cancel()

    async def _poll_words(self) -> None:
        """Read the words of all runs that are waited for; what was asked before a wait began does not end it."""
        while True:
            if before := dict(self.watched):
                crew.refill(self.workers)
                rows = await (await self.watch.execute(_WORDS, (list(before),))).fetchall()
                self.words |= {run_id: word for run_id, word in rows if self.watched.get(run_id) is before[run_id]}
            await asyncio.sleep(0.01)

    async def until(self, run_id: UUID, *words: str) -> None:
        """Wait until the run's indexed word is one of these."""
        deadline = self.loop.time() + 60
        self.words.pop(run_id, None)
        self.watched[run_id] = object()
        try:
            while self.words.get(run_id) not in words:
                assert self.loop.time() < deadline, (run_id, self.words.get(run_id), await self.stage.status(run_id))
                await asyncio.sleep(0.01)
        finally:
            self.watched.pop(run_id)

    async def clock(self) -> datetime:
        found: datetime = await self._read("select control.clock()")
        return found

    async def price(self, fact: str) -> int:
        """As it is outside: where a worker was killed while it moved, nobody knows but the database."""
        return int(await self._read("select value from control.fact where name = %s", fact))

    async def _read(self, query: LiteralString, *given: Any) -> Any:
        row = await (await self.watch.execute(query, given)).fetchone()
        assert row is not None
        return row[0]


_WORDS: Final = "select run_id, status from control.run where run_id = any(%s)"


@contextmanager
def raised(conninfo: str, folder: Path) -> Iterator[Site]:
    """The site on this database, its workers at work."""
    world = World(Outside(folder))
    graphs = crew.Graphs(world.outside).compiled()
    with asyncio.Runner() as runner, fleet(
        crew.serve, conninfo, folder, log=folder / "log", preload=["tests.decisions.crew"]
    ) as workers:  # fmt: skip
        loop, stack = runner.get_loop(), AsyncExitStack()

        async def enter() -> tuple[Stage, psycopg.AsyncConnection[Any]]:
            given = {**crew.SETTINGS, "audit_dir": folder / "audit"}
            stage = await stack.enter_async_context(staged(conninfo, graphs, work=False, **given))
            watch = await psycopg.AsyncConnection.connect(conninfo, autocommit=True)
            return stage, await stack.enter_async_context(watch)

        stage, watch = loop.run_until_complete(enter())
        crew.refill(workers)
        try:
            yield Site(conninfo, folder, workers, loop, world, stage, watch)
        finally:
            workers.leave()
            loop.run_until_complete(stack.aclose())
