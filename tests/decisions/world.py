"""What the state machine expects: people, questions, and what may be paid, by rules of its own. It shares no code with
the product, and reads nothing of it but the ids of questions.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

from tests.decisions.outside import Outside, Trouble

STEP: Final = timedelta(
    minutes=20
)  # the clock moves by this; no span below is a multiple of it, so that seconds do not matter
RUNG: Final = 1.5  # steps
EXPIRY: Final = 5.5
VALID: Final = 7.5
PEOPLE: Final = {
    "ana": {"approver"}, "ben": {"approver"}, "cyd": {"approver"}, "dan": {"boss"}, "eve": {"viewer"},
    "sam": {"admin", "approver"},
}  # fmt: skip
STARTER: Final = "sam"

Word = Literal["approve", "reject", "edit"]
Which = Literal["current", "earlier", "unknown", "other packet"]


class Attempt(NamedTuple):
    """Somebody says something about a question. of: in whose place."""

    who: str
    word: Word
    which: Which = "current"
    of: str | None = None

    @property
    def persons(self) -> set[str]:
        return {self.who} | ({self.of} if self.of else set())


@dataclass
class Asked:
    """A question as the model has it. at: in steps of the clock. yes: who agreed so far."""

    id: str
    at: int
    price: Any
    yes: list[Attempt] = field(default_factory=list)


@dataclass
class Case:
    """A run. state: `open`, or what it came to: `yes`, `no`, `stale` (to be asked again), `over`. due: what may be
    paid, once.
    """

    run_id: UUID
    fact: str
    kind: str
    state: str = "open"
    asked: Asked | None = None
    earlier: list[str] = field(default_factory=list)
    paused: bool = False
    due: list[Any] = field(default_factory=list)


@dataclass
class World:
    """What is so now. lent: until which step, by who lends to whom. planned: the troubles that have not struck, as far
    as they matter here. counts: attempts and what became of them.
    """

    outside: Outside
    now: int = 0
    strict: bool = False
    prices: dict[str, Any] = field(default_factory=dict)
    lent: dict[tuple[str, str], float] = field(default_factory=dict)
    planned: dict[UUID, str] = field(default_factory=dict)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    attempts: int = 0

    def may(self, who: str, word: Word) -> bool:
        """What the policy in force says."""
        if who == "ben" and self.strict and word != "reject":
            return False
        return "approver" in PEOPLE[who] or (who == "dan" and word != "reject")

    def foresee(self, case: Case, made: Attempt) -> str:
        """What an attempt must come to: `taken`, `refused`, or `stale`, which is refused and asked again."""
        asked = case.asked
        if asked is None or case.state != "open" or made.which != "current" or not self.may(made.who, made.word):
            return "refused"
        stands_in = made.of not in (None, made.who)
        if made.of and stands_in and self.lent.get((made.of, made.who), self.now) <= self.now:
            return "refused"
        if case.kind == "reviewed":
            return "taken"
        age, roles = self.now - asked.at, PEOPLE[made.of or made.who]
        if age > EXPIRY or made.word == "edit" or not ("approver" in roles or ("boss" in roles and age > RUNG)):
            return "refused"
        if made.word == "reject":
            return "taken"
        if STARTER in made.persons or any(made.persons & earlier.persons for earlier in asked.yes):
            return "refused"
        return "stale" if self.moved(case) else "taken"

    def moved(self, case: Case) -> bool:
        """Whether what a question rests on is no more so."""
        asked = case.asked
        assert asked is not None
        outvoted = any(not self.may(yes.who, "approve") for yes in asked.yes)
        return outvoted or self.prices[case.fact] != asked.price or self.now - asked.at > VALID

    def stopped(self, case: Case) -> bool:
        """Whether a yes is not carried out: what it rests on has moved since, or will before the payment."""
        return self.moved(case) or self.planned.get(case.run_id) == "fact moved"

    def plan(self, run_id: UUID, trouble: Trouble) -> None:
        self.planned[run_id] = trouble
        self.outside.plan(run_id, trouble)

    def take(self, case: Case, made: Attempt) -> None:
        """What a taken attempt makes of a question."""
        assert case.asked is not None
        if made.word == "reject":
            case.state = "no"
        elif case.kind == "reviewed":
            case.state, case.due = "yes", ["edited" if made.word == "edit" else 1]
        else:
            case.asked.yes.append(made)
            if len(case.asked.yes) == 2:
                case.state, case.due = "yes", [case.asked.price]
