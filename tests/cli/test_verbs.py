"""The verbs, typed as people and scripts type them, with a worker beside."""

from __future__ import annotations

import json
import re
from uuid import uuid4

import pytest

from control.cli.outcome import EXITS, MEANINGS
from control.core.run_status import TERMINAL, Status
from tests.cli.conftest import Cli, Process

pytestmark = pytest.mark.usefixtures("worker")


def started(cli: Cli, *arguments: str) -> str:
    """Start a run, follow it to where it stops, and return its id."""
    run = str(uuid4())
    cli("start", *arguments, "--id", run, "--wait")
    return run


def test_a_run_is_followed_to_its_end(cli: Cli) -> None:
    done = cli.fresh("start", "count", "--input", '{"amount": 1}', "--wait", "--json")
    assert done.code == 0, done.err
    *seen, last = done.stream
    assert last["status"] == "succeeded"
    assert last["progress"] == {"done": 3, "total": 3, "parts": ["one", "two", "three"], "nodes": []}
    assert last["words"]["a2a"] == "completed"
    assert {v["verb"] for v in last["next"] if v["allowed"]} == {"restart", "rewind", "delete"}
    assert seen and all(step["run_id"] == last["run_id"] for step in seen)


def test_an_input_is_read_from_a_file_and_from_standard_input(cli: Cli) -> None:
    (cli.folder / "input.json").write_text('{"amount": 5}')
    run = str(uuid4())
    assert cli("start", "count", "-i", "@input.json", "--id", run).code == 0
    again = cli("start", "count", "-i", "-", "--id", run, "--json", given='{"amount": 5}')
    assert (again.code, again.json["run_id"]) == (0, run), "an id given twice starts one run"


def test_a_question_is_read_refused_a_bad_answer_and_decided_once(cli: Cli) -> None:
    run = str(uuid4())
    asked = cli("start", "pay", "--input", '{"amount": 40}', "--id", run, "--wait")
    assert asked.code == 8
    assert f"{run}  awaiting approval" in asked.out

    question = cli("show", run[:8], "--json").json["questions"][0]
    assert question["packet"]["action"] == {"amount_eur": 40, "to": "ACME \x1b[31mLtd"}
    assert [q["interrupt_id"] for q in cli("approvals", "--json").json] == [question["interrupt_id"]]

    wrong = cli("approve", run, "--answer", '{"amount": "forty"}')
    assert wrong.code == 1
    assert wrong.problem == [
        "The answer does not have the shape that was asked for",
        wrong.problem[1],
        "Correct it and send it again; the question is still open.",
    ]
    assert "answer" in wrong.problem[1]

    assert cli("approve", run, "--answer", '{"amount": 40}', "--note", "seen", "--wait").code == 0
    late = cli("--by", "eve", "reject", run, "--question", question["interrupt_id"], "--json")
    assert late.code == 1
    problem = json.loads(late.err)
    assert (problem["code"], problem["status"], problem["decision"]) == ("already-decided", 409, "approved")


def test_a_question_is_shown_whole_and_cannot_command_the_terminal(cli: Cli) -> None:
    run = started(cli, "pay", "--input", '{"amount": 7}')
    shown = cli("show", run).out
    for line in ("Pay the invoice?", "amount eur", "ACME \\x1b[31mLtd", "invoice", "on yes", "It is paid.", "on no",
                 "It is sent back.", "risk", "amount (integer)", f"control approve {run[:8]}", "✓ approve",
                 "Only a paused run is resumed.", "LangGraph run success, thread interrupted"):  # fmt: skip
        assert line in shown
    assert "\x1b" not in shown
    assert "Pay the invoice?" in cli("approvals").out

    assert cli("reject", run, "--note", "too much", "--wait").code == 0
    told = cli("story", run).out
    assert "asked for approval of “Pay the invoice?”" in told
    assert "too much" in told
    sentences = cli("story", run, "--json").json
    numbers = [seq for sentence in sentences for seq in sentence["entries"]]
    assert sorted(numbers) == list(range(1, len(numbers) + 1)), "every entry stands behind one sentence"


def test_each_action_of_a_batch_is_shown_and_decided(cli: Cli) -> None:
    run = started(cli, "review")
    shown = cli("show", run).out
    for line in ("Run pay and mail?", "action 1", "action 2", "amount", "approve, edit, reject",
                 f"control approve {run[:8]}", "--decisions JSON"):  # fmt: skip
        assert line in shown
    (question,) = cli("show", run, "--json").json["questions"]
    for given, why in (
        (("--decisions", '["approve"]'), "2 actions wait for a decision each, in order; 1 came."),
        (("--edit", '{"amount": 5}'), "2 actions wait; say in decisions which of them is edited."),
        (("--decisions", '["approve", {"type": "respond", "message": "x"}]'), "does not take respond"),
    ):
        wrong = cli("approve", run, *given)
        assert wrong.code == 1 and why in wrong.problem[1]
        assert wrong.problem[2] == "Correct it and send it again; the question is still open."
    other = cli("approve", run, "--digest", "0" * 64)
    assert other.problem[0] == "The question is not the one that was shown"

    edited = {"type": "edit", "args": {"to": "ACME", "amount": 5}}
    said = json.dumps([edited, "reject"])
    digest = question["packet_digest"]
    assert cli("approve", run, "--decisions", said, "--digest", digest, "--note", "no mail", "--wait").code == 0
    told = cli("story", run).out
    assert "no mail" in told


def test_a_question_that_is_no_approval_is_answered(cli: Cli) -> None:
    run = str(uuid4())
    assert cli("start", "inquire", "--id", run, "--wait").code == 8
    assert cli("show", run, "--json").json["status"] == "awaiting_input"
    assert "How much is it?" in cli("approvals").out
    assert f"control answer {run[:8]} JSON" in cli("show", run).out
    assert cli("approve", run).code == 1
    assert cli("answer", run, "-", "--wait", given='{"amount": 12}').code == 0


def test_a_failed_run_exits_by_its_outcome_and_says_why(cli: Cli, worker: Process) -> None:
    run = str(uuid4())
    done = cli("start", "fail", "--id", run, "--wait")
    assert done.code == 4
    assert "ValueError: the file is [bold]empty" in done.out
    assert f"run {run} failed: ValueError: the file is [bold]empty" in worker.wait_for(f"run {run} let go")
    assert cli("retry", run, "--reason", "once more", "--wait").code == 4


def test_a_waiting_run_is_paused_resumed_signalled(cli: Cli) -> None:
    run = str(uuid4())
    assert cli("start", "listen", "--thread", f"room-{run}", "--id", run).code == 0
    assert cli("pause", f"room-{run}", "--reason", "lunch", "--wait").code == 9
    assert "lunch" in cli("story", run).out
    resumed = cli("resume", run, "--json")
    assert (resumed.code, resumed.json["run_id"]) == (0, run)
    assert cli("signal", run, "door", "--payload", '"open"', "--wait").code == 0


def test_a_run_is_cancelled_and_begun_again(cli: Cli) -> None:
    run = started_listening(cli)
    assert cli("cancel", run, "--reason", "no use", "--wait").code == 5
    again = cli("restart", run, "--json")
    assert again.code == 0
    assert (again.json["restarted_from"], again.json["terminal"]) == (run, False)
    assert cli("cancel", again.json["run_id"], "--wait").code == 5


def test_an_ended_run_is_deleted_and_its_story_is_still_told(cli: Cli) -> None:
    run = started(cli, "count", "--input", '{"amount": 2}')
    gone = cli("--by", "dan", "delete", run[:8], "--reason", "of no use", "--json")
    assert (gone.code, gone.json["status"]) == (0, "succeeded")
    assert {verb["allowed"] for verb in cli("show", run, "--json").json["next"]} == {False}
    assert "It has been deleted since" in cli("show", run).out
    assert "Dan deleted its checkpoints" in cli("story", run).out and "of no use" in cli("audit", "show", run).out
    again = cli("delete", run)
    assert again.code == 1 and "It has been deleted" in again.problem[1]


def started_listening(cli: Cli) -> str:
    run = str(uuid4())
    assert cli("start", "listen", "--id", run).code == 0
    return run


def test_a_run_is_taken_back(cli: Cli) -> None:
    run = started(cli, "count")
    listed = cli("story", run, "--entries").out
    checkpoints = re.findall(r'"checkpoint_id":"([0-9a-f-]+)","nodes":\["one"\]', listed)
    assert len(checkpoints) == 1
    back = cli("rewind", run, "--to", checkpoints[0], "--wait", "--json")
    assert (back.code, back.stream[-1]["status"]) == (0, "succeeded")


def test_runs_are_listed_page_by_page(cli: Cli) -> None:
    """By following what each page says comes next, in JSON and as a person does, every run is seen once."""
    made = [started(cli, "count") for _ in range(5)]
    pages, after = [], []
    while True:
        page = cli("runs", "--limit", "2", *after, "--json").json
        pages.append([run["run_id"] for run in page["runs"]])
        if page["next"] is None:
            break
        after = ["--after", page["next"]]
    assert [run for page in pages for run in page if run in made] == made[::-1]
    assert all(len(page) == 2 for page in pages[:-1])
    assert len({run for page in pages for run in page}) == sum(map(len, pages))

    first = cli("runs", "--status", "succeeded", "-n", "1").out
    assert made[4][:8] in first
    [step] = re.findall(r"`control (runs [^`]+)`", first)
    assert step == f"runs --status succeeded --limit 1 --after {made[4]}"
    second = cli(*step.split()).out
    assert made[3][:8] in second and made[4][:8] not in second
    assert cli("runs", "--after", "nowhere").problem[1] == "Nothing matches 'nowhere'."


def test_the_next_page_is_of_the_same_tenants_runs(cli: Cli) -> None:
    tenant = f"t{uuid4().hex[:8]}"
    made = [str(uuid4()) for _ in range(2)]
    for run in made:
        assert cli("--tenant", tenant, "start", "count", "--id", run).code == 0
    first = cli("--tenant", tenant, "runs", "--limit", "1").out
    [step] = re.findall(r"`control ([^`]+)`", first)
    assert step == f"--tenant {tenant} runs --limit 1 --after {made[1]}"
    assert made[0][:8] in cli(*step.split()).out


def test_runs_and_workers_are_listed(cli: Cli) -> None:
    run = started(cli, "count")
    listed = cli("runs", "--status", "succeeded", "--limit", "1", "--json")
    assert [r["run_id"] for r in listed.json["runs"]] == [run]
    assert run[:8] in cli("runs").out
    assert cli("runs", "--status", "stalled", "--json").json == {"runs": [], "next": None}
    alive = cli("workers", "--json").json
    assert [w["alive"] for w in alive] == [True]
    assert "alive" in cli("workers").out


def test_every_way_to_stop_has_its_exit_code() -> None:
    assert EXITS.keys() > TERMINAL
    assert set(EXITS.values()) <= MEANINGS.keys()
    moving = {Status.QUEUED, Status.RUNNING, Status.WAITING, Status.STALLED, Status.CANCELLING, Status.COMPENSATING}
    assert set(Status) - EXITS.keys() == moving
