"""Exit codes: one for each way a command can end. Scripts branch on them, so they never change meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from control.core.run_status import Status

REFUSED: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130

EXITS: Final[Mapping[Status, int]] = {
    Status.SUCCEEDED: 0,
    Status.PARTIAL: 3,
    Status.FAILED: 4,
    Status.CANCELLED: 5,
    Status.ABANDONED: 6,
    Status.BLOCKED: 7,
    Status.AWAITING_APPROVAL: 8,
    Status.AWAITING_INPUT: 8,
    Status.PAUSED: 9,
}
"""Where following a run ends: it has ended, or goes on only when somebody acts. Otherwise it moves by itself."""

MEANINGS: Final[Mapping[int, str]] = {
    0: "done; a run that was followed has succeeded",
    REFUSED: "refused, and nothing was changed; or the doctor found something, or a test was not delivered",
    MISUSED: "the command line cannot be understood",
    3: "the run finished, but parts of it failed",
    4: "the run failed",
    5: "the run was cancelled",
    6: "the run was abandoned after it lost too many workers",
    7: "the run is blocked until somebody puts something right",
    8: "the run waits for a person to decide or to answer",
    9: "the run is paused",
    INTERRUPTED: "stopped with Ctrl-C",
}


def exit_codes() -> str:
    """The table, for `--help`. Blank lines, because that is where the formatter breaks lines."""
    return "\n\n".join(["Exit codes:", *(f"{code:>3}  {meaning}" for code, meaning in MEANINGS.items())])
