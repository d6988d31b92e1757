"""Commands ask one function, and the ledger names what permitted them."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from control.core.problem import Refusal
from control.core.story import tell
from control.policy.cedar import default_text, parsed
from control.runtime.commands.cancel import cancel
from control.runtime.commands.pause import pause, resume
from control.runtime.commands.start import start
from control.store import runs
from control.testing.stage import Stage, staged
from tests.runtime.scenes import Cues, graphs


async def test_who_may_not_is_told_why_and_the_attempt_is_recorded(database: str, cues: Cues) -> None:
    async with staged(database, graphs("line"), work=False) as stage:
        run = await start(stage.control, "line", cues.input)
        before = await stage.run(run.run_id)
        with pytest.raises(Refusal) as refused:
            await cancel(stage.acting("viewer", id="vic"), run.run_id)
        assert refused.value.lines() == (
            "You may not do this",
            f"vic may not cancel run {run.run_id}. No rule permits it.",
            "Ask an administrator for a role whose rules permit it; `control policy show` prints the rules.",
        )
        assert refused.value.problem.status == 403
        assert await stage.run(run.run_id) == before
        accepted, refused_entry = stage.ledger(run.run_id)
        assert (refused_entry.actor, refused_entry.body["action"]) == ("vic", "cancel")
        assert refused_entry.body["why"] == "No rule permits it."
        assert tell([accepted, refused_entry])[-1].text == "Vic was not let cancel it: No rule permits it."
        with pytest.raises(Refusal, match="may not start run"):
            await start(stage.acting("viewer"), "line", cues.input)


async def test_a_command_leaves_its_permit_in_the_ledger(database: str, cues: Cues) -> None:
    async with staged(database, graphs("line"), work=False) as stage:
        run = await start(stage.control, "line", cues.input)
        await pause(stage.acting("operator", id="olga"), run.run_id, reason="lunch")
        accepted, ordered = stage.ledger(run.run_id)
        assert (ordered.actor, ordered.body["verb"], ordered.body["reason"]) == ("olga", "pause", "lunch")
        assert ordered.body["rules"] == ["operators-operate"]
        assert ordered.body["policy"] == accepted.body["policy"] == parsed(default_text()).version
        assert ordered.body["request"] == {
            "principal": {"id": "olga", "kind": "person", "roles": ["operator"]},
            "action": "pause",
            "resource": {
                "kind": "Run",
                "id": str(run.run_id),
                "attributes": {
                    "thread_id": run.thread_id,
                    "workflow": "line",
                    "status": "queued",
                    "created_by": "tester",
                    "priority": 0,
                },
                "of": [["Thread", run.thread_id]],
            },
        }


async def test_a_key_does_only_what_it_was_made_for(database: str, cues: Cues) -> None:
    async with staged(database, graphs("line"), work=False) as stage:
        narrow = stage.acting("admin", scopes=frozenset({"start", "pause", "read"}))
        run = await start(narrow, "line", cues.input)
        await pause(narrow, run.run_id)
        with pytest.raises(Refusal, match="does not stand for this") as refused:
            await resume(narrow, run.run_id)
        assert refused.value.facts["rules"] == ["credential"]


async def test_the_next_verbs_are_legal_and_permitted(database: str, cues: Cues) -> None:
    async with staged(database, graphs("line"), work=False) as stage:
        run = await start(stage.control, "line", cues.input)
        assert await allowed(stage, run.run_id, "admin") == {"pause", "cancel", "signal"}
        assert await allowed(stage, run.run_id, "service") == {"signal"}
        assert await allowed(stage, run.run_id, "viewer") == set()


async def allowed(stage: Stage, run_id: UUID, *roles: str) -> set[str]:
    control = stage.acting(*roles)
    async with control.transaction() as conn:
        run = await runs.read_run(conn, control.tenant, run_id)
        now = await control.look(conn, run)
        said = (await control.authority(conn)).next_verbs(run, now.status.word, now.facts)
    assert all(verdict.why for verdict in said)
    return {verdict.verb.value for verdict in said if verdict.allowed}


async def test_an_unknown_run_is_refused_before_anything_is_asked(database: str) -> None:
    async with staged(database, graphs("line"), work=False) as stage:
        with pytest.raises(Refusal, match="There is no such run"):
            await pause(stage.acting("viewer"), uuid4())


async def test_what_may_not_be_read_does_not_exist(database: str, cues: Cues) -> None:
    async with staged(database, graphs("line"), work=False) as stage:
        run = await start(stage.control, "line", cues.input)
        nobody = stage.acting("nobody")
        with pytest.raises(Refusal) as refused:
            await pause(nobody, run.run_id)
        assert refused.value.code == "no-such-run"
        async with nobody.transaction() as conn:
            with pytest.raises(Refusal) as unread:
                await nobody.read(conn, run.run_id)
        assert unread.value.lines() == refused.value.lines()
        assert stage.kinds(run.run_id) == ["accepted", "refused"]
