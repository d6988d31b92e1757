"""Notifications on the command line, and workers that die in the middle of one."""

from __future__ import annotations

import json

import pytest

from control.cli.outcome import MISUSED, REFUSED
from tests.cli.conftest import Cli
from tests.notify.receivers import web_server

HERE = {"CONTROL_NOTIFY_NETWORKS": "127.0.0.0/8"}

pytestmark = pytest.mark.usefixtures("conninfo")


def test_a_sink_is_made_listed_and_removed(cli: Cli) -> None:
    assert cli("notify", "list").out.startswith("Nothing is announced anywhere.")
    made = cli("notify", "add", "webhook", "https://1.1.1.1/hook", "--on", "asked, failed", "--for", "cfo")
    line, secret, says = made.out.splitlines()
    sink_id = line.partition(" ")[0]
    assert line == f"{sink_id}  webhook https://1.1.1.1/hook: asked, failed, for cfo alone"
    assert secret.startswith("whsec_") and says.endswith("This is the only time that it is shown.")
    mail = cli("notify", "add", "mail", "desk@example.org", "--on", "decided", "--json").json
    assert (mail["kind"], mail["events"]) == ("mail", ["decided"]) and "secret" not in mail
    listed = cli("notify", "list")
    assert sink_id in listed.out and mail["sink_id"] in listed.out and secret not in listed.out
    rotated = cli("notify", "rotate", sink_id, "--overlap", "2h").out.splitlines()
    assert rotated[0].startswith("whsec_") and rotated[0] != secret and rotated[1].endswith("both secrets sign.")
    assert cli("notify", "rotate", mail["sink_id"]).problem[0] == "There is no such sink"
    removed = cli("notify", "remove", sink_id).out
    assert removed == "Removed: https://1.1.1.1/hook is told nothing more.\n"
    assert [sink["sink_id"] for sink in cli("notify", "list", "--json").json] == [mail["sink_id"]]
    assert len(cli("notify", "list", "--all", "--json").json) == 2
    assert cli("notify", "remove", sink_id).code == REFUSED


def test_what_cannot_be_told_is_refused(cli: Cli) -> None:
    done = cli("notify", "add", "webhook", "https://example.org/", "--on", "asked,everything")
    assert done.code == MISUSED and "'everything' is none of asked," in done.err
    done = cli("notify", "add", "mail", "nobody", "--on", "asked")
    assert (done.code, done.problem[0]) == (REFUSED, "Nobody can be told there")
    done = cli("notify", "add", "webhook", "http://2130706433/", "--on", "asked")
    assert done.problem[0] == "Nobody can be told there" and "127.0.0.1 is not a public address" in done.problem[1]
    assert cli("notify", "test", "00000000").problem[0] == "There is no such sink"


def test_what_a_worker_was_telling_when_it_was_killed_is_told_again(cli: Cli) -> None:
    with web_server() as web:
        web.go.clear()
        made = cli("notify", "add", "webhook", web.url, "--on", "asked", "--json", **HERE).json
        with cli.process("worker", **HERE) as first:
            first.wait_for("is at work on")
            run = cli("start", "pay", "--input", '{"amount": 1}', "--json").json["run_id"]
            assert web.arrived.wait(30)
            first.child.kill()
            first.child.wait()
        (cut_off,) = cli("notify", "log", "--json").json
        assert (cut_off["condition"], cut_off["tries"], cut_off["run_id"]) == ("trying", 1, run)
        web.arrived.clear()
        web.go.set()
        with cli.process("worker", CONTROL_LEASE_S="1.5", **HERE):
            assert web.arrived.wait(30)
            tested = cli("notify", "test", made["sink_id"])
            assert (tested.code, tested.out) == (0, f"delivered: {web.url}\n")
        first_sent, second_sent = (sent for sent in web.received if b'"asked"' in sent.body)
        assert first_sent.headers["webhook-id"] == second_sent.headers["webhook-id"]
        assert json.loads(second_sent.body)["data"]["status"] == "awaiting_approval"
        newest, oldest = cli("notify", "log", "--json").json
        assert (oldest["condition"], oldest["tries"], newest["event"]) == ("delivered", 2, "test")
        assert f"asked of run {run}" in cli("notify", "log").out
        assert cli("notify", "log", "--failed").out == "No notice was given up.\n"


def test_a_test_that_nobody_takes_up_says_so(cli: Cli) -> None:
    with web_server() as web:
        made = cli("notify", "add", "webhook", web.url, "--on", "asked", "--json", **HERE).json
        done = cli("notify", "test", made["sink_id"], "--patience", "0.2s")
        assert done.code == REFUSED and done.out.startswith("No worker has taken it up yet")
