"""Graphs that pay what a person has approved, at a price that may move while they wait: ours, and plain LangGraph's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

from control.sdk import aeffect, afact, approval


class State(TypedDict, total=False):
    paid: Any


@dataclass
class Till:
    """What reached the other side. price: where no fact says it, as in plain LangGraph. before: done between the yes
    and the effect, once. args: others of `approval`; plain LangGraph's question only says them.
    """

    args: Mapping[str, Any] = field(default_factory=dict)
    paid: list[Any] = field(default_factory=list)
    shown: list[Any] = field(default_factory=list)
    before: Callable[[], Any] | None = None
    price: Any = 40
    away: int = 0
    effects: tuple[str, ...] = ("pay",)

    def call(self, price: Any) -> None:
        """The other side, which is away as often as `away` says."""
        if self.away:
            self.away -= 1
            raise ConnectionError("away")
        self.paid.append(price)

    async def pay(self, _: State) -> State:
        price = await afact("price", self.price)
        self.shown.append(price)
        decision = approval(
            "Pay?",
            action={"name": "pay", "amount": price},
            on_yes="It is paid.",
            on_no="It is not.",
            **{"fresh": {"price": price}, **self.args},
        )
        if not decision.approved:
            return {"paid": "no"}
        await self._meanwhile()
        for name in self.effects:
            await aeffect(name, lambda _: self.call(price), key=name, guarded_by=decision)
        return {"paid": price}

    async def pay_plainly(self, _: State) -> State:
        """The same with nothing of ours: a bare `interrupt`, and the calls."""
        price = self.price
        self.shown.append(price)
        answer = interrupt({"title": "Pay?", "action": {"name": "pay", "amount": price}, **self.args})
        if answer["decision"] != "approve":
            return {"paid": "no"}
        await self._meanwhile()
        for _name in self.effects:
            self.call(price)
        return {"paid": price}

    async def _meanwhile(self) -> None:
        if self.before is not None:
            done, self.before = self.before, None
            await done()


def paying(till: Till) -> Any:
    return StateGraph(State).add_node("pay", till.pay).add_edge(START, "pay")


def plainly(till: Till) -> Any:
    return StateGraph(State).add_node("pay", till.pay_plainly).add_edge(START, "pay")


HOUR = timedelta(hours=1)
