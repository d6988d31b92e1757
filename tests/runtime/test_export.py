"""What is exported can be verified by somebody who has the file and a public key, and nothing else."""

from __future__ import annotations

import json
import stat
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest

from control.core.problem import Refusal
from control.policy.cedar import default_text
from control.runtime.commands.erase import erase_runs
from control.runtime.commands.pause import pause
from control.runtime.commands.policy import apply
from control.runtime.commands.start import start
from control.testing.database import as_role
from control.testing.stage import Stage, staged
from tests.cli import troupe
from tests.runtime.proving import attestor, bundle, create_key, folder, rotate_key, verdict

GRAPHS = {"count": troupe.count, "pay": troupe.pay}


async def finished(stage: Stage, amount: int = 1) -> str:
    run = await start(stage.control, "count", {"amount": amount})
    await stage.until(run.run_id, "succeeded")
    return str(run.run_id)


async def test_a_bundle_is_proven_to_whoever_trusts_the_key(database: str) -> None:
    async with staged(database, GRAPHS) as stage:
        key = await create_key(stage)
        for amount in (1, 2, 3):
            await finished(stage, amount)
        await attestor(stage).attest("default", wait=True)
        data = await bundle(stage)
        report = verdict(data, key.public)
        assert report.fault is None
        assert (report.runs, report.trees, report.attested, report.erased) == (3, 1, 3, 0)
        assert report.entries == len(data.splitlines()) - 7  # the opening, the key, the tree, three heads and the seal
        assert verdict(data).fault and verdict(data, bytes(32)).fault, "to nobody else"


async def test_one_run_is_exported_with_its_proof_alone(database: str) -> None:
    async with staged(database, GRAPHS) as stage:
        key = await create_key(stage)
        first, _ = [await start(stage.control, "count", {"amount": 1}) for _ in range(2)]
        await stage.until(first.run_id, "succeeded")
        maker = attestor(stage)
        await maker.attest("default", wait=True)
        data = await bundle(stage, first.run_id)
        report = verdict(data, key.public)
        assert (report.fault, report.runs, report.attested) == (None, 1, 1)
        with pytest.raises(Refusal, match="There is no such run"):
            await bundle(stage, uuid4())
        with pytest.raises(Refusal, match="There is nothing to export"):
            async with stage.control.transaction() as conn:
                now = (await (await conn.execute("select control.clock() as at")).fetchone())["at"]
            await bundle(stage, since=now + timedelta(hours=1))
        assert verdict(await bundle(stage, since=now - timedelta(hours=1)), key.public).runs == 2


async def test_a_run_that_went_on_is_proven_up_to_its_tree_and_sealed_to_its_head(database: str) -> None:
    async with staged(database, GRAPHS) as stage:
        key = await create_key(stage)
        run = await start(stage.control, "pay", {"amount": 2})
        await stage.until(run.run_id, "awaiting_approval")
        await attestor(stage).attest("default", wait=True)
        gathered = len(stage.ledger(run.run_id))
        await pause(stage.control, run.run_id)
        data = await bundle(stage, run.run_id)
        assert verdict(data, key.public).fault is None
        head = next(json.loads(line) for line in data.splitlines() if b'"record":"head"' in line)
        assert (head["proof"]["seq"], head["seq"]) == (gathered, gathered + 1)


async def test_a_key_vouches_for_the_one_that_replaces_it(database: str) -> None:
    """Whoever keeps the first key goes on verifying; old trees hold under the old key, in its time."""
    async with staged(database, GRAPHS) as stage:
        first = await create_key(stage)
        old = await finished(stage)
        await attestor(stage).attest("default", wait=True)
        second = await rotate_key(stage)
        await finished(stage)
        await attestor(stage).attest("default", wait=True)
        third = await rotate_key(stage)
        data = await bundle(stage)
        assert verdict(data, first.public).fault is None
        assert (verdict(data, first.public).trees, verdict(data, first.public).attested) == (2, 2)
        refused = verdict(data, third.public).fault
        assert refused and refused.why == f"It is signed by key {first.key_id}, which is not among those trusted."
        assert verdict(data, second.public).fault, "the first tree is not the second key's"
        files = list(folder(stage).glob("*.pem"))
        assert [file.name for file in files] == [f"signing_key.{third.key_id}.pem"]
        assert stat.S_IMODE(files[0].stat().st_mode) == 0o600
        assert old in data.decode()
        for secret in (file.read_text() for file in files):
            assert not any(line in _dump(database) for line in secret.splitlines()[1:-1])


async def test_what_nobody_signed_proves_nothing(database: str) -> None:
    async with staged(database, GRAPHS) as stage:
        await finished(stage)
        await attestor(stage).attest("default", wait=True)
        unsigned = verdict(await bundle(stage)).fault
        assert unsigned and unsigned.why == "The seal is not signed, so nothing here is proven."


async def test_a_key_that_others_may_read_is_refused(database: str) -> None:
    async with staged(database, GRAPHS, work=False) as stage:
        await create_key(stage)
        with pytest.raises(Refusal, match="There is a signing key already"):
            await create_key(stage)
        file = next(folder(stage).glob("*.pem"))
        file.chmod(0o644)
        with pytest.raises(Refusal, match="Others may read"):
            await bundle(stage)
        file.chmod(0o600)
        file.write_text("no key")
        with pytest.raises(Refusal, match="holds no private key"):
            await bundle(stage)
        file.unlink()
        with pytest.raises(Refusal, match="There is no signing key here"):
            await rotate_key(stage)


async def test_an_erased_run_is_exported_and_proven_without_its_bodies(database: str) -> None:
    async with staged(database, GRAPHS) as stage:
        key = await create_key(stage)
        run = await start(stage.control, "count", {"amount": 1})
        await stage.until(run.run_id, "succeeded")
        await attestor(stage).attest("default", wait=True)
        bodies = len(stage.ledger(run.run_id))
        await erase_runs(stage.control, [run.run_id], why="asked to")
        report = verdict(await bundle(stage), key.public)
        assert (report.fault, report.entries, report.erased) == (None, bodies + 1, bodies)


@pytest.mark.parametrize("role", ["control_command", "control_flush"])
@pytest.mark.parametrize("table", ["tree", "tree_leaf", "signing_key", "lineage"])
async def test_what_proves_is_never_changed(database: str, role: str, table: str) -> None:
    async with staged(database, GRAPHS) as stage:
        await create_key(stage)
        await finished(stage)
        await attestor(stage).attest("default", wait=True)
    for conninfo in (as_role(database, role), database):
        with psycopg.connect(conninfo, autocommit=True) as conn:
            conn.execute("select set_config('control.tenant', 'default', false)")
            conn.execute("select set_config('control.tenants', 'default', false)")
            for statement in ("delete from control.{}", "truncate control.{} cascade", "update control.{} set {} = {}"):
                column = {"tree": "number", "tree_leaf": "place", "signing_key": "text", "lineage": "lineage"}[table]
                with pytest.raises(psycopg.Error, match=r"append-only|permission denied"):
                    conn.execute(statement.format(table, column, column).encode())


def _dump(conninfo: str) -> str:
    """Everything that every table holds, as text."""
    with psycopg.connect(conninfo) as conn:
        tables = conn.execute(
            "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname in ('control', 'public')"
        ).fetchall()
        return "".join(row[0] for (name,) in tables for row in conn.execute(f"select t::text from {name} t".encode()))


async def test_policy_is_asked_of_every_run_in_a_bundle(database: str) -> None:
    """Whoever may export one run alone can; a bundle of all is refused whole where one of them may not be exported."""
    rules = """
        @id("one") permit (principal in Role::"auditor", action == Action::"export", resource)
            when { resource is Run && resource has workflow && resource.workflow == "count" };
        @id("whole") permit (principal in Role::"archivist", action in [Action::"export", Action::"read"], resource);
        @id("not-pay") forbid (principal, action == Action::"export", resource)
            when { resource is Run && resource has workflow && resource.workflow == "pay" };
    """
    async with staged(database, GRAPHS, work=False) as stage:
        run, other = [await start(stage.control, name, {"amount": 1}) for name in ("count", "pay")]
        await apply(stage.control, default_text() + rules)
        asked = {
            "auditor": [(run.run_id, None), (other.run_id, "no-such-run"), (None, "not-permitted")],
            "archivist": [(run.run_id, None), (other.run_id, "not-permitted"), (None, "not-permitted")],
            "viewer": [(run.run_id, "not-permitted"), (None, "not-permitted")],
        }
        for role, exports in asked.items():
            for named, code in exports:
                if code is None:
                    assert json.loads((await bundle(stage, named, by=role)).splitlines()[-1])["record"] == "seal"
                    continue
                with pytest.raises(Refusal) as refused:
                    await bundle(stage, named, by=role)
                assert refused.value.code == code, (role, named)
