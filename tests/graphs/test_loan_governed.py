"""The loan under control: retried by itself, answered by a command, its effects recorded once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from control.core.answer import Word
from control.core.problem import Refusal
from control.runtime.commands.decide import decide
from control.runtime.commands.start import start
from control.testing.stage import staged
from graphs.loan_approval import graph

pytestmark = pytest.mark.installed

Files = Callable[[str], dict[str, Any]]


def effects(conninfo: str, run_id: Any) -> list[tuple[Any, ...]]:
    """The ledger's effects as (began, key, call) and (ended, key, state, how)."""
    shown = {"effect_began": ("key", "call"), "effect_ended": ("key", "state", "how")}
    with psycopg.connect(conninfo) as conn:
        entries = conn.execute("select kind, body from control.ledger where run_id = %s order by seq", (run_id,))
        read = [(kind, json.loads(body)) for kind, body in entries if kind in shown]
    return [(kind, *(body[name] for name in shown[kind])) for kind, body in read]


@pytest.mark.parametrize("risk_failures", [2])
async def test_the_503s_are_retried_and_the_officers_answer_is_delivered(
    *, database: str, outside: Any, files_of: Files
) -> None:
    async with staged(database, {"loan_approval": graph}) as stage:
        run = await start(stage.control, "loan_approval", files_of("lindqvist"))
        await stage.until(run.run_id, "awaiting_approval", timeout_s=60)
        assert outside.scored() == {"scored": 1, "unavailable": 2}
        with pytest.raises(Refusal, match="28000"):
            await decide(stage.control, run.run_id, Word.APPROVED, answer={"amount_eur": 30_000})
        await decide(stage.control, run.run_id, Word.APPROVED, answer={"amount_eur": 20_000}, note="windows later")
        await stage.until(run.run_id, "succeeded", timeout_s=30)
        assert effects(database, run.run_id) == [
            ("effect_began", "report/CL7-2026-004182", 1),
            ("effect_ended", "report/CL7-2026-004182", "done", "called"),
            ("effect_began", "memo@5/__pregel_pull.memo/risk memo#0", 1),
            ("effect_ended", "memo@5/__pregel_pull.memo/risk memo#0", "done", "called"),
            ("effect_began", "letter/CL7-2026-004182", 1),
            ("effect_ended", "letter/CL7-2026-004182", "done", "called"),
        ]
    (charge,) = outside.bill()["charges"]
    assert charge["key"] == f"{run.run_id}/report/CL7-2026-004182"
    (mail,) = outside.mail()
    assert "EUR 20,000.00" in mail["text"] and "Decided by tester" in mail["text"]
    assert outside.model_calls() == 1
