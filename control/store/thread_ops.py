"""Whole threads: deleting, pruning and copying what LangGraph keeps of them.

Policy has to permit it. What a run stands on is not taken away: a thread is deleted only when every run on it has
ended, and pruned or copied only when nobody works on it. Threads of another tenant are not seen. The runs' own records
stay: the ledger says what happened on a thread that is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol, TypeVar

import psycopg
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.postgres.base import _aexecute, _refuse_delta_threads
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from control.core.action import Action
from control.store.errors import THREAD_TAKEN
from control.store.sql import read

_SQL: Final = read("threads")
T = TypeVar("T")


class Owner(Protocol):
    """Whose threads these are, and who works on them."""

    tenant: str

    async def adopt(self, thread_id: str) -> bool:
        """Make a thread that plain LangGraph wrote and nobody owns this tenant's. False where it is no such thread."""

    def idle(
        self, threads: Sequence[str], *, ended: bool, action: Action | None = None
    ) -> AbstractAsyncContextManager[AsyncConnection[dict[str, Any]]]:
        """A transaction of the tenant at whose beginning and end nobody works on the threads; with `ended`, no run on
        them is open either. `action` is what policy has to permit. Raises `claim-held`, `thread-busy`, `not-permitted`,
        `agreement-needed`, and `thread-taken` for another tenant's.
        """


class ThreadOps(AsyncPostgresSaver):
    """The saver's methods on whole threads. All run on the saver's own loop."""

    _writers: Owner

    async def _here(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run on the saver's own loop, whichever loop the caller is on."""
        if asyncio.get_running_loop() is self.loop:
            return await coroutine
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.loop))

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete a thread's checkpoints. Raises `claim-held`, and `thread-busy` where a run on it has not ended."""
        await self._here(self._delete([str(thread_id)]))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints whose metadata name these runs. Raises as `adelete_thread` does.

        A thread that uses a DeltaChannel is refused (NotImplementedError): its later checkpoints need the earlier ones.
        """
        await self._here(self._delete_for_runs([str(run_id) for run_id in run_ids]))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread's checkpoints to a thread that has none. The copy has no run until somebody writes on it.

        Raises `claim-held` where somebody works on either, and `thread-taken` where the target is not free.
        """
        await self._here(self._copy(str(source_thread_id), str(target_thread_id)))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """As the stock saver's. Raises `claim-held`, and to delete also what `adelete_thread` raises."""
        await self._here(self._prune(thread_ids, strategy))

    def delete_thread(self, thread_id: str) -> None:
        asyncio.run_coroutine_threadsafe(self.adelete_thread(thread_id), self.loop).result()

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        asyncio.run_coroutine_threadsafe(self.adelete_for_runs(run_ids), self.loop).result()

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        asyncio.run_coroutine_threadsafe(self.acopy_thread(source_thread_id, target_thread_id), self.loop).result()

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        asyncio.run_coroutine_threadsafe(self.aprune(thread_ids, strategy=strategy), self.loop).result()

    async def _delete(self, threads: Sequence[str]) -> None:
        async with self._writers.idle(threads, ended=True, action=Action.DELETE_THREAD) as conn:
            await conn.execute(_SQL["delete"], {"threads": list(threads)})

    async def _delete_for_runs(self, run_ids: Sequence[str]) -> None:
        async with self._writers.idle([], ended=True) as conn:
            cursor = await conn.execute(_SQL["of_runs"], {"tenant": self._writers.tenant, "runs": run_ids})
            threads = [row["thread_id"] for row in await cursor.fetchall()]
        if not threads:
            return
        async with self._writers.idle(threads, ended=True, action=Action.DELETE_THREAD) as conn:
            await _aexecute(conn.cursor(row_factory=dict_row), _refuse_delta_threads(threads))
            await conn.execute(_SQL["delete_runs"], {"threads": threads, "runs": run_ids})
            await conn.execute(_SQL["delete_unread"], {"threads": threads})

    async def _copy(self, source: str, target: str) -> None:
        idle = self._writers.idle
        await self._writers.adopt(source)  # its owner alone sees what there is to copy
        copied = idle([source], ended=False, action=Action.COPY_THREAD)
        async with copied, idle([target], ended=True) as conn:
            try:
                await conn.execute(_SQL["own"], {"tenant": self._writers.tenant, "threads": [target]})
                await conn.execute(_SQL["copy"], {"source": source, "target": target})
            except psycopg.errors.UniqueViolation as error:
                raise THREAD_TAKEN.because(f"{target!r} has checkpoints already.", thread=target) from error

    async def _prune(self, thread_ids: Sequence[str], strategy: str) -> None:
        if isinstance(thread_ids, str) or strategy not in ("keep_latest", "delete"):
            await super().aprune(thread_ids, strategy=strategy)  # which says what is wrong
            return
        threads = [str(thread_id) for thread_id in thread_ids]
        if strategy == "delete":
            await self._delete(threads)
            return
        async with self._writers.idle(threads, ended=False, action=Action.DELETE_THREAD):
            pass  # what a run appends from now on, the stock saver's pruning leaves alone
        await super().aprune(threads, strategy=strategy)
