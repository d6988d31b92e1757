"""Who has to agree, where rules let something happen only after asking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from control.core.gate import PLAIN, Gate, read_gate


@dataclass(frozen=True, slots=True)
class Demand:
    """A gate, and after how long silence is a no; None: it never is."""

    gate: Gate = PLAIN
    expires_in: timedelta | None = None

    def as_json(self) -> dict[str, Any]:
        """What `read_demand` reads, and what a packet says of its gate. Nothing for the plainest."""
        gate, seconds = self.gate.as_json(), None if self.expires_in is None else self.expires_in.total_seconds()
        return ({"gate": gate} if gate else {}) | ({"expires_in_s": seconds} if seconds is not None else {})


def read_demand(given: Mapping[str, Any]) -> Demand:
    """The demand that JSON describes. Raises `gate-invalid`."""
    seconds = given.get("expires_in_s")
    expires_in = None if seconds is None else timedelta(seconds=seconds)
    return Demand(read_gate(given.get("gate", {}), expires_in), expires_in)
