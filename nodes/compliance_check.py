"""Policy rules as data, and the question to a person where they ask for one.

A rule compares one fact with a limit. The rules that hold are findings, and the strictest decides: one `reject`
rejects, else one `ask` asks, else the case passes without a person.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal, TypedDict

from pydantic import BaseModel

from control.sdk import approval
from nodes.node import Node

Facts = Callable[[Any], Mapping[str, Any]]

_COMPARE: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "above": operator.gt,
    "below": operator.lt,
    "is": operator.eq,
}
_STRICTNESS: Final[Mapping[str, int]] = {"approve": 0, "ask": 1, "reject": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """If the `fact` so `compares` to the `limit`, `then`. `title` says to people what was found."""

    id: str
    title: str
    fact: str
    compares: Literal["above", "below", "is"]
    limit: Any
    then: Literal["ask", "reject"]

    def holds(self, value: Any) -> bool:
        return _COMPARE[self.compares](value, self.limit)


class Packet(TypedDict):
    """What the approver sees: the arguments of `control.sdk.approval`. `answer` is what an approver may set."""

    title: str
    action: Mapping[str, Any]
    evidence: Sequence[Mapping[str, Any]]
    answer: type[BaseModel]
    risk: str
    confidence: float
    on_yes: str
    on_no: str
    on_silence: str
    reversible: bool
    expires_in: timedelta


def policy_check(rules: Sequence[Rule], *, facts: Facts, target: str) -> Node:
    """A node that holds `facts(state)` against the rules.

    `target` gets the `outcome` (approve, ask or reject), the `findings` that made it, and the ids of all `checked`.
    """

    def check(state: Any) -> dict[str, Any]:
        known = facts(state)
        findings = [_finding(rule, known[rule.fact]) for rule in rules if rule.holds(known[rule.fact])]
        outcome = max((finding["then"] for finding in findings), key=_STRICTNESS.__getitem__, default="approve")
        return {target: {"outcome": outcome, "findings": findings, "checked": [rule.id for rule in rules]}}

    return check


def review(packet: Callable[[Any], Packet], *, target: str) -> Node:
    """A node that asks a person.

    `target` gets `approved`, `by`, `note` and, if approved, the fields of the answer.
    """

    def ask(state: Any) -> dict[str, Any]:
        decision = approval(**packet(state))
        answered = decision.answer.model_dump(mode="json") if decision.answer else {}
        by = decision.by or "an unnamed person"
        return {target: {**answered, "approved": decision.approved, "by": by, "note": decision.note or ""}}

    return ask


def _finding(rule: Rule, value: Any) -> dict[str, Any]:
    return {"rule": rule.id, "title": rule.title, "value": value, "limit": rule.limit, "then": rule.then}
