"""What the SDK asks of the saver, so that it needs no database itself.

A saver that has an attribute `effects` (an `EffectPort`) is found through the running node's configuration. Under any
other saver an effect is simply called, and an interruption may repeat it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, Protocol

from langchain_core.runnables import RunnableConfig

from control.core.intent import Intent
from control.core.verdict import Verdict

Kind = Literal["effect", "model"]
How = Literal["called", "probed", "told"]


@dataclass(frozen=True, slots=True)
class Begun:
    """What is recorded about a key.

    - `new`: the intent is committed now; the call may be made. `calls` counts it, so 1 is the first call ever and more
      than 1 means that an earlier one failed or was cut off.
    - `done`: it happened in an earlier attempt; `outcome` is what it returned.
    - `stale`: the decision that guards it rests on something that has moved; `outcome` says what. Nothing was begun,
      and the decision stays stale.
    - `in_flight`: an earlier attempt committed the intent and never recorded an end. Nothing was written.

    `idempotency_key` is what the other side sees: the key made unique across runs, the same string for every call of
    this effect.
    """

    state: Literal["new", "done", "in_flight", "stale"]
    outcome: Any
    idempotency_key: str
    calls: int


class EffectPort(Protocol):
    """The effect ledger of the run whose node is executing; `config` is that node's own.

    What is written is fenced by the claim's epoch, and committed when a method returns. `loop` is where they must run:
    a synchronous node reaches them from its thread.
    """

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    async def begin(
        self,
        config: RunnableConfig,
        *,
        key: str,
        name: str,
        kind: Kind,
        again: bool = False,
        guarded_by: str | None = None,
    ) -> Begun:
        """Record the intent, or say what is known. `again` repeats a call that is in flight: its answer is `new`.

        `guarded_by` names the question whose approval is spent on this effect, in the same transaction.
        """
        ...

    def shown(self, value: Mapping[str, Any]) -> str:
        """The digest of what is shown to a person, as the question is kept."""
        ...

    async def judge(self, config: RunnableConfig, *, key: str, intent: Intent) -> Verdict:
        """What policy says of an intent, on record under this key before it is returned.

        In one step, what was said of a key stands; only a permit must be one under the rules of now as well.
        """
        ...

    async def fact(self, config: RunnableConfig, name: str) -> Any:
        """What a fact of the tenant is now; None where nobody has said."""
        ...

    async def end(
        self,
        config: RunnableConfig,
        *,
        key: str,
        state: Literal["done", "failed"],
        outcome: Any,
        how: How,
        error: str | None,
    ) -> None:
        """Record what came of it. After `failed`, the next `begin` answers `new`. Refuses an outcome whose type would
        not survive strict serialisation."""
        ...

    async def spend(self, config: RunnableConfig, *, key: str, name: str, usd: Decimal, tokens: int) -> None:
        """Record that something was spent; nothing where this key was recorded before."""
        ...
