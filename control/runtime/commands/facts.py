"""Facts that decisions rest on: say what one is now, and read them."""

from __future__ import annotations

from typing import Any

from control.core.action import Action
from control.core.freshness import fact_text
from control.runtime.commands import Control
from control.store import facts
from control.store.facts import Fact


async def set_fact(control: Control, name: str, value: Any) -> Fact:
    """Say what a fact is now. What rests on another value is stale from the commit on.

    Raises `fact-invalid`, `not-permitted`, `agreement-needed`.
    """
    text = control.serde.redact_json(fact_text(name, value))
    async with control.transaction() as conn:
        await control.require(conn, Action.SET_FACTS)
        return await facts.put(conn, control.tenant, name=name, value=text, by=control.by)


async def listed(control: Control, name: str | None = None) -> list[Fact]:
    """What is known, by name. Raises `not-permitted`, `agreement-needed`."""
    async with control.transaction() as conn:
        await control.require(conn, Action.READ_FACTS)
        return await facts.known(conn, control.tenant, None if name is None else [name])
