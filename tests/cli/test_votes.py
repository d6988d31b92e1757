"""Votes, stand-ins and assignees, typed as people type them."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.cli.conftest import Cli

pytestmark = pytest.mark.usefixtures("worker")


def test_two_people_vote_and_one_stands_in_for_a_third(cli: Cli) -> None:
    cli("assignees", "set", "ben", "--skill", "credit")
    run = str(uuid4())
    assert cli("start", "grant", "--id", run, "--wait").code == 8
    first = cli("--by", "ana", "approve", run, "--json")
    assert first.json["status"] == "awaiting_approval"
    assert first.json["because"][0].endswith(": 1 of 2 votes, from ana; it lies with ben.")
    (waiting,) = cli("--by", "ben", "approvals", "--mine", "--json").json
    assert (waiting["votes"], waiting["quorum"], waiting["assignee"]) == (["ana"], 2, "ben")
    assert cli("--by", "cleo", "approvals", "--mine", "--json").json == [], "it lies with ben"

    again = cli("--by", "ana", "approve", run)
    assert again.code == 1 and again.problem[0] == "This person has been counted"
    alone = cli("--by", "cleo", "approve", run, "--for", "ben")
    assert "ben has not arranged that cleo votes in their place" in alone.problem[1]

    (lent,) = cli("--by", "ben", "delegate", "cleo", "--until", "2h", "--reason", "on leave", "--json").json
    assert (lent["giver"], lent["taker"]) == ("ben", "cleo")
    assert "cleo" in cli("delegations", "list").out
    assert [w["run_id"] for w in cli("--by", "cleo", "approvals", "--mine", "--json").json] == [run]
    decided = cli("--by", "cleo", "approve", run, "--for", "ben", "--wait", "--json")
    assert decided.stream[-1]["status"] == "succeeded"
    told = cli("story", run).out
    assert "Ana voted yes on “Grant it?”" in told and "Cleo voted yes for Ben on “Grant it?”" in told
    assert "Cleo stood in for Ben until" in told

    assert cli("--by", "ben", "delegations", "end", lent["delegation_id"]).code == 0
    assert cli("delegations", "list").out == "Nobody stands in for anybody.\n"
    gone = cli("--by", "ben", "delegations", "end", lent["delegation_id"])
    assert gone.problem[0] == "There is no such delegation"


def test_a_question_is_given_to_whoever_has_room(cli: Cli) -> None:
    (dan,) = [one for one in cli("assignees", "set", "dan", "--skill", "credit", "--json").json if one["name"] == "dan"]
    assert (dan["skills"], dan["capacity"]) == (["credit"], 5)
    run = str(uuid4())
    cli("start", "grant", "--id", run, "--wait")
    given = cli("reassign", run, "--to", "dan", "--json")
    assert given.json["because"][0].endswith("; it lies with dan.")
    cli("assignees", "remove", "dan")
    assert cli("assignees", "remove", "dan").problem[0] == "Nobody of that name is given questions"
    cli("cancel", run)
