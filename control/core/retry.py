"""When a failed run is tried again by itself: a policy for each failure class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from control.core.failure import FailureClass


@dataclass(frozen=True, slots=True)
class Backoff:
    """At most `attempts` in all, the first one counted; pauses grow from `initial_s` by `factor` up to `max_s`.

    `spread` is the share of a pause that jitter may take away (0: none, 1: all of it), so that runs which failed
    together do not come back together.
    """

    attempts: int
    initial_s: float = 1.0
    factor: float = 2.0
    max_s: float = 300.0
    spread: float = 0.5

    def __post_init__(self) -> None:
        assert self.attempts >= 1 and self.initial_s >= 0 and self.factor >= 1 and 0 <= self.spread <= 1

    def pause_s(self, retries: int, jitter: float) -> float:
        """Seconds before the retry that follows `retries` earlier ones; `jitter` is a number from 0 to 1."""
        growth = self.factor ** min(retries, 64)
        return min(self.max_s, self.initial_s * growth) * (1 - self.spread * jitter)


ONCE: Final = Backoff(attempts=1)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """A `Backoff` by failure class. A class that is not named is tried once: it waits for somebody, or fails."""

    by_class: Mapping[FailureClass, Backoff] = field(
        default_factory=lambda: MappingProxyType({FailureClass.TRANSIENT: Backoff(attempts=5)})
    )

    def __post_init__(self) -> None:
        assert self.by_class.get(FailureClass.POISONED, ONCE).attempts == 1, "a poisoned checkpoint cannot advance"

    def for_class(self, failure: FailureClass) -> Backoff:
        return self.by_class.get(failure, ONCE)


def next_retry(
    policy: RetryPolicy, failure: FailureClass, retries: int, *, now: datetime, jitter: float
) -> datetime | None:
    """When to try again after a failure, or None where the policy's attempts are used up.

    `retries` counts the retries since the run last got on by itself; `jitter` (0 to 1) is drawn by the caller.
    """
    backoff = policy.for_class(failure)
    if retries + 1 >= backoff.attempts:
        return None
    return now + timedelta(seconds=backoff.pause_s(retries, jitter))
