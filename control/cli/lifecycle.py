"""Verbs that move a run: start, pause, resume, cancel, retry, restart, rewind, signal, delete."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

import typer

from control.cli import options
from control.cli.follow import follow, report
from control.cli.options import AsJson, Reason, RunName, Wait
from control.cli.session import with_control
from control.cli.standing import find, standing
from control.core.lifecycle import Verb

if TYPE_CHECKING:
    from control.runtime.commands import Control
    from control.store.runs import Run

Order = Callable[["Control", UUID], Awaitable["Run"]]
_MODULES: Final = {Verb.RESUME: Verb.PAUSE}
"""Whose command stands in another verb's module."""


def command(verb: Verb, **given: Any) -> Order:
    """The command of this verb. Its module is loaded when the order is given: the database driver comes with it."""

    async def act(control: Control, run_id: UUID) -> Run:
        command = getattr(import_module(f"control.runtime.commands.{_MODULES.get(verb, verb)}"), verb)
        run: Run = await command(control, run_id, **given)
        return run

    return act


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
    subject: Annotated[
        list[str] | None,
        typer.Option("--subject", metavar="NAME", help="Whom it is about, so that it can be erased; may be repeated."),
    ] = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Start a run of a workflow."""
    value, run_id, later = options.json_text(given), options.identity(identity), options.instant(not_before)

    async def started(control: Control) -> None:
        from control.runtime.commands.start import start as accept

        run = await accept(
            control, workflow, value, thread_id=thread, priority=priority, not_before=later, run_id=run_id,
            subjects=subject or (),
        )  # fmt: skip
        await done(control, run.run_id, wait=wait, as_json=as_json)

    with_control(ctx, started, workflows=True)


def pause(
    ctx: typer.Context, run: RunName, *, reason: Reason = None, wait: Wait = False, as_json: AsJson = False
) -> None:
    """Stop a run at its next step boundary, until it is resumed."""
    order(ctx, run, command(Verb.PAUSE, reason=reason), wait=wait, as_json=as_json)


def resume(ctx: typer.Context, run: RunName, *, wait: Wait = False, as_json: AsJson = False) -> None:
    """Let a paused run go on."""
    order(ctx, run, command(Verb.RESUME), wait=wait, as_json=as_json)


def cancel(
    ctx: typer.Context, run: RunName, *, reason: Reason = None, wait: Wait = False, as_json: AsJson = False
) -> None:
    """Stop a run for good. What it has done stays done."""
    order(ctx, run, command(Verb.CANCEL, reason=reason), wait=wait, as_json=as_json)


def retry(
    ctx: typer.Context, run: RunName, *, reason: Reason = None, wait: Wait = False, as_json: AsJson = False
) -> None:
    """Try a failed or abandoned run again, from the step that failed."""
    order(ctx, run, command(Verb.RETRY, reason=reason), wait=wait, as_json=as_json)


def restart(ctx: typer.Context, run: RunName, *, wait: Wait = False, as_json: AsJson = False) -> None:
    """Begin again from the first input, as a new run; the old one stays as it is."""
    order(ctx, run, command(Verb.RESTART), wait=wait, as_json=as_json, workflows=True)


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
    order(ctx, run, command(Verb.REWIND, checkpoint_id=to), wait=wait, as_json=as_json)


def delete(ctx: typer.Context, run: RunName, *, reason: Reason = None, as_json: AsJson = False) -> None:
    """Delete an ended run's checkpoints and what it was given. Its record stays, until `control audit erase`."""
    order(ctx, run, command(Verb.DELETE, reason=reason), wait=False, as_json=as_json)


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

    order(ctx, run, command(Verb.SIGNAL, name=name, payload=value), wait=wait, as_json=as_json)
