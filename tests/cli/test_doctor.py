"""The doctor finds nothing wrong with runs in every walk of life, and everything that somebody tampered with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import pytest

from control.core.answer import Word
from control.runtime.commands.cancel import cancel
from control.runtime.commands.decide import decide
from control.runtime.commands.pause import pause, resume
from control.runtime.commands.restart import restart
from control.runtime.commands.retry import retry
from control.runtime.commands.rewind import rewind
from control.runtime.commands.signal import signal
from control.runtime.commands.start import start
from control.runtime.doctor import Finding, examine
from control.store.database import Address
from control.store.doctor import cases, checks, tenants
from control.testing.stage import Stage, staged
from tests.cli import troupe
from tests.cli.conftest import Cli

GRAPHS = {"count": troupe.count, "pay": troupe.pay, "fail": troupe.fail, "listen": troupe.listen}

NOT_DIGEST = "Its content does not match its digest."
NOT_HASH = "Its content does not match its hash."


@dataclass
class Patient:
    """A database with runs in it. `tamper` acts as a superuser who has switched the triggers off."""

    conninfo: str
    runs: dict[str, UUID]

    def findings(self, *, page: int = 500) -> list[Finding]:
        address = Address.of(self.conninfo, login=True)
        return [
            finding
            for tenant in tenants(address)
            for case in cases(address, tenant, page=page)
            for finding in examine(case, crash_limit=5).findings
        ]

    def tamper(self, statement: str, *params: object) -> None:
        with psycopg.connect(self.conninfo) as conn:
            conn.execute("set session_replication_role = replica")
            assert conn.execute(statement.encode(), params).rowcount == 1

    def found(self) -> dict[str, Finding]:
        findings = self.findings()
        assert len({finding.run_id for finding in findings}) == 1
        return {finding.what: finding for finding in findings}


@pytest.fixture
async def patient(database: str) -> AsyncIterator[Patient]:
    async with staged(database, GRAPHS) as stage:
        run = await start(stage.control, "count", {"amount": 1})
        await stage.until(run.run_id, "succeeded")
        asked = await start(stage.control, "pay", {"amount": 1})
        await stage.until(asked.run_id, "awaiting_approval")
    yield Patient(database, {"count": run.run_id, "pay": asked.run_id})


async def live(stage: Stage) -> None:
    """Runs that went through everything that can be ordered, answered and survived."""
    control = stage.control

    async def begun(name: str, word: str, value: Any = None) -> UUID:
        run = await start(control, name, value or {})
        await stage.until(run.run_id, word)
        return run.run_id

    await begun("count", "succeeded")
    failed = await begun("fail", "failed")
    await retry(control, failed, reason="again")
    await stage.until(failed, "failed")
    await restart(control, failed)
    asked = await begun("pay", "awaiting_approval", {"amount": 2})
    await pause(control, asked, reason="lunch")
    await resume(control, asked)
    await decide(control, asked, Word.APPROVED, answer={"amount": 2}, note="fine")
    await stage.until(asked, "succeeded")
    refused = await begun("pay", "awaiting_approval", {"amount": 3})
    await decide(control, refused, Word.REJECTED)
    await stage.until(refused, "succeeded")
    again = await begun("pay", "awaiting_approval", {"amount": 4})
    await rewind(control, again)
    await stage.until(again, "awaiting_approval")
    heard = await begun("listen", "waiting")
    await signal(control, heard, "door", payload="open")
    await stage.until(heard, "succeeded")
    await rewind(control, heard)
    await signal(control, await begun("listen", "waiting"), "window", payload="shut")
    await pause(control, await begun("listen", "waiting"))
    await cancel(control, await begun("listen", "waiting"), reason="no use")


async def test_nothing_is_found_where_nothing_is_wrong(database: str) -> None:
    async with staged(database, GRAPHS) as stage:
        await live(stage)
        patient = Patient(database, {})
        assert patient.findings(page=3) == [], "while a worker is at it"
    assert patient.findings() == []


def test_a_tampered_status_is_found(patient: Patient) -> None:
    patient.tamper("update control.run set status = 'succeeded', due_at = null where run_id = %s", patient.runs["pay"])
    found = patient.found()
    assert found["status"].stored.startswith("succeeded since")
    assert found["status"].follows.startswith("awaiting_approval since")
    assert found["status (replayed)"].follows.startswith("awaiting_approval since")
    assert "closed_at" not in found


def test_tampered_facts_are_found_though_the_status_follows_from_them(patient: Patient) -> None:
    """The row agrees with itself; only the ledger tells."""
    patient.tamper(
        "update control.run set execution = 'finished', outcome = 'completed', status = 'succeeded',"
        " since = outcome_at, due_at = null, closed_at = since where run_id = %s", patient.runs["pay"],
    )  # fmt: skip
    found = patient.found()
    assert "status" not in found
    outcome = found["outcome (replayed)"]
    assert (outcome.stored[:9], outcome.follows[:9]) == ("completed", "suspended")
    assert found["status (replayed)"].follows.startswith("awaiting_approval since")


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (
            "update control.ledger set body = replace(body, 'one', 'eno') where run_id = %s and body like '%%one%%'",
            NOT_DIGEST,
        ),
        (
            "update control.ledger set digest = sha256('x') where run_id = %s and seq = 3",
            NOT_DIGEST,
        ),
        ("update control.ledger set actor = 'eve' where run_id = %s and seq = 2", NOT_HASH),
        (
            "update control.ledger set at = at + interval '1 microsecond' where run_id = %s and seq = 2",
            NOT_HASH,
        ),
        ("update control.ledger set hash = sha256('x') where run_id = %s and seq = 4", NOT_HASH),
        (
            "delete from control.ledger where run_id = %s and seq = 3",
            "Entry 3 is expected here, and entry 4 stands here.",
        ),
        (
            "delete from control.ledger l where run_id = %s and seq = (select ledger_seq from control.run r"
            " where r.run_id = l.run_id)",
            "The chain does not end in the hash it is known to end in.",
        ),
    ],
)
def test_a_tampered_ledger_is_found(patient: Patient, statement: str, says: str) -> None:
    patient.tamper(statement, patient.runs["count"])
    assert patient.found()["ledger chain"].follows == says


async def test_a_ledger_rewritten_from_its_start_is_found_by_the_tree(patient: Patient) -> None:
    """Every hash is computed anew, and so is the head that the run keeps: the chain itself says nothing."""
    gathered = [case.gathered for case in cases(Address.of(patient.conninfo, login=True), "default")]
    assert all(gathered), "the worker's last act is to gather what it saw"
    run = patient.runs["count"]
    patient.tamper("update control.ledger set actor = 'eve' where run_id = %s and seq = 1", run)
    with psycopg.connect(patient.conninfo) as conn:
        conn.execute("set session_replication_role = replica")
        conn.execute(
            "update control.ledger l set hash = made.hash"
            " from (select seq, control.chain(link) over (order by seq) as hash from ("
            "   select 0 as seq, %(start)s::bytea as link union all"
            "   select seq, control.link(seq, at, kind, actor, epoch, digest)"
            "   from control.ledger where run_id = %(run)s) t) made where l.run_id = %(run)s and l.seq = made.seq",
            {"run": run, "start": bytes(32)},
        )
        conn.execute(
            "update control.run r set ledger_hash = (select hash from control.ledger l where l.run_id = r.run_id"
            " order by seq desc limit 1) where run_id = %s", (run,),
        )  # fmt: skip
    assert list(patient.found()) == ["ledger"]
    assert patient.found()["ledger"].stored.startswith("not as tree ")


def test_a_run_that_is_gone_and_one_without_its_ledger_are_found(patient: Patient) -> None:
    patient.tamper("delete from control.run where run_id = %s", patient.runs["count"])
    assert patient.found()["run"].stored == "missing"
    with psycopg.connect(patient.conninfo) as conn:
        conn.execute("set session_replication_role = replica")
        conn.execute("delete from control.ledger")
    assert [(f.run_id, f.what) for f in patient.findings()] == [
        (patient.runs["pay"], "ledger chain"), (patient.runs["pay"], "ledger"),
    ]  # fmt: skip


def test_a_body_that_went_without_a_record_is_found(patient: Patient) -> None:
    patient.tamper("update control.ledger set body = null where run_id = %s and seq = 3", patient.runs["count"])
    assert patient.found()["ledger chain"].follows == "Its content is gone, and no entry says who erased it."


def test_every_run_is_examined_once_whatever_the_page(patient: Patient) -> None:
    address = Address.of(patient.conninfo, login=True)
    for page in (1, 2, 3):
        seen = []
        for case in cases(address, "default", page=page):
            seen.append(case.run_id)
            examined = examine(case, crash_limit=5)
            assert (examined.findings, examined.entries) == ([], pytest.approx(10, abs=6))
        assert seen == sorted(patient.runs.values())


def test_a_wall_that_was_taken_down_is_found(database: str) -> None:
    address = Address.of(database)
    assert all(check.holds for check in checks(address))
    with psycopg.connect(database) as conn:
        conn.execute("alter table control.effect no force row level security")
        conn.execute("alter table control.ledger disable trigger ledger_is_append_only")
    faults = {check.name: check.says for check in checks(address) if not check.holds}
    assert faults == {"row security": "missing on effect", "ledger": "off: ledger_is_append_only"}


def test_the_command_exits_by_what_it_finds(cli: Cli, conninfo: str) -> None:
    run = cli("start", "count", "--json").json["run_id"]
    assert cli("--tenant", "acme", "start", "count").code == 0
    healthy = cli("doctor", "--json")
    assert (healthy.code, healthy.json["healthy"], healthy.json["runs"]) == (0, True, 2)
    named = [check["name"] for check in healthy.json["checks"]]
    assert named == ["schema", "address", "roles", "row security", "ledger", "newest"]
    assert cli("doctor").out.endswith("2 runs and 2 ledger entries examined: no findings.\n")

    Patient(conninfo, {}).tamper("update control.run set status = 'failed' where run_id = %s", run)
    sick = cli("doctor", "--json")
    assert (sick.code, sick.json["healthy"], sick.json["found"]) == (1, False, len(sick.json["findings"]))
    assert {finding["run_id"] for finding in sick.json["findings"]} == {run}
    told = cli("doctor")
    assert told.code == 1
    assert f"DRIFT  {run} (default)  status" in told.out
    assert cli("--tenant", "acme", "doctor").code == 0
