"""Processes that stay: `control worker`, and `control dev` with its own database and a live table.

The first SIGTERM or SIGINT drains: no new runs, and every run is let go at its next step boundary. The second one ends
the process at once, which loses nothing: the peers see it gone and take its runs over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NoReturn

import typer

from control.cli.events import logged
from control.cli.observe import Asked, listed, runs_table
from control.cli.options import AsJson
from control.cli.session import caller, settings

if TYPE_CHECKING:
    from rich.live import Live

    from control.app import App
    from control.runtime.worker import Worker
    from control.settings import Settings

_log: Final = logging.getLogger("control.worker")
_LOOK_S: Final = 0.5
_SHOWN: Final = 20  # runs


def worker(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """Take runs and drive them, until SIGTERM or Ctrl-C; a second one stops at once."""
    with logged(as_json=as_json, debug=caller(ctx).debug):
        asyncio.run(_serve(settings(ctx), live=None))


def dev(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """Everything in one process: the embedded database, a worker, and a live table of the runs."""
    given = settings(ctx)
    if as_json or not sys.stdout.isatty():
        with logged(as_json=as_json, debug=caller(ctx).debug):
            asyncio.run(_serve(given, live=None))
        return
    from rich.live import Live

    from control.cli import output

    live = Live(console=output.console(), auto_refresh=False)
    with live, logged(as_json=False, debug=caller(ctx).debug, screen=live.console):
        asyncio.run(_serve(given, live=live))


async def _serve(given: Settings, *, live: Live | None) -> None:
    from control.app import opened

    async with opened(given) as app:
        serving = app.worker()
        with _signals(serving):
            working = asyncio.create_task(serving.run(), name="worker")
            watching = asyncio.create_task(_watch(app, serving, live=live), name="watch")
            try:
                await working
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
        _log.info("worker %s has stopped", serving.worker_id)
    if live:
        live.stop()
    _leave(0)


async def _watch(app: App, serving: Worker, *, live: Live | None) -> None:
    """Say that the worker is at work, then keep the table."""
    await serving.swept.wait()
    _log.info("worker %s is at work on %s", serving.worker_id, ", ".join(app.workflows) or "nothing")
    control = app.control()
    while live:
        with contextlib.suppress(Exception):  # a database that is away is the worker's to report
            page = await listed(control, Asked(None, _SHOWN, None))
            live.update(runs_table(page.runs), refresh=True)
        await asyncio.sleep(_LOOK_S)


@contextlib.contextmanager
def _signals(serving: Worker) -> Iterator[None]:
    """The first signal drains, the second one ends."""
    loop, asked = asyncio.get_running_loop(), asyncio.Event()

    def stop(number: signal.Signals) -> None:
        if asked.is_set():
            _log.warning("%s again: stopping at once", number.name)
            _leave(128 + number)
        asked.set()
        _log.info("%s: letting %d runs go at their next step; once more stops at once", number.name, serving.busy)
        serving.drain()

    both = (signal.SIGTERM, signal.SIGINT)
    for number in both:
        loop.add_signal_handler(number, stop, number)
    try:
        yield
    finally:
        for number in both:
            loop.remove_signal_handler(number)


def _leave(code: int) -> NoReturn:
    """End without waiting for the threads of synchronous nodes: they cannot be cancelled, and their claims are gone."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
