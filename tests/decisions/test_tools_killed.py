"""A governed call whose worker is killed between the yes, the call and its record is made once; one refused, never."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.graph import END, START, StateGraph
from langgraph.prebuilt import ToolNode

from control.app import App
from control.core.answer import Word
from control.runtime.commands.decide import decide
from control.runtime.commands.start import start
from control.sdk import Declared, govern_tools
from control.testing.faults import Fleet, Member, fleet
from control.testing.stage import Stage, staged
from tests.decisions import crew
from tests.decisions.agents import Agent, State
from tests.decisions.outside import Outside, Trouble
from tests.decisions.test_beside_stock import PAY, open_of
from tests.decisions.test_tools import ASK, rules, told
from tests.runtime.scenes import until

PATIENCE_S: Final = 60


@dataclass
class Agents:
    """Agents whose model wants one payment: the other side of `twice` honours the key it is given, and that of `once`
    does not."""

    outside: Outside

    def compiled(self) -> dict[str, Any]:
        given = {"once": Declared(effect=True), "twice": Declared(effect=True, repeatable=True)}
        return {name: self._graph(declared).compile() for name, declared in given.items()}

    def enter(self, app: App) -> None:
        """From now on this process dies where it is planned."""
        begin, flush = app.saver.effects.begin, app.flusher._flush

        async def begins(config: RunnableConfig, **what: Any) -> Any:
            self.outside.kills(_run(config), "killed before")
            begun = await begin(config, **what)
            self.outside.kills(_run(config), "killed begun")
            return begun

        async def flushes(items: Any) -> None:
            for item in items:
                self.outside.kills(item.fence.run_id, "killed unsaid")
            await flush(items)

        app.saver.effects.begin = begins  # type: ignore[method-assign]  # this process is there to be killed
        app.flusher._flush = flushes  # type: ignore[method-assign]  # this process is there to be killed

    def _graph(self, declared: Declared) -> Any:
        @tool
        def pay(to: str, amount: int, config: RunnableConfig, key: Annotated[str, InjectedToolCallId]) -> str:
            """Pay somebody."""
            run_id = _run(config)
            if not declared.repeatable or key not in self.outside.paid(run_id):
                self.outside.pay(run_id, key)
            self.outside.kills(run_id, "killed after")
            return f"paid {amount} to {to}"

        graph = StateGraph(State).add_node("model", Agent([PAY]).model).add_edge(START, "model")
        graph.add_node("tools", ToolNode([pay], **govern_tools({"pay": declared}))).add_edge("tools", END)
        return graph.add_edge("model", "tools")


def _run(config: RunnableConfig) -> UUID:
    return UUID(config["metadata"]["run_id"])


def serve(says: Connection, conninfo: str, folder: Path) -> None:
    asyncio.run(crew.serving(says, conninfo, folder, graphs=Agents(Outside(folder))))


@asynccontextmanager
async def installation(conninfo: str, folder: Path) -> AsyncIterator[tuple[Stage, Outside, Fleet]]:
    """Commands here, and one worker in a process of its own."""
    outside = Outside(folder)
    with fleet(serve, conninfo, folder, log=folder / "log", preload=[__name__]) as workers:
        given = {**crew.SETTINGS, "audit_dir": folder / "audit"}
        async with staged(conninfo, Agents(outside).compiled(), work=False, **given) as stage:
            await rules(stage, ASK)
            workers.start()
            yield stage, outside, workers


async def dies(
    stage: Stage, outside: Outside, workers: Fleet, case: Case, says: Callable[[UUID], Awaitable[Any]]
) -> UUID:
    """A run whose worker dies of what somebody says of its call, and the worker after it."""
    (victim,) = workers.members
    run_id = (await start(stage.control, case.workflow, {})).run_id
    await stage.until(run_id, "awaiting_approval", timeout_s=PATIENCE_S)
    outside.plan(run_id, case.when)
    await says(run_id)
    await until(partial(_gone, victim), f"{case} comes about", timeout_s=PATIENCE_S)
    assert victim.process.exitcode == -signal.SIGKILL, workers.log.read_text()
    workers.members.remove(victim)
    workers.start()
    return run_id


async def _gone(member: Member) -> bool:
    return not member.alive


class Case(NamedTuple):
    """When the worker dies, and what a person is asked and says then. calls: as the ledger counts them."""

    workflow: str
    when: Trouble
    calls: list[int]
    word: dict[str, Any] | None = None
    tells: str = "paid 40 to ACME"


CASES: Final = (
    Case("once", "killed before", [1]),
    Case("once", "killed begun", [1, 2], {"happened": False}),
    Case("once", "killed after", [1], {"happened": True}, "It was carried out; what came of it is not known."),
    Case("once", "killed after", [1], {"happened": True, "outcome": {"command": {"goto": "model"}}},
         '{"command": {"goto": "model"}}'),
    Case("twice", "killed after", [1, 2]),
)  # fmt: skip


async def test_a_call_is_made_once_whenever_its_worker_dies(database: str, tmp_path: Path) -> None:
    async with installation(database, tmp_path) as (stage, outside, workers):
        tina = stage.acting("treasurer", "approver", id="tina")
        for case in CASES:
            run_id = await dies(stage, outside, workers, case, lambda at: decide(tina, at, Word.APPROVED))
            if case.word is not None:
                await stage.until(run_id, "awaiting_approval", timeout_s=PATIENCE_S)
                (doubt,) = await open_of(stage, run_id)
                await decide(stage.control, run_id, Word.ANSWERED, answer=case.word, interrupt_id=doubt.interrupt_id)
            await stage.until(run_id, "succeeded", timeout_s=PATIENCE_S)
            assert outside.paid(run_id) == ["call-0"], case
            began = [entry.body for entry in stage.ledger(run_id) if entry.kind == "effect_began"]
            assert [body["call"] for body in began] == case.calls, case
            (message,) = await told(stage, run_id)
            assert (message.content, message.status, message.tool_call_id) == (case.tells, "success", "call-0")
            assert stage.kinds(run_id).count("decided") == 1 + (case.word is not None), "nobody is asked twice"


async def test_a_refused_call_is_never_made_though_its_worker_dies_and_the_rules_change(
    database: str, tmp_path: Path
) -> None:
    case = Case("once", "killed unsaid", [])
    async with installation(database, tmp_path) as (stage, outside, workers):

        async def refuses(run_id: UUID) -> None:
            await rules(stage)  # nobody would be asked any more
            await decide(stage.acting("treasurer", "approver", id="tina"), run_id, Word.REJECTED)

        run_id = await dies(stage, outside, workers, case, refuses)
        await stage.until(run_id, "succeeded", timeout_s=PATIENCE_S)
        (message,) = await told(stage, run_id)
        assert outside.paid(run_id) == [] and str(message.content).startswith("tina refused the call of `pay`")
        assert not [kind for kind in stage.kinds(run_id) if kind.startswith("effect")]
