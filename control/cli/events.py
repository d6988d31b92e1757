"""What a process that stays says while it works: one line for each event, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import override

from control.cli.output import moment, visible

if TYPE_CHECKING:
    from rich.console import Console

OURS: Final = "control"


@contextmanager
def logged(*, as_json: bool, debug: bool, screen: Console | None = None) -> Iterator[None]:
    """Within, the events of the control plane go to standard output, and the warnings of everybody else too.

    `screen`: a terminal that also shows a live table, above which the lines go. `debug` adds tracebacks.
    """
    handler = _OnScreen(screen) if screen else logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Objects() if as_json else _Lines(debug=debug))
    root = logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(True)
    logging.getLogger(OURS).setLevel(logging.DEBUG if debug else logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)


class _Lines(logging.Formatter):
    """`2026-01-31 09:00:00 UTC  info     what happened`; an exception is its type and message, on the same line."""

    def __init__(self, *, debug: bool) -> None:
        super().__init__()
        self._debug = debug

    @override
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        line = f"{moment(at)}  {record.levelname.lower():<8} {_event(record)}"
        if self._debug and record.exc_info:
            return line + "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
        return line


class _Objects(logging.Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "from": record.name,
            "event": _event(record),
        }
        return json.dumps(event, ensure_ascii=False)


class _OnScreen(logging.Handler):
    def __init__(self, screen: Console) -> None:
        super().__init__()
        self._screen = screen

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self._screen.print(self.format(record))


def _event(record: logging.LogRecord) -> str:
    """The message on one line, with the exception's own where there is one."""
    said = record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        said = f"{said}: {type(error).__name__}: {error}"
    return visible(" ".join(said.split()))
