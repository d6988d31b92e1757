"""Which status can follow which, and what brings it about.

Status is derived, so nothing here decides anything. The table is what follows from the rules, written down to be read,
to be drawn in the README, and to be held against reality: a test explores every short history and finds these
transitions and no others. A cause that leaves the status as it is has no entry.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final

from control.core.run_status import TERMINAL, Status


class Cause(StrEnum):
    ACCEPTED = "accepted"
    CLAIMED = "a worker claims it"
    MOVED = "it moves again"
    LET_GO = "the attempt ends"
    LOST = "its worker is lost"
    ANSWERED = "an answer, a timer or a signal"
    WITHDRAWN = "a question is withdrawn"
    TIME = "time passes"
    NOTICED = "its time is noticed"
    UNFIT = "the graph changes"
    ADOPTED = "the graph fits again"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    RETRY = "retry"
    REWIND = "rewind"


_S = Status
_ASKING: Final = frozenset({_S.AWAITING_APPROVAL, _S.AWAITING_INPUT})
_OPEN: Final = _ASKING | {_S.QUEUED, _S.WAITING}
"""Nobody holds it, and nothing stands in its way but what it waits for."""
_RESTING: Final = _OPEN | {_S.PAUSED}
_DONE: Final = frozenset({_S.SUCCEEDED, _S.PARTIAL})
_QUEUED: Final = frozenset({_S.QUEUED})
_BLOCKED: Final = frozenset({_S.BLOCKED})

_AFTER_ATTEMPT: Final = _RESTING | _DONE | {_S.BLOCKED, _S.FAILED}
_AFTER_LOSS: Final = _RESTING | _DONE | {_S.FAILED, _S.ABANDONED}
_AFTER_CANCELLING: Final = _DONE | {_S.CANCELLED}

TRANSITIONS: Final[Mapping[Cause, Mapping[Status | None, frozenset[Status]]]] = {
    Cause.ACCEPTED: {None: frozenset({_S.QUEUED, _S.WAITING})},
    Cause.CLAIMED: {_S.QUEUED: frozenset({_S.RUNNING})},
    Cause.MOVED: {_S.STALLED: frozenset({_S.RUNNING})},
    Cause.LET_GO: {_S.RUNNING: _AFTER_ATTEMPT, _S.STALLED: _AFTER_ATTEMPT, _S.CANCELLING: _AFTER_CANCELLING},
    Cause.LOST: {_S.RUNNING: _AFTER_LOSS, _S.STALLED: _AFTER_LOSS, _S.CANCELLING: _AFTER_CANCELLING},
    Cause.ANSWERED: dict.fromkeys((*_ASKING, _S.WAITING), _QUEUED),
    Cause.WITHDRAWN: {
        _S.AWAITING_APPROVAL: frozenset({_S.AWAITING_INPUT, _S.WAITING, _S.QUEUED}),
        _S.AWAITING_INPUT: frozenset({_S.WAITING, _S.QUEUED}),
        _S.WAITING: _QUEUED,
        _S.QUEUED: _ASKING | {_S.WAITING},
    },
    Cause.TIME: {_S.RUNNING: frozenset({_S.STALLED}), _S.WAITING: _QUEUED},
    Cause.NOTICED: {_S.QUEUED: _ASKING | {_S.WAITING}},
    Cause.UNFIT: dict.fromkeys(_RESTING, _BLOCKED),
    Cause.ADOPTED: {_S.BLOCKED: _RESTING},
    Cause.PAUSE: dict.fromkeys(_OPEN, frozenset({_S.PAUSED})),
    Cause.RESUME: {_S.PAUSED: _OPEN},
    Cause.CANCEL: {
        **dict.fromkeys((*_RESTING, _S.BLOCKED), frozenset({_S.CANCELLED})),
        **dict.fromkeys((_S.RUNNING, _S.STALLED), frozenset({_S.CANCELLING})),
    },
    Cause.RETRY: {
        _S.WAITING: _QUEUED | _ASKING,
        **dict.fromkeys((_S.BLOCKED, _S.FAILED, _S.ABANDONED), _RESTING),
    },
    Cause.REWIND: {
        **dict.fromkeys((*_ASKING, _S.WAITING, _S.PAUSED), _QUEUED),
        **dict.fromkeys((_S.BLOCKED, _S.FAILED, _S.ABANDONED, *_DONE), frozenset({_S.QUEUED, _S.PAUSED})),
    },
}


def leads(cause: Cause, before: Status | None, after: Status) -> bool:
    """Whether a cause may take a run from one status to another. None is the status of what is not accepted yet."""
    return before is after or after in TRANSITIONS[cause].get(before, ())


def diagram(causes: Collection[Cause] = tuple(Cause)) -> str:
    """The table as a Mermaid state diagram, or the part of it that the causes make."""
    drawn = defaultdict[tuple[Status | None, Status], list[Cause]](list)
    for cause in (cause for cause in Cause if cause in causes):
        for before, afters in TRANSITIONS[cause].items():
            for after in afters:
                drawn[before, after].append(cause)
    order = {None: -1} | {status: place for place, status in enumerate(Status)}
    edges = sorted(drawn.items(), key=lambda edge: (order[edge[0][0]], order[edge[0][1]]))
    arrows = [f"    {before or '[*]'} --> {after}: {', '.join(names)}" for (before, after), names in edges]
    ends = [f"    {status} --> [*]" for status in Status if status in TERMINAL and any(a is status for _, a in drawn)]
    return "\n".join(["stateDiagram-v2", *arrows, *ends]) + "\n"
