"""How a command ends that does not end well: three lines and an exit code, never a traceback that nobody asked for."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any, Final

import typer

from control.cli import output
from control.cli.options import JSON
from control.cli.outcome import INTERRUPTED, MISUSED, REFUSED
from control.core.problem import Problem, Refusal

MISUSE: Final = Problem(
    code="command-line-invalid",
    status=400,
    title="The command line cannot be understood",
    next_step="See `control --help`.",
)
UNEXPECTED: Final = Problem(
    code="unexpected-error",
    status=500,
    title="Something went wrong that nobody foresaw",
    next_step="Run it again as `control --debug ...` and report the traceback.",
)


def guarded(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    as_json, debug = JSON in arguments, "--debug" in arguments
    command: Callable[..., Any] = typer.main.get_command(app)
    try:
        return int(command(list(arguments), prog_name="control", standalone_mode=False) or 0)
    except Refusal as refusal:
        output.problem(refusal, as_json=as_json)
        return REFUSED
    except typer.TyperException as error:
        output.problem(MISUSE.because(_misuse(error)), as_json=as_json)
        return MISUSED
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        output.problem(UNEXPECTED.because(f"{type(error).__name__}: {error}"), as_json=as_json)
        return REFUSED


def _misuse(error: typer.TyperException) -> str:
    """The parser's own sentence, and the command it was about."""
    ctx = getattr(error, "ctx", None)
    where = f"`{ctx.command_path}`: " if ctx is not None else ""
    return f"{where}{error.format_message()}"
