"""Erasing: for a person, for runs by name, for age; and how long a tenant keeps what its runs carried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from control.cli import output
from control.cli.options import AsJson
from control.cli.session import settings, with_control
from control.cli.standing import find

if TYPE_CHECKING:
    from control.runtime.commands import Control
    from control.runtime.commands.erase import Pruned
    from control.store.runs import Run


def erase(
    ctx: typer.Context,
    *,
    person: Annotated[
        str | None, typer.Option("--person", metavar="NAME", help="Every run started with this --subject.")
    ] = None,
    runs: Annotated[
        list[str] | None, typer.Option("--run", metavar="RUN", help="This run, and all on its thread; repeatable.")
    ] = None,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="A sentence for the record; it stays.")],
    as_json: AsJson = False,
) -> None:
    """Erase what ended runs carried: ledger bodies, inputs, answers, effects' outcomes and checkpoints.

    What happened stays on record: who, when, in which order, and the digests. The chains still verify.
    """
    if (person is None) == (not runs):
        raise typer.BadParameter("name either a person or runs", param_hint="--person/--run")

    async def act(control: Control) -> list[Run]:
        from control.runtime.commands.erase import erase_person, erase_runs

        if person is not None:
            return await erase_person(control, person, why=why)
        return await erase_runs(control, [await find(control, name) for name in runs or ()], why=why)

    erased = with_control(ctx, act)
    if as_json:
        output.emit({"erased": [str(run.run_id) for run in erased]})
    elif erased:
        output.say("\n".join(["Erased:", *(f"  {run.run_id}  {run.workflow or ''}" for run in erased)]))
    else:
        output.say("They had been erased before.")


def prune(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """Erase what runs carried that ended longer ago than the tenant keeps it. Never below 180 days."""
    days = settings(ctx).retention_days

    async def act(control: Control) -> Pruned:
        from control.runtime.commands.erase import prune as command

        return await command(control, days=days)

    done = with_control(ctx, act)
    if as_json:
        output.emit({"erased": done.erased, "kept": done.kept})
    else:
        output.say(f"Erased what {done.erased} runs carried.")
        if done.kept:
            output.say(f"Policy keeps what {done.kept} more carried.")


def retain(
    ctx: typer.Context,
    days: Annotated[int, typer.Argument(metavar="DAYS", help="At least 180.", show_default=False)],
    *,
    as_json: AsJson = False,
) -> None:
    """Set for how many days the tenant keeps what its ended runs carried, in place of CONTROL_RETENTION_DAYS."""

    async def act(control: Control) -> None:
        from control.runtime.commands.erase import retain as command

        await command(control, days)

    with_control(ctx, act)
    output.emit({"days": days}) if as_json else output.say(f"Kept for {days} days from the end of a run.")
