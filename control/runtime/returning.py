"""An answer that fits the schema of its question, and that the step does not take: it changes nothing.

A typed answer is checked twice. Its schema is checked when it is given, before anything is written. What the schema
cannot say, such as the author's own validators, only the graph's code knows, and whoever takes the answer has no graph:
LangGraph runs these checks where the node takes the answer in, and saves nothing of one that fails. The worker then
gives it back: the question is asked anew under the same id, with the whole of its time and no votes, and the record
says whose answer was returned, and why. No failure is counted against the run.

Where silence decided (the default of a gate), nobody could correct it: then the run fails, and says so.
"""

from __future__ import annotations

from langgraph.errors import is_invalid_resume
from pydantic import ValidationError

from control.core.execution import Head
from control.runtime.workflows import fault_of


def why_returned(error: BaseException) -> str | None:
    """What is wrong with an answer, where that is what the graph raised."""
    return fault_of(error) if isinstance(error, ValidationError) and is_invalid_resume(error) else None


def returned(head: Head, raised: str, given: frozenset[str]) -> list[str]:
    """Which of the answers that were given it was: those of the task that raised this, as its `repr` has it.

    A task in which two are answered at once does not say which it was; both are asked again.
    """
    failed = [task for task in head.tasks if task.error == raised]
    return sorted({q.id for task in failed for q in task.interrupts if not q.answered and q.id in given})
