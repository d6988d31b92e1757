"""Effects and model answers through the real saver, with a kill -9 on either side of the call."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from control.core.answer import Word
from control.core.problem import Refusal
from control.core.run_status import Facet
from control.runtime.commands.decide import decide
from control.testing.stage import staged
from tests.runtime.scenes import Cues, graphs
from tests.runtime.test_status_words import run_of
from tests.runtime.test_verbs import everything, said
from tests.runtime.troupe import Troupe


def effect(conninfo: str) -> tuple[Any, ...]:
    """The one effect on record: state, calls, how."""
    with psycopg.connect(conninfo) as conn:
        (row,) = conn.execute("select state, calls, how from control.effect").fetchall()
    return row


def outside(cues: Cues) -> list[str]:
    """The calls that reached the other side, by the key they carried."""
    file = cues.folder / "outside"
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize("happened", [True, False], ids=["after the call", "before the call"])
async def test_an_interrupted_effect_is_probed(happened: bool, database: str, cues: Cues, troupe: Troupe) -> None:
    async with staged(database, graphs("probed"), work=False) as stage:
        cues.give("after" if happened else "before", "die")
        victim = troupe.hire("probed")
        run_id = await run_of(stage, "probed", cues)
        await troupe.until_gone(victim)
        assert effect(database) == ("began", 1, None)
        cues.take("after" if happened else "before")
        troupe.hire("probed")
        await stage.until(run_id, "succeeded")
        assert outside(cues) == [f"{run_id}/bill"]
        assert cues.seen("probe") == ["probe"]
        assert effect(database) == (("done", 1, "probed") if happened else ("done", 2, "called"))
        assert await said(stage, run_id) == ["a", f"{run_id}/bill", "z"]


async def test_an_interrupted_effect_is_repeated_with_its_key(database: str, cues: Cues, troupe: Troupe) -> None:
    async with staged(database, graphs("repeatable"), work=False) as stage:
        cues.give("after", "die")
        victim = troupe.hire("repeatable")
        run_id = await run_of(stage, "repeatable", cues)
        await troupe.until_gone(victim)
        cues.take("after")
        troupe.hire("repeatable")
        await stage.until(run_id, "succeeded")
        assert outside(cues) == [f"{run_id}/bill"] * 2
        assert effect(database) == ("done", 2, "called")
        began = [entry.body["call"] for entry in stage.ledger(run_id) if entry.kind == "effect_began"]
        assert began == [1, 2]


@pytest.mark.parametrize("happened", [True, False], ids=["it happened", "it did not"])
async def test_an_effect_in_doubt_waits_for_a_persons_word(
    happened: bool, database: str, cues: Cues, troupe: Troupe
) -> None:
    async with staged(database, graphs("doubtful"), work=False) as stage:
        cues.give("after" if happened else "before", "die")
        victim = troupe.hire("doubtful")
        run_id = await run_of(stage, "doubtful", cues)
        await troupe.until_gone(victim)
        cues.take("after" if happened else "before")
        troupe.hire("doubtful")
        told = await stage.until(run_id, "awaiting_approval")
        assert Facet.IN_DOUBT in told.facets and "has been in doubt since" in told.because[0]
        before = everything(database, run_id)
        with pytest.raises(Refusal) as refused:
            await decide(stage.control, run_id, Word.ANSWERED, answer={"happened": "perhaps"})
        assert refused.value.problem.code == "answer-invalid" and everything(database, run_id) == before
        await decide(stage.control, run_id, Word.ANSWERED, answer={"happened": happened, "outcome": "paid by hand"})
        done = await stage.until(run_id, "succeeded")
        assert Facet.IN_DOUBT not in done.facets
        assert outside(cues) == [f"{run_id}/bill"]
        if happened:
            assert effect(database) == ("done", 1, "told") and (await said(stage, run_id))[1] == "paid by hand"
        else:
            assert effect(database) == ("done", 2, "called")


async def test_a_recorded_answer_is_not_asked_for_again(database: str, cues: Cues, troupe: Troupe) -> None:
    """Killed after the answer was recorded: once. Killed while it was on its way: asked again, and counted."""
    async with staged(database, graphs("thinking"), work=False) as stage:
        cues.give("thought", "die")
        victim = troupe.hire("thinking")
        run_id = await run_of(stage, "thinking", cues)
        await troupe.until_gone(victim)
        cues.take("thought")
        troupe.hire("thinking")
        await stage.until(run_id, "succeeded")
        assert cues.seen("model", "thought") == ["model", "thought", "thought"]
        assert effect(database) == ("done", 1, "called")
        assert await said(stage, run_id) == ["a", "42", "z"]


async def test_a_model_call_in_flight_at_a_kill_is_repeated_and_counted(
    database: str, cues: Cues, troupe: Troupe
) -> None:
    async with staged(database, graphs("thinking"), work=False) as stage:
        cues.give("model", "die")
        victim = troupe.hire("thinking")
        run_id = await run_of(stage, "thinking", cues)
        await troupe.until_gone(victim)
        cues.take("model")
        troupe.hire("thinking")
        await stage.until(run_id, "succeeded")
        assert cues.seen("model") == ["model", "model"] and effect(database) == ("done", 2, "called")
