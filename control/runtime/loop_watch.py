"""Names the node that blocks the event loop.

Asynchronous nodes share one loop: one that computes, sleeps or reads a file without awaiting stops them all, and with
them the worker's attention. A thread asks the loop for a sign; where none comes in time, it looks at what the loop is
executing: the innermost frame of somebody's own code, and the configuration that LangGraph runs the node with, which
stands in the frames around it.

The thread counts the time it has itself had: a process that was stopped, or that got no core, is late without blocking.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

from control.store.tenure import TENURE, Tenure

_SLICES: Final = 20  # of the wait: where this thread is held up too, one of them takes it all
_FOREIGN: Final = ("/site-packages/", "/lib/python", "<frozen", "<string>")


@dataclass(frozen=True, slots=True)
class Blocked:
    """where: function, file and line. node and tenure: whose code it is, None where it is no node's."""

    where: str
    node: str | None = None
    tenure: Tenure | None = None


class LoopWatch:
    """Watches the loop it was started on. `report` is called from the watching thread, once for each time it blocks."""

    def __init__(self, *, after_s: float, report: Callable[[Blocked], None]) -> None:
        self._after_s, self._report = after_s, report
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="loop-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def _watch(self) -> None:
        while not self._stopping.wait(self._after_s / 2):
            answered = threading.Event()
            try:
                self._loop.call_soon_threadsafe(answered.set)
            except RuntimeError:  # the loop is closed
                return
            if not any(answered.wait(self._after_s / _SLICES) for _ in range(_SLICES)):
                self._report(self._look())
                answered.wait()

    def _look(self) -> Blocked:
        frame = sys._current_frames().get(self._loop_thread)
        config = _config(frame)
        if config is None:
            return Blocked(_where(frame))
        node = config.get("metadata", {}).get("langgraph_node")
        return Blocked(_where(frame), node, config["configurable"][TENURE])


def _config(frame: FrameType | None) -> dict[str, Any] | None:
    """The configuration of the governed node in whose call the frame is."""
    while frame is not None:
        config = frame.f_locals.get("config")
        if isinstance(config, dict) and TENURE in config.get("configurable", ()):
            return config
        frame = frame.f_back
    return None


def _where(frame: FrameType | None) -> str:
    """The innermost frame of somebody's own code; the innermost of all where there is none."""
    innermost, walk = frame, frame
    while walk is not None:
        if not any(part in walk.f_code.co_filename for part in _FOREIGN):
            return _named(walk)
        walk = walk.f_back
    return _named(innermost) if innermost else "unknown"


def _named(frame: FrameType) -> str:
    return f"{frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"
