"""Following a run: a progress line for a terminal, lines for a log, JSON lines for a program."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import typer

from control.cli import output
from control.cli.outcome import EXITS
from control.cli.standing import Standing, brief, full, standing

if TYPE_CHECKING:
    from control.runtime.commands import Control

_POLL_S: Final = 0.2


async def follow(control: Control, run_id: UUID, *, as_json: bool) -> None:
    """Show the run until it has ended or needs somebody. Raises `typer.Exit` with its exit code."""
    with _shown(as_json) as show:
        while True:
            now = await standing(control, run_id)
            show(now)
            if now.status.word in EXITS:
                break
            await asyncio.sleep(_POLL_S)
    if as_json:
        output.emit(full(await standing(control, run_id, close=True)), line=True)
    raise typer.Exit(EXITS[now.status.word])


def report(now: Standing, *, as_json: bool) -> None:
    """One run after an order: what it has become."""
    if as_json:
        output.emit(brief(now))
    else:
        output.say("\n".join(lines(now)))


def lines(now: Standing) -> Iterator[str]:
    """The run in words: id and status, then why."""
    yield f"{now.run.run_id}  {now.status.word.replace('_', ' ')}"
    yield from (f"  {sentence}" for sentence in now.status.because)


def parts(now: Standing) -> str:
    """How far it is: `3 of 8`, or how many where the total is not known."""
    progress = now.status.progress
    return f"{progress.done} of {progress.total}" if progress.total else str(progress.done)


@contextmanager
def _shown(as_json: bool) -> Iterator[Callable[[Standing], None]]:
    if as_json:
        yield _changes(lambda now: output.emit(brief(now), line=True))
    elif sys.stdout.isatty():
        with _progress() as show:
            yield show
    else:
        yield _changes(lambda now: output.say(_line(now)))


def _changes(show: Callable[[Standing], None]) -> Callable[[Standing], None]:
    """Only what differs from the time before."""
    last: list[Any] = []

    def changed(now: Standing) -> None:
        seen = (now.status.word, now.status.because, now.status.progress, now.nodes)
        if [seen] != last:
            last[:] = [seen]
            show(now)

    return changed


def _line(now: Standing) -> str:
    nodes = f" in {', '.join(now.nodes)}" if now.nodes else ""
    return f"{now.run.run_id}  {now.status.word.replace('_', ' ')}  {parts(now)}{nodes}  {' '.join(now.status.because)}"


@contextmanager
def _progress() -> Iterator[Callable[[Standing], None]]:
    """A bar: the status, how many parts of how many, where it is, and why it is so."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.fields[status]}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[parts]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[where]}"),
    )
    with Progress(*columns, console=output.console()) as progress:
        bar = progress.add_task("", total=None, status="", parts="", where="")

        def show(now: Standing) -> None:
            where = ", ".join(now.nodes) or " ".join(now.status.because)
            progress.update(
                bar,
                total=now.status.progress.total,
                completed=now.status.progress.done,
                parts=parts(now),
                status=now.status.word.replace("_", " "),
                where=output.visible(where).replace("[", r"\["),
            )
            if now.status.word in EXITS:
                progress.console.print(output.text("\n".join(lines(now))))

        yield show
