"""Changing the rules, and what a change would change.

A text is checked whole before anything is asked of the database. Whoever applies one must be permitted to by the text
in force, and must still be by the new one: otherwise nobody might be left who could undo it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from control.core.action import Action
from control.core.problem import Problem
from control.core.verdict import Permit, Verdict
from control.policy.cedar import CedarPolicy, default_text, parsed
from control.policy.port import Resource
from control.runtime.authority import Authority, replayed
from control.runtime.commands import Control
from control.runtime.rules_in_force import to_replace
from control.store import policies
from control.store.policies import Stored

LOCKS_OUT: Final = Problem(
    code="policy-locks-out",
    status=409,
    title="You could not change the policy any more",
    next_step="Add a rule that permits you the action apply_policy; nothing was stored.",
)


@dataclass(frozen=True, slots=True)
class InForce:
    """The rules that govern now. `stored` is None for those that ship."""

    policy: CedarPolicy
    stored: Stored | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A decision that a candidate would have made otherwise. `was` and `would` are permit, deny or ask."""

    run_id: UUID
    seq: int
    at: datetime
    actor: str
    action: str
    was: str
    would: str
    verdict: Verdict


@dataclass(slots=True)
class WhatIf:
    """`decided` counts the decisions looked at."""

    differences: list[Difference]
    decided: int = 0


async def apply(control: Control, text: str, *, note: str | None = None) -> InForce:
    """Put a text in force. The one that is in force already makes no new version.

    Raises `policy-invalid`, `not-permitted`, `agreement-needed`, `policy-locks-out`.
    """
    candidate = CedarPolicy(text)
    async with control.transaction() as conn:
        await policies.serialise(conn, control.tenant)
        rules = _rules(control)
        Authority(await to_replace(conn, control.tenant), control.principal).require(Action.APPLY_POLICY, rules)
        after = Authority(candidate, control.principal).judge(Action.APPLY_POLICY, rules)
        if not isinstance(after, Permit):
            raise LOCKS_OUT.because(f"Under the new rules, {control.by} may not apply another: {after.why}")
        newest = await policies.history(conn, control.tenant, limit=1)
        if newest and newest[0].digest == candidate.version:
            return InForce(candidate, newest[0])
        added = await policies.add(conn, control.tenant, text=text, digest=candidate.version, note=note, by=control.by)
    return InForce(candidate, added)


async def show(control: Control) -> InForce:
    """The rules in force. Raises `not-permitted`, `agreement-needed`, `policy-invalid`."""
    async with control.transaction() as conn:
        await control.require(conn, Action.READ, _rules(control))
        newest = await policies.history(conn, control.tenant, limit=1)
    return InForce(parsed(newest[0].text if newest else default_text()), newest[0] if newest else None)


async def history(control: Control, *, limit: int) -> list[Stored]:
    """The versions, newest first. Raises `not-permitted`, `agreement-needed`, `policy-invalid`."""
    async with control.transaction() as conn:
        await control.require(conn, Action.READ, _rules(control))
        return await policies.history(conn, control.tenant, limit=limit)


async def what_if(control: Control, text: str, *, days: float) -> WhatIf:
    """What a text would have decided otherwise in the last days, of runs that may be read. Nothing is stored.

    What is decided anew is each request that a ledger holds, with the attributes and roles of its time. A refusal to
    start a run has no ledger to be in. Raises `policy-invalid`, `not-permitted`, `agreement-needed`.
    """
    candidate, found = CedarPolicy(text), WhatIf([])
    async with control.transaction() as conn:
        authority = await control.authority(conn)
        authority.require(Action.READ, _rules(control))
        span, where = timedelta(days), authority.visible().where
        async for entry in policies.decisions(conn, control.tenant, span, where=where, stall_after=control.stall_after):
            found.decided += 1
            if difference := _difference(entry, candidate, control.tenant):
                found.differences.append(difference)
    return found


def _difference(entry: policies.Decided, candidate: CedarPolicy, tenant: str) -> Difference | None:
    body = json.loads(entry.body)
    request = replayed(body["request"], tenant)
    was = body.get("verdict") or ("permit" if entry.kind != "refused" else "ask" if "of" in body else "deny")
    verdict = candidate.decide(request)
    would = type(verdict).__name__.lower()
    if was == would:
        return None
    return Difference(entry.run_id, entry.seq, entry.at, entry.actor, request.action, was, would, verdict)


def _rules(control: Control) -> Resource:
    return Resource("Policy", "policy", control.tenant)
