"""A run's agent: who it is to policy, and what policy says of what it is about to do by itself.

Each workflow is an agent of its own, with the role `agent`; a script's graph is the agent `script`. It acts for whoever
started the run, whom rules find in the context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from control.core.answer import takes_no
from control.core.demand import merged, read_demand
from control.core.intent import Intent, intents_of
from control.core.packet import Packet
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

    What was said of this very intent before in the same step stands, so that a node which is run again asks the same
    questions in the same order. Only a yes has to be one under the rules of now as well: it turns into a no where they
    are others, and the agent may try again, and is judged again. Raises `policy-invalid`.
    """
    policy, before = await in_force(conn, run.tenant), await verdicts.judged(conn, run, key)
    said = _said(before) if before and before["digest"] == intent.digest else None
    if before is not None and said is not None and (before["policy"] == policy.version or not isinstance(said, Permit)):
        return Judged(said)
    request = await request_of(conn, run, intent, node=node)
    verdict = policy.decide(request)
    if said is not None and not isinstance(verdict, Permit):
        verdict = Deny(verdict.rules, f"The rules have changed since it was permitted. {verdict.why}")
    body = {"key": key, "digest": intent.digest} | _body(request, verdict, version=policy.version)
    return Judged(verdict, (request.principal.actor, body))


async def terms(conn: Connection, run: Run, packet: Packet, *, node: str) -> dict[str, Any]:
    """What the rules demand of a question that an unchanged graph asks about tool calls. Nothing where no rule asks
    about any of them. Silence can end nothing that takes no no. Raises `policy-invalid`.
    """
    policy = await in_force(conn, run.tenant)
    requests = [await request_of(conn, run, intent, node=node) for intent in intents_of(packet)]
    asking = [verdict for verdict in map(policy.decide, requests) if isinstance(verdict, Ask)]
    if not asking:
        return {}
    demand = merged([verdict.demanded for verdict in asking])
    rules = sorted({rule for verdict in asking for rule in verdict.rules})
    why = list(dict.fromkeys(verdict.why for verdict in asking))
    return {
        "asked_by": agent_of(run).actor,
        "rules": rules,
        "evidence": [{"kind": "policy", "title": sentence} for sentence in why],
        **(demand if takes_no(packet) else demand.open_ended).as_json(),
    }


async def beyond(conn: Connection, run: Run, packet: Packet, *, changed: Sequence[Intent], node: str) -> str | None:
    """Why calls that an approver has changed go beyond what was asked: a rule forbids one, or asks that did not ask
    before. None where they do not. Raises `policy-invalid`.
    """
    policy = await in_force(conn, run.tenant)
    for intent in changed:
        verdict = policy.decide(await request_of(conn, run, intent, node=node))
        news = [rule for rule in verdict.rules if rule not in packet.rules]
        if news and not isinstance(verdict, Permit):
            forbids = "forbidden" if isinstance(verdict, Deny) else "asked about by others"
            return f"Changed like this, {intent.name} is {forbids}: {verdict.why} (rules: {', '.join(news)})"
    return None


def _body(request: Request, verdict: Verdict, *, version: str) -> dict[str, Any]:
    body: dict[str, Any] = {"action": str(request.action), "name": request.resource.id}
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
