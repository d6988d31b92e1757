"""Reading a text of rules: what each is called, whether it asks, and every fault that a text is refused for.

A text is taken whole or not at all. Besides what Cedar's own check finds, each rule needs an `@id` of its own, since
the ledger names the rules that decided; `@ask` belongs on a forbid and names roles, and what else it says of who has to
agree must make sense (`demands`); templates are not taken.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import cedarpy
from cedarpy import pst

from control.core.demand import Demand
from control.core.problem import Problem
from control.policy.demands import names, read_annotations

POLICY_INVALID: Final = Problem(
    code="policy-invalid",
    status=422,
    title="The policy cannot be used",
    next_step="Correct the lines named and check the file with `control policy check FILE`; nothing was stored.",
)
TEXT_LIMIT: Final = 256 * 1024
_HEAD: Final = re.compile(r"\b(permit|forbid)\s*\(")
_NOT_CODE: Final = re.compile(r'//[^\n]*|"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a text. `asks` are the roles of which one has to agree, for a rule that asks; `demand` is who has to
    exactly, where it says more. `line` counts from 1; `faults` are those of its annotations."""

    id: str
    forbids: bool
    why: str
    asks: tuple[str, ...]
    line: int
    asks_nobody: bool = False
    demand: Demand | None = None
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    line: int | None
    what: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.what}" if self.line else self.what


def read(text: str, schema: cedarpy.Schema) -> Mapping[str, Rule]:
    """The rules by Cedar's own name for each. Raises `policy-invalid` with every fault."""
    if len(text.encode()) > TEXT_LIMIT:
        raise _refusal([Fault(None, f"the text is longer than {TEXT_LIMIT:,} bytes")])
    try:
        nodes = cedarpy.policies_to_pst(text)
    except ValueError as error:
        raise _refusal([Fault(_first_bad(text), str(error))]) from None
    lines = _lines(text)
    if nodes.templates:
        raise _refusal([Fault(None, "a rule with ?principal or ?resource is a template, and nothing fills it in")])
    rules = {id: _rule(node, lines[n]) for n, (id, node) in enumerate(_ordered(nodes))}
    if faults := [*_unnamed(rules), *_checked(text, schema, rules)]:
        raise _refusal(faults)
    return rules


def _ordered(nodes: pst.PolicySet) -> list[tuple[str, pst.Template]]:
    """As in the text: Cedar counts its rules `policy0`, `policy1`, ..."""
    return sorted(nodes.static_policies.items(), key=lambda item: int(item[0].removeprefix("policy")))


def _rule(node: pst.Template, line: int) -> Rule:
    said = dict(node.annotations)
    id, forbids = said.get("id", ""), node.effect == "forbid"
    roles = names(said.get("ask") or "")
    demand, faults = read_annotations(said)
    why = (
        said.get("why") or f"Rule {id} {'asks first' if 'ask' in said else 'forbids it' if forbids else 'permits it'}."
    )
    return Rule(
        id, forbids, why, roles, line, asks_nobody="ask" in said and not roles, demand=demand, faults=tuple(faults)
    )


def _unnamed(rules: Mapping[str, Rule]) -> Iterator[Fault]:
    for rule in rules.values():
        if not rule.id:
            yield Fault(rule.line, 'the rule has no name: write @id("a-name") before it')
    for id, count in Counter(rule.id for rule in rules.values() if rule.id).items():
        if count > 1:
            last = max(rule.line for rule in rules.values() if rule.id == id)
            yield Fault(last, f"{count} rules are called {id}")
    for rule in rules.values():
        if rule.asks_nobody:
            yield Fault(rule.line, f'{rule.id} asks nobody: write @ask("role, role")')
        for fault in rule.faults:
            yield Fault(rule.line, f"{rule.id}: {fault}" if rule.id else fault)
        if rule.asks and not rule.forbids:
            yield Fault(rule.line, f"{rule.id} is a permit that asks: a rule that asks is written as a forbid")


def _checked(text: str, schema: cedarpy.Schema, rules: Mapping[str, Rule]) -> Iterator[Fault]:
    """What Cedar's strict check finds, each sentence once."""
    seen: set[tuple[str, str]] = set()
    for error in cedarpy.validate_policies(text, schema).errors:
        what = error.error.removeprefix(f"for policy `{error.policy_id}`, ")
        if (error.policy_id, what) not in seen:
            seen.add((error.policy_id, what))
            rule = rules.get(error.policy_id)
            yield Fault(rule.line if rule else None, f"{rule.id}: {what}" if rule and rule.id else what)


def _lines(text: str) -> list[int]:
    """On which line each rule's `permit` or `forbid` stands."""
    bare = _NOT_CODE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    return [bare.count("\n", 0, found.start()) + 1 for found in _HEAD.finditer(bare)]


def _first_bad(text: str) -> int | None:
    """The line of the first rule that does not parse by itself: Cedar's parser names none."""
    bare = _NOT_CODE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    begin = 0
    for end in [*(found.end() for found in re.finditer(";", bare)), len(text)]:
        part = text[begin:end]
        if bare[begin:end].strip():
            try:
                cedarpy.policies_to_pst(part)
            except ValueError:
                lead = len(bare[begin:end]) - len(bare[begin:end].lstrip())
                return bare.count("\n", 0, begin + lead) + 1
        begin = end
    return None


def _refusal(faults: list[Fault]) -> Exception:
    ordered = sorted(faults, key=lambda fault: fault.line or 0)
    said = "; ".join(str(fault) for fault in ordered)
    return POLICY_INVALID.because(
        f"{said[0].upper()}{said[1:]}.", faults=[{"line": fault.line, "what": fault.what} for fault in ordered]
    )
