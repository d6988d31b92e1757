"""Where a tenant wants to be told of what happens: a webhook or a mail address, for the events that it names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from control.core.problem import Problem

SINK_UNFIT: Final = Problem(
    code="sink-unfit",
    status=422,
    title="Nobody can be told there",
    next_step="Name an https address without a user in it, or one mail address, and at least one event.",
)
LONGEST: Final = 2000  # characters
_MAIL: Final = re.compile(r"[^\s@<>,;:\"()\[\]\\]+@[^\s@<>,;:\"()\[\]\\]+", re.ASCII)
_LAST_PORT: Final = 65535
_HOST: Final = r"([a-zA-Z0-9._-]+|\[[0-9a-fA-F:.]+\])"
_URL: Final = re.compile(rf"https?://{_HOST}(:(?P<port>[1-9]\d{{0,4}}))?([/?][\x21-\x22\x24-\x7e]*)?", re.ASCII)
"""No user, no fragment, and nothing hidden."""


class SinkKind(StrEnum):
    WEBHOOK = "webhook"
    MAIL = "mail"


class Event(StrEnum):
    """What can be told. The first five are ledger entries; a run has failed, or is blocked, by its status."""

    ASKED = "asked"
    ESCALATED = "escalated"
    REASSIGNED = "reassigned"
    EXPIRED = "expired"
    DECIDED = "decided"
    FAILED = "failed"  # or abandoned
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A sink to be made. audience: roles and persons; only questions that are theirs are told, and nothing else."""

    kind: SinkKind
    target: str
    events: frozenset[Event]
    audience: frozenset[str] = frozenset()

    def check(self) -> None:
        """Raises `sink-unfit`. Whether the address may be reached is asked elsewhere."""
        if len(self.target) > LONGEST:
            raise SINK_UNFIT.because(f"The address has {len(self.target)} characters; {LONGEST} are allowed.")
        if not self.events:
            raise SINK_UNFIT.because("No event is named.")
        if self.kind is SinkKind.MAIL and not _MAIL.fullmatch(self.target):
            raise SINK_UNFIT.because(f"{self.target!r} is not one mail address in ASCII.")
        if self.kind is SinkKind.WEBHOOK and not _is_url(self.target):
            raise SINK_UNFIT.because(f"{self.target!r} is not the address of a web server alone.")


@dataclass(frozen=True, slots=True)
class Sink:
    """A sink as it stands. Its secret is elsewhere."""

    sink_id: str
    kind: SinkKind
    target: str
    events: frozenset[Event]
    audience: frozenset[str]
    made_by: str
    made_at: datetime
    removed_at: datetime | None = None


def _is_url(text: str) -> bool:
    found = _URL.fullmatch(text)
    return found is not None and int(found["port"] or 0) <= _LAST_PORT
