"""What the rest of the system knows of policy: a request, and somebody who decides it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from control.core.predicate import Filter
from control.core.principal import Principal
from control.core.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Resource:
    """What is acted on. `kind` and `attributes` are as in the schema, without `tenant`; `of` is what it belongs to, as
    (kind, id). An attribute that is None is absent.
    """

    kind: str
    id: str
    tenant: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    of: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """May this principal do this to that? `context` holds JSON values, as the schema has them for the action."""

    principal: Principal
    action: str
    resource: Resource
    context: Mapping[str, Any] = field(default_factory=dict)


class Policy(Protocol):
    """One version of the rules. It never changes; another text is another policy."""

    @property
    def version(self) -> str:
        """The sha256 of the text, in hexadecimal."""
        ...

    def decide(self, request: Request) -> Verdict: ...

    def choices(self, request: Request, actions: Iterable[str]) -> Mapping[str, Verdict]:
        """The verdicts on this request with each action in place of its own, in little more time than one takes."""
        ...

    def visible(self, principal: Principal) -> Filter:
        """The runs that the principal may read: never one too many. Each is decided once more before it is shown."""
        ...
