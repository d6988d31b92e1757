"""Who acts: a person, a service or an agent, with roles, inside one tenant.

A principal is what authentication found out; what it may do is policy's to say. The ledger names it by `actor`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from control.core.phrasing import PARTIES

TENANT: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.:-]{0,99}")


class PrincipalKind(StrEnum):
    PERSON = "person"
    SERVICE = "service"
    AGENT = "agent"


_IMPERSONAL: Final = ("service:", "agent:", "worker:")


def personal(id: str) -> bool:
    """Whether a person may go by this. The ledger's names of what is no person would let one pass for the other."""
    return not id.startswith(_IMPERSONAL) and id not in PARTIES


@dataclass(frozen=True, slots=True)
class Principal:
    """id: unique in the tenant for its kind. scopes: the only actions that the credential stands for, whatever the
    roles allow; None for all of them. makers: others who have had the credential in hand, by their names in the ledger:
    who made it, and with whose. operates: works on the installation itself, of which no tenant disposes; no credential
    stands for that. key: the id of the API key that was sent, where one was.
    """

    id: str
    tenant: str
    kind: PrincipalKind = PrincipalKind.PERSON
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] | None = None
    makers: frozenset[str] = frozenset()
    operates: bool = False
    key: str | None = None

    @property
    def actor(self) -> str:
        """The name in the ledger: a person's id as it is, any other with its kind before it."""
        return self.id if self.kind is PrincipalKind.PERSON else f"{self.kind}:{self.id}"

    def covers(self, action: str) -> bool:
        """Whether the credential stands for this action at all."""
        return self.scopes is None or action in self.scopes
