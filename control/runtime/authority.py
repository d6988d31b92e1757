"""The one function that everything asks before it acts: is it legal now, and may this principal do it?

`core.lifecycle` knows what a run's state allows, policy knows what the principal may do; `Authority` puts the two
together, for commands, for the HTTP interface, for the console and for the command line alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from control.core import lifecycle
from control.core.facts import Facts
from control.core.predicate import NEVER, Filter
from control.core.principal import Principal, PrincipalKind
from control.core.problem import Problem, Refusal
from control.core.run_status import Status
from control.core.verdict import Ask, Deny, Permit, Verdict
from control.policy.port import Policy, Request, Resource
from control.store.bundles import Head
from control.store.inbox import Waiting
from control.store.listing import Listed
from control.store.runs import Run, unknown

NOT_PERMITTED: Final = Problem(
    code="not-permitted",
    status=403,
    title="You may not do this",
    next_step="Ask an administrator for a role whose rules permit it; `control policy show` prints the rules.",
)
AGREEMENT_NEEDED: Final = Problem(
    code="agreement-needed",
    status=403,
    title="You may not do this alone",
    next_step="Ask somebody with one of the roles named to do it, where a rule permits it to them.",
)
NOT_A_TENANTS: Final = Problem(
    code="not-a-tenants",
    status=403,
    title="This belongs to the installation, not to a tenant",
    next_step="Let whoever operates the installation do it: on its own machine, without CONTROL_TOKEN.",
)
BEYOND_KEY: Final = "credential"
"""Stands for a rule's id where the credential does not cover an action, whatever its holder's roles permit."""

Seen = Run | Listed | Waiting | Head
"""A run, in whichever form it was read, with what policy is shown of it."""

_NOTHING: Final[Mapping[str, Any]] = {}
_SEEN: Final = ("tenant", "run_id", "thread_id", "workflow", "created_by", "priority")


@dataclass(frozen=True, slots=True)
class Grant:
    """A permit that was made use of, and what it rests on."""

    permit: Permit
    policy: str
    request: Request

    @property
    def body(self) -> dict[str, Any]:
        """What the ledger keeps of it: the rules, the policy's version, and the request, so as to decide it again."""
        return {"rules": list(self.permit.rules), "policy": self.policy, "request": recorded(self.request)}


@dataclass(frozen=True, slots=True)
class Authority:
    """What a principal may do under one version of the policy."""

    policy: Policy
    principal: Principal

    def judge(self, action: str, on: Resource, context: Mapping[str, Any] = _NOTHING) -> Verdict:
        """What policy says, without a look at what is legal now."""
        return self._choices(on, [action], context)[action]

    def require(self, action: str, on: Resource, context: Mapping[str, Any] = _NOTHING) -> Grant:
        """The permit to do it. Raises `not-permitted`, `agreement-needed`."""
        verdict = self.judge(action, on, context)
        if not isinstance(verdict, Permit):
            raise self.refusal(action, on, verdict)
        return Grant(verdict, self.policy.version, Request(self.principal, action, on, context))

    def require_of(self, action: str, run: Seen, status: Status, *, part_of: Resource | None = None) -> Grant:
        """The permit to do it to a run. One that may not be read does not exist; where it was not named but is part of
        what was, the refusal speaks of the whole. Raises `no-such-run`, `not-permitted`, `agreement-needed`.
        """
        on = resource(run, status)
        verdict = self.judge(action, on)
        if isinstance(verdict, Permit):
            return self.grant(verdict, action, on)
        if self.sees(run, status):
            raise self.refusal(action, on, verdict)
        raise self.refusal(action, part_of, verdict) if part_of else unknown(run.run_id)

    def grant(self, permit: Permit, action: str, on: Resource) -> Grant:
        """A permit that is made use of."""
        return Grant(permit, self.policy.version, Request(self.principal, action, on))

    def refused(self, action: str, on: Resource, verdict: Deny | Ask) -> dict[str, Any]:
        """What the ledger keeps of a refusal."""
        request = recorded(Request(self.principal, action, on))
        about = {"rules": list(verdict.rules), "policy": self.policy.version, "request": request}
        return (
            {"action": action, "why": verdict.why}
            | ({"of": list(verdict.of)} if isinstance(verdict, Ask) else {})
            | about
        )

    def next_verbs(self, run: Run | Listed, status: Status, facts: Facts) -> tuple[lifecycle.Verdict, ...]:
        """What this principal may do to the run next, and why not the rest, for each verb in the order of `Verb`."""
        verdicts = lifecycle.next_verbs(status, facts)
        legal = [verdict.verb for verdict in verdicts if verdict.allowed]
        said = self._choices(resource(run, status), legal) if legal else {}
        return tuple(_both(verdict, said.get(verdict.verb)) for verdict in verdicts)

    def sees(self, run: Seen, status: Status) -> bool:
        """Whether the run exists, as far as this principal is told."""
        return isinstance(self.judge("read", resource(run, status)), Permit)

    def require_seen(self, run: Seen, status: Status) -> None:
        """Raises `no-such-run` where it does not exist for this principal."""
        if not self.sees(run, status):
            raise unknown(run.run_id)

    def visible(self) -> Filter:
        """The runs that it may read, for a list. Each is asked for by `sees` once more before it is shown."""
        return self.policy.visible(self.principal) if self.principal.covers("read") else Filter(NEVER)

    def refusal(self, action: str, on: Resource, verdict: Deny | Ask) -> Refusal:
        """Why not: who wanted what, and the rules that stand against it."""
        facts = {"action": action, "rules": list(verdict.rules), "policy": self.policy.version}
        who = f"{self.principal.actor} may not {action.replace('_', ' ')} {_name(on)}."
        if isinstance(verdict, Ask):
            one_of = " or ".join(verdict.of)
            why = f"{who} {verdict.why} Somebody who is {one_of} has to agree (rules: {', '.join(verdict.rules)})."
            return AGREEMENT_NEEDED.because(why, **facts, of=list(verdict.of))
        by = f" (rules: {', '.join(verdict.rules)})" if verdict.rules else ""
        return NOT_PERMITTED.because(f"{who} {verdict.why}{by}", **facts)

    def _choices(
        self, on: Resource, actions: list[Any], context: Mapping[str, Any] = _NOTHING
    ) -> Mapping[str, Verdict]:
        assert on.tenant == self.principal.tenant, "a principal never gets to see another tenant's resource"
        covered = [action for action in actions if self.principal.covers(action)]
        said = self.policy.choices(Request(self.principal, "", on, context), covered) if covered else {}
        return {action: said.get(action, _BEYOND) for action in actions}


_BEYOND: Final = Deny((BEYOND_KEY,), "The key or token does not stand for this, whatever its holder may do.")


def resource(run: Seen, status: Status) -> Resource:
    """A run as policy sees it. `status` is the derived word."""
    return resource_of({name: getattr(run, name) for name in _SEEN}, status)


def resource_of(row: Mapping[str, Any], status: Status) -> Resource:
    """As `resource`, from what a run has in its columns, or is to have."""
    seen = {name: row[name] for name in _SEEN if name not in ("tenant", "run_id")}
    attributes = {**seen, "status": status.value}
    return Resource("Run", str(row["run_id"]), row["tenant"], attributes, of=(("Thread", row["thread_id"]),))


def recorded(request: Request) -> dict[str, Any]:
    """A request as JSON values, enough to decide it again. The principal's tenant is the run's."""
    who, on = request.principal, request.resource
    principal = {"id": who.id, "kind": who.kind.value, "roles": sorted(who.roles)}
    if who.makers:
        principal["makers"] = sorted(who.makers)
    given = {name: value for name, value in on.attributes.items() if value is not None}
    about = {"kind": on.kind, "id": on.id, "attributes": given} | (
        {"of": [list(one) for one in on.of]} if on.of else {}
    )
    body = {"principal": principal, "action": request.action, "resource": about}
    return body | ({"context": dict(request.context)} if request.context else {})


def replayed(body: Mapping[str, Any], tenant: str) -> Request:
    """The request that `recorded` wrote down."""
    who, on = body["principal"], body["resource"]
    principal = Principal(
        who["id"],
        tenant,
        PrincipalKind(who["kind"]),
        frozenset(who["roles"]),
        makers=frozenset(who.get("makers", ())),
    )
    of = tuple((kind, id) for kind, id in on.get("of", ()))
    resource = Resource(on["kind"], on["id"], tenant, on["attributes"], of)
    return Request(principal, body["action"], resource, body.get("context", {}))


def _both(legal: lifecycle.Verdict, said: Verdict | None) -> lifecycle.Verdict:
    match said:
        case None | Permit():
            return legal
        case Deny():
            return replace(legal, allowed=False, why=f"You may not: {said.why}")
        case Ask():
            return replace(legal, allowed=False, why=f"You may not alone: {' or '.join(said.of)} has to agree.")


def _name(on: Resource) -> str:
    return f"{on.kind.lower()} {on.id}"
