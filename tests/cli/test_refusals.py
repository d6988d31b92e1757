"""What goes wrong is said in three lines on standard error: what, why, and what to do. Nothing was changed by it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from control.store.migrations import migrations
from control.testing.database import as_role
from tests.cli.conftest import Cli
from tests.store.holding import execute

VERBS = (
    "dev", "worker", "start", "runs", "show", "story", "workers", "approvals", "approve", "reject", "answer", "pause",
    "resume", "cancel", "retry", "restart", "rewind", "signal", "doctor", "db", "keys",
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("conninfo")


@pytest.mark.parametrize(
    ("arguments", "code", "lines"),
    [
        (
            ("start", "nothing"), 1,
            ["There is no such workflow",
             "Nothing is called 'nothing'; known: count, fail, grant, inquire, listen, pay, review, slow.",
             "Name one of those in langgraph.json, or add it there."],
        ),
        (
            ("start", "count", "--input", '{"amount": "many"}'), 1,
            ["The input does not fit the workflow", None, "Send an input that matches the workflow's input schema."],
        ),
        (
            ("show", "zzz"), 1,
            ["There is no such run", "Nothing matches 'zzz'.",
             "List the runs with `control runs`; what you may not read is not seen."],
        ),
        (
            ("start", "count", "--input", "{"), 2,
            ["The command line cannot be understood", None, "See `control --help`."],
        ),
        (
            ("start", "count", "--not-before", "soon"), 2,
            ["The command line cannot be understood",
             "`control start`: Invalid value: 'soon' is neither an instant, such as 2030-01-31T09:00, nor a span",
             "See `control --help`."],
        ),
        (
            ("start", "count", "-i", "@nowhere.json"), 2,
            ["The command line cannot be understood", None, "See `control --help`."],
        ),
        (
            ("runs", "--status", "odd"), 2,
            ["The command line cannot be understood", None, "See `control --help`."],
        ),
        (
            ("frob",), 2,
            ["The command line cannot be understood", "`control`: No such command 'frob'.", "See `control --help`."],
        ),
        (
            ("--tenant", "a/b", "runs"), 2,
            ["The command line cannot be understood", None, "See `control --help`."],
        ),
        (
            ("db", "stop"), 1,
            ["This database is not ours to stop", "DATABASE_URL names it, so somebody else operates it.",
             "Stop it where it is operated; unset DATABASE_URL to mean the embedded one."],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_a_refusal_is_three_lines(cli: Cli, arguments: tuple[str, ...], code: int, lines: list[str | None]) -> None:
    done = cli(*arguments)
    assert done.code == code, done.err
    assert len(done.problem) == 3
    assert [said for said, line in zip(done.problem, lines, strict=True) if line] == [line for line in lines if line]

    as_json = cli(*arguments, "--json")
    assert (as_json.code, as_json.out) == (code, "")
    body = json.loads(as_json.err)
    assert [body["title"], body["detail"], body["next_step"]] == done.problem


def test_a_verb_out_of_season_and_a_busy_thread_are_refused(cli: Cli) -> None:
    run = str(uuid4())
    assert cli("start", "listen", "--thread", "hall", "--id", run, "--not-before", "2h").code == 0
    assert cli("show", "hall", "--json").json["status"] == "waiting"
    assert cli("approve", run).problem == [
        "The run is not in a status that allows this",
        "No approval is open: none was asked for, or it was decided already.",
        "Read the run again and choose one of the verbs it lists as legal.",
    ]
    busy = cli("start", "listen", "--thread", "hall")
    assert (busy.code, len(busy.problem)) == (1, 3)
    assert busy.problem[::2] == [
        "The thread has a run that has not ended",
        "Answer or cancel that run, or start on another thread.",
    ]


def test_another_tenants_run_is_not_seen(cli: Cli) -> None:
    run = str(uuid4())
    assert cli("--tenant", "acme", "start", "count", "--id", run).code == 0
    assert cli("--tenant", "acme", "runs", "--json").json["runs"][0]["run_id"] == run
    assert cli("cancel", run).problem[0] == "There is no such run"


def test_a_database_that_is_away_is_said(cli: Cli, tmp_path: Path) -> None:
    away = f"host={tmp_path} port=5499 dbname=none"
    for verb in ("runs", "worker", "doctor", "db status", "db migrate"):
        done = cli(*verb.split(), DATABASE_URL=away)
        assert done.code == 1, verb
        assert done.problem[0] == "The database cannot be reached", verb
        assert len(done.problem) == 3, verb


@pytest.fixture
def crowded(conninfo: str) -> Iterator[str]:
    """The address of a login that is given one connection at a time: enough to be let in, and no more."""
    name = f"crowded_{os.getpid()}"
    execute(
        conninfo, f"create role {name} login connection limit 1 in role control_command, control_flush, control_claim"
    )
    yield as_role(conninfo, name)
    execute(conninfo, f"drop role {name}")


def test_a_worker_that_is_turned_away_as_it_starts_says_so(cli: Cli, crowded: str) -> None:
    """On standard error; what it prints is a worker's log, in which the pools say the same."""
    done = cli("worker", DATABASE_URL=crowded)
    what, why, next_step = done.err.splitlines()
    assert (done.code, what) == (1, "The database cannot be reached")
    assert why == "No connection became free in time."
    assert next_step.startswith("Start it, or correct DATABASE_URL.")


def test_a_database_is_migrated_by_its_owner(cli: Cli, empty_database: str) -> None:
    empty = {"DATABASE_URL": empty_database}
    assert cli("runs", **empty).problem[0] == "The database has not been migrated to this version"
    doctor = cli("doctor", "--json", **empty)
    assert (doctor.code, [check["name"] for check in doctor.json["checks"]]) == (1, ["schema"])
    stranger = cli("db", "migrate", DATABASE_URL=as_role(empty_database, "control_command"))
    assert (stranger.code, stranger.problem[0]) == (1, "This login may not change the database's schema")
    assert cli("db", "status", **empty).code == 1
    assert cli("db", "migrate", "--json", **empty).json["applied"] == [migration.name for migration in migrations()]
    status = cli("db", "status", "--json", **empty)
    assert (status.code, status.json["missing"]) == (0, [])


def test_a_file_of_workflows_that_cannot_be_used_is_said(cli: Cli, tmp_path: Path) -> None:
    done = cli("start", "count", CONTROL_CONFIG=str(tmp_path / "none.json"))
    assert (done.code, len(done.problem)) == (1, 3)
    assert done.problem[0] == "The file that names the workflows cannot be used"
    (tmp_path / "langgraph.json").write_text('{"graphs": {"odd": "./odd.py:graph"}}')
    (tmp_path / "odd.py").write_text("raise RuntimeError('not today')")
    done = cli("start", "odd", CONTROL_CONFIG=str(tmp_path / "langgraph.json"))
    assert done.problem[0] == "A workflow cannot be loaded"
    assert "RuntimeError: not today" in done.problem[1]


def test_a_bad_setting_is_named(cli: Cli) -> None:
    done = cli("runs", CONTROL_POLL_S="often")
    assert done.problem[0] == "A setting cannot be used"
    assert "CONTROL_POLL_S" in done.problem[1]


def test_what_nobody_foresaw_has_no_traceback_unless_it_is_asked_for(cli: Cli) -> None:
    broken = {"CONTROL_DATA_DIR": "/dev/null/x", "DATABASE_URL": ""}
    done = cli("runs", **broken)
    assert (done.code, len(done.problem)) == (1, 3)
    assert "Traceback" not in done.err


def test_help_lists_every_verb_and_exit_code(cli: Cli) -> None:
    done = cli("--help")
    assert done.code == 0
    for verb in VERBS:
        assert f" {verb} " in done.out
    assert "the run waits for a person to decide or to answer" in done.out
    assert cli().out == done.out, "`control` alone shows it too"


def test_help_answers_without_loading_langgraph_or_the_driver(cli: Cli) -> None:
    """What makes it answer at once: 2 s of imports wait until a verb needs them."""
    heavy = ("langgraph", "langchain_core", "psycopg", "pydantic")
    code = f"import sys, control.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cli.folder, env=cli.environment({}), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout == "[]\n"
