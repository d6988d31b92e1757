"""Who has to agree, where rules let something happen only after asking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from control.core.gate import PLAIN, Gate, OnTimeout, read_gate


@dataclass(frozen=True, slots=True)
class Demand:
    """A gate, and after how long silence is a no; None: it never is."""

    gate: Gate = PLAIN
    expires_in: timedelta | None = None

    @property
    def seats(self) -> dict[str, int]:
        """Whose yes it takes how often, a seat that is nobody's in particular being anybody's who may vote at all."""
        seats = dict(self.gate.seats)
        anybody = "|".join(sorted(frozenset(self.gate.roles).union(*self.gate.kept)))
        free = self.gate.quorum - sum(seats.values())
        return seats | ({anybody: seats.get(anybody, 0) + free} if free else {})

    @property
    def open_ended(self) -> Demand:
        """The same without an end: for a question that silence cannot answer."""
        return Demand(replace(self.gate, on_timeout=OnTimeout.DENY))

    def as_json(self) -> dict[str, Any]:
        """What `read_demand` reads, and what a packet says of its gate. Nothing for the plainest."""
        gate, seconds = self.gate.as_json(), None if self.expires_in is None else self.expires_in.total_seconds()
        return ({"gate": gate} if gate else {}) | ({"expires_in_s": seconds} if seconds is not None else {})


def read_demand(given: Mapping[str, Any]) -> Demand:
    """The demand that JSON describes. Raises `gate-invalid`."""
    seconds = given.get("expires_in_s")
    expires_in = None if seconds is None else timedelta(seconds=seconds)
    return Demand(read_gate(given.get("gate", {}), expires_in), expires_in)


def merged(demands: Iterable[Demand]) -> Demand:
    """What meets all of them. Where they differ, each keeps its own seats, and a voter fills one; silence is a no,
    after the shortest of their times, and nobody is called in meanwhile: that would be into the others' seats as well.
    """
    first, *others = dict.fromkeys(demands)
    if not others:
        return first
    seats: dict[str, int] = {}
    for demand in (first, *others):
        for roles, count in demand.seats.items():
            seats[roles] = max(count, seats.get(roles, 0))
    four_eyes = any(demand.gate.four_eyes for demand in (first, *others))
    times = [demand.expires_in for demand in (first, *others) if demand.expires_in is not None]
    gate = Gate(quorum=sum(seats.values()), seats=tuple(sorted(seats.items())), four_eyes=four_eyes)
    return Demand(gate, min(times, default=None))
