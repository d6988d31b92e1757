"""Asking the rules about what an agent is about to do by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig

from control.core.action import Action
from control.core.intent import UNDECLARED, Declared, Intent
from control.core.verdict import UNRULED, Verdict
from control.sdk.call_site import default_key, effect_port, running_config
from control.sdk.drive import Ask, Script, drive, drive_async

Intended = Literal["call_tool", "plan_task", "propose_plan"]


def ask_policy(
    action: Intended,
    name: str,
    *,
    args: Mapping[str, Any] | None = None,
    declared: Declared = UNDECLARED,
    tasks: int = 0,
    budget_usd: float | None = None,
    depth: int | None = None,
) -> Verdict:
    """What policy says of an intent, from a synchronous node: a `Permit`, a `Deny`, or an `Ask` with whom it demands.

    `name` is the tool's, with `args` and what is `declared` of it; or the plan's, with how many `tasks` it has, what it
    may spend, and in how many plans it stands. The answer is on record before it is returned, and the same when the
    node is run again; only a permit has to be one under the rules of that time as well. In plain LangGraph there are no
    rules, and everything is permitted.
    """
    intent = _intent(action, name, args, declared=declared, tasks=tasks, budget_usd=budget_usd, depth=depth)
    verdict: Verdict = drive(_asking(intent))
    return verdict


async def aask_policy(
    action: Intended,
    name: str,
    *,
    args: Mapping[str, Any] | None = None,
    declared: Declared = UNDECLARED,
    tasks: int = 0,
    budget_usd: float | None = None,
    depth: int | None = None,
) -> Verdict:
    """`ask_policy` for an asynchronous node."""
    intent = _intent(action, name, args, declared=declared, tasks=tasks, budget_usd=budget_usd, depth=depth)
    verdict: Verdict = await drive_async(_asking(intent))
    return verdict


def judged(config: RunnableConfig, intent: Intent, *, key: str) -> Script:
    """The steps of asking, for another script to go through; what comes of it is known by its key."""
    port = effect_port(config)
    if port is None:
        return UNRULED
    return (yield Ask(port.loop, lambda: port.judge(config, key=key, intent=intent)))


def _asking(intent: Intent) -> Script:
    config = running_config()
    return (yield from judged(config, intent, key=default_key(config, f"{intent.action} {intent.name}")))


def _intent(action: Intended, name: str, args: Mapping[str, Any] | None, **about: Any) -> Intent:
    return Intent(action=Action(action), name=name, args=args or {}, **about)
