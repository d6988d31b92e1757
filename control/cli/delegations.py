"""Standing in: who votes in whose place, from when until when."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer

from control.cli import options, output
from control.cli.options import AsJson, Reason
from control.cli.session import with_control

if TYPE_CHECKING:
    from control.runtime.commands import Control
    from control.store.delegations import Delegation

_COLUMNS: Final = ("id", "votes", "for", "roles", "from", "until", "reason")

delegations = typer.Typer(help="Who votes in whose place.", no_args_is_help=True)


def delegate(
    ctx: typer.Context,
    taker: Annotated[str, typer.Argument(metavar="NAME", help="Who votes in your place.", show_default=False)],
    *,
    until: Annotated[str, typer.Option("--until", metavar="WHEN", help="An instant (ISO 8601), or a span: 2h, 14d.")],
    since: Annotated[
        str | None, typer.Option("--from", metavar="WHEN", help="An instant, or a span. Default: now.")
    ] = None,
    role: Annotated[
        list[str] | None, typer.Option("--role", metavar="ROLE", help="A role of yours to lend. Default: all of them.")
    ] = None,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Let somebody vote in your place for a while. Every vote says for whom it was cast."""
    ends_at, starts_at = options.instant(until), options.instant(since)
    assert ends_at is not None

    async def made(control: Control) -> Delegation:
        from control.runtime.commands.delegate import delegate as command

        return await command(control, taker, ends_at=ends_at, starts_at=starts_at, roles=role or None, reason=reason)

    _show([with_control(ctx, made)], as_json=as_json)


@delegations.command("list")
def listed(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """The delegations that hold now or will, what ends first before the rest."""

    async def read(control: Control) -> list[Delegation]:
        from control.runtime.commands.delegate import delegations as command

        return await command(control)

    found = with_control(ctx, read)
    if found or as_json:
        _show(found, as_json=as_json)
    else:
        output.say("Nobody stands in for anybody.")


@delegations.command("end")
def end(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="ID", help="Which; `list` has the ids.", show_default=False)],
    *,
    as_json: AsJson = False,
) -> None:
    """End a delegation of yours before its time. Votes cast by it stay."""
    delegation_id = options.identity(name)
    assert delegation_id is not None

    async def ended(control: Control) -> Delegation:
        from control.runtime.commands.delegate import revoke

        return await revoke(control, delegation_id)

    _show([with_control(ctx, ended)], as_json=as_json)


def _show(found: list[Delegation], *, as_json: bool) -> None:
    if as_json:
        output.emit([asdict(one) for one in found])
        return
    rows = [
        (
            one.delegation_id,
            one.taker,
            one.giver,
            ", ".join(one.roles),
            output.moment(one.starts_at),
            output.moment(one.revoked_at or one.ends_at),
            one.reason or "",
        )
        for one in found
    ]
    output.console().print(output.table(_COLUMNS, rows))
