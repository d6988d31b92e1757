"""What tenants may use, on the command line."""

from __future__ import annotations

import pytest

from control.cli.outcome import REFUSED
from tests.cli.conftest import Cli


def test_limits_are_set_shown_listed_and_remembered(cli: Cli) -> None:
    assert "Nobody has set any" in cli("tenants", "history", "acme").out
    told = cli("--by", "ana", "tenants", "set", "acme", "--runs-at-once", "4", "--usd", "50.00/day", "--json").json
    assert told["limits"] == {"runs_at_once": "4", "starts": None, "usd": "50/day", "tokens": None}
    assert (told["tenant"], told["version"], told["set_by"]) == ("acme", 1, "ana")
    assert told["used"] == {"runs_at_work": 0, "runs_queued": 0, "starts": 0, "usd": "0", "tokens": 0}
    cli("tenants", "set", "acme", "--runs-at-once", "none", "--starts", "600/minute")
    shown = cli("tenants", "show", "acme").out
    assert "600/minute" in shown and "50/day" in shown and "0 in the last minute" in shown
    assert [one["version"] for one in cli("tenants", "history", "acme", "--json").json] == [2, 1]
    assert "acme" in [one["tenant"] for one in cli("tenants", "list", "--json").json]
    assert "600/minute" in cli("tenants", "list").out


def test_a_tenants_administrator_reads_its_limits_and_sets_none(cli: Cli) -> None:
    key = cli("keys", "create", "--json", "--name", "ada", "--kind", "person", "--role", "admin").json["key"]
    refused = cli("tenants", "set", "default", "--usd", "none", CONTROL_TOKEN=key)
    assert refused.code == REFUSED and refused.problem[:2] == [
        "This belongs to the installation, not to a tenant",
        "ada may not set what a tenant may use, whatever tenant default permits.",
    ]
    assert cli("tenants", "show", "--json", CONTROL_TOKEN=key).json["version"] == 0


@pytest.mark.parametrize(
    "wrong", [["--runs-at-once", "many"], ["--starts", "5"], ["--usd", "-5/day"], ["--tokens", "1/minute"]]
)
def test_a_limit_that_is_none_changes_nothing(cli: Cli, wrong: list[str]) -> None:
    refused = cli("tenants", "set", "sound", "--starts", "5/hour", *wrong)
    assert refused.code == 1 and refused.problem[0] == "That is no limit"
    assert cli("tenants", "show", "sound", "--json").json["version"] == 0


def test_a_name_that_is_no_tenants_is_refused(cli: Cli) -> None:
    assert "is no name of a tenant" in cli("tenants", "show", "no tenant!").err


def test_a_start_beyond_a_limit_is_refused_with_when_to_come_again(cli: Cli) -> None:
    cli("tenants", "set", "full", "--starts", "1/day")
    first = cli("--tenant", "full", "start", "count", "--input", '{"amount": 1}')
    refused = cli("--tenant", "full", "start", "count", "--input", '{"amount": 1}')
    assert (first.code, refused.code) == (0, 1)
    assert refused.problem[0] == "The tenant has reached a limit" and "There is room again at" in refused.problem[1]
