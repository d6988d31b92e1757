"""Cedar, behind the port.

A policy is parsed and checked once; a decision builds the principal's and the resource's entities and evaluates. Rules
that ask are forbids to Cedar. Where only such rules stand against a request, it is evaluated again without them: a
permit that is then left makes it a question, none makes it a no.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final

import cedarpy

from control.core.demand import Demand, merged
from control.core.gate import Gate
from control.core.predicate import Filter
from control.core.principal import Principal
from control.core.verdict import Ask, Deny, Permit, Verdict
from control.policy.port import Request, Resource
from control.policy.rules import Rule, read
from control.policy.visible import readable

_ENTITY: Final = {"person": "Person", "service": "Service", "agent": "Agent"}
_FAILED_IN: Final = re.compile(r"while evaluating policy `([^`]+)`")


class CedarPolicy:
    """One text, parsed and checked. Raises `policy-invalid`, with every fault and its line."""

    def __init__(self, text: str) -> None:
        self.text: Final = text
        self.version: Final = sha256(text.encode()).hexdigest()
        self._rules: Final[Mapping[str, Rule]] = read(text, schema())
        self.policies: Final = cedarpy.PolicySet.from_str(text)
        self._without_asking: Final = _without(self.policies, [id for id, rule in self._rules.items() if rule.asks])

    @property
    def rules(self) -> tuple[Rule, ...]:
        """In the order of the text."""
        return tuple(self._rules.values())

    @property
    def by_internal_name(self) -> Mapping[str, Rule]:
        """By the names that Cedar gives them."""
        return self._rules

    def visible(self, principal: Principal) -> Filter:
        """The runs that the principal may read."""
        return readable(self, principal_entity(principal), schema())

    def decide(self, request: Request) -> Verdict:
        return self.choices(request, [request.action])[request.action]

    def choices(self, request: Request, actions: Iterable[str]) -> Mapping[str, Verdict]:
        names, entities = list(dict.fromkeys(actions)), json.dumps(entities_of(request))
        asked = [_asked(request, action) for action in names]
        answers = cedarpy.is_authorized_batch(asked, self.policies, entities, schema())
        return {
            name: self._verdict(answer, one, entities)
            for name, answer, one in zip(names, answers, asked, strict=True)
        }  # fmt: skip

    def _verdict(self, answer: cedarpy.AuthzResult, asked: dict[str, Any], entities: str) -> Verdict:
        rules = [self._rules[id] for id in answer.diagnostics.reasons]
        if unfit := self._unfit(answer):
            return unfit
        if answer.allowed:
            return Permit(*_said(rules))
        if not rules:
            return Deny((), "No rule permits it.")
        if all(rule.asks for rule in rules):
            return self._ask(rules, asked, entities)
        return Deny(*_said(rule for rule in rules if not rule.asks))

    def _unfit(self, answer: cedarpy.AuthzResult) -> Deny | None:
        """What an error makes of the answer: a forbid that fails denies, and so does a request nobody foresaw."""
        if answer.decision is cedarpy.Decision.NoDecision:
            return Deny((), f"The request does not fit the policy's schema: {'; '.join(answer.diagnostics.errors)}.")
        for error in answer.diagnostics.errors:
            found = _FAILED_IN.search(error)
            rule = self._rules.get(found[1]) if found else None
            if rule is None or rule.forbids:
                return Deny((rule.id,) if rule else (), "A rule that may forbid it could not be evaluated.")
        return None

    def _ask(self, asking: list[Rule], asked: dict[str, Any], entities: str) -> Verdict:
        behind = cedarpy.is_authorized(asked, self._without_asking, entities, schema())
        if not behind.allowed:
            return Deny((), "No rule permits it.")
        of = tuple(dict.fromkeys(role for rule in asking for role in rule.asks))
        demand = merged([rule.demand or Demand(Gate(roles=rule.asks)) for rule in asking])
        return Ask(*_said(asking), of=of, demand=None if demand == Demand(Gate(roles=of)) else demand)


_PARSED: Final[dict[str, CedarPolicy]] = {}
_KEPT: Final = 64


def parsed(text: str) -> CedarPolicy:
    """The policy of a text, parsed once in this process. Raises `policy-invalid`."""
    return known(sha256(text.encode()).hexdigest()) or _kept(CedarPolicy(text))


def known(version: str) -> CedarPolicy | None:
    """The policy of this version, if this process has parsed it."""
    return _PARSED.get(version)


def _kept(policy: CedarPolicy) -> CedarPolicy:
    if len(_PARSED) >= _KEPT:
        del _PARSED[next(iter(_PARSED))]
    _PARSED[policy.version] = policy
    return policy


@cache
def default_text() -> str:
    """The rules that ship."""
    return files("control.policy").joinpath("default.cedar").read_text(encoding="utf-8")


@cache
def schema() -> cedarpy.Schema:
    """What rules may speak of."""
    return cedarpy.Schema.from_str(files("control.policy").joinpath("schema.cedarschema").read_text(encoding="utf-8"))


def entities_of(request: Request) -> list[dict[str, Any]]:
    """The request's principal, resource and whatever its context refers to, as Cedar's JSON."""
    return [principal_entity(request.principal), _resource_entity(request.resource), *_argument_entities(request)]


def principal_entity(who: Principal) -> dict[str, Any]:
    return {
        "uid": _principal_uid(who),
        "attrs": {"id": who.id, "actor": who.actor, "tenant": who.tenant, "makers": sorted(who.makers)},
        "parents": [_uid("Role", role) for role in sorted(who.roles)],
    }


def _principal_uid(who: Principal) -> dict[str, str]:
    return _uid(_ENTITY[who.kind], who.id)


def _resource_entity(resource: Resource) -> dict[str, Any]:
    given = {name: value for name, value in resource.attributes.items() if value is not None}
    return {
        "uid": _uid(resource.kind, resource.id),
        "attrs": given | {"tenant": resource.tenant},
        "parents": [_uid(kind, id) for kind, id in resource.of],
    }


def _argument_entities(request: Request) -> Iterator[dict[str, Any]]:
    """Named arguments become tags of an entity of their own, since a record's names are fixed by the schema."""
    for name, kind in _TAGGED.items():
        if name in request.context:
            yield {"uid": _uid(kind, "given"), "attrs": {}, "parents": [], "tags": request.context[name]}


_TAGGED: Final = {"numbers": "Numbers", "texts": "Texts"}


def _asked(request: Request, action: str) -> dict[str, Any]:
    context = dict(request.context)
    for name, kind in _TAGGED.items():
        if name in context:
            context[name] = {"__entity": _uid(kind, "given")}
    return {
        "principal": _principal_uid(request.principal),
        "action": _uid("Action", action),
        "resource": _uid(request.resource.kind, request.resource.id),
        "context": context,
    }


def _uid(kind: str, id: str) -> dict[str, str]:
    return {"type": kind, "id": id}


def _said(rules: Iterable[Rule]) -> tuple[tuple[str, ...], str]:
    """The ids of the rules, sorted, and their sentences."""
    ordered = sorted(rules, key=lambda rule: rule.id)
    return tuple(rule.id for rule in ordered), " ".join(rule.why for rule in ordered)


def _without(policies: cedarpy.PolicySet, gone: list[str]) -> cedarpy.PolicySet:
    nodes = policies.to_pst()
    kept = {id: node for id, node in nodes.static_policies.items() if id not in gone}
    return cedarpy.PolicySet.from_pst(replace(nodes, static_policies=kept)) if gone else policies
