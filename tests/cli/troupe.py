"""Small graphs for the command line's tests, loaded from a langgraph.json as a user's would be."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from pydantic import BaseModel
from typing_extensions import TypedDict

from control.sdk import approval, ask, effect, wait_for_signal


class State(TypedDict, total=False):
    amount: int
    gate: str
    said: str


class Grant(BaseModel):
    amount: int


def _chain(**nodes: Any) -> Any:
    graph = StateGraph(State)
    names = list(nodes)
    for name, node in nodes.items():
        graph.add_node(name, node)
    for before, after in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(before, after)
    return graph.compile()


def _more(state: State) -> State:
    return {"amount": state.get("amount", 0) + 1}


def _ask(state: State) -> State:
    decision = approval(
        "Pay the invoice?", action={"amount_eur": state["amount"], "to": "ACME \x1b[31mLtd"},
        evidence=[{"label": "invoice", "page": 3}], risk="low", on_yes="It is paid.", on_no="It is sent back.",
        answer=Grant, expires_in=timedelta(days=1),
    )  # fmt: skip
    if decision.approved and decision.answer:
        effect("pay", lambda key: decision.answer.amount)
    return {"said": "yes" if decision.approved else "no"}


def _grant(_: State) -> State:
    """It takes two, and lies with somebody."""
    decided = approval("Grant it?", action={}, on_yes="It is granted.", on_no="It is not.", quorum=2, skills=["credit"])
    return {"said": decided.by or ""}


def _inquire(_: State) -> State:
    return {"amount": ask("How much is it?", answer=Grant).amount}


def _review(_: State) -> State:
    """Asks as LangChain's middleware does, and says what came back."""
    calls = [{"name": "pay", "args": {"to": "ACME", "amount": 40}}, {"name": "mail", "args": {"to": "ada"}}]
    every = ["approve", "edit", "reject"]
    configs = [{"action_name": call["name"], "allowed_decisions": every} for call in calls]
    return {"said": json.dumps(interrupt({"action_requests": calls, "review_configs": configs})["decisions"])}


def _fail(_: State) -> State:
    raise ValueError("the file is [bold]empty")


def _listen(_: State) -> State:
    return {"said": wait_for_signal("door")}


async def _linger(state: State) -> State:
    await asyncio.to_thread(_wait_for_gate, Path(state["gate"]))
    return {}


def _wait_for_gate(gate: Path) -> None:
    """Say that the node has begun, and be at it until the test opens the gate."""
    gate.with_suffix(".begun").touch()
    while not gate.exists():
        time.sleep(0.02)


count = _chain(one=_more, two=_more, three=_more)
pay = _chain(ask=_ask)
review = _chain(ask=_review)
grant = _chain(ask=_grant)
inquire = _chain(ask=_inquire)
fail = _chain(check=_fail)
listen = _chain(wait=_listen)
slow = _chain(linger=_linger, after=_more)
