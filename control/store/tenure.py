"""One claim as the process that holds it sees it: the fence, and what the saver must remember from write to write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from control.core.execution import START, pulled_node
from control.core.problem import Refusal
from control.store.item import Fence, Item

TENURE: Final = "__control_tenure"
"""The key of a tenure in a LangGraph configuration's `configurable`. Its underscores keep it out of the metadata."""


@dataclass(slots=True, eq=False)
class Tenure:
    """asked: interrupts that have their row already. cheap: nodes whose step may be lost and redone, so that its
    checkpoint is acknowledged before it is durable. ran: tasks (id, path) that wrote since the last root checkpoint.
    parts: the names of all nodes that finished in this run, in order. names: the node of each task, since the path of a
    task made by `Send` does not tell. on_lost: called once, when a write finds that the claim is gone. unwritten:
    writes acknowledged early; `broken` is why one of them failed. shortfalls: parts for which a handler stood in.
    untouched: the thread was made with the run, and nothing has been read from or written to it yet. input_kept: the
    run's input is stored with it, so that the checkpoints before its first node need not be waited for. plain: the
    graph is a StateGraph, whose channels tell what is scheduled. calling: the task that is making each effect at this
    moment. apart: the version of each long text, by namespace and channel, that has a row of its own.
    """

    fence: Fence
    actor: str
    branch: int = 0
    parts: tuple[str, ...] = ()
    cheap: frozenset[str] = frozenset()
    on_lost: Callable[[Refusal], None] | None = None
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

    def lose(self, refusal: Refusal) -> None:
        """Remember that nothing more can be written, and say so once."""
        first, self.broken = self.broken is None, self.broken or refusal
        if first and self.on_lost:
            self.on_lost(refusal)

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
