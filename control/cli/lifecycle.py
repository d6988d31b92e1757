"""Verbs that move a run: start, pause, resume, cancel, retry, restart, rewind, signal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from control.cli import options
from control.cli.follow import follow, report
from control.cli.options import AsJson, Reason, RunName, Wait
from control.cli.session import with_control
from control.cli.standing import find, standing

if TYPE_CHECKING:
    from control.runtime.commands import Control
    from control.store.runs import Run

Order = Callable[["Control", UUID], Awaitable["Run"]]


async def done(control: Control, run_id: UUID, *, wait: bool, as_json: bool) -> None:
    """What every verb ends with: the run as it is now, or followed to where it stops."""
    if wait:
        await follow(control, run_id, as_json=as_json)
    report(await standing(control, run_id), as_json=as_json)


def order(ctx: typer.Context, name: str, act: Order, *, wait: bool, as_json: bool, workflows: bool = False) -> None:
    """Find the run, give the order, show the run that came of it."""

    async def given(control: Control) -> None:
        run = await act(control, await find(control, name))
        await done(control, run.run_id, wait=wait, as_json=as_json)

    with_control(ctx, given, workflows=workflows)


def start(
    ctx: typer.Context,
    workflow: Annotated[
        str, typer.Argument(metavar="WORKFLOW", help="Its name in langgraph.json.", show_default=False)
    ],
    *,
    given: Annotated[
        str, typer.Option("--input", "-i", metavar="JSON", help="The input: JSON, @file, or - for standard input.")
    ] = "{}",
    thread: Annotated[str | None, typer.Option("--thread", metavar="ID", help="Run on this thread.")] = None,
    not_before: Annotated[
        str | None, typer.Option("--not-before", metavar="WHEN", help="An instant (ISO 8601), or a span: 90s, 2h.")
    ] = None,
    priority: Annotated[int, typer.Option("--priority", min=-32768, max=32767, help="Higher is taken first.")] = 0,
    identity: Annotated[
        str | None, typer.Option("--id", metavar="UUID", help="The run's id. Given twice, it starts one run.")
    ] = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Start a run of a workflow."""
    value, run_id, later = options.json_text(given), options.identity(identity), options.instant(not_before)

    async def started(control: Control) -> None:
        from control.runtime.commands.start import start as accept

        run = await accept(
            control, workflow, value, thread_id=thread, priority=priority, not_before=later, run_id=run_id
        )
        await done(control, run.run_id, wait=wait, as_json=as_json)

    with_control(ctx, started, workflows=True)


def pause(
    ctx: typer.Context, run: RunName, *, reason: Reason = None, wait: Wait = False, as_json: AsJson = False
) -> None:
    """Stop a run at its next step boundary, until it is resumed."""

    async def act(control: Control, run_id: UUID) -> Run:
        from control.runtime.commands.pause import pause as command

        return await command(control, run_id, reason=reason)

    order(ctx, run, act, wait=wait, as_json=as_json)


def resume(ctx: typer.Context, run: RunName, *, wait: Wait = False, as_json: AsJson = False) -> None:
    """Let a paused run go on."""

    async def act(control: Control, run_id: UUID) -> Run:
        from control.runtime.commands.pause import resume as command

        return await command(control, run_id)

    order(ctx, run, act, wait=wait, as_json=as_json)


def cancel(
    ctx: typer.Context, run: RunName, *, reason: Reason = None, wait: Wait = False, as_json: AsJson = False
) -> None:
    """Stop a run for good. What it has done stays done."""

    async def act(control: Control, run_id: UUID) -> Run:
        from control.runtime.commands.cancel import cancel as command

        return await command(control, run_id, reason=reason)

    order(ctx, run, act, wait=wait, as_json=as_json)


def retry(
    ctx: typer.Context, run: RunName, *, reason: Reason = None, wait: Wait = False, as_json: AsJson = False
) -> None:
    """Try a failed or abandoned run again, from the step that failed."""

    async def act(control: Control, run_id: UUID) -> Run:
        from control.runtime.commands.retry import retry as command

        return await command(control, run_id, reason=reason)

    order(ctx, run, act, wait=wait, as_json=as_json)


def restart(ctx: typer.Context, run: RunName, *, wait: Wait = False, as_json: AsJson = False) -> None:
    """Begin again from the first input, as a new run; the old one stays as it is."""

    async def act(control: Control, run_id: UUID) -> Run:
        from control.runtime.commands.restart import restart as command

        return await command(control, run_id)

    order(ctx, run, act, wait=wait, as_json=as_json, workflows=True)


def rewind(
    ctx: typer.Context,
    run: RunName,
    *,
    to: Annotated[
        str | None, typer.Option("--to", metavar="CHECKPOINT", help="Default: the head, dropping what hangs on it.")
    ] = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Take a run back to an earlier checkpoint of its own; `control story --entries` lists them."""

    async def act(control: Control, run_id: UUID) -> Run:
        from control.runtime.commands.rewind import rewind as command

        return await command(control, run_id, to)

    order(ctx, run, act, wait=wait, as_json=as_json)


def signal(
    ctx: typer.Context,
    run: RunName,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The signal's name.", show_default=False)],
    *,
    payload: Annotated[str | None, typer.Option("--payload", metavar="JSON", help="JSON, @file, or -.")] = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Send a run a signal: it wakes the step that waits for it, or is kept for the next that does."""
    value: Any = options.json_text(payload)

    async def act(control: Control, run_id: UUID) -> Run:
        from control.runtime.commands.signal import signal as command

        return await command(control, run_id, name, payload=value)

    order(ctx, run, act, wait=wait, as_json=as_json)
