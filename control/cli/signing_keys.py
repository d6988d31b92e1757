"""The keys that sign the ledger: make the first, replace it, list them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from control.cli import output
from control.cli.options import AsJson
from control.cli.session import settings, with_control

if TYPE_CHECKING:
    from control.runtime.commands import Control
    from control.store.trees import PublicKey

key = typer.Typer(no_args_is_help=False, add_completion=False, help="The keys that sign the ledger.")


@key.command("create")
def create(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """Make the key that signs, in a file that its owner alone may read, and print its public part for others."""
    from control.app import signing_keys

    keys = signing_keys(settings(ctx))

    async def act(control: Control) -> PublicKey:
        from control.runtime.commands.signing_keys import create_signing_key

        return await create_signing_key(control, keys)

    _show(with_control(ctx, act), as_json=as_json)


@key.command("rotate")
def rotate(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """Replace the key that signs. The old one vouches for the new one, then its private part is destroyed.

    Where CONTROL_AUDIT_KEY holds the old key, remove the setting afterwards: the new one is a file.
    """
    from control.app import signing_keys

    keys = signing_keys(settings(ctx))

    async def act(control: Control) -> PublicKey:
        from control.runtime.commands.signing_keys import rotate_signing_key

        return await rotate_signing_key(control, keys)

    _show(with_control(ctx, act), as_json=as_json)


@key.command("list")
def listed(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """List the public keys, oldest first, and say which private ones are here."""
    from control.app import signing_keys

    here = {key.id for key in signing_keys(settings(ctx)).held()}

    async def act(control: Control) -> list[PublicKey]:
        from control.runtime.commands.signing_keys import list_signing_keys

        return await list_signing_keys(control)

    found = with_control(ctx, act)
    until = {key.replaces: key.since for key in found}
    rows: list[dict[str, Any]] = [
        {
            "key": key.key_id, "since": key.since, "until": until.get(key.key_id), "made_by": key.made_by,
            "here": key.key_id in here, "public": key.public.hex(),
        }
        for key in found
    ]  # fmt: skip
    if as_json:
        output.emit(rows)
    elif rows:
        columns = ("key", "since", "until", "made by", "private key")
        cells = (
            (row["key"], output.moment(row["since"]), output.moment(row["until"]), row["made_by"], _where(row["here"]))
            for row in rows
        )
        output.console().print(output.table(columns, cells))
    else:
        output.say("No key signs the ledger; `control audit key create` makes one.")


def _where(here: bool) -> str:
    return "here" if here else "elsewhere, or destroyed"


def _show(made: PublicKey, *, as_json: bool) -> None:
    from control.runtime.signing import public_pem

    pem = public_pem(made.public)
    if as_json:
        output.emit({"key": made.key_id, "since": made.since, "public_pem": pem})
    else:
        output.say(pem.rstrip())
