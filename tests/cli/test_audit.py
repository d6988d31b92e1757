"""The proof as it is typed: keys, signing, showing, exporting, verifying, erasing, and accepting a restore."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from control import audit_verifier
from tests.cli.conftest import Cli, Process


def test_the_ledger_is_signed_shown_exported_and_verified(cli: Cli, worker: Process, tmp_path: Path) -> None:
    assert cli("audit", "key", "list").out.startswith("No key signs the ledger")
    made = cli("audit", "key", "create")
    assert made.out.startswith("-----BEGIN PUBLIC KEY-----")
    public = tmp_path / "first.pem"
    public.write_text(made.out)
    assert cli("audit", "key", "create").problem[0] == "There is a signing key already"

    run = cli("start", "count", "--input", '{"amount": 1}', "--subject", "Ana", "--wait", "--json").stream[-1]["run_id"]
    cli("audit", "sign")
    key = cli("audit", "key", "list", "--json").json[0]
    assert key["here"] and key["until"] is None
    shown = cli("audit", "show", run)
    assert f"signed by key {key['key']}, holds entries 1 to" in shown.out
    story = cli("audit", "show", run, "--json").json
    linked = [seq for sentence in story["story"] for seq in sentence["entries"]]
    assert linked == list(range(1, len(linked) + 1)), "every entry belongs to one sentence"
    assert str(story["story"][0]["entries"]) in shown.out
    assert "  accepted  " in cli("audit", "show", run, "--entries").out

    bundle = tmp_path / "bundle.jsonl"
    told = cli("audit", "export", run[:8], "--to", str(bundle))
    assert told.out == f"Wrote 1 run to {bundle}, signed by key {key['key']}.\n"
    assert cli("audit", "verify", str(bundle), "--key", str(public)).out.startswith("Proven as of ")
    new = cli("audit", "key", "rotate", "--json").json
    assert [row["here"] for row in cli("audit", "key", "list", "--json").json] == [False, True]
    cli("audit", "export", "--to", str(bundle))
    assert cli("audit", "verify", str(bundle), "--key", str(public), "--json").json["fault"] is None
    bundle.write_bytes(bundle.read_bytes().replace(b'"actor"', b'"actoR"', 1))
    found = cli("audit", "verify", str(bundle), "--key", str(public))
    assert (found.code, found.out[:16]) == (1, "NOT PROVEN, line") and new["key"] != key["key"]
    assert cli("audit", "export", "nothing").problem[0] == "There is no such run"


def test_no_tenants_administrator_makes_or_replaces_the_key_that_signs(cli: Cli, tmp_path: Path) -> None:
    """Their own rules may permit them everything: the key signs every tenant's ledgers."""
    made = cli("keys", "create", "--name", "ana", "--kind", "person", "--role", "admin", "--json").json
    given = {"CONTROL_AUDIT_DIR": str(tmp_path)}
    for who in ({"CONTROL_TOKEN": made["key"]}, {"CONTROL_LOCAL_ROLES": "operator"}):
        for verb in ("create", "rotate"):
            refused = cli("audit", "key", verb, **given, **who)
            assert refused.problem[0] == "This belongs to the installation, not to a tenant"
        assert cli("audit", "key", "list", **given, **who).code == 0
    assert list(tmp_path.iterdir()) == []


def test_the_single_file_needs_nothing_else_of_ours(cli: Cli, tmp_path: Path) -> None:
    """Run as a third party would: the file alone, in a folder of its own."""
    alone = tmp_path / "audit_verifier.py"
    alone.write_bytes(Path(audit_verifier.__file__).read_bytes())
    key, bundle = tmp_path / "key.pem", tmp_path / "bundle.jsonl"
    made = cli("audit", "key", "create", "--json", CONTROL_AUDIT_DIR=str(tmp_path))
    key.write_text(made.json["public_pem"])
    cli("--tenant", "alone", "start", "count", "--input", '{"amount": 1}')
    exported = cli("--tenant", "alone", "audit", "export", CONTROL_AUDIT_DIR=str(tmp_path))
    for text, code, says in (
        (exported.out, 0, "Proven: 1 runs"),
        (exported.out.replace("alone", "aloof"), 1, "NOT PROVEN, line"),
    ):
        bundle.write_text(text)
        command = [sys.executable, "-I", str(alone), str(bundle), "--key", str(key)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert (done.returncode, (done.stdout + done.stderr)[: len(says)]) == (code, says)
    imports = [line for line in alone.read_text().splitlines() if line.startswith(("import ", "from "))]
    assert not [line for line in imports if "control" in line]


def test_a_person_is_erased_and_the_doctor_says_so(cli: Cli, worker: Process) -> None:
    run = cli("start", "count", "--input", '{"amount": 1}', "--subject", "Bo", "--wait", "--json").stream[-1]["run_id"]
    assert cli("audit", "erase", "--why", "x").problem[0] == "The command line cannot be understood"
    assert cli("audit", "erase", "--person", "Nobody", "--why", "x").problem[0] == "No run is about this person"
    erased = cli("audit", "erase", "--person", "Bo", "--why", "he asked for it", "--json")
    assert erased.json == {"erased": [run]}
    assert cli("audit", "erase", "--run", run, "--why", "again").out == "They had been erased before.\n"
    doctor = cli("doctor", "--json")
    assert (doctor.code, doctor.json["erased"], doctor.json["found"]) == (0, 1, 0)
    assert "1 run was erased, and not replayed; no findings." in cli("doctor").out
    assert "erased what it had carried until then: he asked for it." in cli("audit", "show", run).out
    assert cli("show", run).code == 0
    assert cli("restart", run).problem[1] == "What it carried has been erased, so there is nothing to go on from."
    assert cli("audit", "prune").out == "Erased what 0 runs carried.\n"
    assert cli("audit", "retain", "179").problem[0] == "Payloads may not be deleted that early"
    assert cli("audit", "retain", "400").out == "Kept for 400 days from the end of a run.\n"
    assert cli("audit", "prune", CONTROL_RETENTION_DAYS="179").problem[0] == "A setting cannot be used"


def test_whoever_may_not_signs_accepts_and_erases_nothing(cli: Cli, tmp_path: Path) -> None:
    cli("--tenant", "shut", "start", "count", "--input", '{"amount": 1}', "--not-before", "1d", "--subject", "Cy")
    given = {"CONTROL_AUDIT_DIR": str(tmp_path), "CONTROL_TENANT": "shut", "CONTROL_LOCAL_ROLES": "operator"}
    why, who = ["--why", "x"], ["--person", "Cy"]
    for order in (["sign"], ["accept-restore", "--reason", "x"], ["prune"], ["erase", *who, *why]):
        assert cli("audit", *order, **given).problem[0] == "You may not do this", order
    assert list(tmp_path.iterdir()) == [], "no tree was made"


def test_a_restored_database_is_refused_and_accepted(cli: Cli, tmp_path: Path) -> None:
    """As if a newer tree had been seen: the file is what remembers it."""
    started = cli("--tenant", "lost", "start", "count", "--input", '{"amount": 1}', "--not-before", "1d", "--json")
    settings = {"CONTROL_AUDIT_DIR": str(tmp_path), "CONTROL_TENANT": "lost"}
    assert cli("audit", "accept-restore", "--reason", "x", **settings).problem[0].startswith("Nothing shows")
    cli("audit", "sign", **settings)
    seen = next(tmp_path.glob("*.seen.json"))
    seen.write_text(json.dumps({"lost": json.loads(seen.read_text())["lost"] | {"number": 7, "digest": "00" * 32}}))
    refused = cli.fresh("worker", **settings)
    assert refused.code == 1 and "The database is an earlier copy of itself" in refused.err
    doctor = cli("doctor", "--json", **settings)
    assert doctor.code == 1 and not next(c for c in doctor.json["checks"] if c["name"] == "newest")["holds"]
    assert cli("audit", "accept-restore", "--reason", "the disk died", **settings).out == "Accepted; tree 8 says so.\n"
    assert cli("doctor", **settings).code == 0
    assert "Tree 8" in cli("audit", "show", started.json["run_id"], **settings).out


@pytest.mark.parametrize("given", ["", "no key"])
def test_a_public_key_that_is_none_is_refused(cli: Cli, tmp_path: Path, given: str) -> None:
    (tmp_path / "key.pem").write_text(given)
    (tmp_path / "bundle").write_text("{}\n")
    refused = cli("audit", "verify", str(tmp_path / "bundle"), "--key", str(tmp_path / "key.pem"))
    assert refused.problem[0] == "A signing key cannot be used"
    gone = cli("audit", "verify", str(tmp_path / "gone"), "--key", str(tmp_path / "key.pem"))
    assert "cannot be read" in gone.err
