"""Proof: what happened, in sentences that name their entries; bundles for others to check; what keeps both true."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from control.cli import erasing, output, signing_keys
from control.cli.options import AsJson, RunName, instant
from control.cli.outcome import REFUSED
from control.cli.session import commanding, settings, with_control
from control.cli.standing import find
from control.core.action import Action

if TYPE_CHECKING:
    from control.core.bundle import Report
    from control.core.ledger import Entry
    from control.runtime.attestation import Attestor
    from control.runtime.commands import Control

audit = typer.Typer(no_args_is_help=False, add_completion=False, help="Prove what happened; erase what was carried.")
audit.command("erase")(erasing.erase)
audit.command("prune")(erasing.prune)
audit.command("retain")(erasing.retain)
audit.add_typer(signing_keys.key, name="key")


@asynccontextmanager
async def attesting(ctx: typer.Context) -> AsyncIterator[tuple[Control, Attestor]]:
    """The commands, and what makes trees."""
    from control.app import signing_keys as keys
    from control.runtime.attestation import Attestor

    async with commanding(ctx) as control:
        yield control, Attestor(control.database, keys(settings(ctx)))


@audit.command("show")
def show(
    ctx: typer.Context,
    run: RunName,
    *,
    entries: Annotated[bool, typer.Option("--entries", help="Print the entries behind each sentence.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell what happened to a run; every sentence names the ledger's entries behind it."""

    async def read(control: Control) -> None:
        from control.core.story import tell
        from control.store import listing, trees

        run_id = await find(control, run)
        async with control.transaction() as conn:
            await control.read(conn, run_id)
            ledger = [entry async for entry in listing.entries(conn, control.tenant, run_id)]
            leaf = await trees.leaf_of(conn, control.tenant, run_id)
            tree = await trees.numbered(conn, control.tenant, [leaf.number] if leaf else [])
        proven = {"tree": leaf.number, "up_to": leaf.seq, "key": tree[0].key_id} if leaf else None
        story = [{"at": told.at, "text": told.text, "entries": list(told.entries)} for told in tell(ledger)]
        if as_json:
            output.emit({"run_id": str(run_id), "story": story, "proof": proven})
            return
        _narrate(story, ledger if entries else [])
        output.say(_gathered(proven, of=len(ledger)))

    with_control(ctx, read)


@audit.command("sign")
def sign(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """Gather the heads of all changed runs into a tree now, signed where there is a key."""

    async def act() -> int:
        async with attesting(ctx) as (control, attestor):
            leave = partial(control.require, action=Action.EXPORT)
            return await attestor.attest(control.tenant, wait=True, leave=leave)

    count = asyncio.run(act())
    output.emit({"heads": count}) if as_json else output.say(f"Gathered {count} heads.")


@audit.command("export")
def export(
    ctx: typer.Context,
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="Only this run: its id, or its thread.", show_default=False)
    ] = None,
    *,
    since: Annotated[
        str | None, typer.Option("--since", metavar="WHEN", help="Only runs with an entry since this instant.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="Write here. Default: standard output.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a bundle: ledgers as stored, with proofs and a signed seal, for anybody to verify without the database."""
    after = instant(since)

    async def act() -> tuple[str | None, int]:
        from control.runtime.export import exporting

        async with attesting(ctx) as (control, attestor):
            run_id = await find(control, run) if run else None
            await attestor.attest(control.tenant, wait=True)
            async with exporting(control, attestor.keys, run_id=run_id, since=after) as exported:
                await _written(exported.lines(), to)
                return exported.signed_by, len(exported.heads)

    signed_by, runs = asyncio.run(act())
    if to is None:
        return
    if as_json:
        output.emit({"file": str(to), "runs": runs, "key": signed_by})
    else:
        how = f"signed by key {signed_by}" if signed_by else "signed by nobody, so it proves nothing"
        output.say(f"Wrote {runs} run{'' if runs == 1 else 's'} to {to}, {how}.")


@audit.command("verify")
def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="What `control audit export` wrote.")],
    *,
    keys: Annotated[list[Path], typer.Option("--key", metavar="FILE", help="A public key that you trust; repeatable.")],
    as_json: AsJson = False,
) -> None:
    """Check a bundle against public keys, without a database. Exits 1 where anything in it was changed."""
    from control.core.bundle import check
    from control.runtime.signing import public_keys, verifies

    try:
        with bundle.open("rb") as lines:
            report = check(lines, trusted=public_keys(keys), verifies=verifies)
    except OSError as error:
        raise typer.BadParameter(f"{bundle} cannot be read: {error.strerror}", param_hint="BUNDLE") from None
    if as_json:
        output.emit(asdict(report))
    else:
        output.say(_told(report))
    raise typer.Exit(REFUSED if report.fault else 0)


@audit.command("accept-restore")
def accept_restore(
    ctx: typer.Context,
    *,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why what was lost is given up.")],
    as_json: AsJson = False,
) -> None:
    """Go on from a restored backup: give up what it lacks, on record in the trees and in every open run's ledger."""

    async def act() -> int:
        async with attesting(ctx) as (control, attestor):
            leave = partial(control.require, action=Action.ERASE)  # what was lost is given up for good
            return (await attestor.accept_restore(control.tenant, by=control.by, reason=reason, leave=leave)).number

    number = asyncio.run(act())
    output.emit({"tree": number}) if as_json else output.say(f"Accepted; tree {number} says so.")


async def _written(lines: AsyncIterator[bytes], to: Path | None) -> None:
    """To a file, whole or not at all, or to standard output."""
    if to is None:
        await _pour(lines, sys.stdout.buffer)
        return
    draft = to.with_name(f".{to.name}.draft")
    try:
        with draft.open("wb") as out:
            await _pour(lines, out)
        draft.replace(to)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


async def _pour(lines: AsyncIterator[bytes], out: IO[bytes]) -> None:
    async for line in lines:
        out.write(line)
    out.flush()


def _narrate(story: list[dict[str, Any]], ledger: list[Entry]) -> None:
    from control.core.ledger import canonical

    by_seq = {entry.seq: entry for entry in ledger}
    for sentence in story:
        output.say(f"{output.moment(sentence['at'])}  {sentence['text']} {sentence['entries']}")
        for entry in (by_seq[seq] for seq in sentence["entries"] if seq in by_seq):
            said = "erased" if entry.erased else canonical(entry.body).decode()
            output.say(f"{'':>25}{entry.seq:>4}  {entry.kind}  {entry.actor}  {said}")


def _gathered(proven: dict[str, Any] | None, *, of: int) -> str:
    if proven is None:
        return f"No tree has gathered its {of} entries yet."
    by = f"signed by key {proven['key']}" if proven["key"] else "which nobody signed"
    return f"Tree {proven['tree']}, {by}, holds entries 1 to {proven['up_to']} of {of}."


def _told(report: Report) -> str:
    if report.fault:
        return f"NOT PROVEN, line {report.fault.line}: {report.fault.why}"
    erased = f", {report.erased} of them erased," if report.erased else ""
    return (
        f"Proven as of {output.moment(report.at)}: tenant {report.tenant}, {report.runs} runs,"
        f" {report.entries} entries{erased} as they were written; {report.attested} runs stand in {report.trees} trees."
    )
