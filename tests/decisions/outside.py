"""What lies outside the control plane in the state machine's world, kept in files: it outlives a worker that is killed.

<run>          what was paid for the run, a line each
<run>.trouble  what is to befall it, once
troubles       what befell whom, a line each
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

Trouble = Literal["killed before", "killed begun", "killed after", "killed unsaid", "deposed", "fact moved", ""]
"""What befalls a worker between a yes and what follows from it: SIGKILL before the payment, before or after its intent
is on record, or after it and before it is on record; it loses its claim and does not know; or the price moves. Or it is
killed before any of what follows from a no is on record."""


@dataclass(frozen=True, slots=True)
class Outside:
    folder: Path

    def pay(self, run_id: UUID, price: Any) -> None:
        self._append(str(run_id), json.dumps(price))

    def paid(self, run_id: UUID) -> list[Any]:
        return [json.loads(line) for line in self._lines(str(run_id))]

    def plan(self, run_id: UUID, trouble: Trouble) -> None:
        (self.folder / f"{run_id}.trouble").write_text(trouble)

    def planned(self, run_id: UUID) -> str:
        file = self.folder / f"{run_id}.trouble"
        return file.read_text() if file.exists() else ""

    def strikes(self, run_id: UUID) -> None:
        """What was planned happens now, and not again."""
        self._append("troubles", self.planned(run_id))
        (self.folder / f"{run_id}.trouble").unlink()

    def kills(self, run_id: UUID, *when: Trouble) -> None:
        """Kill this process, if that is planned for now."""
        if self.planned(run_id) in when:
            self.strikes(run_id)
            os.kill(os.getpid(), signal.SIGKILL)

    def troubles(self) -> Counter[str]:
        return Counter(self._lines("troubles"))

    def _append(self, name: str, line: str) -> None:
        to = os.open(self.folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(to, f"{line}\n".encode())  # one write of less than a page: never mixed with another's
        finally:
            os.close(to)

    def _lines(self, name: str) -> list[str]:
        file = self.folder / name
        return file.read_text().splitlines() if file.exists() else []
