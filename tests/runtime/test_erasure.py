"""What a person's runs carried is erased wherever it is; what happened stays, and still verifies."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, TypedDict
from uuid import UUID

import psycopg
import pytest
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel

from control.core.answer import Word
from control.core.lifecycle import next_verbs
from control.core.problem import Refusal
from control.core.story import ERASED, tell
from control.policy.cedar import default_text
from control.runtime.commands.cancel import cancel
from control.runtime.commands.decide import decide
from control.runtime.commands.erase import Pruned, erase_person, erase_runs, prune, retain
from control.runtime.commands.policy import apply
from control.runtime.commands.restart import restart
from control.runtime.commands.retry import retry
from control.runtime.commands.rewind import rewind
from control.runtime.commands.signal import signal
from control.runtime.commands.start import start
from control.runtime.doctor import examine
from control.sdk import approval, ask, effect, wait_for_signal
from control.store.database import Address
from control.store.doctor import cases
from control.testing import clock
from control.testing.database import as_role
from control.testing.stage import Stage, staged

SECRET: Final = "xyzzy-plugh-4711"
"""Stands for a person's data. It goes in at every door, and none of it may be left."""

OTHER: Final = "plover-0815"
DAY: Final = timedelta(days=1)


class State(TypedDict, total=False):
    text: str
    heard: str


class Answer(BaseModel):
    text: str


def work(state: State) -> State:
    """Every kind of thing that can be written of a run: an effect, a question, an approval and a signal."""
    sent = effect("send", lambda key: f"sent {state['text']}", repeatable=True)
    told = ask(f"What of {state['text']}?", answer=Answer)
    shown = {"label": "letter", "text": sent}
    approval(f"Pay {state['text']}", action={"to": state["text"]}, evidence=[shown], on_yes=f"pay {sent}", on_no="stop")
    heard = wait_for_signal("door")
    return {"text": f"{state['text']} {told.text}", "heard": str(heard)}


def fail(state: State) -> State:
    raise ValueError(f"{state['text']} is not known")


def _graph(node: Any) -> Any:
    graph = StateGraph(State)
    graph.add_node("work", node)
    graph.add_edge(START, "work")
    graph.add_edge("work", END)
    return graph.compile()


GRAPHS: Final = {"work": _graph(work), "fail": _graph(fail)}


async def lived(stage: Stage, secret: str, *subjects: str, thread: str | None = None) -> UUID:
    """A run that has carried `secret` through every door, and has ended."""
    control = stage.control
    run = await start(
        control, "work", {"text": secret}, thread_id=thread, subjects=subjects, config={"tags": [f"tag {secret}"]}
    )
    await stage.until(run.run_id, "awaiting_input")
    await decide(control, run.run_id, Word.ANSWERED, answer={"text": secret}, note=f"note {secret}")
    await stage.until(run.run_id, "awaiting_approval")
    async with control.transaction() as conn:
        asked = (await control.look(conn, await stage.run(run.run_id))).facts.asks[0].interrupt_id
    await decide(control, run.run_id, Word.APPROVED, interrupt_id=asked, note=f"fine, {secret}")
    await signal(control, run.run_id, "window", payload=f"unheard {secret}")
    await stage.until(run.run_id, "waiting")
    await signal(control, run.run_id, "door", payload=f"open {secret}")
    await stage.until(run.run_id, "succeeded")
    return run.run_id


def dump(conninfo: str) -> dict[str, str]:
    """Everything in every table of the database, as text and as the bytes in it."""
    with psycopg.connect(conninfo) as conn:
        tables = conn.execute(
            "select format('%I.%I', schemaname, tablename) from pg_tables"
            " where schemaname not in ('pg_catalog', 'information_schema')"
        ).fetchall()
        return {
            name: "\n".join(row[0] for row in conn.execute(f"select t::text from {name} t".encode()))
            for (name,) in tables
        }


def holding(conninfo: str, secret: str) -> set[str]:
    """The tables that hold the text, also within bytes, which PostgreSQL writes as hexadecimal."""
    inside = secret.encode().hex()
    return {name for name, text in dump(conninfo).items() if secret in text or inside in text}


def findings(conninfo: str) -> list[Any]:
    address = Address.of(conninfo, login=True)
    examined = [examine(case, crash_limit=5) for case in cases(address, "default")]
    return [finding for one in examined for finding in one.findings]


async def test_nothing_of_a_person_is_left_anywhere(database: str) -> None:
    async with staged(database, GRAPHS) as stage:
        erased = await lived(stage, SECRET, "ana@example.org", "Ana")
        failed = await start(stage.control, "fail", {"text": SECRET}, subjects=["Ana"])
        await stage.until(failed.run_id, "failed")
        kept = await lived(stage, OTHER, "Bo")
        places = holding(database, SECRET)
        assert places >= {
            "control.run", "control.run_input", "control.approval", "control.wait", "control.signal", "control.effect",
            "control.ledger", "public.checkpoint_blobs", "public.checkpoint_writes",
        }  # fmt: skip
        others, before = holding(database, OTHER), {run: stage.ledger(run) for run in (erased, failed.run_id)}

        gone = await erase_person(stage.control, "Ana", why="she asked for it")
        assert {run.run_id for run in gone} == {erased, failed.run_id}
        assert holding(database, SECRET) == set()
        assert holding(database, "ana@example.org") == set(), "nor who they were"
        assert holding(database, OTHER) == others, "and nobody else's"
        assert findings(database) == [], "the chains verify, and nothing drifts"
        for run, entries in before.items():
            after = stage.ledger(run)
            assert [entry.hash for entry in after[:-1]] == [entry.hash for entry in entries]
            assert all(entry.erased for entry in after[:-1])
            assert (after[-1].kind, after[-1].actor) == ("erased", "tester")
            said = after[-1].body
            assert (said["why"], said["bodies"]) == ("she asked for it", len(entries)) and said["rules"]
            assert [sentence.text for sentence in tell(after)][-1].startswith("Tester erased what it had carried")
            assert ERASED in [sentence.text for sentence in tell(after)]
        assert (await stage.run(erased)).status == "succeeded"
        assert stage.ledger(kept)[0].body["workflow"] == "work"


async def test_an_erased_run_goes_nowhere(database: str) -> None:
    async with staged(database, GRAPHS) as stage:
        run = await start(stage.control, "fail", {"text": SECRET})
        await stage.until(run.run_id, "failed")
        await erase_runs(stage.control, [run.run_id], why="asked to")
        for verb in (retry, rewind, restart):
            with pytest.raises(Refusal, match="What it carried has been erased"):
                await verb(stage.control, run.run_id)
        async with stage.control.transaction() as conn:
            now = await stage.control.look(conn, await stage.run(run.run_id))
        assert not [verdict for verdict in next_verbs(now.status.word, now.facts) if verdict.allowed]
        assert await erase_runs(stage.control, [run.run_id], why="again") == []
        assert stage.kinds(run.run_id).count("erased") == 1


async def test_only_what_has_ended_is_erased_and_that_whole_or_not_at_all(database: str) -> None:
    async with staged(database, GRAPHS) as stage:
        ended = await lived(stage, SECRET, "Ana")
        waiting = await start(stage.control, "work", {"text": SECRET}, subjects=["Ana"])
        await stage.until(waiting.run_id, "awaiting_input")
        before = dump(database)
        with pytest.raises(Refusal, match=f"Only what has ended can be erased: {waiting.run_id} has not") as refused:
            await erase_person(stage.control, "Ana", why="she asked for it")
        assert refused.value.facts["runs"] == [str(waiting.run_id)]
        assert holding(database, SECRET) and before["control.ledger"] == dump(database)["control.ledger"]
        with pytest.raises(Refusal, match="You may not do this"):
            await erase_person(stage.acting("operator"), "Ana", why="curious")
        with pytest.raises(Refusal, match="You may not do this"):
            await erase_runs(stage.acting("operator"), [ended], why="curious")
        with pytest.raises(Refusal, match="No run is about this person"):
            await erase_person(stage.control, "Nobody", why="x")
        await cancel(stage.control, waiting.run_id)
        await stage.until(waiting.run_id, "cancelled")
        assert len(await erase_person(stage.control, "Ana", why="she asked for it")) == 2
        assert holding(database, SECRET) == set() and ended


async def test_all_runs_on_a_thread_are_erased_together_and_a_restarted_run_is_about_the_same(database: str) -> None:
    async with staged(database, GRAPHS) as stage:
        first = await lived(stage, SECRET, "Ana", thread="shared")
        second = await start(stage.control, "fail", {"text": "and on"}, thread_id="shared")
        await stage.until(second.run_id, "failed")
        again = await restart(stage.control, second.run_id)
        await stage.until(again.run_id, "failed")
        gone = await erase_person(stage.control, "Ana", why="asked to")
        assert {run.run_id for run in gone} == {first, second.run_id}
        third = await start(stage.control, "fail", {"text": SECRET}, subjects=["Cy"])
        await stage.until(third.run_id, "failed")
        fourth = await restart(stage.control, third.run_id)
        await stage.until(fourth.run_id, "failed")
        gone = await erase_person(stage.control, "Cy", why="asked to")
        assert {run.run_id for run in gone} == {third.run_id, fourth.run_id}


async def test_age_alone_erases_after_the_tenants_retention_and_never_below_the_floor(database: str) -> None:
    async with staged(database, GRAPHS) as stage:
        run = await lived(stage, SECRET)
        assert await prune(stage.control, days=1) == Pruned(0, 0)
        await clock.advance(database, 179 * DAY)
        assert await prune(stage.control, days=1) == Pruned(0, 0), "whoever asks for less"
        await clock.advance(database, 2 * DAY)
        assert await prune(stage.control, days=365) == Pruned(0, 0)
        with pytest.raises(Refusal, match="Payloads may not be deleted that early"):
            await retain(stage.control, 179)
        await retain(stage.control, 200)
        assert await prune(stage.control, days=180) == Pruned(0, 0), "the tenant's own word goes first"
        await retain(stage.control, 180)
        assert await prune(stage.control, days=365) == Pruned(1, 0)
        assert holding(database, SECRET) == set()
        assert stage.ledger(run)[-1].body["why"] == "kept for 180 days"
        assert await prune(stage.control, days=365) == Pruned(0, 0)


async def test_each_erased_run_is_permitted_by_itself_and_so_are_those_on_its_thread(database: str) -> None:
    """A hold on one run holds its thread; what goes names in its ledger the request that was permitted for it."""
    hold = '\n@id("hold") forbid (principal, action == Action::"erase", resource) when { resource is Run && %s };\n'
    async with staged(database, GRAPHS) as stage:
        runs = [await failing(stage, "shared"), await failing(stage, "shared"), await failing(stage, "alone")]
        await apply(stage.control, default_text() + hold % 'resource.created_by == "cy"')
        held = await failing(stage, "kept", by="cy")
        beside = await failing(stage, "kept")
        for whole in (
            erase_runs(stage.control, [runs[2], beside], why="x"),
            erase_person(stage.control, "Ana", why="x"),
        ):
            with pytest.raises(Refusal, match=rf"tester may not erase run {held}\. .*hold") as refused:
                await whole
            assert refused.value.code == "not-permitted"
        assert {run.erased_at for run in [await stage.run(one) for one in (*runs, held, beside)]} == {None}

        await clock.advance(database, 366 * DAY)
        assert await prune(stage.control, days=365) == Pruned(3, kept=2)
        for run in runs:
            body = stage.ledger(run)[-1].body
            assert body["request"]["resource"]["id"] == str(run) and body["rules"] == ["admins-do-everything"]
        assert stage.kinds(held).count("erased") == stage.kinds(beside).count("erased") == 0


async def test_a_thread_mate_that_may_not_be_read_is_not_named(database: str) -> None:
    async with staged(database, GRAPHS) as stage:
        ours, hidden = await failing(stage, "shared"), await failing(stage, "shared", by="cy")
        own = 'permit (principal, action, resource) when { resource is Run && resource.created_by == "tester" };'
        await apply(stage.control, default_text() + f'\n@id("own") {own}\n')
        with pytest.raises(Refusal, match=r"may not erase thread shared") as refused:
            await erase_runs(stage.acting("nobody"), [ours], why="x")
        assert str(hidden) not in f"{refused.value} {refused.value.as_json()}"
        with pytest.raises(Refusal, match=f"No run has the id {hidden}"):
            await erase_runs(stage.acting("nobody"), [hidden], why="x")
        assert stage.kinds(ours).count("erased") == 0


async def failing(stage: Stage, thread: str, *, by: str = "tester") -> UUID:
    """A run about Ana that has failed."""
    control = replace(stage.control, principal=replace(stage.control.principal, id=by))
    run = await start(control, "fail", {"text": SECRET}, thread_id=thread, subjects=["Ana"])
    await stage.until(run.run_id, "failed")
    return run.run_id


def test_the_database_itself_holds_the_floor(database: str) -> None:
    with psycopg.connect(as_role(database, "control_command"), autocommit=True) as conn:
        conn.execute("select set_config('control.tenant', 'default', false)")
        with pytest.raises(psycopg.errors.CheckViolation, match="retention_floor"):
            conn.execute("insert into control.retention values ('default', 179, 'eve', now())")


TAMPERING: Final = {
    "without an entry that says so": ["update control.ledger set body = null where seq = 1"],
    "with an entry of an earlier transaction": [
        "{entry}", "commit", "update control.ledger set body = null where seq = 1",
    ],
    "more than the body": ["{entry}", "update control.ledger set body = null, actor = 'eve' where seq = 1"],
    "another body": ["{entry}", "update control.ledger set body = '{{}}' where seq = 1"],
    "the record itself": ["{entry}", "{entry}", "update control.ledger set body = null where kind = 'erased'"],
    "what comes after the record": ["{entry}", "{later}", "update control.ledger set body = null where seq > 900"],
    "the digest": ["{entry}", "update control.ledger set digest = '' where seq = 1"],
    "a row": ["{entry}", "delete from control.ledger where seq = 1"],
}  # fmt: skip
ENTRY: Final = (
    "insert into control.ledger select tenant, run_id, (select 800 + count(*) from control.ledger), at, '{kind}',"
    " actor, epoch, '{{}}', digest, hash from control.ledger where seq = 1"
)


@pytest.mark.parametrize("how", TAMPERING)
async def test_the_ledger_is_append_only_but_for_an_erasure_on_record(database: str, how: str) -> None:
    async with staged(database, GRAPHS, work=False) as stage:
        await start(stage.control, "fail", {"text": SECRET})
    for conninfo in (as_role(database, "control_flush"), database):
        with psycopg.connect(conninfo) as conn, pytest.raises(psycopg.Error, match=r"append-only|permission denied"):
            conn.execute("select set_config('control.tenants', 'default', false)")
            for number, statement in enumerate(TAMPERING[how]):
                later = ENTRY.format(kind="handled").replace("800 +", f"{900 + number} +")
                made = statement.format(entry=ENTRY.format(kind="erased"), later=later)
                conn.execute(made.encode())
