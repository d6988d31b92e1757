"""Implicit claims: how a script, a notebook or `langgraph dev` writes through the saver without being a worker.

The first write on a thread opens a run there (or goes on with the one that is open), under a claim of this process.
Each write of the root graph is followed by a look at the rows: where nothing is left to run, the claim is let go and
the run's status follows from what the rows say. A thread that a worker or another script holds is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import psycopg

from control.core.action import Action
from control.core.execution import Execution, Head
from control.core.facts import OutcomeKind
from control.core.failure import FailureClass
from control.core.problem import Problem, Refusal
from control.store import questions, runs
from control.store.checkpoints import heads
from control.store.database import Database
from control.store.errors import THREAD_BUSY, THREAD_TAKEN
from control.store.item import Fence
from control.store.runs import Entry, Run
from control.store.session import Session
from control.store.sql import read
from control.store.tenure import Tenure

CLAIM_HELD: Final = Problem(
    code="claim-held",
    status=409,
    title="Another process is working on this thread",
    next_step="Wait until it is done, cancel its run with `control cancel`, or use another thread.",
)
_SQL: Final = read("runs")
_THREADS: Final = read("threads")
_GOES_ON: Final = frozenset({Execution.RUNNABLE, Execution.BARRIER})
ENTERING: Final = (Action.NEW_INPUT, Action.GOTO)
"""What a graph that enters a thread may be about to do: which of it shows only once its first node has begun."""
_OUTCOME: Final = {Execution.FINISHED: "completed", Execution.WAITING: "suspended"}


async def left_by_its_script(
    conn: psycopg.AsyncConnection[Any], run: Run, *, head: Head, at: datetime
) -> tuple[Run, list[Entry]]:
    """A run whose script is gone: no worker has its graph, so it waits for somebody to run the script again. What the
    script had answered is withdrawn: a question that is not on the head any more could be answered a second time.
    """
    error = "The script that drove it is gone; run it again on the same thread."
    left = replace(
        run,
        worker_id=None,
        claimed_at=None,
        execution=head.state,
        outcome=OutcomeKind.FAILED,
        outcome_at=at,
        failure_class=FailureClass.HUMAN,
        failure={"error": error},
    )
    body = {"outcome": "failed", "execution": str(head.state), "failure_class": "human", "error": error}
    return left, [*await _withdraw_answered(conn, run, head, at=at), ("ended", "control", body)]


async def _withdraw_answered(conn: psycopg.AsyncConnection[Any], run: Run, head: Head, *, at: datetime) -> list[Entry]:
    """Withdraw the questions that a script has answered past the commands. Returns the ledger's entries."""
    return await questions.withdraw(conn, run, keep=[q.id for q in head.open], why="answered by a script", at=at)


Permitting = Callable[[psycopg.AsyncConnection[Any], Action, Sequence[str]], Awaitable[Refusal | None]]
"""Why policy does not permit this to be done to these threads: on record once the transaction commits, and to be raised
after. None where it does."""


async def anybody(*_: Any) -> None:
    """No policy: everything is permitted."""


class ImplicitWriters:
    """The writers of one process, for one tenant. `session` is its sign of life, started at the first write; `by` is
    whose script it is; `failover_wait` is for other holders to come back after the server restarted; `permit` asks
    policy.
    """

    def __init__(
        self,
        database: Database,
        session: Session,
        *,
        tenant: str,
        by: str,
        crash_limit: int,
        failover_wait: timedelta,
        permit: Permitting = anybody,
    ) -> None:
        self._database, self._session, self._failover_wait = database, session, failover_wait
        self.tenant, self._by, self._crash_limit = tenant, by, crash_limit
        self._permit = permit
        self._held: dict[str, Tenure] = {}
        self._starting: asyncio.Task[None] | None = None
        self._taking = asyncio.Lock()

    async def check(self, thread_id: str) -> None:
        """Refuse a graph that is about to run where nothing it writes would be kept. Raises `claim-held`; and, where
        workers have had runs on the thread, `not-permitted`, `agreement-needed`.

        It takes no claim: whoever runs a graph may write nothing, and would never let go.
        """
        async with self._database.scope("control_flush", self.tenant) as conn:
            if run := await self._open_on(conn, thread_id):
                await self._refuse_others(conn, run)
            refusal = await self._ask(conn, thread_id, ENTERING)
        if refusal is not None:
            raise refusal

    async def tenure(self, thread_id: str, doing: Sequence[Action] = ENTERING) -> Tenure:
        """This process's claim on the thread. `doing` is what policy has to permit where workers have had runs on it.
        Raises `claim-held`, `thread-taken`, `not-permitted`, `agreement-needed`.
        """
        async with self._taking:  # a step's writes come at once, and the first of them takes the claim for all
            held = self._held.get(thread_id)
            if held is None or held.broken:
                held = self._held[thread_id] = await self._take(thread_id, doing)
            return held

    async def _ask(self, conn: psycopg.AsyncConnection[Any], thread_id: str, doing: Sequence[Action]) -> Refusal | None:
        """Ask policy, unless the thread is one of scripts alone: that is theirs. See `Permitting`."""
        cursor = await conn.execute(_SQL["worked_on"], {"tenant": self.tenant, "thread_id": thread_id})
        if await cursor.fetchone() is not None:
            for action in doing:
                if refusal := await self._permit(conn, action, [thread_id]):
                    return refusal
        return None

    async def after_write(self, tenure: Tenure) -> None:
        """Let go of the run where the rows say that nothing is left to run.

        A branch may write while its sibling's question already stands, and would lose the claim in the middle of it:
        then it is the branch that looks, afterwards. Who begins to write when the claim is being let go takes another.
        """
        thread_id, seen = tenure.fence.thread_id, tenure.begun
        async with self._database.scope("control_flush", tenure.fence.tenant) as conn:
            head = (await heads(conn, [thread_id]))[thread_id]
            if head.state in _GOES_ON or tenure.writing or tenure.begun != seen:
                return
            if self._held.get(thread_id) is tenure:
                del self._held[thread_id]
            await self._let_go(conn, tenure, head)

    async def adopt(self, thread_id: str) -> bool:
        """Make a thread that plain LangGraph wrote and nobody owns this tenant's. False where it is no such thread."""
        try:
            async with self._database.scope("control_flush", self.tenant) as conn:
                return await self._own(conn, [thread_id])
        except Refusal as refusal:
            if refusal.problem is not THREAD_TAKEN:
                raise
            return False

    async def _own(self, conn: psycopg.AsyncConnection[Any], threads: Sequence[str]) -> bool:
        """Own those of the threads that have checkpoints and no owner; whether there are any. Raises `thread-taken`.

        What is on a thread shows only to its owner, so it is looked at as one, and what is empty stays nobody's.
        """
        named, written = {"tenant": self.tenant, "threads": list(threads)}, list[str]()
        async with conn.transaction() as look:
            await conn.execute(_THREADS["own"], named)
            cursor = await conn.execute(_THREADS["written"], named)
            written = [row["thread_id"] for row in await cursor.fetchall()]
            raise psycopg.Rollback(look)
        return bool(written) and (await conn.execute(_THREADS["own"], named | {"threads": written})).rowcount > 0

    @asynccontextmanager
    async def idle(
        self, threads: Sequence[str], *, ended: bool, action: Action | None = None
    ) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """A transaction at whose beginning and end nobody works on the threads; see `thread_ops.Owner`."""
        async with self._database.scope("control_flush", self.tenant) as conn:
            refusal = None if action is None else await self._permit(conn, action, threads)
            if refusal is None:
                await self._own(conn, threads)
                await self._refuse_busy(conn, threads, ended=ended)
                yield conn
                await self._refuse_busy(conn, threads, ended=ended)  # a run may have been started meanwhile
        if refusal is not None:
            raise refusal

    async def _refuse_busy(self, conn: psycopg.AsyncConnection[Any], threads: Sequence[str], *, ended: bool) -> None:
        cursor = await conn.execute(_THREADS["open_runs"], {"tenant": self.tenant, "threads": list(threads)})
        for run in [Run.of(row) for row in await cursor.fetchall()]:
            if run.worker_id is not None and await self._held_by_the_living(conn, run):
                raise _held(run)
            if ended:
                raise THREAD_BUSY.because(f"Run {run.run_id} is {run.status}.", run=str(run.run_id))

    async def _held_by_the_living(self, conn: psycopg.AsyncConnection[Any], run: Run) -> bool:
        return await runs.worker_alive(conn, run, grace=self._failover_wait)

    async def _take(self, thread_id: str, doing: Sequence[Action]) -> Tenure:
        await self._be_alive()
        async with self._database.scope("control_flush", self.tenant) as conn:
            refusal = await self._ask(conn, thread_id, doing)
            if refusal is None:
                return await self._claim(conn, thread_id)
        raise refusal

    async def _be_alive(self) -> None:
        """Start the session, once; a writer that is cancelled leaves that to the next. Raises `database-away`."""
        if self._starting is None:
            self._starting = asyncio.create_task(asyncio.to_thread(self._session.start))
        try:
            await asyncio.shield(self._starting)
        except Exception:
            self._starting = None
            raise

    async def _claim(self, conn: psycopg.AsyncConnection[Any], thread_id: str) -> Tenure:
        at = await runs.now(conn)
        actor = f"script:{self._by}"
        run, entries = await self._run_on(conn, thread_id, at=at, actor=actor)
        claimed = replace(
            run,
            epoch=run.epoch + 1,
            worker_id=self._session.worker_id,
            claimed_at=at,
            progress_at=at,
            outcome=None,
            outcome_at=None,
            retry_at=None,
        )
        asked = await runs.questions(conn, run)
        await runs.append(conn, run, entries, at=at)
        await runs.save_run(conn, claimed, [], at=at, crash_limit=self._crash_limit)
        await runs.append(conn, claimed, [("claimed", actor, {"worker": str(self._session.worker_id)})], at=at)
        return Tenure(
            Fence(run.tenant, run.run_id, thread_id, claimed.epoch, self._session.worker_id),
            actor,
            branch=run.branch,
            parts=tuple(run.parts),
            implicit=True,
            asked={*(ask.interrupt_id for ask in asked.asks), *(wait.interrupt_id for wait in asked.waits)},
        )

    async def _run_on(
        self, conn: psycopg.AsyncConnection[Any], thread_id: str, *, at: datetime, actor: str
    ) -> tuple[Run, list[Entry]]:
        """The open run of the thread, if nobody works on it; otherwise a new one."""
        found = await self._open_on(conn, thread_id)
        if found is None:
            return await self._open_run(conn, thread_id, at=at, actor=actor)
        run = await runs.lock_run(conn, self.tenant, found.run_id)
        await self._refuse_others(conn, run)
        if run.worker_id in (None, self._session.worker_id):
            return run, []
        return await left_by_its_script(conn, run, head=(await heads(conn, [thread_id]))[thread_id], at=at)

    async def _open_on(self, conn: psycopg.AsyncConnection[Any], thread_id: str) -> Run | None:
        cursor = await conn.execute(_SQL["open_on_thread"], {"tenant": self.tenant, "thread_id": thread_id})
        row = await cursor.fetchone()
        return Run.of(row) if row else None

    async def _refuse_others(self, conn: psycopg.AsyncConnection[Any], run: Run) -> None:
        """Raise `claim-held` where the run is the workers', or another living script's."""
        if run.workflow is not None:
            why = f"Run {run.run_id} of {run.workflow} has not ended, and belongs to the workers."
            raise CLAIM_HELD.because(why, run=str(run.run_id))
        mine = run.worker_id in (None, self._session.worker_id)
        if not mine and await self._held_by_the_living(conn, run):
            raise _held(run)

    async def _open_run(
        self, conn: psycopg.AsyncConnection[Any], thread_id: str, *, at: datetime, actor: str
    ) -> tuple[Run, list[Entry]]:
        run_id: UUID = uuid4()
        row = dict.fromkeys(("workflow", "restarted_from", "not_before", "parts_total"))
        named = {"tenant": self.tenant, "run_id": run_id, "thread_id": thread_id, "created_by": actor}
        run = await runs.add_run(conn, {**row, **named, "created_via": [], "config": {}, "priority": 0, "at": at})
        assert run is not None, "its id is new"
        body = {"workflow": None, "thread_id": thread_id, "priority": 0, "crash_limit": self._crash_limit}
        return run, [("accepted", actor, body)]

    async def _let_go(self, conn: psycopg.AsyncConnection[Any], tenure: Tenure, head: Head) -> None:
        run = await runs.lock_run(conn, tenure.fence.tenant, tenure.fence.run_id)
        if (run.epoch, run.worker_id) != (tenure.fence.epoch, tenure.fence.worker_id):
            return
        at = await runs.now(conn)
        outcome = _OUTCOME.get(head.state, "failed")
        error = head.errors[0] if head.errors else None
        ended = replace(
            run,
            worker_id=None,
            claimed_at=None,
            execution=head.state,
            outcome=outcome,
            outcome_at=at,
            failure_class="permanent" if outcome == "failed" else None,
            failure={"error": error} if error else None,
        )
        body = {"outcome": outcome, "execution": str(head.state)}
        if outcome == "failed":
            body |= {"failure_class": "permanent", "error": error or ""}
        entries = [*await _withdraw_answered(conn, run, head, at=at), ("ended", tenure.actor, body)]
        await runs.save_run(conn, ended, entries, at=at, crash_limit=self._crash_limit)


def _held(run: Run) -> Refusal:
    return CLAIM_HELD.because(f"Run {run.run_id} is claimed under epoch {run.epoch}.", run=str(run.run_id))
