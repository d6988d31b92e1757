"""What cannot be done is refused with what, why and what to do; nothing is half-written."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pytest import MonkeyPatch

from control.app import opened
from control.core.answer import Word
from control.core.execution import Head
from control.core.problem import Refusal
from control.runtime.attempt import Attempt
from control.runtime.commands.decide import decide
from control.runtime.commands.start import start
from control.runtime.ending import Ended
from control.runtime.workflows import load_workflows
from control.settings import Settings
from control.store.database import Address
from control.testing.stage import Stage, staged
from tests.runtime.scenes import Cues, graphs, until
from tests.runtime.test_recovery import until_word
from tests.runtime.test_status_words import run_of, until_let_go
from tests.store.holding import execute


async def refusal(stage: Stage, workflow: str, value: Any) -> Refusal:
    with pytest.raises(Refusal) as refused:
        await start(stage.control, workflow, value)
    with psycopg.connect(stage.conninfo) as conn:
        for table in ("run", "thread", "ledger"):
            assert conn.execute(f"select count(*) from control.{table}").fetchone() == (0,)  # type: ignore[arg-type]  # the names are these
    said = str(refused.value)
    assert refused.value.problem.title in said and refused.value.problem.next_step in said
    return refused.value


async def test_an_unknown_workflow_is_refused_with_those_that_are_known(database: str, cues: Cues) -> None:
    async with staged(database, graphs("line", "wait"), work=False) as stage:
        refused = await refusal(stage, "lines", cues.input)
        assert refused.problem.code == "unknown-workflow" and "'lines'; known: line, wait." in refused.why


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"folder": 5}, "folder"),
        ({"folder": "x", "log": "no list"}, "log"),
        ({"folder": "x", "unknown": 1}, "unknown"),
        (None, "NoneType"),
        ([], "list"),
        ("text", "str"),
    ],
    ids=str,
)
async def test_an_input_that_does_not_fit_is_refused(value: Any, named: str, database: str) -> None:
    async with staged(database, graphs("line"), work=False) as stage:
        refused = await refusal(stage, "line", value)
        assert refused.problem.code == "invalid-input" and named in refused.why


async def test_an_input_larger_than_the_limit_is_refused(database: str) -> None:
    async with staged(database, graphs("line"), work=False) as stage:
        refused = await refusal(stage, "line", {"folder": "x" * 10 * 1024 * 1024})
        assert refused.problem.code == "input-too-large" and refused.problem.status == 413
        assert "10,48" in refused.why and "8,388,608 are allowed" in refused.why


async def test_ten_megabytes_within_the_limit_go_through(database: str, cues: Cues) -> None:
    async with staged(database, graphs("line"), input_limit_mb=16) as stage:
        load = {**cues.input, "log": ["x" * 1024 * 1024] * 10}
        run = await start(stage.control, "line", load)
        await stage.until(run.run_id, "succeeded", timeout_s=40)
        assert cues.seen() == ["a", "b", "c"]


@pytest.mark.parametrize("value", [{"folder": "x", "log": [object()]}, {"folder": "x", "log": [lambda: 0]}])
async def test_an_input_that_cannot_be_stored_is_refused(value: Any, database: str) -> None:
    async with staged(database, graphs("line"), work=False) as stage:
        assert (await refusal(stage, "line", value)).problem.code == "state-not-serialisable"


@pytest.mark.parametrize(
    ("text", "code", "named"),
    [
        ("{", "config-unreadable", "JSONDecodeError"),
        ("[]", "config-unreadable", "TypeError"),
        ("{}", "config-unreadable", "graphs"),
        ('{"graphs": {"flow": 5}}', "config-unreadable", "TypeError"),
        ('{"graphs": {"flow": "./missing.py:graph"}}', "graph-unloadable", "missing.py"),
        ('{"graphs": {"flow": "no.such.module:graph"}}', "graph-unloadable", "no.such.module"),
        ('{"graphs": {"flow": "json:nothing"}}', "graph-unloadable", "nothing"),
        ('{"graphs": {"flow": "json:dumps"}}', "graph-unloadable", "flow"),
        ('{"graphs": {"flow": "json:decoder"}}', "graph-unloadable", "not a graph"),
        ('{"graphs": {"flow": "./broken.py:graph"}}', "graph-unloadable", "SyntaxError"),
        ('{"graphs": {"flow": "./exits.py:graph"}}', "graph-unloadable", "exits.py"),
    ],
)
def test_a_broken_configuration_is_refused_with_its_place(text: str, code: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("graph = (")
    (tmp_path / "exits.py").write_text("raise SystemExit(3)")
    config = tmp_path / "langgraph.json"
    config.write_text(text)
    with pytest.raises(Refusal) as refused:
        load_workflows(config)
    assert refused.value.problem.code == code and named in refused.value.why, refused.value.why
    assert (code == "config-unreadable") == (str(config) in refused.value.why)


def test_a_missing_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"nowhere\.json") as refused:
        load_workflows(tmp_path / "nowhere.json")
    assert refused.value.problem.code == "config-unreadable"


def test_a_graph_may_be_a_builder_or_made_by_a_function(tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(
        "from langgraph.graph import StateGraph, START\n"
        "builder = StateGraph(dict)\nbuilder.add_node('n', lambda s: s)\nbuilder.add_edge(START, 'n')\n"
        "def made():\n    return builder.compile()\n"
    )
    config = tmp_path / "langgraph.json"
    named = {"one": "./flows.py:builder", "two": {"path": "./flows.py:made"}}
    config.write_text(json.dumps({"graphs": named}))
    loaded = load_workflows(config)
    assert sorted(loaded) == ["one", "two"] and loaded["one"].parts_total == 1


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("host=/nowhere/at/all dbname=x", "database-away"),
        ("host=127.0.0.1 port=1 dbname=x user=y", "database-away"),
    ],
)
async def test_a_database_that_is_away_is_said_to_be(address: str, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        async with opened(Settings(), Address.of(address), {}):
            pass
    assert refused.value.problem.code == code


def turn_away(conninfo: str) -> None:
    """Let the database give our roles no connection any more; the superuser still gets one."""
    with psycopg.connect(conninfo, autocommit=True) as conn:
        name = psycopg.sql.Identifier(conn.info.dbname)
        conn.execute(psycopg.sql.SQL("alter database {} connection limit 0").format(name))


async def test_a_process_that_gets_no_connection_for_its_writes_says_so(database: str) -> None:
    turn_away(database)
    with pytest.raises(Refusal, match="too many connections") as refused:
        async with opened(Settings(), Address.of(database, login=True), {}):
            pass
    assert refused.value.problem.code == "database-away"


async def test_a_worker_and_a_script_that_get_no_session_say_so(database: str) -> None:
    line = graphs("line")
    async with staged(database, line, work=False) as stage:
        turn_away(database)
        with pytest.raises(Refusal, match="too many connections") as refused:
            await stage.app.worker().run()
        assert refused.value.problem.code == "database-away"
        with pytest.raises(Refusal) as refused:
            await stage.app.saver._writers.tenure("script")
        assert refused.value.problem.code == "database-away"


async def test_a_database_without_our_schema_is_told_how_to_get_it(empty_database: str) -> None:
    with pytest.raises(Refusal) as refused:
        async with opened(Settings(), Address.of(empty_database), {}):
            pass
    assert refused.value.problem.status == 503 and "control db" in str(refused.value)


READ_ONLY = "alter database {name} set default_transaction_read_only = {on}"


def turn(conninfo: str, on: str) -> None:
    """Let the database take no writes, and end the sessions that may still write; or let it take them again, which
    those that began meanwhile are not told.
    """
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute("set default_transaction_read_only = off")
        name = psycopg.sql.Identifier(conn.info.dbname)
        conn.execute(psycopg.sql.SQL(READ_ONLY).format(name=name, on=psycopg.sql.SQL(on)))
        if on == "on":
            conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
                " and pid <> pg_backend_pid()"
            )


async def test_a_database_that_takes_no_writes_is_refused_at_start(database: str) -> None:
    turn(database, "on")
    with pytest.raises(Refusal) as refused:
        async with staged(database, graphs("line"), work=False):
            pass
    assert refused.value.problem.code == "database-read-only"


async def test_a_database_that_takes_no_writes_for_a_while_loses_nothing(database: str, cues: Cues) -> None:
    """Orders are refused, the run in its node goes on once writes are taken again, and the worker still claims. One
    order more may be refused, by a session that began meanwhile.
    """
    cues.give("b", "hold")
    async with staged(database, graphs("line")) as stage:
        run_id = await run_of(stage, "line", cues)
        await cues.until_seen("b")
        turn(database, "on")
        codes: set[str] = set()

        async def refused() -> bool:
            try:
                await start(stage.control, "line", cues.input)
            except Refusal as refusal:
                codes.add(refusal.problem.code)
            return "database-read-only" in codes

        await until(refused, "an order is refused")
        assert codes <= {"database-read-only", "database-away"}
        cues.take("b")
        await cues.until_seen("b")
        turn(database, "off")

        async def done() -> bool:
            try:
                return (await stage.status(run_id)).word == "succeeded"
            except Refusal:
                return False

        await until(done, "the run succeeds", timeout_s=30)
        accepted = [run_id]
        with contextlib.suppress(Refusal):
            accepted.append(await run_of(stage, "line", cues))
        accepted.append(await run_of(stage, "line", cues))
        for each in accepted:
            await stage.until(each, "succeeded")
    assert sorted(cues.seen("a", "c")) == ["a"] * len(accepted) + ["c"] * len(accepted)


async def test_a_run_that_cannot_be_adopted_since_nothing_can_be_written_is_tried_again(
    database: str, cues: Cues, monkeypatch: MonkeyPatch
) -> None:
    """The database takes no writes from the claim to the adoption, as where another server takes its place."""
    adopt, met = Attempt._adopt, list[str]()

    async def adopt_meanwhile(attempt: Attempt, head: Head) -> Ended | None:
        if met:
            return await adopt(attempt, head)
        await asyncio.to_thread(turn, database, "on")
        try:
            while True:
                try:
                    return await adopt(attempt, head)
                except Refusal as refusal:
                    met.append(refusal.problem.code)
                    if refusal.problem.code == "database-read-only":
                        raise
        finally:
            await asyncio.to_thread(turn, database, "off")

    monkeypatch.setattr(Attempt, "_adopt", adopt_meanwhile)
    async with staged(database, graphs("approve")) as stage:
        run_id = await run_of(stage, "approve", cues)
        await stage.until(run_id, "awaiting_approval")
        await until_let_go(stage, run_id)
        execute(database, "update control.run set graph_digest = 'another'")
        await decide(stage.control, run_id, Word.APPROVED)
        await until_word(stage, run_id, "succeeded")
        ledger = stage.ledger(run_id)
    assert met[-1] == "database-read-only"
    assert {entry.body["failure_class"] for entry in ledger if entry.body.get("outcome") == "failed"} == {"transient"}
    assert [entry.kind for entry in ledger].count("adopted") == 1
