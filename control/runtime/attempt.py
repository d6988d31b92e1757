"""One attempt: drive a claimed run until it ends, stops, fails, or the claim is lost.

Where to enter is read from the rows, never remembered: a run that has committed nothing gets its input; one that has
goes on from its head, with the recorded answers delivered by interrupt id, strictly, and never by `invoke(None)` alone
where a plain answer lies on the head (it would be given to whatever asks next). How it ended is read from the rows as
well. The ending names the version of the facts it was decided on; if a command came between, it is decided again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphDrained
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel
from langgraph.runtime import RunControl
from langgraph.types import Command

from control.core.answer import is_plain_yes
from control.core.execution import Execution, Head
from control.core.facts import Fit, OutcomeKind, WaitKind
from control.core.failure import FailureClass
from control.core.problem import Problem, Refusal
from control.core.veto import Given, vetoes
from control.runtime.ending import Ended, Scene, conclude, failed, finished, told
from control.runtime.returning import returned
from control.runtime.workflows import Workflow
from control.sdk.call_site import BRANCH
from control.store import questions, runs
from control.store.checkpoints import heads
from control.store.claims import Claimed
from control.store.database import Database
from control.store.errors import NOT_NOW
from control.store.flush import CLAIM_LOST, RUN_MOVED, Flusher
from control.store.item import Ending, Fence
from control.store.saver import ControlSaver
from control.store.tenure import DECISION_PASSED_OVER, TENURE, Tenure

PLAIN_ANSWER: Final = Problem(
    code="plain-answer-recorded",
    status=409,
    title="An answer without an address lies on the thread",
    next_step="Rewind the run to its head, which drops it; then answer the question that is open.",
)

_FORESEEN: Final = frozenset({CLAIM_LOST, DECISION_PASSED_OVER, *NOT_NOW})
"""What may break an attempt without a bug of ours."""
_RECONNECT_S: Final = 1.0
_log: Final = logging.getLogger(__name__)

_STRICT: Final = "__pregel_strict_resume"


@dataclass(frozen=True, slots=True)
class Enter:
    """Run the graph with this input: the run's own, a `Command` with answers, or None to go on."""

    value: Any


@dataclass(frozen=True, slots=True)
class Tools:
    """What every attempt of a worker shares."""

    database: Database
    saver: ControlSaver
    flusher: Flusher
    crash_limit: int
    cancel_grace_s: float

    async def head(self, tenant: str, thread_id: str) -> Head:
        """Where a tenant's thread stands, from its rows."""
        async with self.saver.reading(tenant) as conn:
            return (await heads(conn, [thread_id]))[thread_id]


@dataclass(eq=False)
class Attempt:
    """`stop` asks it to end at its next step boundary; `abort` ends it without a word, since the claim is lost."""

    claimed: Claimed
    workflow: Workflow
    tools: Tools
    fence: Fence
    _control: RunControl = field(default_factory=RunControl)
    _driving: asyncio.Task[Ended] | None = None
    _cancelled: bool = False
    _given: tuple[Given, ...] = ()
    _ready: frozenset[str] = frozenset()
    ending: bool = False

    def __post_init__(self) -> None:
        self.tenure = Tenure(
            self.fence,
            actor=f"worker:{self.fence.worker_id}",
            branch=self.claimed.branch,
            parts=tuple(self.claimed.parts),
            cheap=self.workflow.cheap,
            on_lost=self._lost,
            on_overdrawn=lambda: self.stop("budget"),
            input_kept=True,
            plain=isinstance(self.workflow.graph, CompiledStateGraph),
            untouched=self.claimed.epoch == 1 and self.claimed.fresh_thread,
        )

    async def run(self) -> None:
        """Drive the run to the end of this attempt and record it. Raises nothing that concerns the run alone."""
        try:
            entry = await self._entry(await self._head() if self.claimed.epoch > 1 else None)
            ended = await self._drive(entry) if isinstance(entry, Enter) else entry
            if not (ended.certain and await self._recorded_at_once()):
                await self._conclude(ended)
        except Exception as error:
            await self._broke(error)

    async def _recorded_at_once(self) -> bool:
        """Record a certain end on the facts that the claim returned, without reading them again. False where they
        moved.
        """
        self.ending = True
        if self.tenure.broken:
            raise self.tenure.broken
        if self.tenure.asked:
            return False
        try:
            await self._write(finished(self.claimed, self.tenure.shortfalls), set())
        except Refusal as refusal:
            if refusal.problem in {RUN_MOVED, *NOT_NOW}:
                return False
            raise
        return True

    async def _broke(self, error: Exception) -> None:
        """The claim is lost, or this program has a bug: then the run must not look as if somebody worked on it."""
        cause = self.tenure.broken or error
        if not isinstance(cause, Refusal) or cause.problem not in _FORESEEN:
            _log.error("attempt on run %s broke", self.claimed.run_id, exc_info=error)
        else:
            _log.info("run %s: %s", self.claimed.run_id, cause.why)
            if cause.problem is CLAIM_LOST:
                return
        with contextlib.suppress(Exception):  # then the worker gives the claim up: it has no attempt on it
            await self._conclude(failed(error))

    def stop(self, reason: str, *, cancel: bool = False) -> None:
        """End at the next step boundary; a cancelled one not later than after the grace."""
        self._control.request_drain(reason)
        if cancel and not self._cancelled:
            self._cancelled = True
            asyncio.get_running_loop().call_later(self.tools.cancel_grace_s, self._interrupt)

    def abort(self, refusal: Refusal) -> None:
        """Stop at once: somebody else owns the run now."""
        self.tenure.lose(refusal)

    def _lost(self, _: Refusal) -> None:
        self._interrupt()

    def _interrupt(self) -> None:
        if self._driving and not self._driving.done():
            self._driving.cancel()

    async def _head(self) -> Head:
        return await self.tools.head(self.claimed.tenant, self.claimed.thread_id)

    def _own(self, head: Head) -> Head:
        """The head if this run wrote it. An earlier run's is a past to build on: of this run nothing is stored yet."""
        return head if head.metadata.get("run_id") == str(self.claimed.run_id) else Head(head.thread_id, Execution.NONE)

    async def _entry(self, head: Head | None) -> Enter | Ended:
        """Where to go on. A head of another run on the thread is a past to build on, not a place to go on from."""
        if head is None or head.metadata.get("run_id") != str(self.claimed.run_id):
            return Enter(self._input())
        if self.claimed.graph_digest != self.workflow.digest and (unfit := await self._adopt(head)):
            return unfit
        if head.state is Execution.FINISHED:
            return Ended(OutcomeKind.COMPLETED)
        if head.state in (Execution.ROUTING_FAILED, Execution.POISONED):
            return Ended(OutcomeKind.FAILED, FailureClass.POISONED, head.errors[0] if head.errors else str(head.state))
        answers = await self._answers()
        ready = {question.id: answers[question.id] for question in head.open if question.id in answers}
        self.tenure.asked.update(question.id for question in head.interrupts)
        if ready:
            self._ready = frozenset(ready)
            self._hold(head)
            return Enter(Command(resume=ready))
        if head.state is Execution.WAITING:
            return Ended(OutcomeKind.SUSPENDED)
        if head.stale_resume:
            why = PLAIN_ANSWER.because("Going on would give it to whatever asks next.")
            return Ended(OutcomeKind.FAILED, FailureClass.HUMAN, str(why))
        return Enter(None)

    async def _adopt(self, head: Head) -> Ended | None:
        """Go on under this version of the graph, if the head fits it; otherwise say what does not."""
        if why := await misfit(self.workflow.under(self.tools.saver.of(self.claimed.tenant)), head):
            return Ended(OutcomeKind.DRAINED, error=why, fit=Fit.CHANGED)
        async with self.tools.database.scope("control_flush", self.claimed.tenant) as conn:
            run = await self._held(conn)
            body = {"digest": self.workflow.digest, "from": run.graph_digest}
            adopted = replace(run, graph_digest=self.workflow.digest)
            await runs.save_run(
                conn,
                adopted,
                [("adopted", self.tenure.actor, body)],
                at=await runs.now(conn),
                crash_limit=self.tools.crash_limit,
            )
        return None

    def _input(self) -> Any:
        return self.tools.saver.serde.loads_typed((self.claimed.input_type, self.claimed.input))

    async def _answers(self) -> Mapping[str, Any]:
        async with self.tools.database.scope("control_flush", self.claimed.tenant) as conn:
            run = await runs.read_run(conn, self.claimed.tenant, self.claimed.run_id)
            self._given = await questions.given(conn, run)
            return await questions.resume_values(conn, run)

    def _hold(self, head: Head) -> None:
        """Hold the tasks that are resumed to what was decided about them, unless it lets them do as they asked."""
        binding = {given.interrupt_id for given in self._given if not is_plain_yes(given.packet, given.value)}
        for question in head.open:
            if question.id in binding:
                self.tenure.owed[question.ns.rpartition(":")[2]] = question.id, question.earlier + 1

    async def _drive(self, entry: Enter) -> Ended:
        self._driving = asyncio.create_task(self._stream(entry), name=f"run {self.claimed.run_id}")
        try:
            return await self._driving
        except asyncio.CancelledError:
            if self.tenure.broken:
                raise self.tenure.broken from None
            if self._cancelled:
                return Ended(OutcomeKind.CANCELLED)
            raise
        except GraphDrained:
            return Ended(OutcomeKind.CANCELLED if self._cancelled else OutcomeKind.DRAINED)
        except Exception as error:
            if self.tenure.broken and self.tenure.broken.problem is CLAIM_LOST:
                raise
            _log.info("run %s failed", self.claimed.run_id, exc_info=error)
            return failed(self.tenure.broken or error)

    async def _stream(self, entry: Enter) -> Ended:
        graph = self.workflow.graph
        mode: Any = "tasks" if self.workflow.routes else []  # without routing, a task's path names its node
        async for event in graph.astream(
            entry.value, self._config(), stream_mode=mode, durability="sync", control=self._control
        ):
            if "triggers" in event:
                self.tenure.names[event["id"]] = event["name"]
        breakpoints = graph.interrupt_before_nodes or graph.interrupt_after_nodes
        return Ended(OutcomeKind.COMPLETED, certain=not (breakpoints or self.tenure.asked))

    def _config(self) -> RunnableConfig:
        given, configurable = self.claimed.config, self.claimed.config.get("configurable", {})
        return {
            "configurable": {
                **{key: value for key, value in configurable.items() if _is_callers(key)},
                "thread_id": self.claimed.thread_id,
                TENURE: self.tenure,
                _STRICT: True,
                BRANCH: self.claimed.branch,
            },
            "metadata": {
                **given.get("metadata", {}),
                "run_id": str(self.claimed.run_id),
                "tenant": self.claimed.tenant,
                "epoch": self.claimed.epoch,
                "graph_digest": self.workflow.digest,
            },
            "callbacks": self._guards(),
            **({"recursion_limit": given["recursion_limit"]} if "recursion_limit" in given else {}),
        }

    def _guards(self) -> list[BaseCallbackHandler]:
        """The callback that stops refused calls, where any call was refused."""
        refused = vetoes(self._given)
        if not refused:
            return []
        from control.runtime.guard import Guard  # most runs refuse nothing, and need no LangChain agent's parts

        return [Guard(refused, redact=self.tools.saver.serde.redact, enforced=self.tenure.enforced)]

    async def _conclude(self, ended: Ended) -> None:
        """Record the end of the attempt, as often as it takes: a command may come between, the database may be away."""
        self.ending = True
        if self.tenure.unwritten:
            await asyncio.gather(*self.tenure.unwritten, return_exceptions=True)
        if broken := self.tenure.broken:  # what the graph has done since is not in the rows
            if broken.problem is CLAIM_LOST:
                raise broken
            ended = failed(broken)
        while True:
            try:
                await self._record(ended)
                return
            except Refusal as refusal:
                if refusal.problem in NOT_NOW:
                    await asyncio.sleep(_RECONNECT_S)
                elif refusal.problem is not RUN_MOVED:
                    raise

    async def _record(self, ended: Ended) -> None:
        head = self._own(await self._head())
        async with self.tools.database.scope("control_flush", self.claimed.tenant) as conn:
            run = await runs.read_run(conn, self.claimed.tenant, self.claimed.run_id)
            if run.epoch != self.claimed.epoch:
                raise CLAIM_LOST.because(f"Epoch {self.claimed.epoch} was replaced.", run=str(run.run_id))
            asked, now, _ = await runs.standing(conn, run)
            if any(wait.kind is WaitKind.SIGNAL for wait in asked.waits):
                run = await self._fire(conn, at=now)
                asked = await runs.questions(conn, run)
            if ended.returned and (given := returned(head, ended.raised or "", self._ready)):
                run = await self._give_back(conn, given, why=ended.returned, at=now)
                asked = await runs.questions(conn, run)
                if any(ask.interrupt_id in given for ask in asked.asks):
                    ended = Ended(OutcomeKind.SUSPENDED)
            answered = frozenset(await questions.resume_values(conn, run) if asked.ready else ())
        scene = Scene(run, asked, answered, head, now, self.tools.crash_limit)
        ending, delivered = conclude(ended, scene, jitter=random.random(), redact=self.tools.saver.serde.redact_text)
        await self._write(ending, delivered)
        if ending.status == "queued":
            async with self.tools.database.scope("control_flush", self.claimed.tenant) as conn:
                await runs.announce(conn, runs.WORK)

    async def _fire(self, conn: Any, *, at: datetime) -> runs.Run:
        """Give kept signals to the waits that this attempt has opened: they were sent before anybody waited."""
        run = await self._held(conn)
        fired = await questions.fire(conn, run, at=at)
        return await runs.save_run(conn, run, fired, at=at, crash_limit=self.tools.crash_limit) if fired else run

    async def _give_back(self, conn: Any, given: Sequence[str], *, why: str, at: datetime) -> runs.Run:
        """Ask anew what these answers were given to: the graph did not take them."""
        run = await self._held(conn)
        said = self.tools.saver.serde.redact_text(why)
        again = await questions.reopen(conn, run, given, why=said, by=self.tenure.actor, at=at)
        return await runs.save_run(conn, run, again, at=at, crash_limit=self.tools.crash_limit) if again else run

    async def _held(self, conn: Any) -> runs.Run:
        """The run, locked. Raises `claim-lost` where it is no longer this attempt's."""
        run = await runs.lock_run(conn, self.claimed.tenant, self.claimed.run_id)
        if run.epoch != self.claimed.epoch:
            raise CLAIM_LOST.because(f"Epoch {self.claimed.epoch} was replaced.", run=str(run.run_id))
        return run

    async def _write(self, ending: Ending, delivered: set[str]) -> None:
        item = self.tenure.item()
        item.ending = ending
        item.entries.append(("ended", self.tenure.actor, told(ending, delivered)))
        await self.tools.flusher.write(item)


def _is_callers(key: str) -> bool:
    """Whether a configuration key is the caller's to set: neither where the run stands, nor LangGraph's own."""
    return not key.startswith("__") and key not in ("thread_id", "checkpoint_id", "checkpoint_ns", "checkpoint_map")


async def misfit(graph: Pregel[Any, Any, Any, Any], head: Head) -> str | None:
    """Why a thread's head does not fit this graph: its rows and the graph disagree about what comes next."""
    if missing := sorted({task.name for task in head.tasks if not task.done} - set(graph.nodes)):
        return f"the graph has no node called {', '.join(missing)}"
    state = await graph.aget_state({"configurable": {"thread_id": head.thread_id}})
    if head.state is Execution.WAITING and {i.id for i in state.interrupts} != {q.id for q in head.open}:
        return "the graph no longer asks what the thread waits for"
    return None
