"""Whose turn it is: how much each tenant has had lately of one worker, so that who has had little goes first.

Free slots go to the tenant with the fewest runs at work, counted together with what it has had lately, up to `AHEAD`.
A tenant that was quiet is ahead of a busy one for that many runs at most: it is served at once, and cannot starve
anybody by having slept. What was had fades by half in `FADES_S`. Each worker counts what it has given itself; nothing
is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

AHEAD: Final = 16.0
FADES_S: Final = 60.0
_FORGOTTEN: Final = 0.05


@dataclass(frozen=True, slots=True)
class Turns:
    """What each tenant had had at `at`, in seconds by any clock that only goes forward."""

    had: Mapping[str, float] = field(default_factory=dict)
    at: float = 0.0

    def faded(self, now: float) -> Turns:
        """The same, seen from `now`. What is next to nothing is forgotten."""
        left = 0.5 ** ((now - self.at) / FADES_S)
        return Turns({tenant: had * left for tenant, had in self.had.items() if had * left > _FORGOTTEN}, now)

    def given(self, tenants: Iterable[str], now: float) -> Turns:
        """After one more run of each of these; a tenant is named as often as it was served."""
        faded = self.faded(now)
        had = dict(faded.had)
        for tenant in tenants:
            had[tenant] = had.get(tenant, 0.0) + 1
        return Turns(had, now)

    def behind(self, now: float) -> dict[str, float]:
        """By how many runs each tenant stands back behind one that has had nothing."""
        return {tenant: min(had, AHEAD) for tenant, had in self.faded(now).had.items()}
