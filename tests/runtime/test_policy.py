"""Rules are stored whole or not at all, govern at once and everywhere, and can be tried on what was decided."""

from __future__ import annotations

import psycopg
import pytest

from control.core.problem import Refusal
from control.core.verdict import Ask, Deny
from control.policy.cedar import default_text, parsed
from control.runtime.commands.cancel import cancel
from control.runtime.commands.pause import pause, resume
from control.runtime.commands.policy import apply, history, show, what_if
from control.runtime.commands.start import start
from control.testing.stage import Stage, staged
from tests.runtime.scenes import Cues, graphs

LUNCH = """
@id("no-cancelling")
@why("Nothing is cancelled before lunch.")
forbid (principal, action == Action::"cancel", resource);
"""
ASKS = '\n@id("two") @ask("owner") forbid (principal, action == Action::"pause", resource is Run);'


async def test_the_shipped_rules_are_in_force_until_others_are_applied(database: str) -> None:
    async with staged(database, {}, work=False) as stage:
        assert (await show(stage.control)).policy is parsed(default_text())
        assert (await show(stage.control)).stored is None
        assert await history(stage.control, limit=9) == []


async def test_a_text_governs_every_process_from_its_commit_on(database: str, cues: Cues) -> None:
    async with staged(database, graphs("line"), work=False) as stage, staged(database, {}, work=False) as other:
        run = await start(stage.control, "line", cues.input)
        applied = await apply(other.control, default_text() + LUNCH, note="a rule of the house")
        with pytest.raises(Refusal, match=r"Nothing is cancelled before lunch\. \(rules: no-cancelling\)") as refused:
            await cancel(stage.control, run.run_id)
        assert refused.value.facts["policy"] == applied.policy.version
        await apply(other.control, default_text())
        await cancel(stage.control, run.run_id)
        assert stage.kinds(run.run_id) == ["accepted", "refused", "ordered"]
        versions = await history(stage.control, limit=9)
        assert [(one.version, one.applied_by, one.note) for one in versions] == [
            (2, "tester", None),
            (1, "tester", "a rule of the house"),
        ]


async def test_applying_what_is_in_force_makes_no_version(database: str) -> None:
    async with staged(database, {}, work=False) as stage:
        first = await apply(stage.control, default_text() + LUNCH)
        assert (await apply(stage.control, default_text() + LUNCH)).stored == first.stored
        assert len(await history(stage.control, limit=9)) == 1


@pytest.mark.parametrize(
    ("text", "role", "code"),
    [
        (default_text() + "permit (principal, action, resource);", "admin", "policy-invalid"),
        (default_text() + LUNCH, "operator", "not-permitted"),
        ('@id("r") permit (principal, action == Action::"read", resource);', "admin", "policy-locks-out"),
        ("", "admin", "policy-locks-out"),
    ],
)
async def test_a_refused_text_is_not_stored(database: str, text: str, role: str, code: str) -> None:
    async with staged(database, {}, work=False) as stage:
        with pytest.raises(Refusal) as refused:
            await apply(stage.acting(role), text)
        assert refused.value.code == code
        assert await history(stage.control, limit=9) == []


async def test_a_version_cannot_be_changed_or_taken_away(database: str) -> None:
    async with staged(database, {}, work=False) as stage:
        await apply(stage.control, default_text() + LUNCH)
        async with stage.control.transaction() as conn:
            for statement in ("update control.policy set note = 'x'", "delete from control.policy"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    async with conn.transaction():
                        await conn.execute(statement)


async def test_a_text_that_no_longer_fits_stops_everything_but_its_correction(database: str, cues: Cues) -> None:
    """As after an upgrade that took something away from the schema."""
    async with staged(database, graphs("line"), work=False) as stage:
        run = await start(stage.control, "line", cues.input)
        old = '@id("old") permit (principal is Ghost, action, resource);'
        with psycopg.connect(database) as conn:
            conn.execute(
                "insert into control.policy (tenant, version, digest, text, applied_at, applied_by) values"
                " ('default', 1, encode(sha256(convert_to(%(old)s, 'UTF8')), 'hex'), %(old)s, now(), 'ana')",
                {"old": old},
            )
        with pytest.raises(Refusal) as refused:
            await pause(stage.control, run.run_id)
        assert refused.value.code == "policy-invalid"
        with pytest.raises(Refusal, match="You may not do this"):
            await apply(stage.acting("operator"), default_text())
        await apply(stage.control, default_text())
        await pause(stage.control, run.run_id)


async def test_a_rule_that_asks_names_whom(database: str, cues: Cues) -> None:
    async with staged(database, graphs("line"), work=False) as stage:
        run = await start(stage.control, "line", cues.input)
        await apply(stage.control, default_text() + ASKS)
        with pytest.raises(Refusal) as refused:
            await pause(stage.control, run.run_id)
        assert refused.value.code == "agreement-needed"
        assert "Somebody who is owner has to agree (rules: two)." in refused.value.why
        assert stage.ledger(run.run_id)[-1].body["of"] == ["owner"]


async def test_what_if_shows_what_would_have_come_out_otherwise(database: str, cues: Cues) -> None:
    async with staged(database, graphs("line"), work=False) as stage:
        run_id = await decided(stage, cues)
        same = await what_if(stage.control, default_text(), days=1)
        assert (same.decided, same.differences) == (5, [])
        stricter = await what_if(stage.control, default_text() + LUNCH + ASKS, days=1)
        assert [(d.seq, d.actor, d.action, d.was, d.would) for d in stricter.differences] == [
            (3, "tester", "pause", "permit", "ask"),
            (5, "tester", "cancel", "permit", "deny"),
        ]
        assert all(difference.run_id == run_id for difference in stricter.differences)
        assert isinstance(stricter.differences[0].verdict, Ask)
        assert stricter.differences[1].verdict == Deny(("no-cancelling",), "Nothing is cancelled before lunch.")
        laxer = default_text() + '\n@id("own") permit (principal, action == Action::"cancel", resource);'
        loosened = await what_if(stage.control, laxer, days=1)
        assert [(d.seq, d.actor, d.was, d.would) for d in loosened.differences] == [(2, "vic", "deny", "permit")]
        assert (await what_if(stage.control, laxer, days=0)).decided == 0
        assert await history(stage.control, limit=9) == []


async def test_what_if_tells_nobody_of_runs_that_they_may_not_read(database: str, cues: Cues) -> None:
    own = """
        @id("own") permit (principal in Role::"guest", action == Action::"read", resource)
            when { resource is Policy || (resource is Run && resource.created_by == principal.actor) };
    """
    async with staged(database, graphs("line"), work=False) as stage:
        await decided(stage, cues)
        await apply(stage.control, default_text() + own)
        for role, count in (("guest", 0), ("viewer", 5)):
            found = await what_if(stage.acting(role), default_text() + LUNCH, days=1)
            assert (found.decided, bool(found.differences)) == (count, bool(count))


async def decided(stage: Stage, cues: Cues) -> object:
    """A run with five decisions in its ledger: started, refused, paused, resumed, cancelled."""
    run = await start(stage.control, "line", cues.input)
    with pytest.raises(Refusal):
        await cancel(stage.acting("viewer", id="vic"), run.run_id)
    await pause(stage.control, run.run_id)
    await resume(stage.control, run.run_id)
    await cancel(stage.control, run.run_id)
    return run.run_id


async def test_another_tenant_has_rules_of_its_own(database: str, cues: Cues) -> None:
    async with staged(database, {}, work=False) as stage, staged(database, {}, work=False, tenant="other") as other:
        await apply(stage.control, default_text() + LUNCH)
        assert (await show(other.control)).stored is None
        assert await history(other.control, limit=9) == []
