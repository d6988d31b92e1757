"""Group commit: what many runs have to write shares one statement and one fsync.

While one flush is in flight the next one gathers; a write returns when *its* flush has committed. Writes of one run
commit in the order they were made, because there is one flush at a time.

- A write under a lost claim changes nothing and raises `claim-lost`; its neighbours are written.
- A run whose row is locked by a command waits for the next flush; so do its later writes.
- A value that the database refuses fails only the run that brought it: the batch is split and tried again run by run,
  and that run's items one by one, up to the one that is refused.
- A lost connection is repeated with the same flush number, which the runs remember, so nothing is written twice. If it
  is lost again, the runs are tried one by one. A run whose write costs connection after connection, each of which had
  just answered and fell without a farewell, fails alone and soon: nobody waits for it until the patience is over.
  Where the server says why (it is restarted, or another of its processes crashed), no write is to blame.
- A flush is bounded, by items and by bytes, so that one run's large state holds its neighbours up only shortly.
- The queue is bounded, by items and by bytes: beyond its limits writers wait, and with them the graphs that produce
  the writes.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg

from control.core.problem import Problem
from control.store.commit import Untold, commit
from control.store.database import TENANTS
from control.store.errors import DATABASE_AWAY, NOT_STORABLE, farewell, lost, misled, refusal, silent, told
from control.store.item import Batch, Fence, Item
from control.store.room import Room

CLAIM_LOST: Final = Problem(
    code="claim-lost",
    status=409,
    title="This worker no longer holds the run",
    next_step="Stop and discard the result; a newer attempt owns the run.",
)
RUN_MOVED: Final = Problem(
    code="run-moved",
    status=409,
    title="The run changed while this was being decided",
    next_step="Read its facts again and decide again.",
)
WRITE_DEADLY: Final = Problem(
    code="write-deadly",
    status=422,
    title="No connection survives this write",
    next_step="See the server's log of that moment (memory, an extension, a proxy's limit); then retry the run.",
)
_RETRY_S: Final = (0.02, 0.05, 0.1, 0.2, 0.4)  # then the last one again, until the patience ends
_LINGER_S: Final = 0.02  # how long a write in no hurry waits for company
_FEW: Final = 6  # runs that share a flush however few there are: to halve them would cost more than it wins
_TOGETHER: Final = 1  # tries that may be lost before the batch's runs are tried one by one
_DEADLY: Final = 5  # connections that answered, and fell in silence over the same run alone
_HEAVY: Final = 4_000_000  # bytes: a flush takes no more, unless a single write is heavier than that
_BUSY_S: Final = 0.005  # before a flush that found every one of its runs locked is tried again
_log: Final = logging.getLogger(__name__)

Connect = Callable[[], Awaitable[psycopg.AsyncConnection[Any]]]


@dataclass(slots=True)
class _Flight:
    """The tries to write one batch, whole or run by run. All bear one number, which the runs remember, and share one
    patience. `lost` of them may have been committed, or be at work on the server still. `blamed`: how often a run
    alone has cost a connection that had just answered, and fell without a farewell.
    """

    number: int
    deadline: float
    tries: int = 0
    lost: int = 0
    blamed: Counter[Fence] = field(default_factory=Counter)

    def deadly(self, batch: Batch) -> bool:
        """Whether it is this run's write that costs the connections."""
        if len(batch.groups) > 1:
            return False
        [fence] = batch.groups
        self.blamed[fence] += 1
        return self.blamed[fence] >= _DEADLY


class Flusher:
    """The one writer of a process. Used from one event loop, between `start` and `stop`.

    connect: opens a direct connection as the flush role. patience_s: how long a lost database is tried again before
    the writes that wait for it fail with `database-away`.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        batch_limit: int = 200,
        queue_limit: int = 1000,
        queue_bytes: int = 64_000_000,
        patience_s: float = 30.0,
    ) -> None:
        self._connect, self._patience_s = connect, patience_s
        self._batch_limit = batch_limit
        self._room = Room(things=queue_limit, size=queue_bytes)
        self._queue: deque[Item] = deque()
        self._filled, self._drained = asyncio.Event(), asyncio.Event()
        self._drained.set()
        self._conn: psycopg.AsyncConnection[Any] | None = None
        self._tenants: list[str] | None = None
        self._warned = False  # by the server, that it ends the connection
        self._task: asyncio.Task[None] | None = None
        self._locked: set[Fence] = set()
        self._written: set[Fence] = set()  # by the last flush
        self._lingering: asyncio.TimerHandle | None = None
        self._numbers = itertools.count(1)
        self.flushes = 0

    async def start(self) -> None:
        """Connect and begin. Raises `database-away`."""
        try:
            await self._open()
        except psycopg.Error as error:
            raise refusal(error) or error from error
        self._task = asyncio.create_task(self._run(), name="flusher")

    async def stop(self) -> None:
        """Write what is queued, then close."""
        await self._drained.wait()
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._conn:
            await self._conn.close()

    async def write(self, item: Item) -> int:
        """Queue the item and wait for its commit; returns the run's version. FIFO per run.

        Raises `claim-lost`, `run-moved` (endings only), `value-not-storable`, `write-deadly`, `database-away`.
        """
        await self.enqueue(item)
        return await item.written

    async def enqueue(self, item: Item, *, linger: bool = False) -> None:
        """Queue the item; `item.written` tells what became of it. Waits only while the queue is full.

        With `linger` the item is in no hurry: it goes with the next flush, which comes in a moment even if no other
        write asks for one.
        """
        item.weighs = item.weight()
        await self._room.enter(item.weighs)
        if refused := _refused(item.rests_on):  # they were queued before it, and would have taken it along
            self._fail([item], refused)
            return
        self._queue.append(item)
        self._drained.clear()
        if linger:
            item.lingers = True
            self._linger()
        else:
            self._filled.set()

    def _linger(self) -> None:
        if self._lingering is None:
            self._lingering = asyncio.get_running_loop().call_later(_LINGER_S, self._lingered)

    def _lingered(self) -> None:
        self._lingering = None
        self._filled.set()

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            await asyncio.sleep(0)  # the rest of this step's writes are a turn of the loop away
            if batch := self._take():
                try:
                    await self._flush(batch)
                except Exception as error:  # a fault of ours: a flusher that ended would leave its writers waiting
                    _log.exception("a flush failed")
                    self._fail([item for item in batch if not item.written.done()], error)
            else:
                await asyncio.sleep(_BUSY_S)  # all that is queued waits for locks
            self._rest()

    def _rest(self) -> None:
        """Go on at once only if something in the queue is in a hurry."""
        if not all(item.lingers for item in self._queue):
            return
        self._filled.clear()
        if self._queue:
            self._linger()
        else:
            self._drained.set()

    def _take(self) -> list[Item]:
        """The oldest items, but none of a run that was found locked a moment ago: its neighbours go first.

        Of the runs that write, half at most: else all of them wait for one flush, and then the database waits for all
        of them. With halves one half computes while the other commits.
        """
        waiting = {item.fence for item in self._queue}
        share = max(_FEW, (len(waiting | self._written) + 1) // 2)
        fences: set[Fence] = set()
        taken: list[Item] = []
        left: deque[Item] = deque()
        weight, full = 0, False  # once it is, nothing follows: no write overtakes another of its run
        for item in self._queue:
            fence = item.fence
            joins, fits = fence in fences, len(fences) < share and fence not in self._locked
            may_go = not full and (not item.alone if joins else fits)
            if may_go:
                weight += item.weighs
                full = bool(taken) and (len(taken) == self._batch_limit or weight > _HEAVY)
            if may_go and not full:
                fences.add(fence)
                taken.append(item)
            else:
                left.append(item)
        self._queue, self._locked, self._written = left, set(), fences
        if self._lingering and not left:  # who comes next has the whole time again
            self._lingering.cancel()
            self._lingering = None
        return taken

    async def _flush(self, items: list[Item]) -> None:
        """Write the items, through lost connections, and tell each writer what became of its own."""
        flight = _Flight(next(self._numbers), asyncio.get_running_loop().time() + self._patience_s)
        parts = [items]
        while parts := await self._try_each(parts, flight):
            await asyncio.sleep(_RETRY_S[min(flight.tries, len(_RETRY_S) - 1)])
            flight.tries += 1

    async def _try_each(self, parts: Sequence[list[Item]], flight: _Flight) -> list[list[Item]]:
        """Try each part once. Returns those to be tried again: none, once the patience is over."""
        late, again = asyncio.get_running_loop().time() > flight.deadline, list[list[Item]]()
        for place, part in enumerate(parts):
            try:
                conn = await self._connection()
            except Exception as error:  # the other parts would not fare better
                again += parts[place:]
                if _lost(error) and not late:
                    return again
                self._fail([item for part in again for item in part], self._told(error))
                return []
            again += await self._try(conn, part, flight=flight, late=late)
        return again

    async def _try(
        self, conn: psycopg.AsyncConnection[Any], items: list[Item], *, flight: _Flight, late: bool
    ) -> list[list[Item]]:
        """Write these in one transaction. Returns what must be tried again, as it is to be tried."""
        batch, answered = Batch.of(items), False
        try:
            answered = await self._speak_for(conn, batch.tenants())
            verdicts = await self._commit(conn, batch, flight.number)
        except Exception as error:  # whatever it is, these items brought it: the flusher itself must not end
            self._tenants = None  # a refused statement takes the setting back with it
            if not _lost(error):
                return await self._isolate(batch, error, flight)
            # A server that gives a reason blames nobody: it takes no writes, restarts, or a neighbour crashed it.
            costly = answered and conn.broken and silent(error) and not self._warned
            if misled(error):
                await conn.close()
            flight.lost += 1
            _log.warning("flush %s lost a try: %s", flight.number, told(error))
            if costly and flight.deadly(batch):
                self._fail(
                    items, WRITE_DEADLY.because(f"It cost {_DEADLY} connections that had just answered: {told(error)}.")
                )
                return []
            if not late:
                return [items] if flight.lost <= _TOGETHER else list(batch.groups.values())
            self._fail(items, DATABASE_AWAY.because(f"Every try was lost for {self._patience_s:g} s: {told(error)}."))
            return []
        unsure = self._settle(items, verdicts, lost=flight.lost > 0)
        if unsure and late:
            self._fail(
                unsure, DATABASE_AWAY.because("It was lost during this write, and does not say what became of it.")
            )
            return []
        return [unsure] if unsure else []

    async def _isolate(self, batch: Batch, error: Exception, flight: _Flight) -> list[list[Item]]:
        """A value was refused, and with it the whole statement: find it by writing each run alone, then each item.

        Of one run's items each becomes a flush of its own, which has another number. Where a try was lost, that could
        write them twice; there they are refused together.
        """
        groups = list(batch.groups.values())
        if len(groups) > 1:
            return await self._try_each(groups, flight)
        [items] = groups
        if len(items) == 1 or flight.lost:
            self._fail(items, self._told(error))
        else:
            for item in items:
                item.alone, item.lingers = True, False
            self._queue.extendleft(reversed(items))
        return []

    def _settle(self, items: list[Item], verdicts: Mapping[Any, tuple[str, int | None]], *, lost: bool) -> list[Item]:
        """Tell each writer what became of its item; those of busy runs wait for the next flush.

        Where a try was lost, it may be what keeps a run busy. As new items its writes might be written twice: they are
        returned, to be asked for again under the same number.
        """
        busy: list[Item] = []
        unsure: list[Item] = []
        for item in items:
            verdict, version = verdicts[item.fence]
            match verdict:
                case "written":
                    self._done(item, version)
                case "busy":
                    (unsure if lost else busy).append(item)
                case "moved" if item.ending is None:
                    busy.append(item)  # only the ending was decided on facts that moved; this goes without it
                case "moved":
                    self._fail([item], RUN_MOVED.because("A command came between."))
                case _:
                    epoch = f"Epoch {item.fence.epoch} was replaced or ended."
                    self._fail([item], CLAIM_LOST.because(epoch, run=str(item.fence.run_id)))
        self._queue.extendleft(reversed(busy))
        self._locked |= {item.fence for item in busy}
        return unsure

    def _told(self, error: Exception) -> Exception:
        """What a writer is told of an error: a refusal, or the error itself where it is a bug of ours."""
        if _lost(error):
            return DATABASE_AWAY.because(f"It has been away for {self._patience_s:g} s: {told(error)}.")
        if isinstance(error, TypeError | ValueError):  # text that is not UTF-8, or what JSON cannot say
            return NOT_STORABLE.because(f"{error}.")
        return refusal(error) or error

    def _done(self, item: Item, version: int | None) -> None:
        self._room.leave(item.weighs)
        if not item.written.done():
            item.written.set_result(version or 0)

    def _fail(self, items: list[Item], error: Exception) -> None:
        """Refuse these writes, and what their runs have queued behind them: it rests on them."""
        fences = {item.fence for item in items}
        behind = [item for item in self._queue if item.fence in fences]
        self._queue = deque(item for item in self._queue if item.fence not in fences)
        for item in (*items, *behind):
            self._room.leave(item.weighs)
            if not item.written.done():
                item.written.set_exception(error)
                item.written.exception()  # a writer that did not wait is told by its next write

    async def _connection(self) -> psycopg.AsyncConnection[Any]:
        if self._conn is None or self._conn.broken or self._conn.closed:
            return await self._open()
        return self._conn

    async def _open(self) -> psycopg.AsyncConnection[Any]:
        self._tenants = None
        self._conn = conn = await self._connect()
        self._warned = False
        conn.add_notice_handler(self._hear)
        return conn

    def _hear(self, notice: psycopg.errors.Diagnostic) -> None:
        self._warned = self._warned or farewell(notice)

    async def _speak_for(self, conn: psycopg.AsyncConnection[Any], tenants: list[str]) -> bool:
        """Name the tenants whose runs are written. Whether that was asked and answered: on a new connection it is."""
        if tenants == self._tenants:
            return False
        await conn.execute(TENANTS, {"tenants": ",".join(tenants)})
        self._tenants = tenants
        return True

    async def _commit(
        self, conn: psycopg.AsyncConnection[Any], batch: Batch, flush: int
    ) -> dict[Any, tuple[str, int | None]]:
        fates = await commit(conn, batch, flush)
        self.flushes += 1
        return fates


def _lost(error: Exception) -> bool:
    return isinstance(error, Untold) or (isinstance(error, psycopg.Error) and lost(error))


def _refused(writes: Iterable[asyncio.Future[int]]) -> Exception | None:
    """Why one of these writes failed."""
    errors = (written.exception() for written in writes if written.done() and not written.cancelled())
    return next((error for error in errors if isinstance(error, Exception)), None)
