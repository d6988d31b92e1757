"""One claim as the process that holds it sees it: the fence, and what the saver must remember from write to write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME

from control.core.execution import START, pulled_node
from control.core.problem import Problem, Refusal
from control.store.item import Fence, Item

DECISION_PASSED_OVER: Final = Problem(
    code="decision-passed-over",
    status=409,
    title="The step went on without what a person decided about it",
    next_step="Restore the condition under which it asks, and retry; or rewind or cancel. No later step has begun.",
)
TENURE: Final = "__control_tenure"
"""The key of a tenure in a LangGraph configuration's `configurable`. Its underscores keep it out of the metadata."""
_UNFINISHED: Final = frozenset({ERROR, INTERRUPT, RESUME})


@dataclass(slots=True, eq=False)
class Tenure:
    """asked: interrupts that have their row already. cheap: nodes whose step may be lost and redone, so that its
    checkpoint is acknowledged before it is durable. ran: tasks (id, path) that wrote since the last root checkpoint.
    on_overdrawn: called where something was spent and a budget of the tenant is used up. parts: the names of all nodes
    that finished in this run, in order. names: the node of each task, since the path of a task made by `Send` does not
    tell. on_lost: called once, when a write finds that the claim is gone. unwritten: writes acknowledged early;
    `broken` is why one of them failed. shortfalls: parts for which a handler stood in. untouched: the thread was made
    with the run, and nothing has been read from or written to it yet. input_kept: the run's input is stored with it, so
    that the checkpoints before its first node need not be waited for. plain: the graph is a StateGraph, whose channels
    tell what is scheduled. calling: the task that is making each effect at this moment. apart: the version of each long
    text, by namespace and channel, that has a row of its own. owed: the decisions that must be taken in, by the task
    that asked: the interrupt, and how many answers the task then holds.
    begun, writing: how many writes were ever begun, and how many are on their way; see `used`.
    """

    fence: Fence
    actor: str
    branch: int = 0
    parts: tuple[str, ...] = ()
    cheap: frozenset[str] = frozenset()
    on_lost: Callable[[Refusal], None] | None = None
    on_overdrawn: Callable[[], None] | None = None
    asked: set[str] = field(default_factory=set)
    ran: list[tuple[str, str]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    unwritten: set[asyncio.Future[int]] = field(default_factory=set)
    broken: Refusal | None = None
    shortfalls: int = 0
    untouched: bool = False
    input_kept: bool = False
    plain: bool = False
    calling: dict[str, str] = field(default_factory=dict)
    apart: dict[tuple[str, str], str] = field(default_factory=dict)
    implicit: bool = False
    owed: dict[str, tuple[str, int]] = field(default_factory=dict)
    begun: int = 0
    writing: int = 0

    def lose(self, refusal: Refusal) -> None:
        """Remember that nothing more can be written, and say so once."""
        first, self.broken = self.broken is None, self.broken or refusal
        if first and self.on_lost:
            self.on_lost(refusal)

    def heed(self, task_id: str, writes: Sequence[tuple[str, Any]]) -> None:
        """Hold a task to the decision it was resumed with. Raises `decision-passed-over` where it ends without it."""
        if task_id not in self.owed:
            return
        interrupt_id, needed = self.owed[task_id]
        if any(channel == RESUME and isinstance(value, list) and len(value) >= needed for channel, value in writes):
            del self.owed[task_id]
        elif any(channel not in _UNFINISHED for channel, _ in writes):
            self.lose(DECISION_PASSED_OVER.because("Resumed, it no longer asked.", interrupt_id=interrupt_id))
            raise self.broken or AssertionError

    @contextmanager
    def used(self) -> Iterator[None]:
        """Held from taking the claim up to the commit of what is written under it: it is not let go meanwhile."""
        self.begun += 1
        self.writing += 1
        try:
            yield
        finally:
            self.writing -= 1

    def enforced(self, interrupt_id: str) -> None:
        """A decision was carried out without the step that asked."""
        self.owed = {task: owed for task, owed in self.owed.items() if owed[0] != interrupt_id}

    def item(self) -> Item:
        """A write of this claim, which rests on those that were acknowledged early."""
        return Item(self.fence, asyncio.get_running_loop().create_future(), rests_on=tuple(self.unwritten))

    def node(self, task_id: str, task_path: str) -> str:
        """The node of a root task; empty for the input and for commands, which are nobody's."""
        return self.names.get(task_id) or pulled_node(task_path)

    def took_step(self) -> list[str]:
        """The nodes of the step that a root checkpoint closes. Starts the next step."""
        wrote, self.ran = self.ran, []
        ran = [node for task in wrote if (node := self.node(*task)) not in ("", START)]
        self.parts = (*self.parts, *dict.fromkeys(node for node in ran if node not in self.parts))
        return ran
