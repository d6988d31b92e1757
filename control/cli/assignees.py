"""Assignees: to whom questions are given that ask for a skill, and how many each takes at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from control.cli import options, output
from control.cli.options import AsJson
from control.cli.session import with_control

if TYPE_CHECKING:
    from control.core.assignment import Candidate
    from control.runtime.commands import Control

_COLUMNS: Final = ("name", "roles", "skills", "has", "takes", "away until")

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The person, as they are named in votes.", show_default=False)
]

assignees = typer.Typer(help="To whom questions are given.", no_args_is_help=True)


@assignees.command("list")
def listed(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """Everybody on the list, and how many questions lie with each."""
    _show(with_control(ctx, _read), as_json=as_json)


@assignees.command("set")
def put(
    ctx: typer.Context,
    name: Name,
    *,
    role: Annotated[list[str] | None, typer.Option("--role", metavar="ROLE", help="A role they hold.")] = None,
    skill: Annotated[list[str] | None, typer.Option("--skill", metavar="SKILL", help="Something they know.")] = None,
    capacity: Annotated[int, typer.Option("--capacity", min=0, max=10000, help="How many questions at once.")] = 5,
    away_until: Annotated[
        str | None, typer.Option("--away-until", metavar="WHEN", help="An instant, or a span; nothing new until then.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put somebody on the list, or on it on other terms; what is not said is taken off."""
    back_at = options.instant(away_until)

    async def done(control: Control) -> list[Candidate]:
        from control.core.assignment import Candidate
        from control.runtime.commands.reassign import set_assignee

        who = Candidate(name, frozenset(role or ()), frozenset(skill or ()), capacity, away_until=back_at)
        await set_assignee(control, who)
        return await _read(control)

    _show(with_control(ctx, done), as_json=as_json)


@assignees.command("remove")
def remove(ctx: typer.Context, name: Name, *, as_json: AsJson = False) -> None:
    """Take somebody off the list; the questions that lie with them stay there until they are reassigned."""

    async def done(control: Control) -> list[Candidate]:
        from control.runtime.commands.reassign import remove_assignee

        await remove_assignee(control, name)
        return await _read(control)

    _show(with_control(ctx, done), as_json=as_json)


async def _read(control: Control) -> list[Candidate]:
    from control.runtime.commands.reassign import listed

    return await listed(control)


def _show(found: list[Candidate], *, as_json: bool) -> None:
    if as_json:
        output.emit([_as_json(one) for one in found])
    elif found:
        output.console().print(output.table(_COLUMNS, map(_row, found)))
    else:
        output.say("Nobody is on the list. Add somebody with `control assignees set NAME`.")


def _row(one: Candidate) -> tuple[object, ...]:
    lists = (", ".join(sorted(one.roles)), ", ".join(sorted(one.skills)))
    return (one.name, *lists, one.open, one.capacity, output.moment(one.away_until))


def _as_json(one: Candidate) -> dict[str, object]:
    return {
        "name": one.name,
        "roles": sorted(one.roles),
        "skills": sorted(one.skills),
        "open": one.open,
        "capacity": one.capacity,
        "away_until": one.away_until,
    }
