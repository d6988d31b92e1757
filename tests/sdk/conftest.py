"""A saver in memory with an effect ledger, and worker deaths as exceptions that no rule may catch.

It stands in for the real saver only where the SDK's own order of steps is tested.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from control.sdk import Begun

STRICT = JsonPlusSerializer(allowed_msgpack_modules=None)


class Killed(BaseException):
    """The worker died here."""


@dataclass
class Row:
    name: str
    kind: str
    calls: int = 1
    state: str = "begun"
    stored: tuple[str, bytes] | None = None


@dataclass
class MemoryEffects:
    """`EffectPort` over a dict. `story` lists what was written; `die_at` kills before the nth write (from 1)."""

    loop: asyncio.AbstractEventLoop
    rows: dict[str, Row] = field(default_factory=dict)
    story: list[tuple[Any, ...]] = field(default_factory=list)
    die_at: int | None = None

    async def begin(self, config: Any, *, key: str, name: str, kind: str, again: bool = False) -> Begun:
        assert asyncio.get_running_loop() is self.loop
        full = f"{config['configurable']['thread_id']}/{key}"
        row = self.rows.get(key)
        if row is not None and row.state == "done":
            assert row.stored is not None
            return Begun("done", STRICT.loads_typed(row.stored), full, row.calls)
        if row is not None and row.state == "begun" and not again:
            return Begun("in_flight", None, full, row.calls)
        assert again is (row is not None and row.state == "begun"), "only a call in flight is begun again"
        self._write("began", key, kind, 1 if row is None else row.calls + 1)
        self.rows[key] = Row(name, kind, 1 if row is None else row.calls + 1)
        return Begun("new", None, full, self.rows[key].calls)

    async def end(self, config: Any, *, key: str, state: str, outcome: Any, how: str, error: str | None) -> None:
        assert asyncio.get_running_loop() is self.loop
        self._write("ended", key, state, how, error)
        self.rows[key].state = state
        self.rows[key].stored = STRICT.dumps_typed(outcome)

    def _write(self, *what: Any) -> None:
        if self.die_at is not None and len(self.story) + 1 == self.die_at:
            self.die_at = None
            raise Killed
        self.story.append(what)


class LedgerSaver(InMemorySaver):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(serde=STRICT)
        self.effects = MemoryEffects(loop)


@pytest.fixture
def elsewhere() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own, as a worker's loop is to a synchronous node."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def saver(elsewhere: asyncio.AbstractEventLoop) -> LedgerSaver:
    return LedgerSaver(elsewhere)


@pytest.fixture
def killed() -> type[BaseException]:
    return Killed
