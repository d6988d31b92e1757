"""`control`: the command line.

Every verb takes `--json`. A command that is refused says what, why and what to do in three lines on standard error, and
changes nothing. The exit codes are in `outcome`. A verb's module loads LangGraph and the database driver only when it
runs, so that `control --help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Final

import typer

from control.cli import (
    assignees,
    audit,
    database,
    decide,
    delegations,
    facts,
    keys,
    lifecycle,
    notify,
    observe,
    policy,
    serve,
    tenants,
)
from control.cli.failure import guarded
from control.cli.outcome import exit_codes
from control.cli.session import Caller

app = typer.Typer(
    name="control",
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog=exit_codes(),
    help="Run LangGraph agents under control: see what each does, decide what it asks, carry on after anything dies.",
)


@app.callback()
def control(
    ctx: typer.Context,
    *,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Whose runs. Default: CONTROL_TENANT.")] = None,
    by: Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who gives orders. Default: the user.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error nobody foresaw.")] = False,
) -> None:
    """What every verb knows of its caller."""
    ctx.obj = Caller(tenant, by, debug)


_VERBS: Final[Mapping[str, Mapping[str, Callable[..., None]]]] = {
    "Work": {"dev": serve.dev, "worker": serve.worker, "start": lifecycle.start},
    "Look": {"runs": observe.runs, "show": observe.show, "story": observe.story, "workers": observe.workers},
    "Decide": {
        "approvals": decide.approvals, "approve": decide.approve, "reject": decide.reject, "answer": decide.answer,
        "reassign": decide.reassign, "delegate": delegations.delegate,
    },
    "Order": {
        "pause": lifecycle.pause, "resume": lifecycle.resume, "cancel": lifecycle.cancel, "retry": lifecycle.retry,
        "restart": lifecycle.restart, "rewind": lifecycle.rewind, "signal": lifecycle.signal,
        "delete": lifecycle.delete,
    },
    "Operate": {"doctor": database.doctor},
}  # fmt: skip
for panel, verbs in _VERBS.items():
    for name, verb in verbs.items():
        app.command(name, rich_help_panel=panel)(verb)
app.add_typer(delegations.delegations, name="delegations", rich_help_panel="Decide")
app.add_typer(assignees.assignees, name="assignees", rich_help_panel="Decide")
app.add_typer(audit.audit, name="audit", rich_help_panel="Operate")
app.add_typer(database.db, name="db", rich_help_panel="Operate")
app.add_typer(facts.facts, name="facts", rich_help_panel="Decide")
app.add_typer(policy.policy, name="policy", rich_help_panel="Operate")
app.add_typer(keys.keys, name="keys", rich_help_panel="Operate")
app.add_typer(notify.notify, name="notify", rich_help_panel="Operate")
app.add_typer(tenants.tenants, name="tenants", rich_help_panel="Operate")


def main() -> None:
    """The console script."""
    sys.exit(guarded(app, sys.argv[1:] or ["--help"]))
