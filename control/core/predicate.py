"""Which runs: a condition over the attributes that policy knows of a run, which a list can be filtered by.

There is no negation: what is not known to hold does not hold. An attribute that is absent satisfies no comparison,
neither an equation nor its opposite, so that a condition means the same to SQL, where the absent is null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal, assert_never


class Attribute(StrEnum):
    """What policy knows of a run. `id` is its id as text; `workflow` may be absent."""

    ID = "id"
    TENANT = "tenant"
    THREAD_ID = "thread_id"
    WORKFLOW = "workflow"
    STATUS = "status"
    CREATED_BY = "created_by"
    PRIORITY = "priority"


Order = Literal["=", "<>", "<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Known:
    """Always or never."""

    holds: bool


@dataclass(frozen=True, slots=True)
class Present:
    """The attribute is there, or with `absent` is not."""

    attribute: Attribute
    absent: bool = False


@dataclass(frozen=True, slots=True)
class Compared:
    """Texts compare with = and <> alone."""

    attribute: Attribute
    order: Order
    value: str | int


@dataclass(frozen=True, slots=True)
class Matching:
    """The text is these pieces in order, with anything where a piece is None; or with `differs` is not so."""

    attribute: Attribute
    pieces: tuple[str | None, ...]
    differs: bool = False


@dataclass(frozen=True, slots=True)
class Every:
    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Some:
    parts: tuple[Predicate, ...]


Predicate = Known | Present | Compared | Matching | Every | Some
ALWAYS: Final = Known(True)
NEVER: Final = Known(False)


@dataclass(frozen=True, slots=True)
class Filter:
    """Runs that somebody may see. Never one too many; where `exact`, none too few either."""

    where: Predicate
    exact: bool = True


def every(*parts: Predicate) -> Predicate:
    """All of them."""
    if NEVER in parts:
        return NEVER
    left = tuple(dict.fromkeys(part for part in parts if part != ALWAYS))
    return left[0] if len(left) == 1 else Every(left) if left else ALWAYS


def some(*parts: Predicate) -> Predicate:
    """At least one of them."""
    if ALWAYS in parts:
        return ALWAYS
    left = tuple(dict.fromkeys(part for part in parts if part != NEVER))
    return left[0] if len(left) == 1 else Some(left) if left else NEVER


def holds(predicate: Predicate, attributes: Mapping[str, Any]) -> bool:
    """Whether the condition holds of a run; an attribute that is None or missing is absent."""
    match predicate:
        case Known(answer):
            return answer
        case Every(parts):
            return all(holds(part, attributes) for part in parts)
        case Some(parts):
            return any(holds(part, attributes) for part in parts)
        case Present(attribute, absent):
            return (attributes.get(attribute) is None) is absent
        case Compared(attribute, order, value):
            has = attributes.get(attribute)
            return has is not None and _compared(has, order, value)
        case Matching(attribute, pieces, differs):
            has = attributes.get(attribute)
            return has is not None and _matches(has, pieces) is not differs
        case _:
            assert_never(predicate)


def _compared(has: Any, order: Order, value: Any) -> bool:
    match order:
        case "=":
            return bool(has == value)
        case "<>":
            return bool(has != value)
        case "<":
            return bool(has < value)
        case "<=":
            return bool(has <= value)
        case ">":
            return bool(has > value)
        case ">=":
            return bool(has >= value)
        case _:
            assert_never(order)


def _matches(text: str, pieces: tuple[str | None, ...]) -> bool:
    """As with shell wildcards: every piece as early as possible, the last one at the end."""
    if None not in pieces:
        return text == "".join(piece or "" for piece in pieces)
    first = pieces.index(None)
    last = len(pieces) - 1 - pieces[::-1].index(None)
    head, tail = "".join(p or "" for p in pieces[:first]), "".join(p or "" for p in pieces[last + 1 :])
    if not text.startswith(head) or not text.endswith(tail) or len(text) < len(head) + len(tail):
        return False
    at, end = len(head), len(text) - len(tail)
    for piece in _between(pieces[first : last + 1]):
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def _between(pieces: tuple[str | None, ...]) -> list[str]:
    """Adjacent letters joined into words, split where anything may stand."""
    words, word = [], ""
    for piece in pieces:
        if piece is None:
            words.append(word)
            word = ""
        else:
            word += piece
    return [word for word in words if word]
