"""Room for what waits: for so many things, of so many bytes in all."""

from __future__ import annotations

import asyncio
from collections import deque


class Room:
    """First come, first in: a heavy thing keeps the light ones behind it waiting, and is not waiting for ever. What is
    heavier than all the room is let in alone. For one event loop.
    """

    def __init__(self, *, things: int, size: int) -> None:
        self._things, self._size = things, size
        self._queue: deque[tuple[asyncio.Future[None], int]] = deque()
        self._inside = self._weight = 0
        self._woken = 0  # were let in, and have not resumed

    @property
    def waiting(self) -> int:
        """How many wait to be let in."""
        return sum(not turn.done() for turn, _ in self._queue)

    async def enter(self, weight: int) -> None:
        """Return once there is room, at once if there is. Each that has entered leaves, with the same weight."""
        if not self._queue and not self._woken and self._fits(weight):
            self._let_in(weight)
            return
        turn = asyncio.get_running_loop().create_future()
        self._queue.append((turn, weight))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._next()
            else:  # it was let in, and never learned of it
                self._woken -= 1
                self.leave(weight)
            raise
        self._woken -= 1
        self._next()  # who came meanwhile queued behind it

    def leave(self, weight: int) -> None:
        self._inside -= 1
        self._weight -= weight
        self._next()

    def _fits(self, weight: int) -> bool:
        return self._inside < self._things and (not self._inside or self._weight + weight <= self._size)

    def _let_in(self, weight: int) -> None:
        self._inside += 1
        self._weight += weight

    def _next(self) -> None:
        while self._queue:
            turn, weight = self._queue[0]
            if not turn.done() and not self._fits(weight):
                return
            self._queue.popleft()
            if not turn.done():
                self._let_in(weight)
                self._woken += 1
                turn.set_result(None)
