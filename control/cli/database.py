"""The database under it all: migrate, status, stop, and the doctor."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from control.cli import output
from control.cli.options import AsJson
from control.cli.outcome import REFUSED
from control.cli.session import caller, settings
from control.core.problem import Problem

if TYPE_CHECKING:
    from control.runtime.doctor import Finding
    from control.settings import Settings
    from control.store.database import Address
    from control.store.doctor import Check

NOT_EMBEDDED: Final = Problem(
    code="database-not-embedded",
    status=409,
    title="This database is not ours to stop",
    next_step="Stop it where it is operated; unset DATABASE_URL to mean the embedded one.",
)

db = typer.Typer(no_args_is_help=False, add_completion=False, help="The database: migrate it, look at it, stop it.")


@db.command("migrate")
def migrate(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """Bring the database up to this version; starts the embedded one at need."""
    from control.store.upkeep import bring_up_to_date, where

    address = _address(settings(ctx), start=True)
    assert address is not None
    applied = bring_up_to_date(address)
    if as_json:
        output.emit({"applied": applied, "where": where(address)})
    else:
        output.say(f"Applied {', '.join(applied)}." if applied else "Nothing was missing.")


@db.command("status")
def status(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """Say where the database is, of which version, and which migrations it has. Starts nothing."""
    from control.store.upkeep import condition

    given = settings(ctx)
    address = _address(given, start=False)
    embedded = given.database_url is None
    folder = str(given.data_dir.absolute()) if embedded else None
    found = asdict(condition(address)) if address else None
    if as_json:
        output.emit({"embedded": embedded, "folder": folder, "running": found is not None} | (found or {}))
    elif found is None:
        output.say(f"The embedded PostgreSQL in {folder} is not running; whatever needs it starts it.")
    else:
        kind = f"the embedded one in {folder}" if embedded else "the one that DATABASE_URL names"
        output.say(f"PostgreSQL {found['version']}, {kind}: {found['where']}")
        output.say(f"applied   {', '.join(found['applied']) or 'nothing'}")
        output.say(f"missing   {', '.join(found['missing']) or 'nothing'}")
    if found and (found["missing"] or found["strange"]):
        raise typer.Exit(REFUSED)


@db.command("eject")
def eject(
    ctx: typer.Context,
    *,
    schema: Annotated[bool, typer.Option("--schema", help="Drop schema control too: runs, approvals, ledger.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take our row security off LangGraph's tables, so that plain LangGraph goes on with them.

    `control db migrate` puts it back. Refused while workers are connected. The database roles stay: other databases of
    the server may use them.
    """
    from control.store import upkeep

    address = _address(settings(ctx), start=True)
    assert address is not None
    freed = upkeep.eject(address, schema=schema)
    if as_json:
        output.emit({"ejected": freed, "schema_dropped": schema and bool(freed)})
    elif not freed:
        output.say("Nothing of ours is here.")
    else:
        output.say(f"Plain LangGraph's again: {', '.join(freed)}.")
        output.say("Schema control is gone." if schema else "Schema control stays, with the runs and their ledger.")


@db.command("stop")
def stop(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """Stop the embedded PostgreSQL. It starts again when something needs it."""
    from control.store import embedded

    given = settings(ctx)
    if given.database_url is not None:
        raise NOT_EMBEDDED.because("DATABASE_URL names it, so somebody else operates it.")
    stopped = embedded.stop(given.data_dir)
    if as_json:
        output.emit({"stopped": stopped})
    else:
        output.say("Stopped." if stopped else "It was not running.")


def doctor(
    ctx: typer.Context,
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many findings to list; all are counted.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Check the database, and recompute every run's status from its facts and from its ledger. Exits 1 on any finding.

    Every tenant is examined, or the one that `control --tenant` names. Nothing is repaired.
    """
    from control.store.database import Address
    from control.store.doctor import checks, tenants

    given = settings(ctx)
    main, direct = _address(given, start=True), given.database_direct_url
    assert main is not None
    address = Address.of(main, direct.get_secret_value() if direct else None)
    checked = list(checks(address))
    if all(check.holds for check in checked):
        checked.append(asyncio.run(_newest(address, given)))
    healthy = all(check.holds for check in checked)
    told = _Told(limit, as_json=as_json)
    for check in checked:
        told.check(check)
    if healthy:
        named = caller(ctx).tenant
        for tenant in [named] if named else tenants(address):
            _examine(address, given, told, tenant=tenant)
    told.summary(checked)
    raise typer.Exit(0 if healthy and not told.found else REFUSED)


async def _newest(address: Address, given: Settings) -> Check:
    """Whether the database is at least as new as it was when this installation last saw it."""
    from control.app import signing_keys
    from control.runtime.attestation import Attestor
    from control.store.database import Database
    from control.store.doctor import Check

    database = Database(address, size=1)
    await database.open()
    try:
        behind = await Attestor(database, signing_keys(given)).behind()
    finally:
        await database.close()
    says = " ".join(map(str, behind)) or "every tree that was seen from here is in it"
    return Check("newest", not behind, says)


def _examine(address: Address, given: Settings, told: _Told, *, tenant: str) -> None:
    from control.runtime.doctor import examine
    from control.store.doctor import cases

    for case in cases(address, tenant):
        examined = examine(case, crash_limit=given.crash_limit)
        told.count.update(runs=1, entries=examined.entries, erased=examined.erased)
        for finding in examined.findings:
            told.finding(finding)


class _Told:
    """What the doctor found, told as it goes; JSON at the end. Keeps no more findings than it lists."""

    def __init__(self, limit: int, *, as_json: bool) -> None:
        self._limit, self._as_json = limit, as_json
        self.count, self.found, self.listed = Counter[str](), 0, list[dict[str, Any]]()

    def check(self, check: Check) -> None:
        if not self._as_json:
            output.say(f"{'ok   ' if check.holds else 'FAULT'}  {check.name}: {check.says}")

    def finding(self, finding: Finding) -> None:
        self.found += 1
        if self.found > self._limit:
            return
        if self._as_json:
            self.listed.append(asdict(finding))
            return
        for line in _lines(finding):
            output.say(line)

    def summary(self, checks: list[Check]) -> None:
        if self._as_json:
            output.emit(
                {
                    "healthy": not self.found and all(check.holds for check in checks),
                    "checks": [asdict(check) for check in checks],
                    "runs": self.count["runs"],
                    "entries": self.count["entries"],
                    "erased": self.count["erased"],
                    "findings": self.listed,
                    "found": self.found,
                }
            )
            return
        more = f", of which {self._limit} are listed" if self.found > self._limit else ""
        erased = self.count["erased"]
        told = f" {erased} run{' was' if erased == 1 else 's were'} erased, and not replayed;" if erased else ""
        output.say(
            f"{self.count['runs']} runs and {self.count['entries']} ledger entries examined:{told} "
            f"{self.found or 'no'} finding{'' if self.found == 1 else 's'}{more}."
        )


def _lines(finding: Finding) -> Iterator[str]:
    yield f"DRIFT  {finding.run_id} ({finding.tenant})  {finding.what}"
    yield f"         stored   {finding.stored}"
    yield f"         follows  {finding.follows}"


def _address(given: Settings, *, start: bool) -> str | None:
    """The address that upkeep uses: no pooler. None for an embedded server that is not running and is not to be."""
    if given.database_url is not None:
        return (given.database_direct_url or given.database_url).get_secret_value()
    from control.store import embedded

    if start:
        return embedded.ensure(given.data_dir)
    folder = embedded.Folder(given.data_dir.absolute())
    return folder.conninfo() if folder.address.exists() and embedded.kept(folder) else None
