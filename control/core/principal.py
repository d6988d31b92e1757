"""Who acts: a person, a service or an agent, with roles, inside one tenant.

A principal is what authentication found out; what it may do is policy's to say. The ledger names it by `actor`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PrincipalKind(StrEnum):
    PERSON = "person"
    SERVICE = "service"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Principal:
    """id: unique in the tenant for its kind. scopes: the only actions that the credential stands for, whatever the
    roles allow; None for all of them. delegates: the ids of the persons in whose place this one may vote at present.
    """

    id: str
    tenant: str
    kind: PrincipalKind = PrincipalKind.PERSON
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] | None = None
    delegates: frozenset[str] = frozenset()

    @property
    def actor(self) -> str:
        """The name in the ledger: a person's id as it is, any other with its kind before it."""
        return self.id if self.kind is PrincipalKind.PERSON else f"{self.kind}:{self.id}"

    def covers(self, action: str) -> bool:
        """Whether the credential stands for this action at all."""
        return self.scopes is None or action in self.scopes
