"""Principals, runs and requests for the tests of policy."""

from __future__ import annotations

from typing import Any

from control.core.principal import Principal, PrincipalKind
from control.policy.port import Request, Resource


def person(*roles: str, id: str = "ada", tenant: str = "t", **about: Any) -> Principal:
    return Principal(id, tenant, roles=frozenset(roles), **about)


def agent(*roles: str, id: str = "scout") -> Principal:
    return Principal(id, "t", PrincipalKind.AGENT, frozenset(roles))


def a_run(**attributes: Any) -> Resource:
    given = {"thread_id": "x", "workflow": "loan", "status": "running", "created_by": "bob", "priority": 0}
    return Resource("Run", "1", attributes.pop("tenant", "t"), given | attributes, of=(("Thread", "x"),))


def to(action: str, who: Principal, on: Resource | None = None, **context: Any) -> Request:
    return Request(who, action, on or a_run(), context)
