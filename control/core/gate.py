"""A gate: who must agree before a run may act, and what silence comes to.

It is fixed when the question is opened, as part of what the approver is shown, and never changes afterwards: a ladder
that could be edited while somebody waits would be no promise. Read from plain JSON, and written as such.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from control.core.problem import Problem, Refusal

GATE_INVALID: Final = Problem(
    code="gate-invalid",
    status=422,
    title="The gate of an approval contradicts itself",
    next_step="Correct the arguments of `approval(...)` in the node that asks, deploy it, and retry the run.",
)
_KEYS: Final = frozenset(
    {
        "quorum", "roles", "voters", "seats", "four_eyes", "not_by", "on_timeout", "default", "ladder", "skills",
        "reassign_before_s",
    }
)  # fmt: skip
_RUNG_KEYS: Final = frozenset({"after_s", "to", "notify"})
_SHARE_LEFT: Final = 4  # a quarter of the time is left when an assigned question that nobody decided moves on


class OnTimeout(StrEnum):
    """What silence comes to."""

    DENY = "deny"
    ESCALATE = "escalate"  # whatever is left of the ladder is climbed, and the question stays open
    DEFAULT = "default"


_LEFT_OUT: Final[Mapping[str, Any]] = {
    "quorum": 1, "seats": {}, "four_eyes": False, "on_timeout": "deny", "skills": None, "reassign_before_s": None,
}  # fmt: skip
"""What need not be said, an empty list besides."""


@dataclass(frozen=True, slots=True)
class Rung:
    """After so long, these roles may decide as well. notify: whom to tell, as addresses that notifications know."""

    after: timedelta
    to: tuple[str, ...]
    notify: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """roles: whoever holds one of them may vote. voters: persons who may vote by name. With neither, whoever policy
    lets. seats: how many of the quorum only a holder of that role can fill; `risk|legal` is of either. four_eyes: the
    run's starter may not approve; not_by: nor may these. default: the answer that silence comes to, where `on_timeout`
    says so. skills: what an assignee must know, and that one is sought at all; None: the question is nobody's in
    particular. reassign_before: how long before its expiry an assigned question moves on to somebody else.
    """

    quorum: int = 1
    roles: tuple[str, ...] = ()
    voters: tuple[str, ...] = ()
    seats: tuple[tuple[str, int], ...] = ()
    four_eyes: bool = False
    not_by: tuple[str, ...] = ()
    on_timeout: OnTimeout = OnTimeout.DENY
    default: Any = field(default=None, hash=False)
    ladder: tuple[Rung, ...] = ()
    skills: tuple[str, ...] | None = None
    reassign_before: timedelta | None = None

    @property
    def kept(self) -> tuple[frozenset[str], ...]:
        """The seats that are kept, one by one: whose each is."""
        return tuple(frozenset(role.split("|")) for role, count in self.seats for _ in range(count))

    @property
    def named_roles(self) -> frozenset[str]:
        """Every role that may come to count, now or on some rung."""
        return frozenset(self.roles).union(*self.kept, *(rung.to for rung in self.ladder))

    def review_before(self, expires_in: timedelta) -> timedelta:
        """How long before its expiry an assigned question is looked at again: as it says, or for its last quarter."""
        return self.reassign_before if self.reassign_before is not None else expires_in / _SHARE_LEFT

    def first_deadline(self, expires_in: timedelta | None) -> timedelta | None:
        """How long after its opening the clock has something to do for the question: to assign it, for one."""
        if self.skills is not None:
            return timedelta()
        rung = self.ladder[0].after if self.ladder else None
        return min((span for span in (rung, expires_in) if span is not None), default=None)

    def as_json(self) -> dict[str, Any]:
        """What `read_gate` reads. Only what differs from the plainest gate is named, and the default is left to the
        packet, where what is secret has been taken out of it."""
        named: dict[str, Any] = {
            "quorum": self.quorum,
            "roles": list(self.roles),
            "voters": list(self.voters),
            "seats": dict(self.seats),
            "four_eyes": self.four_eyes,
            "not_by": list(self.not_by),
            "on_timeout": self.on_timeout.value,
            "ladder": [
                {"after_s": r.after.total_seconds(), "to": list(r.to), "notify": list(r.notify)} for r in self.ladder
            ],
            "skills": None if self.skills is None else list(self.skills),
            "reassign_before_s": None if self.reassign_before is None else self.reassign_before.total_seconds(),
        }
        return {key: value for key, value in named.items() if value != _LEFT_OUT.get(key, [])}


PLAIN: Final = Gate()
"""One yes, of anybody whom policy lets; silence is a no."""


def read_gate(given: Any, expires_in: timedelta | None) -> Gate:
    """The gate that JSON describes. Raises `gate-invalid`: misread, it would let the wrong people through."""
    if not isinstance(given, Mapping):
        raise _wrong("It is no object.")
    if unknown := sorted(map(str, given.keys() - _KEYS)):
        raise _wrong(f"It has no {', '.join(unknown)}.")
    gate = Gate(
        quorum=_count(given.get("quorum", 1), "quorum"),
        roles=_names(given, "roles"),
        voters=_names(given, "voters"),
        seats=tuple(sorted((str(role), _count(n, "seats")) for role, n in _object(given, "seats").items())),
        four_eyes=_flag(given.get("four_eyes", False)),
        not_by=_names(given, "not_by"),
        on_timeout=_outcome(given.get("on_timeout", "deny")),
        default=given.get("default"),
        ladder=tuple(_rung(rung) for rung in _list(given, "ladder")),
        skills=None if given.get("skills") is None else _names(given, "skills"),
        reassign_before=_span(given["reassign_before_s"]) if given.get("reassign_before_s") is not None else None,
    )
    if fault := _contradiction(gate, expires_in):
        raise _wrong(fault)
    return gate


def _contradiction(gate: Gate, expires_in: timedelta | None) -> str | None:
    """What makes the gate mean nothing, or something that nobody can have meant."""
    afters = [rung.after for rung in gate.ladder]
    reserved = sum(count for _, count in gate.seats)
    faults = {
        "More seats are kept for roles than the quorum has.": reserved > gate.quorum,
        "Fewer voters are named than the quorum needs.": _too_few(gate),
        "The rungs of its ladder are not in the order of their times.": afters != sorted(set(afters)),
        "It says what silence comes to, but its time never ends: expires_in is missing.": (
            expires_in is None and gate.on_timeout is not OnTimeout.DENY
        ),
        "It is to move on before its time ends, but its time never ends: expires_in is missing.": (
            expires_in is None and gate.reassign_before is not None
        ),
        "It moves on to another assignee, but seeks none: skills is missing.": (
            gate.skills is None and gate.reassign_before is not None
        ),
        "It names a default, but silence does not come to it: on_timeout is not default.": (
            gate.default is not None and gate.on_timeout is not OnTimeout.DEFAULT
        ),
    }
    if expires_in is not None:
        faults["It is to move on before it was asked."] = (
            gate.reassign_before is not None and gate.reassign_before >= expires_in
        )
        last = afters[-1] if afters else None
        escalates = gate.on_timeout is OnTimeout.ESCALATE
        faults |= {
            "A rung of its ladder comes when its time is over.": (
                last is not None and last >= expires_in and not escalates
            ),
            "Its time ends in an escalation, but no rung is left by then.": (
                escalates and (last is None or last < expires_in)
            ),
        }
    return next((sentence for sentence, holds in faults.items() if holds), None)


def _too_few(gate: Gate) -> bool:
    """Whether only named persons may vote, and there are too few of them."""
    by_name_alone = gate.voters and not gate.roles and not any(rung.to for rung in gate.ladder)
    return bool(by_name_alone) and len(set(gate.voters) - set(gate.not_by)) < gate.quorum


def _rung(given: Any) -> Rung:
    if not isinstance(given, Mapping) or "after_s" not in given or not given.keys() <= _RUNG_KEYS:
        raise _wrong("A rung of its ladder is {after_s, to, notify}.")
    rung = Rung(_span(given["after_s"]), _names(given, "to"), _names(given, "notify"))
    if not rung.to and not rung.notify:
        raise _wrong("A rung of its ladder changes nothing: it names nobody in `to` or `notify`.")
    return rung


def _names(given: Mapping[str, Any], key: str) -> tuple[str, ...]:
    names = _list(given, key)
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise _wrong(f"{key} holds something that is no name.")
    return tuple(dict.fromkeys(names))


def _list(given: Mapping[str, Any], key: str) -> Sequence[Any]:
    found = given.get(key)
    if not isinstance(found, list | tuple | None):
        raise _wrong(f"{key} is no list.")
    return found or ()


def _object(given: Mapping[str, Any], key: str) -> Mapping[Any, Any]:
    found = given.get(key)
    if not isinstance(found, Mapping | None):
        raise _wrong(f"{key} is no object.")
    return found or {}


def _count(given: Any, key: str) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not 1 <= given <= 1000:
        raise _wrong(f"{key} counts persons, from 1 to 1000.")
    return given


def _flag(given: Any) -> bool:
    if not isinstance(given, bool):
        raise _wrong("four_eyes is yes or no; name others in not_by.")
    return given


def _outcome(given: Any) -> OnTimeout:
    try:
        return OnTimeout(given)
    except ValueError:
        raise _wrong("on_timeout is deny, escalate or default.") from None


def _span(given: Any) -> timedelta:
    """From seconds. A span of ten thousand years or of no time is a mistake."""
    if not isinstance(given, int | float) or isinstance(given, bool) or not 0 < given <= 3.15e9:
        raise _wrong("A time is a number of seconds above 0.")
    return timedelta(seconds=given)


def _wrong(why: str) -> Refusal:
    return GATE_INVALID.because(why)
