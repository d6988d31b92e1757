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
    from control.runtime.commands import Control
    from control.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. None: the settings' tenant, the operating system's user."""

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

    Raises the problems of `Database.open`, `config-unreadable` and `graph-unloadable`.
    """
    from control import app

    given, by = settings(ctx), caller(ctx).by
    if workflows:
        async with app.opened(given) as opened:
            yield opened.control(by=by, workflows=True)
    else:
        async with app.commanding(given, by=by) as control:
            yield control


def with_control(ctx: typer.Context, act: Callable[[Control], Awaitable[T]], *, workflows: bool = False) -> T:
    """Open, act, close. What `act` raises passes through."""

    async def once() -> T:
        async with commanding(ctx, workflows=workflows) as control:
            return await act(control)

    return asyncio.run(once())
