"""The effect ledger: what a run intended to change outside, and what came of it.

An intent is committed before the call and its outcome after, each through the flush, and so fenced like any write. An
effect that a decision guards begins in the transaction that spends the decision instead. An effect found `began` when
an attempt starts it was in flight when an earlier one died. Keys are the run's own; what the other side sees is the
run's id and the key, the same for every call.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import CONFIG_KEY_TASK_ID

from control.core.freshness import Moved
from control.core.intent import Intent
from control.core.limits import tokens_of
from control.core.packet import digest, packet_text
from control.core.problem import Problem
from control.core.verdict import Verdict
from control.sdk.ports import Begun, How, Kind
from control.store import binding, facts, limits, runs
from control.store.binding import Rules
from control.store.flush import CLAIM_LOST, Flusher
from control.store.item import EffectRow, Item, SpendRow
from control.store.sql import read
from control.store.tenure import Tenure

if TYPE_CHECKING:
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

    def __init__(self, saver: ControlSaver, flusher: Flusher, *, rules: Rules) -> None:
        self._saver, self._flusher, self._rules = saver, flusher, rules

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._saver.loop

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
        """Record the intent, or say what is known; see `control.sdk.ports`. Raises `claim-lost`, and for a guarded one
        `decision-missing`, `decision-spent`.
        """
        tenure, task = await self._saver.tenure(config), str(config["configurable"].get(CONFIG_KEY_TASK_ID))
        with tenure.used():
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
            row = EffectRow(key, name, kind, "began", calls)
            if guarded_by is not None and not again and (moved := await self._spend(tenure, row, guarded_by)):
                tenure.calling.pop(key, None)
                return Begun("stale", [one.as_json() for one in moved], outside, calls - 1)
            if guarded_by is None or again:
                await self._write(tenure, row)
            return Begun("new", None, outside, calls)

    def shown(self, value: Mapping[str, Any]) -> str:
        """The digest of a part of a packet, as the packet is kept: without secrets."""
        return digest(json.loads(self._saver.serde.redact_json(packet_text(value))))

    async def fact(self, config: RunnableConfig, name: str) -> Any:
        """What a fact is now; None where nobody has said."""
        tenant = (await self._saver.tenure(config)).fence.tenant
        async with self._saver.reading(tenant) as conn:
            found = await facts.known(conn, tenant, [name])
        return json.loads(found[0].value) if found else None

    async def judge(self, config: RunnableConfig, *, key: str, intent: Intent) -> Verdict:
        """What policy says of an intent; see `control.sdk.ports`. Raises `claim-lost`, `policy-invalid`."""
        tenure, node = await self._saver.tenure(config), config.get("metadata", {}).get("langgraph_node", "")
        fence = tenure.fence
        async with self._saver.reading(fence.tenant) as conn:
            run = await runs.read_run(conn, fence.tenant, fence.run_id)
            said = await self._rules.judge(conn, run, intent, node=node, key=key)
        if said.news is not None:
            actor, body = said.news
            told = body | {"request": self._saver.serde.redact(body["request"])}
            await self._flusher.write(Item(fence, self.loop.create_future(), entries=[("judged", actor, told)]))
        return said.verdict

    async def _spend(self, tenure: Tenure, row: EffectRow, interrupt_id: str) -> tuple[Moved, ...]:
        """Spend an approval and record the intent in one transaction, or put on record what has moved, and return it.

        It goes past the flush, so what this attempt has written must have arrived.
        """
        await asyncio.gather(*tenure.unwritten)
        fence = tenure.fence
        async with self._saver.reading(fence.tenant) as conn:
            run = await runs.lock_run(conn, fence.tenant, fence.run_id)
            if (run.epoch, run.worker_id, run.thread_id) != (fence.epoch, fence.worker_id, fence.thread_id):
                raise CLAIM_LOST.because(f"Epoch {fence.epoch} was replaced or ended.", run=str(run.run_id))
            at = await runs.now(conn)
            guard = await binding.guard(conn, run, interrupt_id, key=row.key)
            moved = await binding.consume(conn, run, guard, key=row.key, at=at, dissent=self._rules.dissent)
            if not moved:
                params = {"name": row.name, "kind": row.kind, "calls": row.calls, "epoch": fence.epoch, "at": at}
                await conn.execute(_SQL["begin"], {**_key(tenure, row.key), **params})
                body = {"key": row.key, "name": row.name, "kind": row.kind, "call": row.calls}
                entry = ("effect_began", tenure.actor, body | {"guarded_by": interrupt_id})
            elif guard.outdated:
                return moved
            else:
                kind, told = await binding.outdate(conn, run, guard.subject, moves=moved, found="effect", at=at)
                entry = (kind, tenure.actor, told)
            await runs.append(conn, run, [entry], at=at)
        return moved

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
        with tenure.used():
            known = await self._read(tenure, key)
            assert known is not None, f"effect {key} ends without having begun"
            kept = self._saver.serde.dumps_typed(outcome) if state == "done" else (None, None)
            safe_error = self._saver.serde.redact_text(error).replace("\0", "\\0") if error else None
            await self._write(
                tenure,
                EffectRow(key, known["name"], known["kind"], state, known["calls"], kept[0], kept[1], how, safe_error),
                tokens=tokens_of(outcome) if known["kind"] == "model" else 0,
            )
        tenure.calling.pop(key, None)

    async def spend(self, config: RunnableConfig, *, key: str, name: str, usd: Decimal, tokens: int) -> None:
        """Record what was spent, once under its key. Raises `claim-lost`."""
        tenure = await self._saver.tenure(config)
        with tenure.used():
            fence = tenure.fence
            async with self._saver.reading(fence.tenant) as conn:
                if await limits.recorded(conn, fence.tenant, fence.run_id, key=key):
                    return
            body = {"key": key, "name": name, "usd": str(usd), "tokens": tokens}
            item = Item(fence, self.loop.create_future(), entries=[("spent", tenure.actor, body)])
            item.spends.append(SpendRow(key, str(usd), str(tokens)))
            await self._flusher.write(item)
        await self._heed_budget(tenure)

    async def _heed_budget(self, tenure: Tenure) -> None:
        """End the run at this step's boundary where a budget is used up now."""
        async with self._saver.reading(tenure.fence.tenant) as conn:
            if tenure.on_overdrawn and await limits.overdrawn(conn, tenure.fence.tenant):
                tenure.on_overdrawn()

    async def _write(self, tenure: Tenure, row: EffectRow, *, tokens: int = 0) -> None:
        body: dict[str, Any] = {"key": row.key, "name": row.name, "kind": row.kind}
        if row.state == "began":
            entry = ("effect_began", tenure.actor, body | {"call": row.calls})
        else:
            ended = body | {"state": row.state, "how": row.how}
            ended |= ({"error": row.error} if row.error else {}) | ({"tokens": tokens} if tokens else {})
            entry = ("effect_ended", tenure.actor, ended)
        item = Item(tenure.fence, self.loop.create_future(), effects=[row], entries=[entry])
        if tokens:
            item.spends.append(SpendRow(f"recorded/{row.key}", "0", str(tokens)))
        await self._flusher.write(item)
        if tokens:
            await self._heed_budget(tenure)

    async def _read(self, tenure: Tenure, key: str) -> dict[str, Any] | None:
        async with self._saver.reading(tenure.fence.tenant) as conn:
            cursor = await conn.execute(_SQL["read"], _key(tenure, key))
            row: dict[str, Any] | None = await cursor.fetchone()
            return row


def _key(tenure: Tenure, key: str) -> dict[str, Any]:
    return {"tenant": tenure.fence.tenant, "run_id": tenure.fence.run_id, "key": key}
