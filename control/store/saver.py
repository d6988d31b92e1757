"""The saver that governs: LangGraph's stock tables, written under a claim.

`ControlSaver` is a `BaseCheckpointSaver` over the tables and the reading code of langgraph-checkpoint-postgres. Every
write goes through one `Flusher` and carries, in the same transaction, what follows from it for the run: its head and
progress, the ledger's entries, and a row for each question or wait. So whatever drives a graph through this saver is
recorded and fenced: a worker, a script, or `langgraph dev`.

A worker puts its `Tenure` into the configuration it runs the graph with. A writer without one takes an implicit claim
(`store.writers`), or is refused where a claim is live.

Reading is `store.reader`'s. Methods may be called from the saver's own loop, from another loop, and, without `a`, from
any thread but the loop's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import UUID, uuid5

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    get_serializable_checkpoint_metadata,
)
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, _DeltaSnapshot
from langgraph.errors import is_invalid_resume
from langgraph.types import Interrupt
from psycopg import AsyncConnection
from psycopg.rows import DictRow
from psycopg_pool import AsyncConnectionPool
from typing_extensions import override

from control.core.action import Action
from control.core.packet import Packet, Shape, packet_of, with_terms
from control.core.problem import Refusal
from control.core.question import Question, Suspension, opened, recognise
from control.store import runs
from control.store.binding import NO_RULES, Rules
from control.store.checkpoints import NULL_TASK
from control.store.effects import Effects
from control.store.flush import Flusher
from control.store.item import Asked, BlobRow, CheckpointRow, Item, WriteRow
from control.store.reader import Reader, Writers, in_a_run
from control.store.serde import StrictSerializer
from control.store.tenure import TENURE, Tenure
from control.store.writers import ENTERING

_HANDLED: Final = "__error_source_node__"
_NO_OUTPUT: Final = frozenset({ERROR, _HANDLED, INTERRUPT, *WRITES_IDX_MAP})
_FOUND_BY: Final = frozenset({"source", "step", "parents", "run_id", "thread_id", "tenant", "epoch", "graph_digest"})
_INLINE: Final = frozenset({str, int, float, bool, type(None)})
_WHOLE: Final = 1e16  # from here on JSON in the database shows a float as a whole number
_SCHEDULES: Final = ("branch:to:", "join:", "__pregel_tasks", "__start__")  # a StateGraph's channels of that kind
_INPUT: Final = "__input__"
_LONG: Final = 1000  # characters


class ControlSaver(Reader):
    """See the module. `effects` is the port through which the SDK records effects."""

    serde: StrictSerializer

    def __init__(
        self,
        pool: AsyncConnectionPool[AsyncConnection[DictRow]],
        flusher: Flusher,
        *,
        serde: StrictSerializer | None = None,
        writers: Writers,
        rules: Rules = NO_RULES,
    ) -> None:
        super().__init__(pool, serde=serde or StrictSerializer(), writers=writers)
        self._flusher, self._rules = flusher, rules
        self.effects = Effects(self, flusher, rules=rules)

    async def tenure(self, config: RunnableConfig, *, source: str | None = None, task_id: str = "") -> Tenure:
        """The claim a configuration's writes are made under: a checkpoint from this `source`, or a task's."""
        configurable = config["configurable"]
        held: Tenure | None = configurable.get(TENURE)
        if held is not None and held.fence.thread_id == configurable["thread_id"]:
            if held.broken:
                raise held.broken
            return held
        doing = ENTERING if in_a_run(config) else [_edit(configurable.get("checkpoint_id"), source, task_id)]
        return await self._writers.tenure(configurable["thread_id"], doing)

    @override
    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Commit a checkpoint and return the configuration that names it.

        Raises `claim-lost`, `state-not-serialisable`, `type-not-allowed`, `value-not-storable`, `write-deadly`,
        `database-away`.
        """
        return await self._here(self._put(config, checkpoint=checkpoint, metadata=metadata, new_versions=new_versions))

    @override
    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Commit what a task wrote. Raises as `aput` does."""
        await self._here(self._put_writes(config, writes, task_id=task_id, task_path=task_path))

    async def _put(
        self,
        config: RunnableConfig,
        *,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        tenure = await self.tenure(config, source=metadata.get("source"))
        ns: str = config["configurable"].get("checkpoint_ns", "")
        item = tenure.item()
        item.blobs, inline = self._blobs(ns, checkpoint, new_versions=new_versions, apart=tenure.apart)
        item.checkpoints.append(self._checkpoint_row(config, checkpoint, metadata, inline=inline))
        early = False
        if ns == "":
            step, ran = metadata.get("step", -1), tenure.took_step()
            early = _may_lag(tenure, checkpoint, step=step, ran=ran)
            item.head, item.parts = (checkpoint["id"], step), tenure.parts
            entry = {"checkpoint_id": checkpoint["id"], "step": step, "source": metadata.get("source"), "nodes": ran}
            item.entries.append(("stepped", tenure.actor, entry))
        await self._write(tenure, item, acknowledge_early=early)
        if tenure.implicit:
            await self._writers.after_write(tenure)
        return {
            "configurable": {
                "thread_id": tenure.fence.thread_id,
                "checkpoint_ns": ns,
                "checkpoint_id": checkpoint["id"],
            }
        }

    async def _put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], *, task_id: str, task_path: str
    ) -> None:
        tenure = await self.tenure(config, task_id=task_id)
        tenure.heed(task_id, writes)
        item = tenure.item()
        ns, checkpoint_id = config["configurable"].get("checkpoint_ns", ""), config["configurable"]["checkpoint_id"]
        rows = item.marks if all(channel in WRITES_IDX_MAP for channel, _ in writes) else item.writes
        for position, (channel, value) in enumerate(writes):
            stored = repr(value) if channel == ERROR and isinstance(value, BaseException) else value
            kind, blob = self.serde.dumps_typed(stored, channel=channel)
            idx = WRITES_IDX_MAP.get(channel, position)
            rows.append(WriteRow(ns, checkpoint_id, task_id, task_path, str(idx), channel, kind, blob))
        if ns == "":
            self._note(tenure, item, writes, node=tenure.node(task_id, task_path))
            if any(channel not in _NO_OUTPUT for channel, _ in writes):
                tenure.ran.append((task_id, task_path))
        for channel, value in writes:
            if channel == INTERRUPT:
                await self._ask(tenure, item, value, node=ns.partition(":")[0] or tenure.node(task_id, task_path))
        # LangGraph goes on when a step's checkpoint is durable, and that commits behind the writes queued before it.
        output = not any(channel in _NO_OUTPUT for channel, _ in writes)
        await self._write(tenure, item, acknowledge_early=output and tenure.input_kept)
        if tenure.implicit and task_id != NULL_TASK:  # whose writes, such as an answer, are followed by a run
            await self._writers.after_write(tenure)

    def _note(self, tenure: Tenure, item: Item, writes: Sequence[tuple[str, Any]], *, node: str) -> None:
        """What a root task's writes mean for its run: a failure, or a handler that stands in for it."""
        for channel, value in writes:
            if channel == ERROR and not is_invalid_resume(value):  # that is the answer's fault, and no failure
                item.entries.append(("task_failed", tenure.actor, {"node": node, "error": self._shown(value)}))
            elif channel == _HANDLED:
                item.entries.append(("handled", tenure.actor, {"node": node}))
                item.shortfalls += 1
                tenure.shortfalls += 1

    def _shown(self, error: Any) -> str:
        return self.serde.redact_text(error if isinstance(error, str) else repr(error)).replace("\0", "\\0")

    async def _ask(self, tenure: Tenure, item: Item, interrupts: Sequence[Interrupt[Any]], *, node: str) -> None:
        """Open each interrupt once: a subgraph's arrives again with the root task that carries it."""
        row = (item.marks or item.writes)[0]
        for interrupt in interrupts:
            if not isinstance(interrupt, Interrupt) or interrupt.id in tenure.asked:
                continue
            tenure.asked.add(interrupt.id)
            schema = interrupt.response_schema if isinstance(interrupt.response_schema, dict) else None
            value = await self._on_terms(tenure, packet_of(interrupt.value, schema), interrupt.value, node=node)
            asked = self._redacted(recognise(interrupt.id, value, schema))
            item.asked.append(Asked(asked, row.checkpoint_id, node))
            kind, body = opened(asked, node)
            item.entries.append((kind, tenure.actor, body))

    async def _on_terms(self, tenure: Tenure, packet: Packet, value: Any, *, node: str) -> Any:
        """A question as it is asked: of another library's shape, with what the rules demand of it."""
        if packet.shape not in (Shape.BATCH, Shape.CALL, Shape.INBOX):
            return value
        fence = tenure.fence
        async with self.reading(fence.tenant) as conn:
            run = await runs.read_run(conn, fence.tenant, fence.run_id)
            return with_terms(value, await self._rules.terms(conn, run, packet, node=node))

    def _redacted(self, asked: Question | Suspension) -> Question | Suspension:
        if isinstance(asked, Suspension):
            return asked
        return replace(asked, title=self.serde.redact_text(asked.title), packet=self.serde.redact_json(asked.packet))

    async def _write(self, tenure: Tenure, item: Item, *, acknowledge_early: bool = False) -> None:
        try:
            if acknowledge_early:
                await self._flusher.enqueue(item, linger=True)
                tenure.unwritten.add(item.written)
                item.written.add_done_callback(lambda written: _acknowledged(tenure, written))
            else:
                with tenure.used():
                    await self._flusher.write(item)
        except Refusal as refusal:
            tenure.lose(refusal)
            raise

    def _blobs(
        self, ns: str, checkpoint: Checkpoint, *, new_versions: ChannelVersions, apart: dict[tuple[str, str], str]
    ) -> tuple[list[BlobRow], dict[str, Any]]:
        """The channel values that go into rows of their own, and those that stay in the checkpoint.

        As the stock saver does, but what the database's JSON would change goes apart (an enum that is text, infinity),
        and a long text too: inside the checkpoint it would be written again at every step, and read whenever somebody
        asks how the run stands. `apart` has the version of each that has a row.
        """
        inline: dict[str, Any] = {}
        blobs: list[BlobRow] = []
        for channel, value in checkpoint["channel_values"].items():
            version, long = (
                str(checkpoint["channel_versions"].get(channel)),
                type(value) is str and len(value) > _LONG,
            )
            if not long and _fits_json(value):
                inline[channel] = value
                continue
            if isinstance(value, _DeltaSnapshot):
                inline[channel] = True
            if apart.get((ns, channel)) != version if long else channel in new_versions:
                blobs.append(BlobRow(ns, channel, version, *self.serde.dumps_typed(value, channel=channel)))
            if long:
                apart[ns, channel] = version
        return blobs, inline

    def _checkpoint_row(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata, *, inline: dict[str, Any]
    ) -> CheckpointRow:
        configurable = config["configurable"]
        stored = json.dumps({**checkpoint, "channel_values": self.serde.redact(inline)})
        described = json.dumps(self._described(get_serializable_checkpoint_metadata(config, metadata)))
        ns = configurable.get("checkpoint_ns", "")
        return CheckpointRow(ns, checkpoint["id"], configurable.get("checkpoint_id"), stored, described)

    def _described(self, metadata: CheckpointMetadata) -> dict[str, Any]:
        """The metadata to store. What LangGraph and this saver find checkpoints by is never a secret."""
        return {key: value if key in _FOUND_BY else self.serde.redact(value) for key, value in metadata.items()}


def _edit(checkpoint_id: str | None, source: str | None, task_id: str) -> Action:
    """What somebody does who writes on a thread without running its graph: gives an input (`as_node="__input__"`, which
    shows in the checkpoint's source and in the task's id), or edits the state, by one update or by several at once.
    """
    try:
        given = task_id == str(uuid5(UUID(checkpoint_id or ""), _INPUT))
    except ValueError:  # no checkpoint of LangGraph's own making
        given = False
    return Action.NEW_INPUT if given or source == "input" else Action.UPDATE_STATE


def _may_lag(tenure: Tenure, checkpoint: Checkpoint, *, step: int, ran: list[str]) -> bool:
    """Whether nothing that follows rests on a root checkpoint being durable.

    So it is before the first node, since the run's input is stored; after a step that is cheap to do again; and at the
    end, where what follows is the attempt's ending, which commits with it or behind it.
    """
    if not ran:
        return step <= 0 and tenure.input_kept
    scheduled = any(channel.startswith(_SCHEDULES) for channel in checkpoint["channel_values"])
    return tenure.cheap.issuperset(ran) or (tenure.input_kept and tenure.plain and not scheduled)


def _fits_json(value: Any) -> bool:
    """Whether a value comes back from the database's JSON as what it was."""
    return type(value) in _INLINE and (type(value) is not float or (abs(value) < _WHOLE and str(value) != "-0.0"))


def _acknowledged(tenure: Tenure, written: asyncio.Future[int]) -> None:
    tenure.unwritten.discard(written)
    error = written.exception() if not written.cancelled() else None
    if isinstance(error, Refusal):
        tenure.lose(error)
