"""The rules: show, history, check, apply, and what a change would have changed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from control.cli import output
from control.cli.options import AsJson, Note
from control.cli.session import with_control

if TYPE_CHECKING:
    from control.policy.cedar import CedarPolicy
    from control.runtime.commands import Control
    from control.runtime.commands.policy import Difference, InForce, WhatIf
    from control.store.policies import Stored

_SHOWN: Final = 50
File = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="Rules in Cedar.", exists=True, dir_okay=False, show_default=False),
]

policy = typer.Typer(no_args_is_help=False, add_completion=False, help="The rules: who may do what.")


@policy.command("show")
def show(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """Print the rules in force, as a text that `control policy apply` takes."""

    async def read(control: Control) -> InForce:
        from control.runtime.commands.policy import show

        return await show(control)

    found = with_control(ctx, read)
    if as_json:
        output.emit(_version(found) | {"text": found.policy.text})
    else:
        output.say(found.policy.text.rstrip("\n"))


@policy.command("history")
def history(
    ctx: typer.Context,
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the texts that have been in force."""

    async def read(control: Control) -> list[Stored]:
        from control.runtime.commands.policy import history

        return await history(control, limit=limit)

    found = with_control(ctx, read)
    if as_json:
        output.emit([_stored(one) for one in found])
    elif found:
        rows = ((one.version, one.digest[:12], output.moment(one.applied_at), one.applied_by, one.note or "")
                for one in found)  # fmt: skip
        output.console().print(output.table(("version", "digest", "applied", "by", "note"), rows))
    else:
        output.say("None was applied: the rules that ship are in force.")


@policy.command("check")
def check(file: File, *, as_json: AsJson = False) -> None:
    """Check a text of rules. Needs no database, and changes nothing."""
    from control.policy.cedar import CedarPolicy

    found = CedarPolicy(_text(file))
    if as_json:
        output.emit({"digest": found.version, "rules": [_rule(rule) for rule in found.rules]})
    else:
        output.say(f"{file} is sound: {_counted(found)}.")


@policy.command("apply")
def apply(ctx: typer.Context, file: File, *, note: Note = None, as_json: AsJson = False) -> None:
    """Put a text of rules in force, whole or not at all, for every process at once."""
    text = _text(file)

    async def put(control: Control) -> InForce:
        from control.runtime.commands.policy import apply

        return await apply(control, text, note=note)

    found = with_control(ctx, put)
    if as_json:
        output.emit(_version(found))
    else:
        assert found.stored is not None, "what was applied is stored"
        output.say(f"Version {found.stored.version} is in force: {_counted(found.policy)}.")


@policy.command("what-if")
def what_if(
    ctx: typer.Context,
    file: File,
    *,
    days: Annotated[float, typer.Option("--days", min=0, max=36500, help="How far back.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Decide again what the ledger holds, by other rules, and show what would have come out otherwise."""
    text = _text(file)

    async def ask(control: Control) -> WhatIf:
        from control.runtime.commands.policy import what_if

        return await what_if(control, text, days=days)

    found = with_control(ctx, ask)
    if as_json:
        output.emit({"decided": found.decided, "differences": [_difference(one) for one in found.differences]})
        return
    if found.differences:
        rows = map(_row, found.differences[:_SHOWN])
        output.console().print(output.table(("run", "at", "who", "what", "was", "would be", "because"), rows))
    if (more := len(found.differences) - _SHOWN) > 0:
        output.say(f"And {more} more; --json lists them all.")
    output.say(f"Of {found.decided} decisions, {len(found.differences)} would differ.")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file} cannot be read: {error}") from None


def _counted(found: CedarPolicy) -> str:
    kinds = Counter("asks" if rule.asks else "forbids" if rule.forbids else "permits" for rule in found.rules)
    return f"{len(found.rules)} rules, of which " + ", ".join(
        f"{kinds[kind]} {kind[:-1] if kinds[kind] != 1 else kind}" for kind in ("permits", "forbids", "asks")
    )


def _rule(rule: Any) -> dict[str, Any]:
    effect = "ask" if rule.asks else "forbid" if rule.forbids else "permit"
    return {"id": rule.id, "effect": effect, "line": rule.line, "why": rule.why, "of": list(rule.asks)}


def _version(found: InForce) -> dict[str, Any]:
    shipped = {"version": 0, "digest": found.policy.version, "applied_at": None, "applied_by": None, "note": None}
    return _stored(found.stored) if found.stored else shipped


def _stored(one: Stored) -> dict[str, Any]:
    return {name: getattr(one, name) for name in ("version", "digest", "applied_at", "applied_by", "note")}


def _difference(one: Difference) -> dict[str, Any]:
    names = ("run_id", "seq", "at", "actor", "action", "was", "would")
    about = {"rules": list(one.verdict.rules), "why": one.verdict.why}
    return {name: getattr(one, name) for name in names} | about


def _row(one: Difference) -> tuple[Any, ...]:
    because = ", ".join(one.verdict.rules) or one.verdict.why
    return str(one.run_id)[:8], output.moment(one.at), one.actor, one.action, one.was, one.would, because
