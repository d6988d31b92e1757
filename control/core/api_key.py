"""API keys: what one looks like, what it stands for, and until when.

    ctl_<16 hexadecimal digits: its id>_<43 characters: 256 random bits>

The id is public: lists, logs and the ledger may show it. Of the whole text the SHA-256 is stored and nothing else. A
slow hash would protect a secret that somebody could guess; nobody guesses 256 random bits, and a slow hash would let
anybody who sends keys burn our processors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Final

from control.core.action import ACTIONS
from control.core.principal import Principal, PrincipalKind, personal
from control.core.problem import Problem, Refusal

KEY_UNFIT: Final = Problem(
    code="api-key-unfit",
    status=422,
    title="The key cannot be made as asked",
    next_step="Correct what is named and ask again; nothing was stored.",
)
LIFETIME: Final = timedelta(days=90)
LONGEST: Final = timedelta(days=366)
MARK: Final = "ctl_"
_SHAPE: Final = re.compile(r"ctl_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
_NAME: Final = re.compile(r"[\w@.+|/:-]{1,200}")
_ROLE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,99}")


class Condition(StrEnum):
    VALID = "valid"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Presented:
    """A key as somebody sent it, without its secret."""

    key_id: str
    digest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as it is stored. `name` is the id of the principal that it stands for; several keys may stand for one, so
    that one can be replaced before it expires. `used_on` is the day (UTC) of its last use. `via` are those with whose
    keys it was made, and `made_with` is the id of the last of these keys.
    """

    tenant: str
    key_id: str
    digest: bytes = field(repr=False)
    name: str
    kind: PrincipalKind
    roles: frozenset[str]
    scopes: frozenset[str] | None
    created_by: str
    via: frozenset[str] = frozenset()
    made_with: str | None = None
    created_at: datetime
    expires_at: datetime
    used_on: date | None = None
    revoked_by: str | None = None
    revoked_at: datetime | None = None

    def condition(self, now: datetime) -> Condition:
        if self.revoked_at is not None:
            return Condition.REVOKED
        return Condition.EXPIRED if now >= self.expires_at else Condition.VALID

    @property
    def principal(self) -> Principal:
        holder = Principal(self.name, self.tenant, self.kind, self.roles, self.scopes, key=self.key_id)
        return replace(holder, makers=(self.via | {self.created_by}) - {holder.actor})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A key that somebody asks for. `scopes`: the only actions that it is to stand for; None for all of its roles'."""

    name: str
    kind: PrincipalKind
    roles: frozenset[str]
    scopes: frozenset[str] | None = None
    lifetime: timedelta = LIFETIME

    def check(self, maker: Principal) -> None:
        """Raises `api-key-unfit`, with everything that is wrong."""
        if faults := [*self._faults(), *self._excess(maker)]:
            raise _unfit(faults)

    def _faults(self) -> Iterator[str]:
        if not _NAME.fullmatch(self.name):
            yield "its name has 1 to 200 letters, digits or any of @ . + | / : - and _"
        elif self.kind is PrincipalKind.PERSON and not personal(self.name):
            yield "the name of a person is not as that of a service, an agent, a worker or the control plane"
        if not self.roles:
            yield "without a role it could do nothing"
        if odd := sorted(role for role in self.roles if not _ROLE.fullmatch(role)):
            yield f"{', '.join(map(repr, odd))} cannot be the name of a role"
        if unknown := sorted((self.scopes or frozenset()) - ACTIONS):
            yield f"{', '.join(map(repr, unknown))} is no action; known: {', '.join(sorted(ACTIONS))}"
        if not timedelta(0) < self.lifetime <= LONGEST:
            yield f"it has to expire, within {LONGEST.days} days"

    def _excess(self, maker: Principal) -> Iterator[str]:
        """What the key would stand for and its maker's own credential does not."""
        if maker.scopes is None:
            return
        if self.scopes is None:
            yield "your own credential has scopes, so a key that it makes needs some too"
        elif beyond := sorted(self.scopes - maker.scopes):
            yield f"your own credential does not stand for {', '.join(beyond)}"


def spelled(key_id: str, secret: str) -> str:
    """The key, as its holder keeps it."""
    return f"{MARK}{key_id}_{secret}"


def presented(text: str) -> Presented | None:
    """What was sent, or None where it does not even look like a key."""
    found = _SHAPE.fullmatch(text)
    return Presented(found[1], sha256(text.encode()).digest()) if found else None


def _unfit(faults: list[str]) -> Refusal:
    said = "; ".join(faults)
    return KEY_UNFIT.because(f"{said[0].upper()}{said[1:]}.", faults=faults)
