"""From a command line to the control plane: whose orders these are, and the connection on which they are given.

Importing this module loads neither LangGraph nor the database driver; opening does, and only as much as is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import typer

if TYPE_CHECKING:
    from control.core.principal import Principal
    from control.runtime.commands import Control
    from control.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. None: the settings' tenant, the operating system's user; or whoever CONTROL_TOKEN stands for."""

    tenant: str | None = None
    by: str | None = None
    debug: bool = False


def caller(ctx: typer.Context) -> Caller:
    found: Caller = ctx.find_root().obj or Caller()
    return found


def settings(ctx: typer.Context) -> Settings:
    """The settings of this call. Raises `setting-invalid`."""
    from control.settings import Settings, read

    found, tenant = read(), caller(ctx).tenant
    if tenant is None:
        return found
    try:
        return Settings(**{**found.model_dump(), "tenant": tenant})
    except ValueError:
        raise typer.BadParameter(f"{tenant!r} is no name of a tenant", param_hint="--tenant") from None


@asynccontextmanager
async def commanding(ctx: typer.Context, *, workflows: bool = False) -> AsyncIterator[Control]:
    """The commands, on an open database; with `workflows` also the graphs, which only starting a run needs.

    Raises the problems of `Database.open` and `Authentication.principal`, `config-unreadable` and `graph-unloadable`.
    """
    from control import app

    given, by = settings(ctx), caller(ctx).by
    if given.token is not None and by is not None:
        raise typer.BadParameter("CONTROL_TOKEN says who gives orders", param_hint="--by")
    if workflows:
        async with app.opened(given) as opened:
            principal = await app.whoever(given, opened.database, by)
            _check_tenant(ctx, principal)
            yield opened.control(principal=principal, workflows=True)
    else:
        async with app.commanding(given, by=by) as control:
            _check_tenant(ctx, control.principal)
            yield control


def _check_tenant(ctx: typer.Context, principal: Principal) -> None:
    if caller(ctx).tenant not in (None, principal.tenant):
        raise typer.BadParameter(f"CONTROL_TOKEN is for tenant {principal.tenant}", param_hint="--tenant")


def with_control(ctx: typer.Context, act: Callable[[Control], Awaitable[T]], *, workflows: bool = False) -> T:
    """Open, act, close. What `act` raises passes through."""

    async def once() -> T:
        async with commanding(ctx, workflows=workflows) as control:
            return await act(control)

    return asyncio.run(once())
