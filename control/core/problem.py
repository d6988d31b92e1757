"""Refusals. Each is one catalogue entry: what happened, why now, and what to do.

A `Problem` is the entry; `Problem.because` makes the exception that carries this occasion's facts. HTTP sends it as
`application/problem+json` (RFC 9457); the CLI and the console print the same three lines. The entries live beside the
noun that refuses; `CATALOGUE` gathers them all, so that a test can hold every code documented and unique.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

CATALOGUE: Final[dict[str, Problem]] = {}


@dataclass(frozen=True, slots=True)
class Problem:
    """A kind of refusal. `code` is stable and public; `status` is the HTTP status it travels under."""

    code: str
    status: int
    title: str
    next_step: str

    def __post_init__(self) -> None:
        assert self.code not in CATALOGUE, f"problem {self.code} is defined twice"
        CATALOGUE[self.code] = self

    def because(self, why: str, **facts: Any) -> Refusal:
        """The exception for this occasion: `why` is a sentence without the title, `facts` are JSON values."""
        return Refusal(self, why, facts)


class Refusal(Exception):
    """A refused request. Nothing was changed by it."""

    def __init__(self, problem: Problem, why: str, facts: dict[str, Any]) -> None:
        super().__init__(f"{problem.title}: {why} {problem.next_step}")
        self.problem, self.why, self.facts = problem, why, facts

    @property
    def code(self) -> str:
        return self.problem.code

    def lines(self) -> tuple[str, str, str]:
        """What, why, what to do: the three lines that people see."""
        return self.problem.title, self.why, self.problem.next_step

    def as_json(self) -> dict[str, Any]:
        """The RFC 9457 body."""
        return {
            "type": f"urn:control:problem:{self.code}",
            "title": self.problem.title,
            "status": self.problem.status,
            "detail": self.why,
            "code": self.code,
            "next_step": self.problem.next_step,
            **self.facts,
        }
