"""The person's answer: typed at the terminal, or given for them."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said. None for the amount: as much as was asked for. `by` is who said it; None: the user."""

    approve: bool = True
    amount_eur: float | None = None
    note: str | None = None
    by: str | None = None

    def command(self, run: str, most_eur: float) -> list[str]:
        """The answer as a command of `control`."""
        noted = ["--note", self.note] if self.note else []
        if not self.approve:
            return ["reject", run, *noted]
        terms = {"amount_eur": most_eur if self.amount_eur is None else self.amount_eur}
        return ["approve", run, "--answer", json.dumps(terms), *noted]


def given(most_eur: float) -> Answer:
    """Ask at the terminal. An empty line takes what stands in brackets; the end of input takes all of them."""
    while (word := _typed("approve or reject? [approve]") or "approve") not in ("approve", "reject"):
        print(f"  {shlex.quote(word)} is neither.")
    amount = None
    while word == "approve" and amount is None:
        try:
            amount = float(_typed(f"amount in EUR [{most_eur:.0f}]").replace(",", "") or most_eur)
        except ValueError:
            print("  That is no amount.")
    return Answer(approve=word == "approve", amount_eur=amount, note=_typed("a note for the record [none]") or None)


def _typed(prompt: str) -> str:
    try:
        return input(f"  {prompt} ").strip()
    except EOFError:
        print()
        return ""
