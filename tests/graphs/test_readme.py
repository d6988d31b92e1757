"""The first example of the README is run as it stands there: asked, approved, paid once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypedDict

import psycopg
import pytest
from langgraph.graph import START, StateGraph

from control.core.answer import Word
from control.runtime.commands.decide import decide
from control.runtime.commands.start import start
from control.testing.stage import staged

README = Path(__file__).parents[2] / "README.md"


class State(TypedDict, total=False):
    amount_eur: float
    payee: str
    iban: str
    outcome: Any


class Bank:
    def __init__(self) -> None:
        self.transfers: dict[str, float] = {}

    def transfer(self, state: State, *, idempotency_key: str) -> dict[str, Any]:
        self.transfers.setdefault(idempotency_key, state["amount_eur"])
        return {"receipt": len(self.transfers)}


@pytest.mark.parametrize("word", [Word.APPROVED, Word.REJECTED])
async def test_the_first_example_of_the_readme(word: Word, database: str) -> None:
    bank = Bank()
    names: dict[str, Any] = {"bank": bank}
    exec(README.read_text(encoding="utf-8").split("```python\n", 1)[1].split("```", 1)[0], names)
    graph = StateGraph(State)
    graph.add_node("pay", names["pay"])
    graph.add_edge(START, "pay")
    async with staged(database, {"pay": graph.compile()}) as stage:
        run = await start(stage.control, "pay", {"amount_eur": 120.0, "payee": "Ada", "iban": "DE02"})
        await stage.until(run.run_id, "awaiting_approval")
        assert not bank.transfers
        await decide(stage.control, run.run_id, word)
        await stage.until(run.run_id, "succeeded")
    with psycopg.connect(database) as conn:
        query = "select body from control.ledger where run_id = %s and kind = 'effect_began'"
        began = [json.loads(body) for (body,) in conn.execute(query, (run.run_id,))]
        asked = conn.execute("select interrupt_id from control.approval").fetchall()
    approved = word is Word.APPROVED
    assert list(bank.transfers.values()) == [120.0] * approved
    assert [(body["guarded_by"],) for body in began] == asked * approved
