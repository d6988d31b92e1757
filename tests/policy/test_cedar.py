"""A verdict names its rules; whatever goes wrong denies; a text with a fault is refused whole."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import pytest

from control.core.action import ACTIONS, BACK_DOORS, Action
from control.core.lifecycle import Verb
from control.core.problem import Refusal
from control.core.verdict import Ask, Deny, Permit, Verdict
from control.policy.cedar import CedarPolicy, default_text, parsed
from control.policy.port import Resource
from tests.policy.asking import a_run, agent, person, to

ALL = '@id("all") permit (principal, action, resource);\n'
TOOL = Resource("Tool", "refund", "t", {"name": "refund"})
ORDERS = {Verb.START, Verb.PAUSE, Verb.RESUME, Verb.CANCEL, Verb.RETRY, Verb.RESTART, Verb.REWIND, Verb.SIGNAL} | {
    Verb.INJECT, Verb.REASSIGN,
}  # fmt: skip


def default(action: str, *roles: str, **about: Any) -> Verdict:
    return parsed(default_text()).decide(to(action, person(*roles, **about)))


def test_the_schema_knows_every_action_and_no_other() -> None:
    text = files("control.policy").joinpath("schema.cedarschema").read_text()
    bare = re.sub(r"//.*", "", text)
    groups = {"look", "order", "settle", "alter", "plan"}
    named = {word for found in re.findall(r"^action ([^;{]+?)(?: in \[|\s+appliesTo|;)", bare, re.M)
             for word in re.split(r"[,\s]+", found.replace('"', "")) if word}  # fmt: skip
    assert named - groups == ACTIONS


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("viewer", {Action.READ}),
        ("operator", {Action.READ, *ORDERS}),
        ("approver", {Action.READ, Verb.APPROVE, Verb.REJECT, Verb.ANSWER}),
        ("service", {Action.READ, Verb.START, Verb.SIGNAL, Action.NEW_INPUT}),
        ("agent", set()),
        ("nobody", set()),
        ("admin", {*Verb, *BACK_DOORS, Action.READ, Action.ERASE, Action.EXPORT}),
    ],
)
def test_what_the_shipped_rules_let_a_role_do_to_a_run(role: str, may: set[str]) -> None:
    said = parsed(default_text()).choices(to("", person(role)), ACTIONS)
    assert {action for action, verdict in said.items() if isinstance(verdict, Permit)} == may


def test_nobody_reaches_another_tenant() -> None:
    said = parsed(default_text()).decide(to("read", person("admin"), a_run(tenant="other")))
    assert said == Deny(("other-tenants",), "Nobody acts on another tenant's things.")


def test_an_agent_calls_tools_and_a_person_does_not_by_being_one() -> None:
    policy = parsed(default_text())
    assert isinstance(policy.decide(to("call_tool", agent("agent"), TOOL)), Permit)
    assert policy.decide(to("call_tool", person("operator"), TOOL)) == Deny((), "No rule permits it.")


def test_a_verdict_names_every_rule_that_made_it() -> None:
    assert default("read", "viewer", id="x") == Permit(("viewers-read",), "Viewers read.")
    assert default("read", "viewer", "approver") == Permit(
        ("approvers-decide", "viewers-read"), "Approvers read, approve, reject and answer. Viewers read."
    )


BIG = '@id("big") @ask("treasurer, owner") @why("Large refunds need a second pair of eyes.")\n'
ASKS = (
    BIG
    + """forbid (principal, action == Action::"call_tool", resource == Tool::"refund")
when { context has numbers && context.numbers.hasTag("amount") && context.numbers.getTag("amount") > 500 };"""
)


def test_a_rule_that_asks_wins_over_a_broad_permit() -> None:
    policy, said = (
        CedarPolicy(ALL + ASKS),
        Ask(("big",), "Large refunds need a second pair of eyes.", ("treasurer", "owner")),
    )
    assert policy.decide(to("call_tool", agent(), TOOL, numbers={"amount": 501})) == said
    assert isinstance(policy.decide(to("call_tool", agent(), TOOL, numbers={"amount": 500})), Permit)
    assert isinstance(policy.decide(to("call_tool", agent(), TOOL, numbers={"other": 501})), Permit)
    assert isinstance(policy.decide(to("call_tool", agent(), TOOL)), Permit)


def test_asking_permits_nothing_that_no_rule_permits() -> None:
    assert CedarPolicy(ASKS).decide(to("call_tool", agent(), TOOL, numbers={"amount": 501})) == Deny(
        (), "No rule permits it."
    )


def test_a_plain_no_wins_over_a_rule_that_asks() -> None:
    never = '@id("never") forbid (principal, action == Action::"call_tool", resource);'
    said = CedarPolicy(ALL + ASKS + never).decide(to("call_tool", agent(), TOOL, numbers={"amount": 501}))
    assert said == Deny(("never",), "Rule never forbids it.")


def test_a_forbid_that_errs_denies_and_a_permit_that_errs_permits_nothing() -> None:
    over = "when { resource.priority * 9223372036854775807 > 1 };"
    forbid = CedarPolicy(ALL + f'@id("over") forbid (principal, action == Action::"read", resource is Run) {over}')
    assert forbid.decide(to("read", person(), a_run(priority=7))) == Deny(
        ("over",), "A rule that may forbid it could not be evaluated."
    )
    assert isinstance(forbid.decide(to("read", person(), a_run(priority=0))), Permit)
    permit = CedarPolicy(f'@id("over") permit (principal, action == Action::"read", resource is Run) {over}')
    assert permit.decide(to("read", person(), a_run(priority=7))) == Deny((), "No rule permits it.")
    assert isinstance(permit.decide(to("read", person(), a_run(priority=1))), Permit)


def test_a_request_that_does_not_fit_the_schema_is_denied() -> None:
    said = CedarPolicy(ALL).decide(to("call_tool", agent(), a_run()))
    assert isinstance(said, Deny) and said.why.startswith("The request does not fit the policy's schema: ")


def test_odd_names_are_names() -> None:
    for odd in ('a"b', "a\nb", "å ∀", "Role::x", ""):
        own = CedarPolicy(
            '@id("own") permit (principal, action, resource is Run) when { resource.created_by == principal.actor };'
        )
        assert isinstance(own.decide(to("read", person(id=odd), a_run(created_by=odd))), Permit)
        assert isinstance(own.decide(to("read", person(id=odd), a_run(created_by=odd + "x"))), Deny)


FAULTS = [
    ("permit (principal, action, resource)", 1, "unexpected end of input"),
    (ALL + "\npermit (principal, action, resource) when { x };", 3, "invalid variable"),
    (ALL + "permit (principal, action, resource);", 2, 'the rule has no name: write @id("a-name") before it'),
    (ALL + ALL, 2, "2 rules are called all"),
    ('@id("a")\n@ask("b")\npermit (principal, action, resource);', 3, "a rule that asks is written as a forbid"),
    ('@id("a") @ask(" , ") forbid (principal, action, resource);', 1, "a asks nobody"),
    ('@id("a") permit (principal == ?principal, action, resource);', None, "is a template"),
    ('// permit (\n@id("permit (") permit (principal is Ghost, action, resource);', 2, "unrecognized entity type"),
    ('@id("a") permit (principal, action == Action::"fly", resource);', 1, "fly"),
    (ALL + '@id("b")forbid (principal, action, resource) when { resource.workflow == "" };', 2, "attribute `workflow`"),
    (ALL + "/" * 300_000, None, "longer than 262,144 bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "says"), FAULTS)
def test_a_faulty_text_is_refused_with_its_line(text: str, line: int | None, says: str) -> None:
    with pytest.raises(Refusal) as refused:
        CedarPolicy(text)
    assert refused.value.code == "policy-invalid"
    assert says in refused.value.why
    assert line in [fault["line"] for fault in refused.value.facts["faults"]]


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(Refusal) as refused:
        CedarPolicy('@id("a") permit (principal is Ghost, action, resource);\npermit (principal, action, resource);')
    assert {fault["line"] for fault in refused.value.facts["faults"]} == {1, 2}
