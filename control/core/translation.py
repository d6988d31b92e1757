"""What a status is called elsewhere: in LangGraph's protocol, in A2A, in AG-UI, and among people.

One table, complete by test. Two rules keep official clients right. LangGraph's run word tells a client whether the turn
it drives is over; a turn that ends at a question ends in `success`, as it does on the official server, and the thread
says `interrupted`. And AG-UI gets an outcome exactly when that turn is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from control.core.run_status import Status


class TurnWord(StrEnum):
    """LangGraph's run status."""

    PENDING = "pending"
    RUNNING = "running"
    ERROR = "error"
    SUCCESS = "success"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"

    @property
    def over(self) -> bool:
        return self not in (TurnWord.PENDING, TurnWord.RUNNING)


class ThreadWord(StrEnum):
    """LangGraph's thread status."""

    IDLE = "idle"
    BUSY = "busy"
    INTERRUPTED = "interrupted"
    ERROR = "error"


class TaskState(StrEnum):
    """A2A's task states, as far as a run can be in them."""

    SUBMITTED = "submitted"
    WORKING = "working"
    INPUT_REQUIRED = "input-required"
    COMPLETED = "completed"
    CANCELED = "canceled"
    FAILED = "failed"


class AguiOutcome(StrEnum):
    """How AG-UI's run ends: `RUN_FINISHED` with this outcome, and `RUN_ERROR` for `error`."""

    SUCCESS = "success"
    INTERRUPT = "interrupt"
    CANCELLED = "cancelled"
    ERROR = "error"


class Words(NamedTuple):
    """`agui` is None while the turn goes on. `sentence` says to an operator what is going on."""

    run: TurnWord
    thread: ThreadWord
    a2a: TaskState
    agui: AguiOutcome | None
    sentence: str


_T, _H, _A, _G = TurnWord, ThreadWord, TaskState, AguiOutcome

WORDS: Final[Mapping[Status, Words]] = {
    Status.QUEUED: Words(_T.PENDING, _H.BUSY, _A.SUBMITTED, None, "Ready to go on; the next free worker takes it."),
    Status.RUNNING: Words(_T.RUNNING, _H.BUSY, _A.WORKING, None, "A worker is on it, and it moves."),
    Status.WAITING: Words(_T.PENDING, _H.BUSY, _A.WORKING, None, "It waits for a time or an event and needs nobody."),
    Status.AWAITING_APPROVAL: Words(
        _T.SUCCESS, _H.INTERRUPTED, _A.INPUT_REQUIRED, _G.INTERRUPT, "It waits for a person to decide."
    ),
    Status.AWAITING_INPUT: Words(
        _T.SUCCESS, _H.INTERRUPTED, _A.INPUT_REQUIRED, _G.INTERRUPT, "It waits for a person to answer a question."
    ),
    Status.PAUSED: Words(_T.INTERRUPTED, _H.INTERRUPTED, _A.WORKING, _G.INTERRUPT, "It stands still until resumed."),
    Status.STALLED: Words(_T.RUNNING, _H.BUSY, _A.WORKING, None, "A worker holds it, but nothing has moved for long."),
    Status.CANCELLING: Words(_T.RUNNING, _H.BUSY, _A.WORKING, None, "It is being stopped for good."),
    Status.COMPENSATING: Words(_T.RUNNING, _H.BUSY, _A.WORKING, None, "What it had done is being undone."),
    Status.BLOCKED: Words(
        _T.ERROR, _H.ERROR, _A.WORKING, _G.ERROR, "It cannot go on until somebody puts something right."
    ),
    Status.SUCCEEDED: Words(_T.SUCCESS, _H.IDLE, _A.COMPLETED, _G.SUCCESS, "It did all it had to do."),
    Status.PARTIAL: Words(_T.SUCCESS, _H.IDLE, _A.COMPLETED, _G.SUCCESS, "It finished, but parts of it failed."),
    Status.FAILED: Words(_T.ERROR, _H.ERROR, _A.FAILED, _G.ERROR, "It failed and is not tried again by itself."),
    Status.CANCELLED: Words(_T.INTERRUPTED, _H.IDLE, _A.CANCELED, _G.CANCELLED, "It was stopped for good."),
    Status.ABANDONED: Words(_T.ERROR, _H.ERROR, _A.FAILED, _G.ERROR, "It was given up after it lost too many workers."),
}
