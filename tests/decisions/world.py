"""A small world for the state machine: people, graphs that pay, and a model of what may be paid that shares no code
with the product.

Two kinds of runs wait for people. A `guarded` one asks through the SDK: two voices out of the approvers, and after half
an hour of the bosses as well, not the starter's, within the time, at the price that was shown. A `reviewed` one asks in
LangChain's shape, and may be answered with an edit. Each run has a price of its own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

from control.core.principal import Principal
from control.policy.cedar import default_text
from control.runtime.commands.facts import set_fact
from control.runtime.recovery import Recovery
from control.sdk import Rung, aeffect, afact, approval
from control.store.claims import Orphan
from control.testing.stage import Stage
from tests.decisions.paying import HOUR

STEP: Final = HOUR / 3  # the clock moves by this; no span below is a multiple of it, so that seconds do not matter
RUNG: Final = 1.5  # steps
EXPIRY: Final = 5.5
VALID: Final = 7.5
PEOPLE: Final = {
    "ana": {"approver"}, "ben": {"approver"}, "cyd": {"approver"}, "dan": {"boss"}, "eve": {"viewer"},
    "sam": {"admin", "approver"},
}  # fmt: skip
STARTER: Final = "sam"
BOSSES: Final = '@id("bosses") permit (principal in Role::"boss", action == Action::"approve", resource);'
RULES: Final = default_text() + BOSSES
NOT_BEN: Final = RULES + '@id("not-ben") forbid (principal == Person::"ben", action == Action::"approve", resource);'

Word = Literal["approve", "reject", "edit"]
Which = Literal["current", "earlier", "unknown", "other packet"]
Hook = Literal["kill", "killed after", "fact", ""]


class Input(TypedDict, total=False):
    fact: str


@dataclass
class Asked:
    """A question as the model has it. at: in steps of the clock. forbids: the policy when it was asked."""

    id: str
    at: int
    price: Any
    yes: set[str] = field(default_factory=set)


@dataclass
class Case:
    """A run. state: `open`, or what it came to: `yes`, `no`, `stale` (to be asked again), `over`."""

    run_id: UUID
    fact: str
    kind: str
    state: str = "open"
    asked: Asked | None = None
    earlier: list[str] = field(default_factory=list)
    paused: bool = False
    due: list[Any] = field(default_factory=list)  # what may be paid, once


@dataclass
class World:
    """What is so now, and what was done. paid: by run, as it reached the other side. hooks: by run, used up once."""

    now: int = 0
    strict: bool = False
    prices: dict[str, Any] = field(default_factory=dict)
    paid: dict[UUID, list[Any]] = field(default_factory=dict)
    hooks: dict[UUID, Hook] = field(default_factory=dict)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    stage: Stage | None = None

    def may(self, who: str, word: Word) -> bool:
        """What the policy in force says."""
        if who == "ben" and self.strict and word != "reject":
            return False
        return "approver" in PEOPLE[who] or (who == "dan" and word != "reject")

    def foresee(self, case: Case, who: str, word: Word, *, which: Which) -> str:
        """What an attempt must come to: `taken`, `refused`, or `stale`, which is refused and asked again."""
        asked = case.asked
        if asked is None or case.state != "open" or which != "current" or not self.may(who, word):
            return "refused"
        if case.kind == "reviewed":
            return "taken"
        age = self.now - asked.at
        seated = "approver" in PEOPLE[who] or (who == "dan" and age > RUNG)
        if age > EXPIRY or word == "edit" or not seated:
            return "refused"
        if word == "reject":
            return "taken"
        if who == STARTER or who in asked.yes:
            return "refused"
        return "stale" if self.moved(case) else "taken"

    def moved(self, case: Case) -> bool:
        """Whether what a question rests on is no more so."""
        asked = case.asked
        assert asked is not None
        outvoted = any(not self.may(who, "approve") for who in asked.yes)
        return outvoted or self.prices[case.fact] != asked.price or self.now - asked.at > VALID

    def stopped(self, case: Case) -> bool:
        """Whether a yes is not carried out: what it rests on has moved since, or will before the payment."""
        return self.moved(case) or self.hooks.get(case.run_id) == "fact"

    def take(self, case: Case, who: str, word: Word) -> None:
        """What a taken attempt makes of a question."""
        assert case.asked is not None
        if word == "reject":
            case.state = "no"
        elif case.kind == "reviewed":
            case.state, case.due = "yes", ["edited" if word == "edit" else case.asked.price]
        else:
            case.asked.yes.add(who)
            if len(case.asked.yes) == 2:
                case.state, case.due = "yes", [case.asked.price]

    # What runs in the graphs.

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
            if self.hooks.get(run_id) in ("kill", "fact"):
                await self._disturb(run_id, name)
            await aeffect("pay", self._call(run_id, price), key="pay", probe=self._probe(run_id), guarded_by=decision)
        return {}

    def reviewed(self, state: Input, config: RunnableConfig) -> Input:
        request = {"name": "pay", "args": {"amount": 1}}
        review = {"action_name": "pay", "allowed_decisions": ["approve", "edit", "reject"]}
        (decision,) = interrupt({"action_requests": [request], "review_configs": [review]})["decisions"]
        if decision["type"] != "reject":
            paid = "edited" if decision["type"] == "edit" and decision["edited_action"]["args"] == {"amount": 2} else 1
            self.paid.setdefault(UUID(config["metadata"]["run_id"]), []).append(paid)
        return {}

    def _call(self, run_id: UUID, price: Any) -> Any:
        async def call(_: str) -> str:
            self.paid.setdefault(run_id, []).append(price)
            if self.hooks.get(run_id) == "killed after":
                await self._disturb(run_id, "")
            return "paid"

        return call

    def _probe(self, run_id: UUID) -> Any:
        return lambda _: "paid" if self.paid.get(run_id) else None

    async def _disturb(self, run_id: UUID, name: str) -> None:
        """A worker loses its claim and does not know it; or the price moves between the yes and the payment."""
        assert self.stage is not None
        hook = self.hooks.pop(run_id)
        self.counts["trouble", hook] += 1
        if hook == "fact":
            self.prices[name] += 1
            await set_fact(self.stage.control, name, self.prices[name])
            return
        run = await self.stage.run(run_id)
        assert run.worker_id is not None
        orphan = Orphan(run.tenant, run_id, run.epoch, run.worker_id, "The test took it.", crashed=False)
        while not await Recovery(self.stage.app.database, crash_limit=3).take_over(orphan):
            assert (await self.stage.run(run_id)).epoch == run.epoch

    def graphs(self) -> dict[str, Any]:
        named = {"guarded": self.guarded, "reviewed": self.reviewed}
        return {name: StateGraph(Input).add_node(name, node).add_edge(START, name).compile()
                for name, node in named.items()}  # fmt: skip


def principal(who: str, tenant: str) -> Principal:
    return Principal(who, tenant, roles=frozenset(PEOPLE[who]))
