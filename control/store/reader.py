"""Reading the threads of one tenant.

It needs no claim and takes any connection of the pool: the stock saver's one lock around all of them is left out. Which
tenant's threads it sees says the claim in the configuration, or else the reader itself: row security holds it to that.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Final, Protocol, Self

import psycopg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import DictRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from typing_extensions import override

from control.core.action import Action
from control.store.database import TENANTS, acting
from control.store.errors import refusal
from control.store.serde import StrictSerializer
from control.store.tenure import TENURE, Tenure
from control.store.thread_ops import Owner, ThreadOps

_RUNTIME: Final = "__pregel_runtime"
_TASK: Final = "__pregel_task_id"


class Writers(Owner, Protocol):
    """Where a writer without a claim gets one."""

    async def check(self, thread_id: str) -> None:
        """Raise `claim-held` where a graph that is about to run on the thread could write nothing, and `not-permitted`
        or `agreement-needed` where policy does not let it."""

    async def tenure(self, thread_id: str, doing: Sequence[Action]) -> Tenure:
        """The implicit claim of this process on the thread. Raises `claim-held` where a worker's claim is live, and as
        `check` where policy does not permit what it is `doing`."""

    async def after_write(self, tenure: Tenure) -> None:
        """Bring the run's facts up to date with the rows just written; lets go of a run that has nothing left to do."""


class Reader(ThreadOps):
    """See the module."""

    _writers: Writers

    def __init__(
        self, pool: AsyncConnectionPool[AsyncConnection[DictRow]], *, serde: StrictSerializer, writers: Writers
    ) -> None:
        super().__init__(pool, serde=serde)
        self._writers, self._tenant = writers, writers.tenant

    @override
    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint a configuration names, or the thread's latest. A thread known to be new is not looked up.

        Raises `claim-held` where a graph without a claim enters a thread that is somebody else's: no node may run.
        """
        tenure: Tenure | None = config["configurable"].get(TENURE)
        if tenure is None and _enters(config):
            await self._here(self._writers.check(str(config["configurable"]["thread_id"])))
        if tenure is not None and tenure.untouched and tenure.fence.thread_id == config["configurable"]["thread_id"]:
            tenure.untouched = False
            return None
        return await self._here(self._get(config))

    @override
    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """The checkpoints of the tenant's threads, newest first. See the stock saver's."""
        reader = self.of(self._tenant_of(config))
        found = None
        async for found in super(Reader, reader).alist(config, filter=filter, before=before, limit=limit):
            yield found
        if found is None and config and await self._adopted(config):
            async for found in super(Reader, reader).alist(config, filter=filter, before=before, limit=limit):
                yield found

    async def _get(self, config: RunnableConfig) -> CheckpointTuple | None:
        reader = self.of(self._tenant_of(config))
        found = await super(Reader, reader).aget_tuple(config)
        if found is None and await self._adopted(config):
            found = await super(Reader, reader).aget_tuple(config)
        return found

    async def _adopted(self, config: RunnableConfig) -> bool:
        found = config["configurable"]
        return TENURE not in found and await self._writers.adopt(found["thread_id"])

    def of(self, tenant: str) -> Self:
        """The same saver, which reads as this tenant where no claim says otherwise."""
        if tenant == self._tenant:
            return self
        other = copy.copy(self)
        other._tenant = tenant
        return other

    def _tenant_of(self, config: RunnableConfig | None) -> str:
        """Whose threads a configuration reads: those of the claim that it would write under."""
        configurable = (config or {}).get("configurable", {})
        held: Tenure | None = configurable.get(TENURE)
        return held.fence.tenant if held and held.fence.thread_id == configurable.get("thread_id") else self._tenant

    @asynccontextmanager
    async def reading(self, tenant: str) -> AsyncIterator[AsyncConnection[DictRow]]:
        """A transaction of the flush role that sees what is this tenant's alone. Raises `database-away`."""
        try:
            async with (
                self.conn.connection() as conn,  # type: ignore[operator]  # always a pool here
                acting(conn, "control_flush", tenant),
            ):
                yield conn
        except (PoolTimeout, psycopg.Error) as error:
            raise refusal(error) or error from error

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator[AsyncCursor[DictRow]]:
        """A cursor whose connection forgets whom it read for before anybody else gets it, see `Database.reader`.
        Pruning begins a transaction on it, before any query.
        """
        try:
            async with self.conn.connection() as conn:  # type: ignore[operator]  # always a pool here
                await conn.execute(TENANTS, {"tenants": self._tenant})
                async with conn.transaction() if pipeline else nullcontext(), conn.cursor(binary=True) as cursor:
                    yield cursor
        except (PoolTimeout, psycopg.Error) as error:
            raise refusal(error) or error from error

    async def _load_checkpoint_tuple(self, value: DictRow) -> CheckpointTuple:
        """As the stock saver's, without its hop to a thread: decoding takes less time than the hop."""
        configurable = {"thread_id": value["thread_id"], "checkpoint_ns": value["checkpoint_ns"]}
        parent = value["parent_checkpoint_id"]
        values = {**(value["checkpoint"].get("channel_values") or {}), **self._load_blobs(value["channel_values"])}
        checkpoint: Any = {**value["checkpoint"], "channel_values": values}
        return CheckpointTuple(
            config={"configurable": {**configurable, "checkpoint_id": value["checkpoint_id"]}},
            checkpoint=checkpoint,
            metadata=value["metadata"],
            parent_config={"configurable": {**configurable, "checkpoint_id": parent}} if parent else None,
            pending_writes=self._load_writes(value["pending_writes"]),
        )


def _enters(config: RunnableConfig) -> bool:
    """Whether a graph, and no subgraph of it, reads where to go on. LangGraph gives each run a `RunControl`, which
    those who look at a state do not have, unless they pass on the configuration of the node they are in.
    """
    return in_a_run(config) and _TASK not in config["configurable"]


def in_a_run(config: RunnableConfig) -> bool:
    """Whether a graph that runs gave this configuration, and not one whose state is looked at or edited."""
    return getattr(config["configurable"].get(_RUNTIME), "control", None) is not None
