"""Keys on the command line, and commands that act as whoever CONTROL_TOKEN stands for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from jwt.algorithms import OKPAlgorithm

from control.cli.outcome import MISUSED, REFUSED
from tests.cli.conftest import Cli

pytestmark = pytest.mark.usefixtures("conninfo")


def made(cli: Cli, *arguments: str) -> dict[str, Any]:
    done = cli("keys", "create", "--json", *arguments)
    assert done.code == 0, done.err
    found: dict[str, Any] = done.json
    return found


def test_a_key_is_shown_once_and_acts_as_its_principal(cli: Cli) -> None:
    done = cli("keys", "create", "--name", "ci", "--role", "operator", "--role", "service", "--expires-in", "2h")
    key, says = done.out.splitlines()
    assert says.startswith("This is the only time that it is shown. It expires on ")
    listed = cli("keys", "list")
    assert "service:ci" in listed.out and key[4:20] in listed.out and key[21:] not in listed.out
    started = cli("start", "count", "--input", '{"amount": 1}', "--json", CONTROL_TOKEN=key)
    assert started.code == 0, started.err
    shown = cli("story", started.json["run_id"], CONTROL_TOKEN=key)
    assert "Ci started count." in shown.out
    denied = cli("keys", "list", CONTROL_TOKEN=key)
    assert (denied.code, denied.problem[0]) == (REFUSED, "You may not do this")
    assert denied.problem[1].startswith("service:ci may not manage keys")


def test_a_narrow_key_is_refused_what_its_role_permits(cli: Cli) -> None:
    narrow = made(cli, "--name", "starter", "--role", "admin", "--scope", "start", "--scope", "read")
    assert narrow["scopes"] == ["read", "start"]
    run = cli("start", "count", "--input", '{"amount": 1}', "--json", CONTROL_TOKEN=narrow["key"]).json["run_id"]
    blind = made(cli, "--name", "blind", "--role", "admin", "--scope", "start")["key"]
    assert cli("show", run, CONTROL_TOKEN=blind).problem[0] == "There is no such run"
    assert cli("runs", "--json", CONTROL_TOKEN=narrow["key"]).json["runs"]
    assert cli("runs", "--json", CONTROL_TOKEN=blind).json["runs"] == []
    refused = cli("cancel", run, CONTROL_TOKEN=narrow["key"])
    assert refused.code == REFUSED
    assert refused.problem[1].endswith("The key or token does not stand for this, whatever its holder may do."
                                       " (rules: credential)")  # fmt: skip


def test_a_revoked_key_and_a_bad_one_are_refused_in_three_lines(cli: Cli) -> None:
    key = made(cli, "--name", "gone", "--role", "viewer", "--kind", "person")
    assert cli("runs", CONTROL_TOKEN=key["key"]).code == 0
    assert cli("keys", "revoke", key["key_id"]).out == f"Revoked: {key['key_id']}, which stood for gone.\n"
    done = cli("runs", CONTROL_TOKEN=key["key"])
    assert (done.code, done.problem[:2]) == (
        REFUSED, ["The key or token is no longer valid", "The API key was revoked."]
    )  # fmt: skip
    bad = cli("runs", "--json", CONTROL_TOKEN="ctl_secretsecret")
    assert bad.code == REFUSED and "secretsecret" not in bad.err
    assert json.loads(bad.err)["code"] == "credential-invalid"
    again = cli("keys", "revoke", key["key_id"])
    assert again.problem[0] == "The key was revoked before"
    assert cli("keys", "revoke", "0" * 16).problem[0] == "There is no such key"
    assert key["key_id"] not in cli("keys", "list").out
    assert re.search(rf"{key['key_id']}  gone: viewer\n +revoked .* by ", cli("keys", "list", "--all").out)


def test_what_was_made_with_a_revoked_key_is_named(cli: Cli) -> None:
    first = made(cli, "--name", "ana", "--role", "admin", "--kind", "person")
    second = cli("keys", "create", "--json", "--name", "ci", "--role", "admin", CONTROL_TOKEN=first["key"]).json
    third = cli("keys", "create", "--json", "--name", "cd", "--role", "admin", CONTROL_TOKEN=second["key"]).json
    assert f"made by ana, with key {first['key_id']};" in cli("keys", "list").out
    assert cli("keys", "revoke", second["key_id"], "--only").out.splitlines() == [
        f"Revoked: {second['key_id']}, which stood for service:ci.",
        f"Still valid: {third['key_id']}, which stands for service:cd, made with {second['key_id']}.",
    ]
    assert cli("keys", "revoke", first["key_id"], "--only").code == 0
    assert cli("keys", "revoke", first["key_id"]).out.splitlines() == [
        f"Revoked before: {first['key_id']}, which stood for ana.",
        f"Revoked: {third['key_id']}, which stood for service:cd, and was made with {second['key_id']}.",
    ]
    assert cli("runs", CONTROL_TOKEN=third["key"]).code == REFUSED


def test_a_bad_key_is_not_stored(cli: Cli) -> None:
    before = cli("keys", "list", "--all", "--json").json
    for arguments, code in (
        (("--name", "x", "--role", "viewer", "--scope", "fly"), REFUSED),
        (("--name", "x", "--role", "viewer", "--expires-in", "9999d"), REFUSED),
        (("--name", "x", "--role", "viewer", "--expires-in", "soon"), MISUSED),
        (("--name", "x"), MISUSED),
    ):
        done = cli("keys", "create", *arguments)
        assert (done.code, len(done.problem)) == (code, 3), done.err
    assert cli("keys", "list", "--all", "--json").json == before


def test_a_token_of_an_issuer_acts_in_its_tenant(cli: Cli, tmp_path: Path) -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    public = OKPAlgorithm.to_jwk(private.public_key(), as_dict=True)
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [public]}))
    issuers = tmp_path / "issuers.toml"
    issuers.write_text('[[issuer]]\nissuer = "i"\naudience = "control"\ntenant = "acme"\nkeys = "keys.json"\n')
    claims = {"iss": "i", "aud": "control", "sub": "ana", "exp": 2**40, "roles": ["operator"]}
    given = {"CONTROL_TOKEN": jwt.encode(claims, private, "EdDSA"), "CONTROL_ISSUERS": str(issuers)}
    run = cli("start", "count", "--input", '{"amount": 1}', "--json", **given).json["run_id"]
    assert cli("show", run, **given).code == 0
    assert cli("show", run).problem[0] == "There is no such run", "the local operator's tenant is another"
    assert cli("show", run, "--json", CONTROL_TENANT="acme").code == 0
    for arguments, says in (
        (("--tenant", "default", "runs"), "CONTROL_TOKEN is for tenant acme"),
        (("--by", "bob", "runs"), "CONTROL_TOKEN says who gives orders"),
    ):
        done = cli(*arguments, **given)
        assert done.code == MISUSED and says in done.problem[1]
    forged = jwt.encode(claims, ed25519.Ed25519PrivateKey.generate(), "EdDSA")
    assert cli("runs", **given | {"CONTROL_TOKEN": forged}).problem[1] == "Its signature is wrong."
    issuers.write_text("issuer = 3")
    assert cli("runs", **given).problem[0] == "The file of issuers cannot be used"
