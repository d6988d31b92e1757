"""A run's agent: who it is to policy, and what policy says of what it is about to do by itself.

Each workflow is an agent of its own, with the role `agent`; a script's graph is the agent `script`. It acts for whoever
started the run, whom rules find in the context.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from control.core.demand import read_demand
from control.core.intent import Intent
from control.core.principal import Principal, PrincipalKind
from control.core.verdict import Ask, Deny, Permit, Verdict
from control.policy.port import Request, Resource
from control.runtime.authority import recorded
from control.runtime.rules_in_force import in_force
from control.store import verdicts
from control.store.binding import Judged
from control.store.database import Connection
from control.store.runs import Run

AGENT: Final = "agent"
"""The role of every agent."""
_SHORT: Final = 1000  # characters of an argument that the ledger keeps; of a longer one it keeps the digest


def agent_of(run: Run) -> Principal:
    """The principal as which a run's nodes act."""
    return Principal(run.workflow or "script", run.tenant, PrincipalKind.AGENT, frozenset({AGENT}))


async def request_of(conn: Connection, run: Run, intent: Intent, *, node: str) -> Request:
    """What policy is asked about an intent of a run's node."""
    occasion = {
        "workflow": run.workflow,
        "node": node or None,
        "started_by": run.created_by,
        "starter_roles": await verdicts.starter_roles(conn, run),
    }
    told = {name: value for name, value in occasion.items() if value is not None}
    on = Resource(intent.kind, intent.name, run.tenant, intent.attributes)
    return Request(agent_of(run), intent.action, on, told | intent.context)


async def judge(conn: Connection, run: Run, intent: Intent, *, node: str, key: str) -> Judged:
    """What policy says of an intent.

    What was said before in the same step stands, so that a node which is run again asks the same questions in the same
    order. Only a yes has to be one under the rules of now as well: it turns into a no where they are others, and the
    agent may try again, and is judged again. Raises `policy-invalid`.
    """
    policy, before = await in_force(conn, run.tenant), await verdicts.judged(conn, run, key)
    said = _said(before) if before else None
    if before is not None and said is not None and (before["policy"] == policy.version or not isinstance(said, Permit)):
        return Judged(said)
    request = await request_of(conn, run, intent, node=node)
    verdict = policy.decide(request)
    if said is not None and not isinstance(verdict, Permit):
        verdict = Deny(verdict.rules, f"The rules have changed since it was permitted. {verdict.why}")
    return Judged(verdict, (request.principal.actor, _body(request, verdict, key=key, version=policy.version)))


def _body(request: Request, verdict: Verdict, *, key: str, version: str) -> dict[str, Any]:
    body = {"key": key, "action": str(request.action), "name": request.resource.id}
    body |= {"verdict": type(verdict).__name__.lower(), "why": verdict.why}
    asked = {"of": list(verdict.of), "demand": verdict.demanded.as_json()} if isinstance(verdict, Ask) else {}
    return body | asked | {"rules": list(verdict.rules), "policy": version, "request": _kept(recorded(request))}


def _said(body: Mapping[str, Any]) -> Verdict:
    """The verdict that `_body` wrote down."""
    rules = tuple(body["rules"])
    match body["verdict"]:
        case "permit":
            return Permit(rules, body["why"])
        case "ask":
            return Ask(rules, body["why"], tuple(body["of"]), read_demand(body["demand"]))
        case _:
            return Deny(rules, body["why"])


def _kept(request: dict[str, Any]) -> dict[str, Any]:
    """A request without the length of its long arguments."""
    context = request.get("context", {})
    if "texts" not in context:
        return request
    texts = {path: _shortened(text) for path, text in context["texts"].items()}
    return request | {"context": context | {"texts": texts}}


def _shortened(text: str) -> str:
    return text if len(text) <= _SHORT else f"sha256:{sha256(text.encode()).hexdigest()}"
