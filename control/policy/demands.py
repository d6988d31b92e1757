"""What a rule that asks says of who has to agree: its annotations beside `@ask`.

    @ask("treasurer") @quorum("2") @seats("risk, legal") @four_eyes("true")
    @expires("PT4H") @ladder("PT1H: manager; PT2H: director") @on_timeout("deny")

`@quorum` counts those who must say yes; `@seats` keeps some of them for a role each (`risk: 2` for more than one);
`@four_eyes` shuts out whoever started the run. Times are ISO 8601, in days, hours, minutes and seconds. With
`@expires`, silence is a no, or (`@on_timeout("escalate")`) calls in the rest of the ladder. What contradicts itself is
a fault, and so is a word that nobody reads: misspelt, it would let through what it was to hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from control.core.demand import Demand
from control.core.gate import read_gate
from control.core.problem import Refusal

_PLAIN: Final = frozenset({"id", "why", "ask"})
_SPAN: Final = re.compile(r"P(?:(\d+)D)?(?:T(?=\d)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")


def names(text: str) -> tuple[str, ...]:
    """The names in a list with commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def read_annotations(said: Mapping[str, str | None]) -> tuple[Demand | None, list[str]]:
    """The demand of a rule that asks for more than one yes of one of its roles, and what is wrong with what it says."""
    faults, roles = list(_unknown(said)), names(said.get("ask") or "")
    stated = {name: text or "" for name, text in said.items() if name in _READERS}
    if stated and "ask" not in said:
        faults.append(f"@{next(iter(stated))} says who has to agree, but the rule asks nobody: write @ask too")
    if faults or not stated:
        return None, faults
    try:
        return _demand(roles, {name: _READERS[name](text) for name, text in stated.items()}), []
    except _Unread as fault:
        return None, [str(fault)]
    except Refusal as refusal:
        return None, [f"{refusal.why[:1].lower()}{refusal.why[1:].rstrip('.')}"]


def _demand(roles: tuple[str, ...], read: dict[str, Any]) -> Demand:
    expires_in: timedelta | None = read.pop("expires", None)
    gate = {"roles": list(roles), "quorum": max(1, sum(read.get("seats", {}).values())), **read}
    return Demand(read_gate(gate, expires_in), expires_in)


class _Unread(ValueError):
    """An annotation that cannot be read. The text says how it is written."""


def _unknown(said: Mapping[str, Any]) -> Iterator[str]:
    for name in said:
        if name not in _PLAIN and name not in _READERS:
            yield f"nobody reads @{name}; there are @{', @'.join(sorted({*_PLAIN, *_READERS}))}"


def _quorum(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise _Unread('a quorum is a number: write @quorum("2")')
    return int(text)


def _seats(text: str) -> dict[str, int]:
    seats: dict[str, int] = {}
    for part in names(text):
        role, _, count = (piece.strip() for piece in part.partition(":"))
        if not role or role in seats or (":" in part and not (count.isascii() and count.isdigit())):
            raise _Unread('seats are roles, each once: write @seats("risk, legal: 2")')
        seats[role] = int(count) if count else 1
    if not seats:
        raise _Unread('seats are roles, each once: write @seats("risk, legal: 2")')
    return seats


def _four_eyes(text: str) -> bool:
    if text not in ("true", "false"):
        raise _Unread('four eyes are wanted or not: write @four_eyes("true")')
    return text == "true"


def _span(text: str) -> timedelta:
    found = _SPAN.fullmatch(text.strip())
    parts = [int(part or 0) for part in found.groups()] if found else []
    if not any(parts):
        raise _Unread(f'{text!r} is no time: write it like "PT4H" or "P1DT30M"')
    days, hours, minutes, seconds = parts
    try:
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        raise _Unread(f"{text!r} is longer than anybody waits") from None


def _ladder(text: str) -> list[dict[str, Any]]:
    rungs = []
    for rung in (part for part in text.split(";") if part.strip()):
        after, _, to = rung.partition(":")
        rungs.append({"after_s": _span(after).total_seconds(), "to": list(names(to))})
    if not rungs:
        raise _Unread('a ladder has rungs: write @ladder("PT1H: manager; PT2H: director")')
    return rungs


def _on_timeout(text: str) -> str:
    if text not in ("deny", "escalate"):
        raise _Unread('silence is a no, or calls in the rest of the ladder: write @on_timeout("deny") or "escalate"')
    return text


_READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "quorum": _quorum,
    "seats": _seats,
    "four_eyes": _four_eyes,
    "expires": _span,
    "ladder": _ladder,
    "on_timeout": _on_timeout,
}
