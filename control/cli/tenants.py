"""Tenants: what each may use, and what it uses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from control.cli import output
from control.cli.options import AsJson
from control.cli.session import caller, settings, with_control
from control.core.limits import NONE, limit

if TYPE_CHECKING:
    from control.core.limits import Limits
    from control.runtime.commands import Control
    from control.runtime.commands.limit import Account
    from control.store.limits import Version

T = TypeVar("T")
Named = Annotated[str | None, typer.Argument(metavar="[TENANT]", help="Default: CONTROL_TENANT.", show_default=False)]
_WORDS: Final = {"runs_at_once": "runs at once", "starts": "starts", "usd": "dollars", "tokens": "tokens"}

tenants = typer.Typer(no_args_is_help=False, add_completion=False, help="What each tenant may use, and what it uses.")


def _option(flag: str, metavar: str, help: str) -> Any:
    return typer.Option(flag, metavar=metavar, help=help, show_default=False)


@tenants.command("set")
def put(
    ctx: typer.Context,
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="Whose limits.", show_default=False)],
    *,
    runs: Annotated[str | None, _option("--runs-at-once", "N", "How many runs may be at work.")] = None,
    starts: Annotated[str | None, _option("--starts", "N/TIME", "How many in any minute, hour or day.")] = None,
    usd: Annotated[str | None, _option("--usd", "X/TIME", "Dollars in each hour, day or month of UTC.")] = None,
    tokens: Annotated[str | None, _option("--tokens", "N/TIME", "Tokens in each hour, day or month of UTC.")] = None,
    as_json: AsJson = False,
) -> None:
    """Set the limits named, in force at once: --starts 600/minute --usd 50.00/day. The word none takes one away."""
    typed = {"runs_at_once": runs, "starts": starts, "usd": usd, "tokens": tokens}
    changes = {name: limit(name, text.strip()) for name, text in typed.items() if text is not None}

    async def change(control: Control) -> Account:
        from control.runtime.commands.limit import set_limits

        return await set_limits(control, changes)

    _show(_in(ctx, tenant, change), as_json=as_json)


@tenants.command("show")
def show(ctx: typer.Context, tenant: Named = None, *, as_json: AsJson = False) -> None:
    """Show a tenant's limits, and how much of each is used."""

    async def read(control: Control) -> Account:
        from control.runtime.commands.limit import account

        return await account(control)

    _show(_in(ctx, tenant, read), as_json=as_json)


@tenants.command("history")
def history(
    ctx: typer.Context,
    tenant: Named = None,
    *,
    most: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the limits that were set, by whom and when."""

    async def read(control: Control) -> list[Version]:
        from control.runtime.commands.limit import history

        return await history(control, limit=most)

    found = _in(ctx, tenant, read)
    if as_json:
        output.emit([_version(one) for one in found])
    elif found:
        rows = ((one.version, *_typed(one.limits).values(), output.moment(one.set_at), one.set_by) for one in found)
        output.console().print(output.table(("version", *_WORDS.values(), "set", "by"), rows))
    else:
        output.say("Nobody has set any: there is no limit.")


@tenants.command("list")
def list_(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """List the tenants that have runs or limits. With CONTROL_TOKEN, the one that it is for."""
    one = settings(ctx).token is not None or caller(ctx).tenant is not None

    async def read(control: Control) -> list[Account]:
        from control.runtime.commands.limit import accounts
        from control.store.limits import tenants

        return await accounts(control, [control.tenant] if one else await tenants(control.database))

    found = with_control(ctx, read)
    if as_json:
        output.emit([_plain(account) for account in found])
        return
    rows = ((a.tenant, a.usage.at_work, a.usage.queued, *_typed(a.limits).values()) for a in found)
    output.console().print(output.table(("tenant", "at work", "queued", *_WORDS.values()), rows))


def _in(ctx: typer.Context, tenant: str | None, act: Callable[[Control], Awaitable[T]]) -> T:
    """As if `control --tenant TENANT` had been typed."""
    if tenant is not None:
        ctx.find_root().obj = replace(caller(ctx), tenant=tenant)
    return with_control(ctx, act)


def _typed(limits: Limits) -> dict[str, str]:
    """Each limit as it would be typed."""
    given = {name: getattr(limits, name) for name in _WORDS}
    return {name: NONE if limit is None else str(limit) for name, limit in given.items()}


def _show(account: Account, *, as_json: bool) -> None:
    if as_json:
        output.emit(_plain(account))
        return
    output.console().print(output.table(("limit", "allowed", "used"), _rows(account)))
    if account.version:
        output.say(f"Set by {account.version.set_by} at {output.moment(account.version.set_at)}.")


def _rows(account: Account) -> Iterator[tuple[str, str, str]]:
    limits, used, allowed = account.limits, account.usage, _typed(account.limits)
    yield "runs at once", allowed["runs_at_once"], f"{used.at_work}, and {used.queued} queued"
    yield "starts", allowed["starts"], f"{used.started:,} in the last {limits.starts.per if limits.starts else 'hour'}"
    yield "dollars", allowed["usd"], f"{used.usd.normalize():,f} this {limits.usd.per if limits.usd else 'month'}"
    yield "tokens", allowed["tokens"], f"{used.tokens:,} this {limits.tokens.per if limits.tokens else 'month'}"


def _plain(account: Account) -> dict[str, Any]:
    used = account.usage
    return {
        "tenant": account.tenant,
        "limits": _as_json(account.limits),
        "version": account.version.version if account.version else 0,
        "set_at": account.version.set_at if account.version else None,
        "set_by": account.version.set_by if account.version else None,
        "used": {
            "runs_at_work": used.at_work,
            "runs_queued": used.queued,
            "starts": used.started,
            "usd": str(used.usd),
            "tokens": used.tokens,
        },
    }


def _as_json(limits: Limits) -> dict[str, Any]:
    """Each limit as it would be typed; null where there is none."""
    return {name: None if text == NONE else text for name, text in _typed(limits).items()}


def _version(one: Version) -> dict[str, Any]:
    return {"version": one.version, "limits": _as_json(one.limits), "set_at": one.set_at, "set_by": one.set_by}
