"""Waiting without a worker: the run is suspended, and a timer row or a signal wakes it.

In plain LangGraph these are interrupts that whoever drives the graph resumes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from langgraph.types import interrupt
from pydantic import BaseModel

from control.core.problem import Problem

NAIVE_INSTANT: Final = Problem(
    code="naive-instant",
    status=500,
    title="An instant needs a time zone",
    next_step="Pass an aware datetime, such as datetime.now(UTC) + timedelta(days=10).",
)


class _Signal(BaseModel):
    payload: Any = None


def wait_until(at: datetime) -> None:
    """Go on at `at` (aware), or at once if that is past. Problem: `naive-instant`."""
    if at.tzinfo is None:
        raise NAIVE_INSTANT.because(f"wait_until was given {at.isoformat()}.")
    interrupt({"type": "control.wait", "kind": "timer", "due_at": at.astimezone(UTC).isoformat()})


def wait_for(duration: timedelta) -> None:
    """Go on `duration` after the wait was first recorded: a crash or a retry does not start it again."""
    interrupt({"type": "control.wait", "kind": "timer", "seconds": duration.total_seconds()})


def wait_for_signal(name: str) -> Any:
    """Go on when somebody signals `name` to this run; return the signal's payload (JSON, unvalidated)."""
    return interrupt({"type": "control.wait", "kind": "signal", "signal": name}, response_schema=_Signal).payload
