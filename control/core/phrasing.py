"""How people say it: who acted, what a thing is called, how long it took and when it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

_UNITS: Final = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
PARTIES: Final = {
    "agent": "The agent",
    "clock": "The clock",
    "control": "The control plane",
    "policy": "A rule",
    "script": "A script",
    "system": "The control plane",
    "worker": "A worker",
}


def person(actor: str) -> str:
    """Who acted, as people say it: a name for a person, a role for everything else."""
    party, _, name = actor.rpartition(":")
    if role := PARTIES.get(party or name):
        return role
    words = name.partition("@")[0].replace(".", " ").replace("_", " ").split()
    return " ".join(word if word[0].isupper() else word.capitalize() for word in words) or "Somebody"


def spoken(name: str) -> str:
    """A technical name as words."""
    return name.replace("_", " ").replace("-", " ").strip() or "a step"


def listed(names: Sequence[str]) -> str:
    """The names as a list in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def seen_evidence(evidence: Iterable[str]) -> str:
    """What lay before the person who decided; equal labels are counted."""
    counted = Counter(evidence)
    seen = [f"the {label}" if count == 1 else f"{count} {label}s" for label, count in counted.items()]
    return f", having seen {listed(seen)}" if seen else ""


def duration(span: timedelta) -> str:
    """A span in its largest unit, rounded down."""
    seconds = int(span.total_seconds())
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size), (1, "second"))
    count = seconds // size
    return "less than a second" if count == 0 else f"{count} {unit}{'' if count == 1 else 's'}"


def instant(at: datetime) -> str:
    """An instant (UTC), to the second."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def moment(at: datetime) -> str:
    """An instant, to the minute."""
    return f"{at.day} {at:%B %Y %H:%M} UTC"
