"""The execution state of a thread, worked out from what LangGraph's saver recorded.

`classify` turns the decoded rows of one thread's head checkpoint into a `Head`: what is scheduled, what of it is done,
which questions are open, what failed. It needs neither the graph nor the state values. `done` means that re-entering
the thread will not run the task again; that is the library's own rule (a task is finished when it wrote anything but
control rows), with one exception kept from it: a task handed to an error handler is never done, since the handler runs
again on every re-entry.

What rows cannot tell, and what is done about it:

- Running now, killed in a node, drained, a static breakpoint and the recursion limit all look `runnable`. The claim and
  the recorded attempt tell them apart.
- Rows name channels, not their types. Two writes to one channel are harmless with a reducer and fatal without, so a
  conflict is only ever *suspected* (`Head.conflicting_channels`). `poisoned` is therefore never the answer of
  `classify`; `with_outcome` gives it, from the recorded failure of an attempt that had nothing left to run.
- An error row outlives the attempt that wrote it. Where output was stored in another transaction than the error, the
  task was retried and finished, and the error is old (`TaskState.earlier_error`). A task with an open question and an
  error counts as waiting; `with_outcome` corrects that when the last attempt is known to have failed on it.
- `CancelledError` is what a sibling's failure or a stop leaves behind: the task did not fail, it was stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import chain
from typing import Any

from control.core.superstep import (
    HANDLER,
    PULL,
    Digest,
    Question,
    Recorded,
    Slot,
    Trace,
    conflicts,
    root_of,
    scheduled,
)
from control.core.superstep import START as START
from control.core.superstep import pulled_node as pulled_node


class Execution(StrEnum):
    NONE = "none"  # no checkpoint is stored
    FINISHED = "finished"  # nothing is scheduled on the head
    RUNNABLE = "runnable"  # re-entering runs at least one task
    WAITING = "waiting"  # a question is open, and nothing has failed beside it
    FAILED = "failed"  # a task raised, and asks nothing
    BARRIER = "barrier"  # every task is done, the next checkpoint is missing; re-entering continues without re-running
    ROUTING_FAILED = "routing_failed"  # a task is done but its router raised; re-entering would end without routing
    POISONED = "poisoned"  # a barrier that an attempt could not pass: re-entering fails again


@dataclass(frozen=True, slots=True)
class OpenInterrupt:
    """A question that an unfinished task asked. `value` and `schema` are plain data, never a foreign class.

    `ns` is the checkpoint namespace of the asking task, `task_id` the root task that carries it. An `answered` one was
    consumed already: its task failed, or moved on, afterwards, and a second answer would be ignored. `earlier`
    counts the answers that the asking task held before it. `id` is empty where the rows are encrypted.
    """

    id: str
    value: Any
    schema: Mapping[str, Any] | None
    node: str
    task_id: str
    ns: str
    answered: bool = False
    earlier: int = 0


@dataclass(frozen=True, slots=True)
class TaskState:
    """One task scheduled on the head. `task_id` is None while nothing was recorded for a node's task.

    `handled` tasks went to their error handler: `earlier_error` is what they raised, and `error` what the handler did.
    """

    name: str
    task_id: str | None
    path: str
    done: bool = False
    error: str | None = None
    earlier_error: str | None = None
    handled: bool = False
    interrupts: tuple[OpenInterrupt, ...] = ()

    @property
    def asks(self) -> bool:
        return not self.done and any(not question.answered for question in self.interrupts)

    @property
    def failed(self) -> bool:
        return self.error is not None and not self.error.startswith("CancelledError(")


@dataclass(frozen=True, slots=True)
class Head:
    """Where a thread stands. `step` is that of the head checkpoint: -1 for the input, 0 for the first after it.

    `orphan_writes` counts checkpoints beyond the head of which only task writes were stored: work that happened and
    will happen again. `stale_resume` says that a plain answer lies on the head and would be delivered to whatever asks
    next.
    `unreadable` names the encodings that were met and could not be read; the state stands, payloads are missing.
    """

    thread_id: str
    state: Execution
    checkpoint_id: str | None = None
    step: int | None = None
    tasks: tuple[TaskState, ...] = ()
    next: tuple[str, ...] = ()
    interrupts: tuple[OpenInterrupt, ...] = ()
    errors: tuple[str, ...] = ()
    conflicting_channels: tuple[str, ...] = ()
    orphan_writes: int = 0
    stale_resume: bool = False
    unreadable: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def open(self) -> tuple[OpenInterrupt, ...]:
        """The questions that wait for an answer."""
        return tuple(question for question in self.interrupts if not question.answered)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the last attempt ended: on which head, with which error (`repr`), and whether only its surroundings."""

    checkpoint_id: str | None
    error: str | None
    transient: bool = False


def classify(thread_id: str, recorded: Recorded | None, *, orphan_writes: int = 0, digest: Digest) -> Head:
    """The state of one thread. `recorded` is None where no checkpoint is stored."""
    if recorded is None:
        return Head(thread_id, Execution.NONE, orphan_writes=orphan_writes)
    tasks = tuple(_task(slot, recorded, digest) for slot in scheduled(recorded, digest))
    state = _state(tasks)
    return Head(
        thread_id,
        state,
        checkpoint_id=recorded.checkpoint_id,
        step=recorded.metadata.get("step"),
        tasks=tasks,
        next=tuple(task.name for task in tasks if not task.done),
        interrupts=tuple(chain.from_iterable(task.interrupts for task in tasks)),
        errors=tuple(task.error for task in tasks if task.error is not None),
        conflicting_channels=conflicts(recorded.traces),
        orphan_writes=orphan_writes,
        stale_resume=recorded.stale_resume,
        unreadable=recorded.unreadable,
        metadata=recorded.metadata,
    )


def with_outcome(head: Head, outcome: Outcome | None) -> Head:
    """The head in the light of how the last attempt ended. An outcome on another head, or none, changes nothing.

    - A barrier that an attempt failed on, for a reason of its own (not a lost connection), is `poisoned`: with nothing
      left to run, the only thing that can raise is applying the recorded writes, and they will not change.
    - A barrier where a retried task still carries an older error may hide a router that raised in the retry.
    - A question on a task that also raised this very error was open before it; the failure is newer.
    """
    if outcome is None or outcome.error is None or outcome.checkpoint_id != head.checkpoint_id:
        return head
    if head.state is Execution.BARRIER and not outcome.transient:
        hidden = any(task.earlier_error is not None for task in head.tasks) and not head.conflicting_channels
        return replace(head, state=Execution.ROUTING_FAILED if hidden else Execution.POISONED)
    if head.state is Execution.WAITING and any(task.error == outcome.error for task in head.tasks):
        return replace(head, state=Execution.FAILED)
    return head


def _state(tasks: Sequence[TaskState]) -> Execution:
    if not tasks:
        return Execution.FINISHED
    if any(task.done and task.error is not None for task in tasks):
        return Execution.ROUTING_FAILED  # above all else: entering again, even with an answer, loses the route
    if all(task.done for task in tasks):
        return Execution.BARRIER
    if any(task.failed and not task.asks for task in tasks):
        return Execution.FAILED
    return Execution.WAITING if any(task.asks for task in tasks) else Execution.RUNNABLE


def _task(slot: Slot, recorded: Recorded, digest: Digest) -> TaskState:
    own = [trace for trace in recorded.traces if slot.owns(trace)]
    handler = [t for t in recorded.traces if t.path == slot.path + HANDLER]
    routed = any(trace.routed for trace in own)
    acting = handler if routed else own
    done = not routed and any(trace.done for trace in own)
    error = next((trace.error for trace in own if trace.error is not None), None)
    old = routed or (done and not any(trace.error is not None and trace.fresh_error for trace in own))
    calls = [t for t in recorded.traces if not t.done and root_of(t.path) == acting[0].path] if acting else []
    name = f"__error_handler__{slot.name}" if routed else slot.name
    asked = () if done else _questions(name, [*acting, *calls], _Askers(recorded.nested, digest))
    return TaskState(
        name=slot.name,
        task_id=own[-1].task_id if own else slot.task_id if slot.certain else None,
        path=slot.path,
        done=done,
        error=next((t.error for t in handler if not t.done), None) if routed else None if old else error,
        earlier_error=error if old else None,
        handled=routed,
        interrupts=asked,
    )


@dataclass(frozen=True, slots=True)
class _Askers:
    """Who asked a question, and whether the answer was consumed."""

    nested: tuple[Trace, ...]
    digest: Digest

    def find(self, question: Question, name: str, traces: Sequence[Trace]) -> tuple[Trace, str]:
        """The innermost task that recorded the question, and its namespace as far as it is known."""
        inside = [t for t in self.nested if any(asked.id == question.id for asked in t.questions)]
        if inside:
            trace = max(inside, key=lambda t: t.ns.count("|"))
            own = trace.path.removeprefix(PULL) if trace.path.startswith(PULL) else ""
            return trace, f"{trace.ns}|{own}:{trace.task_id}"
        calls = (t for t in reversed(traces) if any(asked.id == question.id for asked in t.questions))
        trace, root = next(calls, traces[0]), f"{name}:{traces[0].task_id}"
        return trace, root if trace is traces[0] else f"{root}|:{trace.task_id}"

    def answered(self, question: Question, trace: Trace, ns: str) -> bool:
        """Answers are stored with the question that follows them, with an error, or with output; never on their own.

        So without error or output the recorded question is open. With an error its number decides: the k-th question of
        a task is named by its namespace and k, and it is answered once the task holds more than k answers.
        """
        if trace.done or trace.error is None:
            return trace.done
        ids = (self.digest((f"{ns}|{count}" if count else ns).encode()) for count in range(trace.answers + 1))
        number = next((count for count, name in enumerate(ids) if name == question.id), None)
        return trace.moved_on if number is None else number < trace.answers


def _questions(name: str, traces: Sequence[Trace], askers: _Askers) -> tuple[OpenInterrupt, ...]:
    found: dict[str, OpenInterrupt] = {}
    for trace in traces:
        for question in trace.questions:
            asker, ns = askers.find(question, name, traces)
            found[question.id or f"{trace.task_id}.{len(found)}"] = OpenInterrupt(
                id=question.id,
                value=question.value,
                schema=question.schema,
                node=name.removeprefix("__error_handler__"),
                task_id=trace.task_id,
                ns=ns,
                answered=askers.answered(question, asker, ns),
                earlier=asker.answers,
            )
    return tuple(found.values())
