"""Notifications: where it is announced what happens, and what became of each notice."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from control.cli import options, output
from control.cli.options import AsJson
from control.cli.session import settings, with_control
from control.core.sink import Event, Sink, SinkKind, Wanted

if TYPE_CHECKING:
    from control.store.notices import Told

_EVENTS: Final = ", ".join(Event)

SinkId = Annotated[
    str, typer.Argument(metavar="ID", help="Which sink; `control notify list` has the ids.", show_default=False)
]
On = Annotated[str, typer.Option("--on", metavar="EVENTS", help=f"What it is told, comma-separated, of {_EVENTS}.")]
For = Annotated[
    list[str] | None,
    typer.Option("--for", metavar="NAME", help="Only questions that are this role's or person's; again for more."),
]

notify = typer.Typer(no_args_is_help=True, help="Where it is announced what happens: webhooks and mail.")
add = typer.Typer(no_args_is_help=True, help="Announce it somewhere more.")
notify.add_typer(add, name="add")


@add.command("webhook")
def add_webhook(
    ctx: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL", help="An https address.", show_default=False)],
    *,
    on: On,
    whom: For = None,
    as_json: AsJson = False,
) -> None:
    """Post a signed message to a web server, and show the secret that signs it, once."""
    _add(ctx, _wanted(SinkKind.WEBHOOK, url, on=on, whom=whom), as_json=as_json)


@add.command("mail")
def add_mail(
    ctx: typer.Context,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="One mail address.", show_default=False)],
    *,
    on: On,
    whom: For = None,
    as_json: AsJson = False,
) -> None:
    """Send a mail, through the server of CONTROL_SMTP_URL."""
    _add(ctx, _wanted(SinkKind.MAIL, address, on=on, whom=whom), as_json=as_json)


@notify.command("list")
def list_(
    ctx: typer.Context,
    *,
    removed: Annotated[bool, typer.Option("--all", help="Those too that were removed.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the sinks: what is announced where."""
    from control.runtime.commands.notify import list_sinks

    found = with_control(ctx, lambda control: list_sinks(control, removed=removed))
    if as_json:
        output.emit([_json(sink) for sink in found])
    elif found:
        for sink in found:
            output.say(_line(sink))
    else:
        output.say("Nothing is announced anywhere. Begin with `control notify add webhook URL --on asked,failed`.")


@notify.command("remove")
def remove(ctx: typer.Context, sink_id: SinkId, *, as_json: AsJson = False) -> None:
    """Announce nothing more there."""
    from control.runtime.commands.notify import remove_sink

    gone = with_control(ctx, lambda control: remove_sink(control, sink_id))
    if as_json:
        output.emit(_json(gone))
    else:
        output.say(f"Removed: {gone.target} is told nothing more.")


@notify.command("rotate")
def rotate(
    ctx: typer.Context,
    sink_id: SinkId,
    *,
    overlap: Annotated[str, typer.Option("--overlap", metavar="SPAN", help="How long both secrets sign.")] = "1d",
    as_json: AsJson = False,
) -> None:
    """Give a webhook another secret, and show it, once."""
    from control.runtime.commands.notify import rotate_secret

    span = options.span(overlap)
    secret, until = with_control(ctx, lambda control: rotate_secret(control, sink_id, overlap=span))
    if as_json:
        output.emit({"secret": secret, "before_until": until})
    else:
        output.say(secret)
        output.say(f"This is the only time that it is shown. Until {output.moment(until)} both secrets sign.")


@notify.command("test")
def test(
    ctx: typer.Context,
    sink_id: SinkId,
    *,
    patience: Annotated[str, typer.Option("--patience", metavar="SPAN", help="How long to wait for it.")] = "15s",
    as_json: AsJson = False,
) -> None:
    """Have a worker send a test there, and say what came of it."""
    from control.runtime.commands.notify import try_sink

    span = options.span(patience)
    told = with_control(ctx, lambda control: try_sink(control, sink_id, patience=span))
    if as_json:
        output.emit(asdict(told) | {"condition": told.condition})
    elif told.tries:
        output.say(f"{told.condition}: {told.target}{f'. {told.error}' if told.error else ''}")
    else:
        output.say("No worker has taken it up yet: is one running? `control notify log` shows what becomes of it.")
    if not told.delivered_at:
        raise typer.Exit(1)


@notify.command("log")
def log(
    ctx: typer.Context,
    *,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that were given up.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many, the newest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """What was announced, how often it was tried, and what went wrong last."""
    from control.runtime.commands.notify import log as read_log

    found = with_control(ctx, lambda control: read_log(control, failed=failed, limit=limit))
    if as_json:
        output.emit([asdict(told) | {"condition": told.condition} for told in found])
    elif found:
        for told in found:
            output.say(_told(told))
    else:
        output.say("No notice was given up." if failed else "Nothing was announced yet.")


def _wanted(kind: SinkKind, target: str, *, on: str, whom: list[str] | None) -> Wanted:
    names = [name.strip() for name in on.split(",") if name.strip()]
    if strange := sorted(set(names) - set(Event)):
        raise typer.BadParameter(f"{strange[0]!r} is none of {_EVENTS}", param_hint="--on")
    return Wanted(kind, target, frozenset(map(Event, names)), frozenset(whom or ()))


def _add(ctx: typer.Context, wanted: Wanted, *, as_json: bool) -> None:
    from control.app import webhooks
    from control.runtime.commands.notify import add_sink

    way = webhooks(settings(ctx))
    made, secret = with_control(ctx, lambda control: add_sink(control, wanted, webhooks=way))
    if as_json:
        output.emit(_json(made) | ({"secret": secret} if secret else {}))
        return
    output.say(_line(made))
    if secret:
        output.say(f"{secret}\nIt signs every message. This is the only time that it is shown.")


def _json(sink: Sink) -> dict[str, Any]:
    return asdict(sink) | {"events": sorted(sink.events), "audience": sorted(sink.audience)}


def _line(sink: Sink) -> str:
    whom = f", for {', '.join(sorted(sink.audience))} alone" if sink.audience else ""
    gone = f"; removed {output.moment(sink.removed_at)}" if sink.removed_at else ""
    return f"{sink.sink_id}  {sink.kind} {sink.target}: {', '.join(sorted(sink.events))}{whom}{gone}"


def _told(told: Told) -> str:
    about = f" of run {told.run_id} (entry {told.seq})" if told.run_id else ""
    tries = f"{told.tries} {'try' if told.tries == 1 else 'tries'}"
    error = f": {told.error}" if told.error and not told.delivered_at else ""
    return f"{output.moment(told.made_at)}  {told.event}{about} to {told.target}: {told.condition}, {tries}{error}"
