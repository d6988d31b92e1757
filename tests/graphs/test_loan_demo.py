"""The demonstration, as `make demo` runs it: it ends well, says what it must, and leaves nothing running."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from control.settings import Settings, env_name
from control.store import embedded
from graphs.loan_demo import answer
from graphs.loan_demo.answer import Answer, given

ROOT = Path(__file__).parents[2]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Any]:
    """Starts it on a folder of its own, without a terminal and without anybody's settings."""
    ours = {env_name(name) for name in Settings.model_fields}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> subprocess.Popen[str]:
        # A key from the checkout's .env must not make this test ask a real model: what is set, though empty, wins.
        started.append(subprocess.Popen(
            [sys.executable, "-m", "graphs.loan_demo", *options], cwd=ROOT, text=True, stdin=subprocess.DEVNULL,
            env=environment | {"CONTROL_DATA_DIR": str(tmp_path), "PYTHONUNBUFFERED": "1", "OPENAI_API_KEY": ""},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ))  # fmt: skip
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()
    embedded.stop(tmp_path / "demo")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def workers(said: str) -> list[int]:
    """The processes that it says it started."""
    found = re.search(r"processes (\d+) and (\d+), at work", said)
    assert found, said
    return [int(pid) for pid in found.groups()]


@pytest.mark.alone
def test_it_goes_through_everything_and_every_check_holds(demo: Any) -> None:
    process = demo("--yes")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    for part in (
        r"score failed: HTTPStatusError.*503",
        r"a transient failure: to be tried again by itself in \d",
        r"\$ kill -9 \d+   the worker in node memo, waiting for the risk memo",
        r"worker \d+ is gone: its claim is taken away",
        r"Worker \d+ had it \d+\.\d\d s after the kill",
        r"Grant EUR 28,000 to Maria Lindqvist\?",
        r"evidence +credit report · ",
        r"approved by the demonstration",
        r"To maria\.lindqvist@example\.org: Your loan application",
        r"credit bureau: 1 charge, EUR 2\.50",
        r"chat model: 2 calls begun, 1 of them in flight at the kill; recorded answers asked again: 0",
        r"The Demonstration approved .* having",
        r"✓ Ledger and status, recomputed by the doctor +runs: 1, .*findings: 0",
        r"All 10 checks hold",
    ):
        assert re.search(part.replace(" ", r"\s+"), said), f"{part} is not in\n{said}"
    assert "✗" not in said and max(map(len, said.splitlines())) <= 100
    assert not any(alive(pid) for pid in workers(said))


@pytest.mark.alone
def test_ctrl_c_leaves_nothing_running_and_the_next_showing_clears_up(demo: Any) -> None:
    process, said = demo(), ""
    for line in process.stdout:
        said += line
        if "worker" in line and "has it" in line:
            break
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said + rest
    assert "Traceback" not in rest and rest.endswith("Nothing is left running.\n")
    assert not any(alive(pid) for pid in workers(said))
    again = demo()
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert "showings that were broken off, now cancelled: 1" in said and "given as with --yes" in said


def test_what_is_typed_becomes_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter(["maybe", "approve", "a lot", "20,000", "windows later"])
    monkeypatch.setattr("builtins.input", lambda _: next(typed))
    said = given(28_000)
    assert said == Answer(approve=True, amount_eur=20_000, note="windows later")
    assert said.command("4f1c", 28_000) == [
        "approve", "4f1c", "--answer", '{"amount_eur": 20000.0}', "--note", "windows later",
    ]  # fmt: skip


def test_empty_lines_take_what_is_offered_and_a_rejection_has_no_amount(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "_typed", lambda _: "")
    assert given(28_000).command("4f1c", 28_000) == ["approve", "4f1c", "--answer", '{"amount_eur": 28000.0}']
    monkeypatch.setattr(answer, "_typed", lambda prompt: "reject" if "reject" in prompt else "")
    assert given(28_000) == Answer(approve=False)
    assert given(28_000).command("4f1c", 28_000) == ["reject", "4f1c"]
