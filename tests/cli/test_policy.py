"""The rules on the command line: checked, tried, applied, and obeyed by the next command."""

from __future__ import annotations

from itertools import product

from control.policy.cedar import default_text
from tests.cli.conftest import Cli

LUNCH = '\n@id("lunch") forbid (principal, action == Action::"cancel", resource);\n'


def test_rules_are_checked_tried_applied_and_obeyed(cli: Cli) -> None:
    run = cli("start", "count", "--input", '{"amount": 1}', "--json").json["run_id"]
    rules = cli.folder / "rules.cedar"
    assert cli("policy", "show").out == default_text().rstrip("\n") + "\n"
    assert cli("policy", "history").out == "None was applied: the rules that ship are in force.\n"

    rules.write_text(default_text() + LUNCH)
    assert cli("policy", "check", str(rules)).out == f"{rules} is sound: 9 rules, of which 7 permit, 2 forbid, 0 ask.\n"
    assert cli("policy", "what-if", str(rules)).out == "Of 1 decisions, 0 would differ.\n"
    done = cli("--by", "ana", "policy", "apply", str(rules), "--note", "lunch")
    assert done.out == "Version 1 is in force: 9 rules, of which 7 permit, 2 forbid, 0 ask.\n", done.err
    (version,) = cli("policy", "history", "--json").json
    assert (version["version"], version["applied_by"], version["note"]) == (1, "ana", "lunch")

    refused = cli("--by", "ana", "cancel", run)
    assert refused.code != 0
    assert refused.problem == [
        "You may not do this",
        f"ana may not cancel run {run}. Rule lunch forbids it. (rules: lunch)",
        "Ask an administrator for a role whose rules permit it; `control policy show` prints the rules.",
    ]
    rules.write_text(default_text())
    tried = cli("policy", "what-if", str(rules), "--json").json
    assert [(one["action"], one["was"], one["would"]) for one in tried["differences"]] == [("cancel", "deny", "permit")]


def test_faulty_rules_are_refused_with_their_line(cli: Cli) -> None:
    rules = cli.folder / "rules.cedar"
    rules.write_text(default_text() + "permit (principal, action, resource);\n")
    before = cli("policy", "history", "--json").json
    for verb in ("check", "apply", "what-if"):
        refused = cli("policy", verb, str(rules))
        line = default_text().count("\n") + 1
        assert refused.problem == [
            "The policy cannot be used",
            f'Line {line}: the rule has no name: write @id("a-name") before it.',
            "Correct the lines named and check the file with `control policy check FILE`; nothing was stored.",
        ]
    assert cli("policy", "history", "--json").json == before


def test_roles_of_the_setting_are_obeyed(cli: Cli) -> None:
    run = cli("start", "count", "--input", '{"amount": 1}', "--json").json["run_id"]
    viewer, nobody = {"CONTROL_LOCAL_ROLES": "viewer"}, {"CONTROL_LOCAL_ROLES": "nobody"}
    shown = cli("show", run, "--json", **viewer).json
    assert not any(verdict["allowed"] for verdict in shown["next"])
    assert {v["why"] for v in shown["next"] if v["verb"] == "pause"} == {"You may not: No rule permits it."}
    assert cli("pause", run, **viewer).problem[0] == "You may not do this"
    assert cli("runs", "--json", **viewer).json["runs"] != []
    assert cli("runs", "--json", **nobody).json["runs"] == []

    theirs = {"CONTROL_TENANT": "elsewhere"}  # where no run is that anybody could hide
    looks = [("show",), ("story",), ("audit", "show"), ("audit", "export"), ("runs", "--after"), ("pause",)]
    for look, name in product(looks, (run, run[:8])):
        hidden = cli(*look, name, **nobody).problem
        assert hidden[0] == "There is no such run" and hidden == cli(*look, name, **theirs).problem
    erase = ("audit", "erase", "--why", "x", "--run", run)
    assert cli(*erase, **nobody).problem == cli(*erase, **theirs).problem
    for whole in (("workers",), ("delegations", "list"), ("assignees", "list"), ("facts", "show"), ("keys", "list"),
                  ("policy", "show"), ("policy", "history"), ("audit", "export"), ("audit", "sign")):  # fmt: skip
        assert cli(*whole, **nobody).problem[0] == "You may not do this", whole
    assert cli("approvals", "--json", **nobody).json == []
