"""API keys: make one, list them, revoke one."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Final

import typer

from control.cli import options, output
from control.cli.options import AsJson
from control.cli.session import with_control
from control.core.api_key import LIFETIME, LONGEST, ApiKey, Condition, Wanted
from control.core.principal import PrincipalKind

_LIMIT: Final = 1000

keys = typer.Typer(no_args_is_help=False, add_completion=False, help="API keys: make one, list them, revoke one.")


@keys.command("create")
def create(
    ctx: typer.Context,
    *,
    name: Annotated[str, typer.Option("--name", help="Whom it stands for. Several keys may stand for one.")],
    role: Annotated[list[str], typer.Option("--role", help="A role it has; say it again for more.")],
    kind: Annotated[PrincipalKind, typer.Option("--kind", help="What it stands for.")] = PrincipalKind.SERVICE,
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="An action it is limited to, such as start; again for more.")
    ] = None,
    expires_in: Annotated[
        str, typer.Option("--expires-in", metavar="SPAN", help=f"At most {LONGEST.days}d.")
    ] = f"{LIFETIME.days}d",
    as_json: AsJson = False,
) -> None:
    """Make a key and show it, once: it is stored as a digest alone."""
    from control.runtime.commands.keys import create_key

    wanted = Wanted(
        name=name, kind=kind, roles=frozenset(role), scopes=frozenset(scope) if scope else None,
        lifetime=options.span(expires_in),
    )  # fmt: skip
    made, text = with_control(ctx, lambda control: create_key(control, wanted))
    if as_json:
        output.emit({"key": text} | _json(made))
    else:
        output.say(text)
        output.say(f"This is the only time that it is shown. It expires on {output.moment(made.expires_at)}.")


@keys.command("list")
def list_(
    ctx: typer.Context,
    *,
    ended: Annotated[bool, typer.Option("--all", help="Those too that expired or were revoked.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the keys that are valid, the newest first."""
    from control.runtime.commands.keys import list_keys

    found = with_control(ctx, lambda control: list_keys(control, ended=ended, limit=_LIMIT))
    if as_json:
        output.emit([_json(key) | {"condition": key.condition(now).value} for key, now in found])
    elif found:
        for key, now in found:
            for line in _lines(key, now):
                output.say(line)
    else:
        output.say("There is no key." if ended else "There is no valid key.")


@keys.command("revoke")
def revoke(
    ctx: typer.Context,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The 16 digits after ctl_.", show_default=False)],
    *,
    only: Annotated[bool, typer.Option("--only", help="Not what was made with it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Revoke a key and what was made with it: refused from the next use on. Of a revoked one, what is left below it."""
    from control.runtime.commands.keys import revoke_key

    gone = with_control(ctx, lambda control: revoke_key(control, key_id, only=only))
    if as_json:
        output.emit(_json(gone.key) | {"besides": [*map(_json, gone.besides)], "left": [*map(_json, gone.left)]})
        return
    said = "Revoked before" if gone.before else "Revoked"
    output.say(f"{said}: {gone.key.key_id}, which stood for {gone.key.principal.actor}.")
    for key in gone.besides:
        output.say(f"Revoked: {key.key_id}, which stood for {key.principal.actor}, and was made with {key.made_with}.")
    for key in gone.left:
        output.say(f"Still valid: {key.key_id}, which stands for {key.principal.actor}, made with {key.made_with}.")


def _json(key: ApiKey) -> dict[str, Any]:
    """Everything but the digest."""
    given = {name: value for name, value in asdict(key).items() if name != "digest"}
    words = {"roles": sorted(key.roles), "scopes": None if key.scopes is None else sorted(key.scopes)}
    return given | words | {"via": sorted(key.via)}


def _lines(key: ApiKey, now: datetime) -> tuple[str, str]:
    """Not a table: its cells would break the ids that people copy."""
    ends = f"expires {output.moment(key.expires_at)}"
    if key.revoked_at:
        ends = f"revoked {output.moment(key.revoked_at)} by {key.revoked_by}"
    elif key.condition(now) is Condition.EXPIRED:
        ends = f"expired {output.moment(key.expires_at)}"
    maker = f"{key.created_by}, with key {key.made_with}" if key.made_with else key.created_by
    limits = f" (only {', '.join(sorted(key.scopes))})" if key.scopes is not None else ""
    return (
        f"{key.key_id}  {key.principal.actor}: {', '.join(sorted(key.roles))}{limits}",
        f"{'':16}  {ends}; made by {maker}; {f'last used {key.used_on}' if key.used_on else 'never used'}",
    )
