"""Small graphs to be killed in. Each adds to a sum, so that a step done twice or left out shows in the total."""

from __future__ import annotations

import asyncio
import operator
import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any, Final
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from typing_extensions import TypedDict

from control.core.answer import Word
from control.sdk import approval, wait_for
from control.testing.chaos import Work, awitness, ids, witness, word_for

WIDTH: Final = 3
QUICK_S: Final = 0.1
DONE: Final = "done"
"""The note of the line that a slow node leaves when its work is done, and its result not yet written."""


class Tally(TypedDict):
    total: Annotated[int, operator.add]


def adding(amount: int, work_s: float = 0.0) -> Callable[..., Any]:
    """An asynchronous node that adds an amount after some work. Slow work ends with a line of its own."""

    async def node(state: Tally, config: RunnableConfig) -> Tally:
        await awitness(config)
        await asyncio.sleep(work_s)  # the work
        if work_s > QUICK_S:
            await awitness(config, DONE)
        return {"total": amount}

    return node


def adding_sync(amount: int, work_s: float = 0.0) -> Callable[..., Any]:
    """The same in a thread."""

    def node(state: Tally, config: RunnableConfig) -> Tally:
        witness(config)
        time.sleep(work_s)  # the work
        if work_s > QUICK_S:
            witness(config, DONE)
        return {"total": amount}

    return node


async def failing_once(state: Tally, config: RunnableConfig) -> Tally:
    """Fails in a way that passes, under the run's first claim."""
    await awitness(config)
    if config["metadata"]["epoch"] == 1:
        raise ConnectionError("the other side is away")
    return {"total": 10}


def waiting(state: Tally, config: RunnableConfig) -> Tally:
    witness(config)
    wait_for(timedelta(seconds=0.3))
    return {"total": 10}


def asking(state: Tally, config: RunnableConfig) -> Tally:
    witness(config)
    decision = approval("Add ten", action={"add": 10}, on_yes="Ten is added.", on_no="A thousand is added.")
    return {"total": 10 if decision.approved else 1000}


def fanning(state: Tally) -> list[Send]:
    return [Send("each", state) for _ in range(WIDTH)]


def graphs() -> dict[str, Any]:
    """Every graph by its name."""
    return {
        "line": _line(adding(1, 0.005), adding_sync(10, 0.005), adding(100)),
        "flaky": _line(adding(1), failing_once, adding_sync(100)),
        "timer": _line(adding_sync(1), waiting, adding(100)),
        "approval": _line(adding(1), asking, adding(100)),
        "fan": _fan(),
        "slow": _line(adding(1), adding(10, 0.6), adding_sync(100)),
        "slow_sync": _line(adding(1), adding_sync(10, 0.6), adding(100)),
        "endless": _line(adding(1), adding(10, 3600), adding(100)),
    }


def _line(first: Any, second: Any, third: Any) -> Any:
    builder = StateGraph(Tally)
    builder.add_node("first", first).add_node("second", second).add_node("third", third)
    builder.add_edge(START, "first").add_edge("first", "second").add_edge("second", "third").add_edge("third", END)
    return builder.compile()


def _fan() -> Any:
    builder = StateGraph(Tally)
    builder.add_node("plan", adding(1)).add_node("each", adding_sync(10)).add_node("join", adding(100))
    builder.add_edge(START, "plan").add_conditional_edges("plan", fanning, ["each"])
    builder.add_edge("each", "join").add_edge("join", END)
    return builder.compile()


MIXTURE: Final = ("line",) * 13 + ("fan",) * 3 + ("flaky", "timer", "approval", "approval")
"""Of twenty runs, how many are of which graph."""


def mixed(seed: int, runs: int) -> list[Work]:
    """That many runs, in the mixture."""
    chance = random.Random(seed)
    return [
        Work(chance.choice(MIXTURE), {"total": chance.randrange(1_000_000, 2_000_000)}, run_id)
        for run_id, _ in zip(ids(chance), range(runs), strict=False)
    ]


def expected(work: Work) -> int:
    """What a run comes to if every step is done once."""
    start: int = work.value["total"]
    return start + {"fan": 101 + 10 * WIDTH, "approval": _approved(work.run_id)}.get(work.workflow, 111)


def _approved(run_id: UUID) -> int:
    return 111 if word_for(run_id) is Word.APPROVED else 1101
