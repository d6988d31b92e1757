"""Whether the policy in force would still hear those who decided, and still let happen what they decided on."""

from __future__ import annotations

from collections.abc import Sequence

from control.core.freshness import Moved
from control.core.intent import intents_of
from control.core.packet import Shape
from control.core.verdict import Deny, Permit
from control.policy.cedar import CedarPolicy
from control.runtime.agency import agent_of, request_of
from control.runtime.authority import replayed
from control.runtime.rules_in_force import in_force
from control.store.binding import Spoken, Subject
from control.store.database import Connection
from control.store.runs import Run


async def dissent(conn: Connection, run: Run, subject: Subject, *, spoken: Sequence[Spoken]) -> tuple[Moved, ...]:
    """Each voice that today's policy would refuse, asked with the roles and the run of its time; and each tool call
    that it would not let the agent make, however many agree. Raises `policy-invalid`.
    """
    policy = await in_force(conn, run.tenant)
    return (*await _forbidden(conn, run, subject, policy=policy), *_unheard(run, spoken, policy=policy))


async def _forbidden(conn: Connection, run: Run, subject: Subject, *, policy: CedarPolicy) -> list[Moved]:
    """A graph that never asked policy needs no permit for its calls; what a rule forbids, it may not do either."""
    found, governed = [], subject.packet.shape is Shape.APPROVAL
    for intent in intents_of(subject.packet):
        verdict = policy.decide(await request_of(conn, run, intent, node=subject.node))
        if isinstance(verdict, Deny) and (verdict.rules or governed):
            what = f"on {intent.action} of {intent.name} by {agent_of(run).actor}"
            found.append(Moved("policy", what, "to be asked first", verdict.why))
    return found


def _unheard(run: Run, spoken: Sequence[Spoken], *, policy: CedarPolicy) -> list[Moved]:
    found = []
    for actor, body in spoken:
        if body["policy"] == policy.version:
            continue
        verdict = policy.decide(replayed(body["request"], run.tenant))
        if not isinstance(verdict, Permit):
            action = body["request"]["action"]
            found.append(Moved("policy", f"on {action} by {actor}", "permitted", verdict.why))
    return found
