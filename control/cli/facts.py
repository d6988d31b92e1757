"""Facts: named values that decisions rest on. Saying another makes stale what rests on the one before."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from control.cli import output
from control.cli.options import AsJson
from control.cli.session import with_control

if TYPE_CHECKING:
    from control.runtime.commands import Control
    from control.store.facts import Fact

Name = Annotated[str, typer.Argument(metavar="NAME", help="The fact.", show_default=False)]

facts = typer.Typer(help="What decisions rest on.", no_args_is_help=True)


@facts.command("set")
def put(
    ctx: typer.Context,
    name: Name,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="JSON, or else a text.", show_default=False)],
    *,
    as_json: AsJson = False,
) -> None:
    """Say what a fact is now."""

    async def done(control: Control) -> Fact:
        from control.runtime.commands.facts import set_fact

        return await set_fact(control, name, _value(value))

    _show([with_control(ctx, done)], as_json=as_json)


@facts.command("show")
def show(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="This one alone.", show_default=False)] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """What is known, by whom, and since when."""

    async def read(control: Control) -> list[Fact]:
        from control.runtime.commands.facts import listed

        return await listed(control, name)

    _show(with_control(ctx, read), as_json=as_json)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _show(found: list[Fact], *, as_json: bool) -> None:
    if as_json:
        output.emit([_as_json(one) for one in found])
    elif found:
        rows = ((one.name, one.value, output.moment(one.set_at), one.set_by) for one in found)
        output.console().print(output.table(("name", "value", "since", "by"), rows))
    else:
        output.say("Nothing is known. Say something with `control facts set NAME VALUE`.")


def _as_json(one: Fact) -> dict[str, object]:
    return {"name": one.name, "value": json.loads(one.value), "set_at": one.set_at, "set_by": one.set_by}
