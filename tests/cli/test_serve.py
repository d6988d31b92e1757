"""`control worker` and `control dev` work, say what they do, drain when told to, and leave at once when told twice."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from tests.cli.conftest import DEADLINE_S, Cli, Process


def gated(cli: Cli, worker: Process) -> tuple[str, Path]:
    """A run whose first node is at it until the file that is returned exists."""
    run = str(uuid4())
    gate = cli.folder / f"{run}.gate"
    assert cli("start", "slow", "--input", json.dumps({"gate": str(gate)}), "--id", run).code == 0
    worker.wait_for(f"run {run} claimed: slow, epoch 1")
    until(gate.with_suffix(".begun").exists)
    return run, gate


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_worker_told_to_stop_lets_its_runs_go_at_their_next_step(cli: Cli) -> None:
    with cli.process("worker") as worker:
        worker.wait_for("is at work on count, pay, inquire, review, fail, listen, slow, grant")
        run, gate = gated(cli, worker)
        worker.child.send_signal(signal.SIGTERM)
        worker.wait_for("SIGTERM: letting 1 runs go at their next step; once more stops at once")
        gate.touch()
        assert worker.ends() == 0
        lines = worker.text.splitlines()
    assert lines[-1].endswith("has stopped")
    assert all(line[:4].isdigit() and " UTC  " in line for line in lines), "one line for each event"
    left = cli("show", run, "--json").json
    assert (left["status"], left["progress"]["parts"], left["takeovers"]) == ("queued", ["linger"], 0)
    with cli.process("worker", "--json") as successor:
        successor.wait_for(f"run {run} let go")
        events = [json.loads(line) for line in successor.text.splitlines()]
        assert {"at", "level", "from", "event"} == events[0].keys()
    assert cli("show", run, "--wait").code == 0


def test_a_worker_told_twice_leaves_at_once(cli: Cli) -> None:
    with cli.process("worker") as worker:
        worker.wait_for("is at work")
        run, gate = gated(cli, worker)
        worker.child.send_signal(signal.SIGINT)
        worker.wait_for("SIGINT: letting 1 runs go")
        worker.child.send_signal(signal.SIGINT)
        assert worker.ends() == 128 + signal.SIGINT
        assert "SIGINT again: stopping at once" in worker.text
    gate.touch()
    with cli.process("worker") as peer:
        peer.wait_for(f"run {run} taken over: its session is gone")
        assert cli("show", run, "--wait", "--json").stream[-1]["facets"] == ["resumed"]


@pytest.fixture
def home(cli: Cli, tmp_path: Path) -> Iterator[Cli]:
    """The same command line without a DATABASE_URL: the embedded database, in a folder of its own."""
    embedded = Cli(cli.folder, cli.zygote, {"CONTROL_DATA_DIR": str(tmp_path / "data")})
    yield embedded
    embedded("db", "stop")


def test_dev_brings_everything_and_the_database_can_be_stopped(home: Cli) -> None:
    assert home("db", "status", "--json").json["running"] is False
    with home.process("dev") as dev:
        dev.wait_for("is at work on")
        assert home("start", "count", "--wait").code == 0
        status = home("db", "status", "--json")
        assert (status.code, status.json["running"], status.json["missing"]) == (0, True, [])
        assert home("db", "migrate").out == "Nothing was missing.\n"
        dev.child.send_signal(signal.SIGINT)
        assert dev.ends() == 0
    assert home("db", "stop", "--json").json == {"stopped": True}
    assert home("db", "stop").out == "It was not running.\n"
    assert "is not running" in home("db", "status").out


def test_dev_shows_a_live_table_in_a_terminal(cli: Cli) -> None:
    run = str(uuid4())
    assert cli("start", "pay", "--input", '{"amount": 1}', "--id", run).code == 0
    ours, theirs = pty.openpty()
    with closing(os.fdopen(ours, "rb", buffering=0)) as screen:
        dev = subprocess.Popen(
            cli.command(("dev",)), cwd=cli.folder, env=cli.environment({"COLUMNS": "120"}), stdin=theirs,
            stdout=theirs, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        shown = b""
        end = time.monotonic() + DEADLINE_S
        while b"awaiting approval" not in shown:
            assert time.monotonic() < end, shown
            shown += screen.read(4096)
        dev.send_signal(signal.SIGTERM)
        assert b"pay" in shown and run[:8].encode() in shown
        with pytest.raises(OSError, match="Input/output error"):  # the terminal's other end is closed
            while screen.read(4096):
                pass
        assert dev.wait(DEADLINE_S) == 0


def test_watching_ends_quietly_with_ctrl_c(cli: Cli) -> None:
    with cli.process("runs", "--watch", "--json") as watch:
        watch.wait_for("}\n")
        watch.child.send_signal(signal.SIGINT)
        assert watch.ends() == 130
        assert json.loads(watch.text.splitlines()[0]).keys() == {"runs", "next"}
        assert "Traceback" not in watch.text
