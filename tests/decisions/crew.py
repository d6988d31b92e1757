"""The workers of the state machine, each a process of its own, and the graphs that they drive.

Two kinds of runs wait for people. A `guarded` one asks through the SDK: two voices out of the approvers, and after half
an hour of the bosses as well, not the starter's, within the time, at the price that was shown. A `reviewed` one asks in
LangChain's shape, and may be answered with an edit. Each run has a price of its own.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

from control.app import App, opened
from control.core.principal import Principal
from control.runtime.commands import Control
from control.runtime.commands.facts import set_fact
from control.runtime.recovery import Recovery
from control.runtime.workflows import describe
from control.sdk import Rung, aeffect, afact, approval
from control.settings import Settings
from control.store import runs
from control.store.claims import Orphan
from control.store.database import Address
from control.testing.faults import Fleet
from control.testing.stage import tester
from tests.decisions.outside import Outside
from tests.decisions.world import EXPIRY, RUNG, STEP, VALID

WORKERS: Final = 2
SETTINGS: Final[Mapping[str, Any]] = {"takeover_poll_s": 0.05, "poll_s": 0.1, "pool_limit": 16, "worker_slots": 16,
                                      "crash_limit": 1_000_000}  # fmt: skip
"""Whoever is killed at random says nothing of the runs it held: none is abandoned."""
_REVIEW: Final = {
    "action_requests": [{"name": "pay", "args": {"amount": 1}}],
    "review_configs": [{"action_name": "pay", "allowed_decisions": ["approve", "edit", "reject"]}],
}


class Input(TypedDict, total=False):
    fact: str


@dataclass
class Graphs:
    """What runs in a worker. app: the worker's own, once it is open."""

    outside: Outside
    app: App | None = None

    async def guarded(self, state: Input, config: RunnableConfig) -> Input:
        run_id, name = UUID(config["metadata"]["run_id"]), state["fact"]
        price = await afact(name)
        decision = approval(
            "Pay?",
            action={"pay": price},
            on_yes="Paid.",
            on_no="Not paid.",
            quorum=2,
            roles=["approver"],
            four_eyes=True,
            expires_in=STEP * EXPIRY,
            valid_for=STEP * VALID,
            ladder=[Rung(STEP * RUNG, to=["boss"])],
            fresh={name: price},
        )
        if decision.approved:
            await self._befall(run_id, name, price)
            await aeffect("pay", self._call(run_id, price), key="pay", probe=self._probe(run_id), guarded_by=decision)
        return {}

    async def reviewed(self, state: Input, config: RunnableConfig) -> Input:
        run_id = UUID(config["metadata"]["run_id"])
        (decision,) = interrupt(_REVIEW)["decisions"]
        if decision["type"] != "reject":
            edited = decision["type"] == "edit" and decision["edited_action"]["args"] == {"amount": 2}
            paid = self._call(run_id, "edited" if edited else 1)
            await aeffect("pay", paid, key="pay", probe=self._probe(run_id))
        return {}

    def enter(self, app: App) -> None:
        self.app = app

    def compiled(self) -> dict[str, Any]:
        named = {"guarded": self.guarded, "reviewed": self.reviewed}
        return {name: StateGraph(Input).add_node(name, node).add_edge(START, name).compile()
                for name, node in named.items()}  # fmt: skip

    def _call(self, run_id: UUID, price: Any) -> Callable[[str], Awaitable[str]]:
        async def call(_: str) -> str:
            self.outside.pay(run_id, price)
            self.outside.kills(run_id, "killed after")
            return "paid"

        return call

    def _probe(self, run_id: UUID) -> Callable[[str], str | None]:
        return lambda _: "paid" if self.outside.paid(run_id) else None

    async def _befall(self, run_id: UUID, name: str, price: int) -> None:
        self.outside.kills(run_id, "killed before")
        match self.outside.planned(run_id):
            case "deposed":
                self.outside.strikes(run_id)
                await self._depose(run_id)
            case "fact moved":
                await set_fact(self._control, name, price + 1)
                self.outside.strikes(run_id)

    async def _depose(self, run_id: UUID) -> None:
        """Take the run from this very process, which goes on as if nothing had happened."""
        assert self.app is not None
        while True:
            async with self._control.transaction() as conn:
                run = await runs.read_run(conn, self._control.tenant, run_id)
            if run.worker_id is None:
                return
            orphan = Orphan(run.tenant, run_id, run.epoch, run.worker_id, "The test took it.", crashed=False)
            if await Recovery(self.app.database, crash_limit=SETTINGS["crash_limit"]).take_over(orphan):
                return

    @property
    def _control(self) -> Control:
        assert self.app is not None
        return self.app.control(principal=_MOVER)


_MOVER: Final[Principal] = tester()


def serve(says: Connection, conninfo: str, folder: Path) -> None:
    """The life of a worker, until SIGTERM drains it."""
    asyncio.run(serving(says, conninfo, folder, graphs=Graphs(Outside(folder))))


async def serving(says: Connection, conninfo: str, folder: Path, *, graphs: Any) -> None:
    """Drive these graphs: something like `Graphs`."""
    workflows = {name: describe(name, graph) for name, graph in graphs.compiled().items()}
    settings = Settings(**SETTINGS, audit_dir=folder / "audit")
    async with opened(settings, Address.of(conninfo, login=True), workflows) as app:
        graphs.enter(app)
        worker = app.worker()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.drain)
        says.send(str(worker.worker_id))
        await worker.run()


def refill(fleet: Fleet) -> None:
    """Another worker in the place of each that was killed."""
    for member in [member for member in fleet.members if not member.alive]:
        assert member.process.exitcode == -signal.SIGKILL, f"a worker ended by itself; see {fleet.log}"
        fleet.members.remove(member)
    while len(fleet.members) < WORKERS:
        fleet.start()
