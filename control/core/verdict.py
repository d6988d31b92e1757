"""What policy says of a request: yes, no, or yes once a person agrees. Each names the rules that made it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from control.core.demand import Demand
from control.core.gate import Gate


@dataclass(frozen=True, slots=True)
class Permit:
    """rules: the ids of the rules that decided, never empty. why: a sentence for people."""

    rules: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Deny:
    """rules: the ids of the rules that decided; empty where none permits it, which denies by default."""

    rules: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Permitted once somebody with one of `of` agrees. of: roles, never empty. demand: who exactly has to agree, where
    the rules say more than that."""

    rules: tuple[str, ...]
    why: str
    of: tuple[str, ...]
    demand: Demand | None = None

    @property
    def demanded(self) -> Demand:
        """Who has to agree."""
        return self.demand or Demand(Gate(roles=self.of))


Verdict = Permit | Deny | Ask
UNRULED: Final = Permit(("no-policy",), "There is no policy here, and so nothing is asked first.")
"""What is said where nobody has rules to ask: under plain LangGraph, for one."""
