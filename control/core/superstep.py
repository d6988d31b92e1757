"""One superstep of a thread as LangGraph's saver recorded it, and which tasks are scheduled in it.

A task is scheduled where a Send lies in `__pregel_tasks`, or where a channel that triggers a node is available and
newer than what the node has seen; a `Command(goto=...)` left on the head adds to that. Rows alone suffice, since
LangGraph's graphs name their control channels after the nodes they trigger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

PULL: Final = "~__pregel_pull, "
PUSH: Final = "~__pregel_push, "
EDIT: Final = "~__interrupt__, "  # what update_state stores
START: Final = "__start__"
SENDS: Final = "__pregel_tasks"
BRANCH: Final = "branch:to:"
HANDLER: Final = ", node_error_handler, 0000000000"
_CALL_SUFFIX: Final = len(", 0000000000, 0000000001")

Digest = Callable[[bytes], str]
"""The 32 hexadecimal digits that LangGraph names interrupts and tasks by: XXH3, 128 bits."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A control channel of the head. `available` is None where its value could not be read.

    `target` is the node it triggers; `seen` the version that node has consumed.
    """

    name: str
    target: str
    version: str
    seen: str = ""
    available: bool | None = True

    @property
    def fresh(self) -> bool:
        return self.version > self.seen


@dataclass(frozen=True, slots=True)
class Question:
    """One recorded `Interrupt`."""

    id: str
    value: Any = None
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """What is recorded for one task of one superstep.

    `answers` is the length of its list of consumed answers. `outputs` are the state channels it wrote, repeated as
    written. `fresh_error`: error and output came in one transaction. `moved_on`: answers came after the question.
    """

    task_id: str
    path: str
    ns: str = ""
    done: bool = False
    error: str | None = None
    fresh_error: bool = True
    routed: bool = False
    questions: tuple[Question, ...] = ()
    answers: int = 0
    moved_on: bool = False
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """The decoded rows of one thread's head.

    `sends` are the node names in `__pregel_tasks`, in order (None: unreadable, but some are there). `goto` are the
    nodes, and `goto_sends` the Sends, of a `Command(goto=...)` that waits on the head; such Sends replace `sends`.
    `traces` belong to the root graph, `nested` to subgraphs of its interrupted tasks.
    """

    checkpoint_id: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    channels: tuple[Channel, ...] = ()
    sends: tuple[str, ...] | None = ()
    goto: tuple[str, ...] = ()
    goto_sends: tuple[str, ...] | None = ()
    traces: tuple[Trace, ...] = ()
    nested: tuple[Trace, ...] = ()
    stale_resume: bool = False
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in the superstep, and the id of its task.

    A Send's id is certain. A node's hashes its triggers, of which rows know those that were ever written to, so its
    path counts as well; `update_state` stores the output of a task under the task's id and a path of its own.
    """

    name: str
    path: str
    task_id: str | None = None
    certain: bool = False

    def owns(self, trace: Trace) -> bool:
        return trace.task_id == self.task_id or (trace.path == self.path and not self.certain)


def scheduled(recorded: Recorded, digest: Digest) -> tuple[Slot, ...]:
    """Every task of the superstep that follows the head: Sends in their order, then nodes by name, then a command's."""
    sends = recorded.sends if recorded.goto_sends == () else recorded.goto_sends
    pushes = _unread_sends(recorded) if sends is None else tuple(_sends(recorded, sends, digest))
    fired = [_target(channel, recorded) for channel in recorded.channels if channel.fresh and channel.available]
    pulls = _pulls(recorded, (*sorted(fired), *recorded.goto), digest)
    if pushes or pulls:
        return pushes + pulls
    unsure = sorted(channel.target for channel in recorded.channels if channel.fresh and channel.available is None)
    return _pulls(recorded, unsure, digest)


def _pulls(recorded: Recorded, names: Iterable[str], digest: Digest) -> tuple[Slot, ...]:
    slots, edited = [], any(trace.path.startswith(EDIT) for trace in recorded.traces)
    for name in dict.fromkeys(names):
        if not edited:  # the path is enough
            slots.append(Slot(name, PULL + name))
            continue
        triggers = sorted(channel.name for channel in recorded.channels if channel.target == name)
        parts = (name, _next_step(recorded), name, "__pregel_pull", *(triggers or [BRANCH + name]))
        slots.append(Slot(name, PULL + name, _task_id(recorded.checkpoint_id, parts, digest)))
    return tuple(slots)


def _sends(recorded: Recorded, names: Sequence[str], digest: Digest) -> Iterable[Slot]:
    for index, name in enumerate(names):
        if not name:
            continue
        parts = (name, _next_step(recorded), name, "__pregel_push", str(index))
        task_id = _task_id(recorded.checkpoint_id, parts, digest)
        yield Slot(name, f"{PUSH}{index:010d}, 0000000000", task_id, certain=True)


def _next_step(recorded: Recorded) -> str:
    return str(int(recorded.metadata.get("step", -1)) + 1)


def _task_id(checkpoint_id: str, parts: Sequence[str], digest: Digest) -> str:
    hexed = digest(bytes.fromhex(checkpoint_id.replace("-", "")) + "".join(parts).encode())
    return f"{hexed[:8]}-{hexed[8:12]}-{hexed[12:16]}-{hexed[16:20]}-{hexed[20:]}"


def _unread_sends(recorded: Recorded) -> tuple[Slot, ...]:
    """Encrypted Sends: those that left rows, or one that stands for all."""
    paths = {t.path for t in recorded.traces if t.path.startswith(PUSH) and not t.path.startswith(PUSH + "~")}
    whole = sorted(path for path in paths if not path.endswith(HANDLER))
    return tuple(Slot("", path) for path in whole) or (Slot("", f"{PUSH}{0:010d}, 0000000000"),)


def _target(channel: Channel, recorded: Recorded) -> str:
    """The node a channel starts. A functional entrypoint's name shows only in what it recorded."""
    if channel.name != START or channel.target != START:
        return channel.target
    roots = (root_of(trace.path) or trace.path for trace in recorded.traces)
    names = (path.removeprefix(PULL) for path in roots if path.startswith(PULL) and not path.endswith(HANDLER))
    return next(names, START)


def root_of(path: str) -> str:
    """The path of the task that, call by call, started this one; empty where it is no `@task` call."""
    depth = 0
    while path.startswith(PUSH + "~"):
        path, depth = path[len(PUSH) : -_CALL_SUFFIX], depth + 1
    return path if depth else ""


def conflicts(traces: Iterable[Trace]) -> tuple[str, ...]:
    """State channels written more than once in the superstep: harmless with a reducer, fatal without."""
    written = Counter(chain.from_iterable(trace.outputs for trace in traces))
    return tuple(sorted(channel for channel, count in written.items() if count > 1))


def pulled_node(path: str) -> str:
    """The node of a task that its trigger started, from the task's path; empty for any other task."""
    return path.removeprefix(PULL).removesuffix(HANDLER) if path.startswith(PULL) else ""
