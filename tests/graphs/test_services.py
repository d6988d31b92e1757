"""The example services keep their word across a kill."""

from __future__ import annotations

import json
import os
import select
import signal
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

ROOT = Path(__file__).parents[2]
EVA = {"national_id": "EN900505", "name": "Eva Novak", "born_on": "1990-05-05"}


@contextmanager
def service(name: str, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    command = [sys.executable, "-m", f"graphs.services.{name}", "--with-parent", *options]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def buy(url: str, *, key: str | None = None, **changes: Any) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return httpx.post(f"{url}/reports", json=EVA | changes, headers=headers)


def test_one_key_is_charged_once_also_across_a_kill_and_a_torn_line(tmp_path: Path) -> None:
    ledger = tmp_path / "bill.jsonl"
    with service("credit_bureau", "--ledger", str(ledger)) as (process, at):
        first = buy(at["url"], key="k").json()
        assert buy(at["url"], key="k").json() == first
        process.send_signal(signal.SIGKILL)
    with ledger.open("a") as file:
        file.write('{"key": "torn", "fee')
    with service("credit_bureau", "--ledger", str(ledger)) as (_, at):
        again = buy(at["url"], key="k")
        assert (again.json(), again.headers["Idempotent-Replay"]) == (first, "true")
        assert buy(at["url"], key="other").json()["report"] != first["report"]
        bill = httpx.get(f"{at['url']}/bill").json()
    assert bill == {
        "charges": [{"key": "k", "fee_cents": 250}, {"key": "other", "fee_cents": 250}],
        "total_cents": 500,
        "repeats": 2,
    }


def test_the_bureau_refuses_misuse_without_charging_and_charges_the_careless(tmp_path: Path) -> None:
    with service("credit_bureau", "--ledger", str(tmp_path / "bill.jsonl")) as (_, at):
        assert buy(at["url"], key="k").status_code == 200
        assert buy(at["url"], key="k", name="Someone Else").status_code == 422
        assert buy(at["url"], key="x", name=7).status_code == 400
        assert httpx.post(f"{at['url']}/reports", content=b"{").status_code == 400
        assert [buy(at["url"]).status_code, buy(at["url"]).status_code] == [200, 200]
        assert len(httpx.get(f"{at['url']}/bill").json()["charges"]) == 3


def test_the_risk_service_warms_up_and_then_scores_worse_for_worse_files() -> None:
    good = {
        "bureau_score": 760,
        "debt_to_income_percent": 10,
        "amount_to_income": 2,
        "overdrawn_days": 0,
        "returned_debits": 0,
    }
    with service("risk_service", "--failures", "1") as (_, at):
        score = f"{at['url']}/score"
        assert httpx.post(score, json=good).status_code == 503
        better = httpx.post(score, json=good).json()
        worse = httpx.post(score, json=good | {"bureau_score": 520, "returned_debits": 3}).json()
        assert httpx.post(score, json={"bureau_score": "high"}).status_code == 400
        assert httpx.get(f"{at['url']}/calls").json() == {"scored": 2, "unavailable": 1}
    assert better["default_probability_percent"] < worse["default_probability_percent"]
    assert better["rate_percent"] < worse["rate_percent"]


def test_mail_is_found_by_its_message_id_also_after_a_kill(tmp_path: Path) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@example.org", "b@example.org", "Grüße"
    message["Message-ID"] = "<k/1@example.org>"
    message.set_content("€ 5")
    ledger = ("--ledger", str(tmp_path / "mail.jsonl"))
    with service("mail_sink", *ledger) as (process, at):
        with smtplib.SMTP(at["smtp_host"], at["smtp_port"], local_hostname="localhost") as smtp:
            smtp.send_message(message)
        process.send_signal(signal.SIGKILL)
    with service("mail_sink", *ledger) as (_, at):
        found = httpx.get(f"{at['url']}/messages/{quote('<k/1@example.org>', safe='')}").json()
        missing = httpx.get(f"{at['url']}/messages/{quote('<k/2@example.org>', safe='')}")
    assert (missing.status_code, missing.json()["message_id"]) == (404, "<k/2@example.org>")
    assert (found["subject"], found["text"].strip(), found["recipients"]) == ("Grüße", "€ 5", ["b@example.org"])


def test_a_service_ends_with_its_parent() -> None:
    parent = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-m', 'graphs.services.risk_service', '--with-parent'],"
        " stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    pid = int(subprocess.run([sys.executable, "-c", parent], cwd=ROOT, stdout=subprocess.PIPE, check=False).stdout)
    with open_pidfd(pid) as ended:
        assert ended, "the service outlived its parent"


@contextmanager
def open_pidfd(pid: int) -> Iterator[bool]:
    """True once the process is gone, or False after ten seconds."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        yield True
        return
    try:
        ready, _, _ = select.select([handle], [], [], 10)
        yield bool(ready)
    finally:
        os.close(handle)
