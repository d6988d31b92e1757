"""A worker: claims runs and drives many of them at once, on one event loop.

It lives in the eyes of its peers while its session holds a lock (`store.session`). It claims when it is told of work,
when a slot becomes free, and at a slow poll. It sweeps for runs whose worker is gone and for timers that are due, reads
the orders that stand against its own runs, and stops attempts whose claim it has lost. Synchronous nodes run in a pool
of threads of their own: they cannot be cancelled, so they are fenced and counted.

Beside its runs it delivers notices (`store.queue`, `runtime.courier`).

At intervals it gathers the heads of changed runs into signed trees, and refuses to work on a database that turns out to
be an earlier copy of itself (`runtime.attestation`).

`drain` stops claiming and asks each run to stop at its next step boundary; what has not stopped when the grace is over
is left to the peers, who find the session's lock free.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from langgraph.pregel import Pregel

from control.core.execution import Head
from control.core.ledger import Loss
from control.core.problem import Refusal
from control.core.turns import Turns
from control.runtime.attempt import Attempt, Tools, misfit
from control.runtime.attestation import DATABASE_RESTORED, Attestor
from control.runtime.loop_watch import Blocked, LoopWatch
from control.runtime.recovery import Recovery
from control.runtime.workflows import Workflow
from control.store.claims import Claimed, Claims, Holdings, Mine, Orphan, mark_blocking
from control.store.database import Database
from control.store.flush import CLAIM_LOST
from control.store.queue import Queue
from control.store.runs import ORDERS, WORK
from control.store.session import Session

_GATHER_S: Final = 0.0005
_READOPT_S: Final = 5.0
_AT_ONCE: Final = 4  # runs of the dead that are taken over at the same time
_LAST_WAIT_S: Final = 5.0
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How many at once, and how often to look. Spans in seconds; see control/settings.py for what each means."""

    slots: int
    sync_node_threads: int
    poll_s: float
    takeover_poll_s: float
    failover_wait_s: float
    lease_s: float
    block_after_s: float
    drain_grace_s: float
    attest_s: float


class _Loops(NamedTuple):
    """What a worker does again and again."""

    claiming: asyncio.Task[None]
    sweeping: asyncio.Task[None]
    adopting: asyncio.Task[None]
    obeying: asyncio.Task[None]
    chores: asyncio.Task[None]
    attesting: asyncio.Task[None]


class Worker:
    """See the module. Built and run on one event loop."""

    def __init__(
        self,
        database: Database,
        workflows: Mapping[str, Workflow],
        tools: Tools,
        *,
        pace: Pace,
        attestor: Attestor,
        chores: Queue,
    ) -> None:
        self._database, self._tools, self._pace = database, tools, pace
        self._workflows = {name: replace(w, graph=w.under(tools.saver)) for name, w in workflows.items()}
        self._attestor, self._chores = attestor, chores
        self._refused: Refusal | None = None
        self._loop = asyncio.get_running_loop()
        self._recovery = Recovery(database, crash_limit=tools.crash_limit)
        self._attempts: dict[UUID, Attempt] = {}
        self._left: dict[UUID, int] = {}  # epochs whose attempts are over, until the claims show that they were let go
        self._running: set[asyncio.Task[None]] = set()
        self._work, self._orders, self._draining = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._other_database = asyncio.Event()  # the session is back, on what may be another copy
        self._claiming, self._sweeping = Claims(database), Claims(database)
        self._obeying, self._adopting, self._attesting = Claims(database), Claims(database), Claims(database)
        self._misfits: set[UUID] = set()
        self._turns = Turns()
        self._session = Session(
            database.address.session("control_claim"),
            "worker",
            timedelta(seconds=pace.lease_s),
            digests=[w.digest for w in workflows.values()],
            on_notify=self._notified,
            on_lost=self._session_lost,
            on_starting=self._session_starting,
            on_back=self._session_back,
        )
        self._holdings = Holdings(self.worker_id, list(workflows), [w.digest for w in workflows.values()])
        self._claims_known = asyncio.Lock()  # held from the claim to its attempts, so that none looks forgotten
        self._giving_up: asyncio.TimerHandle | None = None
        self._lost_at: float | None = None
        self._back_at: float | None = None
        self._failover_wait = timedelta(seconds=pace.failover_wait_s)
        self._never = asyncio.Event()
        self.swept = asyncio.Event()

    @property
    def worker_id(self) -> UUID:
        return self._session.worker_id

    @property
    def busy(self) -> int:
        """How many runs it is driving."""
        return len(self._attempts)

    async def run(self) -> None:
        """Work until `drain` is called and everything has stopped or the grace is over. Raises `database-restored`."""
        await self._attestor.require_newest()
        self._loop.set_default_executor(ThreadPoolExecutor(self._pace.sync_node_threads, thread_name_prefix="node"))
        await asyncio.to_thread(self._session.start)
        gc.collect()
        gc.freeze()  # what was loaded stays; a collection need not walk through it again
        watch = LoopWatch(after_s=self._pace.block_after_s, report=self._blocked)
        watch.start()
        loops = _Loops(
            claiming=self._again(self._claim, self._pace.poll_s, self._work),
            sweeping=self._again(self._sweep, self._pace.takeover_poll_s),
            adopting=self._again(self._readopt, _READOPT_S),
            obeying=self._again(self._obey, self._pace.poll_s, self._orders),
            chores=self._again(self._chores.work_off, self._pace.failover_wait_s),
            attesting=self._again(self._attest, self._pace.attest_s, self._other_database),
        )
        try:
            await self._draining.wait()
            await self._finish(loops)
        finally:
            watch.stop()
            await self._leave(loops)
        if self._refused is not None:
            raise self._refused

    def drain(self) -> None:
        """Claim nothing more, and let every run go at its next step boundary."""
        self._draining.set()

    def _again(
        self, act: Callable[[], Awaitable[None]], pace_s: float, wake: asyncio.Event | None = None
    ) -> asyncio.Task[None]:
        return asyncio.create_task(self._forever(act, pace_s, wake), name=act.__name__)

    async def _forever(self, act: Callable[[], Awaitable[None]], pace_s: float, wake: asyncio.Event | None) -> None:
        """Do it again and again: when woken, and at the latest after `pace_s`. No error ends it: a worker that lives
        but claims nothing, or takes nothing over, is worse than one that says the same error every second.
        """
        while True:
            try:
                await act()
            except Refusal as refusal:
                _log.warning("%s: %s %s", act.__name__, refusal.problem.title, refusal.why)
                await asyncio.sleep(pace_s)
            except Exception:
                _log.exception("%s broke", act.__name__)
                await asyncio.sleep(pace_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pace_s):
                    await (wake or self._never).wait()
            if wake:
                wake.clear()

    async def _claim(self) -> None:
        """Fill the free slots. A worker that shows no sign of life takes nothing: it would be taken away again. And one
        that has just come sees to the runs of the dead first: were it to die as they did, it would only add to them.
        """
        await self.swept.wait()
        if self.busy:
            await asyncio.sleep(_GATHER_S)  # runs end close to each other, and one claim fills all their slots
        while self._lost_at is None and not self._draining.is_set() and (free := self._pace.slots - self.busy) > 0:
            async with self._claims_known:
                now = self._loop.time()
                behind, grace = self._turns.behind(now), self._failover_wait
                claimed = await self._claiming.claim(self._holdings, free=free, behind=behind, grace=grace)
                for run in claimed:
                    self._begin(run)
            self._turns = self._turns.given((run.tenant for run in claimed), now)
            if len(claimed) < free:
                return

    def _begin(self, claimed: Claimed) -> None:
        attempt = Attempt(claimed, self._workflows[claimed.workflow], self._tools, claimed.fence(self.worker_id))
        self._attempts[claimed.run_id] = attempt
        _log.info("run %s claimed: %s, epoch %d", claimed.run_id, claimed.workflow, claimed.epoch)
        task = asyncio.create_task(attempt.run(), name=f"attempt {claimed.run_id}")
        self._running.add(task)
        task.add_done_callback(lambda done: self._ended(attempt, done))

    def _ended(self, attempt: Attempt, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._left[attempt.claimed.run_id] = attempt.claimed.epoch
        _log.info("run %s let go", attempt.claimed.run_id)
        if self._attempts.get(attempt.claimed.run_id) is attempt:
            del self._attempts[attempt.claimed.run_id]
        self._work.set()
        if not task.cancelled() and (error := task.exception()):
            _log.error("attempt on run %s broke", attempt.claimed.run_id, exc_info=error)

    async def _sweep(self) -> None:
        """Take runs from the dead, and wake those whose time has come."""
        if self._may_judge():
            orphans = await self._sweeping.orphans(self.worker_id, grace=self._failover_wait)
            for first in range(0, len(orphans), _AT_ONCE):
                await asyncio.gather(*map(self._take_over, orphans[first : first + _AT_ONCE]))
        for tenant, run_id in await self._sweeping.due():
            if await _one_of_many(self._recovery.wake(tenant, run_id), run_id):
                self._work.set()
        self.swept.set()

    async def _take_over(self, orphan: Orphan) -> None:
        if await _one_of_many(self._recovery.take_over(orphan), orphan.run_id):
            _log.warning("run %s taken over: %s", orphan.run_id, orphan.why)
            self._work.set()

    async def _readopt(self) -> None:
        """Unblock the runs that fit a version held here: their own again, or another that goes on from their head."""
        for blocked in await self._adopting.unfit(self._holdings.workflows, known=self._misfits):
            workflow = self._workflows[blocked.workflow]
            if blocked.graph_digest != workflow.digest:
                head = await self._tools.head(blocked.tenant, blocked.thread_id)
                graph = workflow.under(self._tools.saver.of(blocked.tenant))
                if not await _one_of_many(_fits(graph, head), blocked.run_id):
                    self._misfits.add(blocked.run_id)
                    continue
            await self._recovery.readopt(blocked.tenant, blocked.run_id, workflow.digest)

    async def _obey(self) -> None:
        """Compare the attempts with the claims as the database has them: stop what was ordered, abort what was lost.

        Nobody would ever work on a claim without an attempt: one that was given up, or whose answer the network lost.
        """
        async with self._claims_known:
            before = dict(self._attempts)
            held = {claim.run_id: claim for claim in await self._obeying.mine(self.worker_id)}
        self._left = {run_id: epoch for run_id, epoch in self._left.items() if run_id in held}
        for claim in held.values():
            if claim.run_id not in before:
                why = Loss.GAVE_UP if self._left.get(claim.run_id) == claim.epoch else Loss.UNHEARD
                idle = Orphan(claim.tenant, claim.run_id, claim.epoch, self.worker_id, why, crashed=False)
                await self._recovery.take_over(idle)
        for run_id, attempt in before.items():
            if self._attempts.get(run_id) is attempt:
                self._order(attempt, held.get(run_id))

    async def _attest(self) -> None:
        """Gather what has changed. A database that is an earlier copy of itself is left at once."""
        try:
            for tenant in await self._attesting.tenants():
                await self._attestor.attest(tenant)
        except Refusal as refusal:
            if refusal.problem is DATABASE_RESTORED:
                self._refused = refusal
                self.drain()
            raise

    def _order(self, attempt: Attempt, claim: Mine | None) -> None:
        if claim is None or claim.epoch != attempt.claimed.epoch:
            if not attempt.ending:
                attempt.abort(CLAIM_LOST.because("A peer has taken the run over."))
        elif claim.cancel:
            attempt.stop("cancel", cancel=True)
        elif claim.pause:
            attempt.stop("pause")
        elif claim.overdrawn:
            attempt.stop("budget")

    async def _finish(self, loops: _Loops) -> None:
        await _stop(loops.claiming)
        with contextlib.suppress(Refusal):  # a database that is away takes no claims either
            await self._claiming.advertise(self._holdings, draining=True)
        for attempt in list(self._attempts.values()):
            attempt.stop("drain")
        if self._running:
            await asyncio.wait(self._running, timeout=self._pace.drain_grace_s)
        await _stop(loops.attesting)
        with contextlib.suppress(Refusal):  # what it saw last is remembered, as well as that can be done
            await self._attest()

    async def _leave(self, loops: _Loops) -> None:
        left = [*loops, *self._running]
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=_LAST_WAIT_S)  # a node may refuse to be cancelled
        with ThreadPoolExecutor(1) as own:  # the loop's pool may be full of nodes that hang
            await asyncio.wrap_future(own.submit(self._session.stop))
        for desk in (self._claiming, self._sweeping, self._obeying, self._adopting, self._attesting):
            await desk.close()

    def _notified(self, channel: str, _: str) -> None:
        wake = {WORK: self._work, ORDERS: self._orders}[channel]
        self._loop.call_soon_threadsafe(wake.set)

    def _session_lost(self) -> None:
        """From the session's thread. Peers wait as long before they take over from a server that has restarted."""
        _log.warning("worker %s lost its session; peers may take its runs", self.worker_id)
        self._loop.call_soon_threadsafe(self._expect_back)

    def _session_starting(self) -> None:
        """From the session's thread."""
        self._loop.call_soon_threadsafe(self._expect_back)

    def _session_back(self) -> None:
        """From the session's thread. What the peers have taken meanwhile shows when the claims are compared."""
        self._loop.call_soon_threadsafe(self._back)

    def _may_judge(self) -> bool:
        """Whether this worker may apply the rule of who lives (`control.gone`). What took its own session, such as a
        cut network, may have taken its peers' as well: they have as long to come back as it gives itself.
        """
        waits = self._pace.failover_wait_s
        return self._lost_at is None and (self._back_at is None or self._loop.time() > self._back_at + waits)

    def _expect_back(self) -> None:
        """The session was lost, or nobody can have one yet: from now on it has its time to come back."""
        self._lost_at = self._loop.time()
        if self._giving_up is not None:
            self._giving_up.cancel()
        self._giving_up = self._loop.call_later(self._pace.failover_wait_s, self._give_up)

    def _back(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None
        self._lost_at, self._back_at = None, self._loop.time()
        self._orders.set()
        self._other_database.set()

    def _give_up(self) -> None:
        """Without a sign of life peers may be at work on the same runs already."""
        if self._attempts:
            _log.warning("worker %s stops %d runs: its session did not come back", self.worker_id, self.busy)
        for attempt in list(self._attempts.values()):
            attempt.abort(CLAIM_LOST.because("This worker lost its session, and with it its sign of life."))

    def _blocked(self, blocked: Blocked) -> None:
        """From the watching thread: the loop cannot write this, so a connection of its own does."""
        level = logging.ERROR if blocked.node else logging.WARNING
        _log.log(level, "the event loop is blocked by node %s in %s", blocked.node, blocked.where)
        if blocked.tenure is not None:
            mark_blocking(self._database.address, blocked.tenure.fence, f"{blocked.node}: {blocked.where}")


async def _stop(loop: asyncio.Task[None]) -> None:
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)


async def _one_of_many(act: Awaitable[bool], run_id: UUID) -> bool:
    """Whether it was done. A run that cannot be dealt with keeps none of the others waiting."""
    try:
        return await act
    except Refusal:
        raise  # the database's, and so everybody's
    except Exception:
        _log.exception("run %s could not be dealt with", run_id)
        return False


async def _fits(graph: Pregel[Any, Any, Any, Any], head: Head) -> bool:
    return await misfit(graph, head) is None
