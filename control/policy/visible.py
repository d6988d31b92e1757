"""Which runs a principal may read, as a condition that a list can be filtered by.

The policy is evaluated with the run left open. What remains of each rule is an expression over the run's attributes,
and from it follow two conditions: when it is certainly true, and when it is certainly false. They need not cover
everything between them, since an expression may err. A run is seen where some permit is certainly true and every forbid
is certainly false, which is also what a full decision comes to.

An expression that has no such condition here (arithmetic, say) counts as one that errs: neither true nor false. Both
conditions of whatever it is part of can only shrink by that, as they are built without negation. So a filter never
shows a run that a decision would hide, and is exact where everything had its condition.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import cedarpy

from control.core.predicate import (
    ALWAYS,
    NEVER,
    Attribute,
    Compared,
    Filter,
    Known,
    Matching,
    Order,
    Predicate,
    Present,
    every,
    some,
)

if TYPE_CHECKING:
    from control.policy.cedar import CedarPolicy

Both = tuple[Predicate, Predicate]
"""When an expression is certainly true, and when it is certainly false."""

_KINDS: Final[Mapping[str, type[str] | type[int]]] = {
    name: int if name == Attribute.PRIORITY else str for name in Attribute
}
_OPPOSITE: Final[Mapping[str, Order]] = {"==": "<>", "!=": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_ORDER: Final[Mapping[str, Order]] = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_MIRRORED: Final[Mapping[str, str]] = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


def readable(policy: CedarPolicy, principal: dict[str, Any], schema: cedarpy.Schema) -> Filter:
    """The runs that the principal (as an entity) may read."""
    uid = principal["uid"]
    asked: dict[str, Any] = {
        "principal": f"{uid['type']}::{json.dumps(uid['id'], ensure_ascii=False)}",
        "action": 'Action::"read"',
        "resource": None,
        "context": {},
    }
    answer = cedarpy.is_authorized_partial(asked, policy.policies, json.dumps([principal]), schema)
    if answer.diagnostics.errors:
        return Filter(NEVER, exact=False)  # what remains of a rule that failed already is not told
    seen, left = _Reading(), answer.residuals
    permits: list[Predicate] = []
    forbids: list[Predicate] = []
    for internal, rule in policy.by_internal_name.items():
        true, false = seen.rule(left[internal]) if internal in left else seen.nothing()
        (forbids if rule.forbids else permits).append(false if rule.forbids else true)
    return Filter(every(some(*permits), *forbids), exact=seen.exact)


@dataclass(slots=True)
class _Reading:
    """The reading of one answer. `exact` turns false at the first expression that has no condition."""

    exact: bool = field(default=True)

    def rule(self, residual: Mapping[str, Any]) -> Both:
        """Its scope is decided already or has become a part of its condition."""
        true: Predicate = ALWAYS
        false: Predicate = NEVER
        for condition in residual["conditions"]:
            is_true, is_false = self.read(condition["body"])
            if condition["kind"] == "unless":
                is_true, is_false = is_false, is_true
            true, false = every(true, is_true), some(false, every(true, is_false))
        return true, false

    def nothing(self) -> Both:
        self.exact = False
        return NEVER, NEVER

    def read(self, expression: Any) -> Both:
        """Of any boolean expression, in Cedar's JSON form."""
        (name, inside), *more = expression.items()
        reader = _READERS.get(name)
        return self.nothing() if more or reader is None else reader(self, inside)

    def value(self, inside: Any) -> Both:
        return (Known(inside), Known(not inside)) if isinstance(inside, bool) else self.nothing()

    def both(self, inside: Any) -> Both:
        """`&&` looks at its right side only where the left is true."""
        (left, not_left), (right, not_right) = self.read(inside["left"]), self.read(inside["right"])
        return every(left, right), some(not_left, every(left, not_right))

    def either(self, inside: Any) -> Both:
        (left, not_left), (right, not_right) = self.read(inside["left"]), self.read(inside["right"])
        return some(left, every(not_left, right)), every(not_left, not_right)

    def opposite(self, inside: Any) -> Both:
        true, false = self.read(inside["arg"])
        return false, true

    def conditional(self, inside: Any) -> Both:
        (test, not_test), (then, not_then) = self.read(inside["if"]), self.read(inside["then"])
        other, not_other = self.read(inside["else"])
        return (
            some(every(test, then), every(not_test, other)),
            some(every(test, not_then), every(not_test, not_other)),
        )

    def has(self, inside: Any) -> Both:
        attribute = inside["attr"]
        if not _is_run(inside["left"]) or attribute not in _KINDS:
            return self.nothing()
        return Present(Attribute(attribute)), Present(Attribute(attribute), absent=True)

    def matches(self, inside: Any) -> Both:
        attribute = _attribute(inside["left"])
        if attribute is None:
            return self.nothing()
        pieces = tuple(None if piece == "Wildcard" else piece["Literal"] for piece in inside["pattern"])
        if "\0" in pieces:
            return self.nothing()
        return Matching(attribute, pieces), Matching(attribute, pieces, differs=True)

    def kind(self, inside: Any) -> Both:
        if not _is_run(inside["left"]):
            return self.nothing()
        if inside["entity_type"] != "Run":
            return NEVER, ALWAYS
        return self.belongs({"left": inside["left"], "right": inside["in"]}) if "in" in inside else (ALWAYS, NEVER)

    def belongs(self, inside: Any) -> Both:
        """`in`: a run belongs to itself and to its thread."""
        named = [_entity(one) for one in _elements(inside["right"]) or [inside["right"]]]
        if not _is_run(inside["left"]) or None in named:
            return self.nothing()
        each = [self._within(*one) for one in named if one is not None]
        return some(*(true for true, _ in each)), every(*(false for _, false in each))

    def contains(self, inside: Any) -> Both:
        """A fixed set that the run's attribute is in."""
        elements, attribute = _elements(inside["left"]), _attribute(inside["right"])
        if elements is None or attribute is None:
            return self.nothing()
        each = [self._compared("==", attribute, _plain(element)) for element in elements]
        return some(*(true for true, _ in each)), every(Present(attribute), *(false for _, false in each))

    def compare(self, operator: str, inside: Any) -> Both:
        left, right = inside["left"], inside["right"]
        if operator in ("==", "!=") and (_is_run(left) or _is_run(right)):
            return self._same(operator, _entity(right if _is_run(left) else left))
        attribute, value = _attribute(left), _plain(right)
        if attribute is None:
            attribute, value, operator = _attribute(right), _plain(left), _MIRRORED[operator]
        return self._compared(operator, attribute, value)

    def _compared(self, operator: str, attribute: Attribute | None, value: Any) -> Both:
        if (
            attribute is None
            or not isinstance(value, _KINDS[attribute])
            or isinstance(value, bool)
            or "\0" in str(value)
        ):
            return self.nothing()  # PostgreSQL takes no text with a zero in it
        return Compared(attribute, _ORDER[operator], value), Compared(attribute, _OPPOSITE[operator], value)

    def _same(self, operator: str, other: tuple[str, str] | None) -> Both:
        if other is None:
            return self.nothing()
        true, false = self._within(*other) if other[0] == "Run" else (NEVER, ALWAYS)
        return (true, false) if operator == "==" else (false, true)

    def _within(self, kind: str, id: str) -> Both:
        attribute = {"Run": Attribute.ID, "Thread": Attribute.THREAD_ID}.get(kind)
        return (NEVER, ALWAYS) if attribute is None else self._compared("==", attribute, id)


def _comparing(operator: str) -> Callable[[_Reading, Any], Both]:
    return lambda reading, inside: reading.compare(operator, inside)


_READERS: Final[Mapping[str, Callable[[_Reading, Any], Both]]] = {
    "Value": _Reading.value,
    "&&": _Reading.both,
    "||": _Reading.either,
    "!": _Reading.opposite,
    "if-then-else": _Reading.conditional,
    "has": _Reading.has,
    "like": _Reading.matches,
    "is": _Reading.kind,
    "in": _Reading.belongs,
    "contains": _Reading.contains,
    **{operator: _comparing(operator) for operator in _ORDER},
}


def _is_run(expression: Any) -> bool:
    return bool(expression == {"unknown": [{"Value": "resource"}]})


def _attribute(expression: Any) -> Attribute | None:
    """The attribute of the run that an expression is, if it is one."""
    inside = expression.get(".")
    if inside is None or not _is_run(inside["left"]) or inside["attr"] not in _KINDS or inside["attr"] == "id":
        return None
    return Attribute(inside["attr"])


def _plain(expression: Any) -> Any:
    return expression.get("Value")


def _entity(expression: Any) -> tuple[str, str] | None:
    """A named entity, as kind and id."""
    value = expression.get("Value")
    named = value.get("__entity") if isinstance(value, dict) else None
    return (named["type"], named["id"]) if named else None


def _elements(expression: Any) -> list[Any] | None:
    """The elements of a fixed set, as expressions."""
    value = expression.get("Value")
    if isinstance(value, list):
        return [{"Value": element} for element in value]
    found: list[Any] | None = expression.get("Set")
    return found
