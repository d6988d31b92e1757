"""The effect ledger: what a run intended to change outside, and what came of it.

An intent is committed before the call and its outcome after, each through the flush, and so fenced like any write. An
effect found `began` when an attempt starts it was in flight when an earlier one died. Keys are the run's own; what the
other side sees is the run's id and the key, the same for every call.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Literal

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import CONFIG_KEY_TASK_ID

from control.core.problem import Problem
from control.sdk.ports import Begun, How, Kind
from control.store.item import EffectRow, Item
from control.store.sql import read
from control.store.tenure import Tenure

if TYPE_CHECKING:
    from control.store.flush import Flusher
    from control.store.saver import ControlSaver

KEY_IN_USE: Final = Problem(
    code="effect-key-in-use",
    status=409,
    title="Two nodes that run at once use one effect key",
    next_step="Give each effect a key of its own, or let one node run after the other.",
)

_SQL: Final = read("effects")


class Effects:
    """The port that `control.sdk.effect` finds at the saver."""

    def __init__(self, saver: ControlSaver, flusher: Flusher) -> None:
        self._saver, self._flusher = saver, flusher

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._saver.loop

    async def begin(self, config: RunnableConfig, *, key: str, name: str, kind: Kind, again: bool = False) -> Begun:
        """Record the intent, or say what is known; see `control.sdk.ports.Begun`. Raises `claim-lost`."""
        tenure, task = await self._saver.tenure(config), str(config["configurable"].get(CONFIG_KEY_TASK_ID))
        if tenure.calling.setdefault(key, task) != task:
            raise KEY_IN_USE.because(f"{key!r} is being called by another node at this moment.", key=key)
        known = await self._read(tenure, key)
        outside = f"{tenure.fence.run_id}/{key}"
        if known and known["state"] == "done":
            tenure.calling.pop(key, None)
            outcome = self._saver.serde.loads_typed((known["outcome_type"], known["outcome"]))
            return Begun("done", outcome, outside, known["calls"])
        if known and known["state"] == "began" and not again:
            return Begun("in_flight", None, outside, known["calls"])
        calls = known["calls"] + 1 if known else 1
        await self._write(tenure, EffectRow(key, name, kind, "began", calls))
        return Begun("new", None, outside, calls)

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
        """Record what came of it. Raises `claim-lost`, and what strict serialisation refuses of the outcome."""
        tenure = await self._saver.tenure(config)
        known = await self._read(tenure, key)
        assert known is not None, f"effect {key} ends without having begun"
        kept = self._saver.serde.dumps_typed(outcome) if state == "done" else (None, None)
        safe_error = self._saver.serde.redact_text(error).replace("\0", "\\0") if error else None
        await self._write(
            tenure,
            EffectRow(key, known["name"], known["kind"], state, known["calls"], kept[0], kept[1], how, safe_error),
        )
        tenure.calling.pop(key, None)

    async def _write(self, tenure: Tenure, row: EffectRow) -> None:
        body: dict[str, Any] = {"key": row.key, "name": row.name, "kind": row.kind}
        if row.state == "began":
            entry = ("effect_began", tenure.actor, body | {"call": row.calls})
        else:
            ended = body | {"state": row.state, "how": row.how}
            entry = ("effect_ended", tenure.actor, ended | ({"error": row.error} if row.error else {}))
        await self._flusher.write(Item(tenure.fence, self.loop.create_future(), effects=[row], entries=[entry]))

    async def _read(self, tenure: Tenure, key: str) -> dict[str, Any] | None:
        tenant, run_id = tenure.fence.tenant, tenure.fence.run_id
        async with self._saver.reading(tenant) as conn:
            cursor = await conn.execute(_SQL["read"], {"tenant": tenant, "run_id": run_id, "key": key})
            row: dict[str, Any] | None = await cursor.fetchone()
            return row
