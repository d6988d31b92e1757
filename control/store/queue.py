"""Jobs: what was enqueued in the transaction that caused it, worked off by Procrastinate.

Its tables are in schema `control_queue`. Whoever causes a job may only add it, for its own tenant; a job holds ids
alone, and is gone once it is done, since what came of it is recorded where it belongs. A job whose worker died, which
shows in the sign of life that each worker leaves, is given to another: it may so be done twice, and must bear that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import procrastinate
from procrastinate.jobs import Job
from procrastinate.worker import Worker
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from control.store.database import Address
from control.store.errors import refusal

_QUEUE: Final = "notices"
_SIGNS: Final = 3  # of life, in the time after which a worker counts as lost
_GRACE_S: Final = 2.0  # how long a stopping worker waits for its jobs
_AGAIN_S: Final = 60.0  # after which a job is tried again whose handler broke
_POLL_S: Final = 5.0  # without a notification, which a broken connection may lose

Handle = Callable[[str, UUID], Awaitable[timedelta | None]]
"""Delivers a notice of a tenant. Returns after which time to try again, None where nothing is left to do."""

logging.getLogger("procrastinate").setLevel(logging.ERROR)  # what else it says of jobs, notices say
logging.getLogger("procrastinate.utils").setLevel(logging.CRITICAL)  # that it heard no more: then it looks by itself


class _Again(Exception):
    def __init__(self, after: timedelta) -> None:
        super().__init__()
        self.after = after


class _Later(procrastinate.BaseRetryStrategy):
    """When the handler says; soon, where it was stopped; and in a while, where it could not even say."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> procrastinate.RetryDecision:
        after = timedelta(seconds=_AGAIN_S)
        if isinstance(exception, _Again):
            after = exception.after
        elif isinstance(exception, asyncio.CancelledError):
            after = timedelta()
        return procrastinate.RetryDecision(retry_at=datetime.now(UTC) + after)


class Queue:
    """Used from one event loop. at_once: how many jobs at a time. lost_after: without a sign of life for so long, a
    worker has lost its jobs.
    """

    def __init__(self, address: Address, handle: Handle, *, at_once: int, lost_after: timedelta) -> None:
        self._conninfo, self._handle = _conninfo(address), handle
        self._at_once, self._lost_after_s = at_once, lost_after.total_seconds()

    async def work_off(self) -> None:
        """Deliver until cancelled. Raises `database-away`, and what else breaks it; then it can be called again."""
        try:
            await self._work_off()
        except procrastinate.exceptions.ConnectorException as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # it broke as it was told to stop
                raise asyncio.CancelledError from error
            cause = error.__cause__
            raise (refusal(cause) if isinstance(cause, Exception) else None) or error from error

    async def _work_off(self) -> None:
        connector = procrastinate.PsycopgConnector(conninfo=self._conninfo, min_size=1, max_size=2)
        app = procrastinate.App(connector=connector)
        app.task(name="deliver", queue=_QUEUE, retry=_Later())(self._deliver)
        async with app.open_async():
            worker = Worker(app, **self._options())
            keeping = asyncio.create_task(self._keep(app, worker), name="keep jobs")
            try:
                await worker.run()  # type: ignore[no-untyped-call]  # their signature has no types
            finally:
                keeping.cancel()
                await asyncio.gather(keeping, return_exceptions=True)

    def _options(self) -> Any:
        return {
            "queues": [_QUEUE],
            "concurrency": self._at_once,
            "fetch_job_polling_interval": _POLL_S,
            "shutdown_graceful_timeout": _GRACE_S,
            "delete_jobs": "always",
            "install_signal_handlers": False,
            "update_heartbeat_interval": self._lost_after_s / _SIGNS,
            "stalled_worker_timeout": self._lost_after_s,
        }

    async def _deliver(self, *, tenant: str, notice: str) -> None:
        after = await self._handle(tenant, UUID(notice))
        if after is not None:
            raise _Again(after)

    async def _keep(self, app: procrastinate.App, worker: Worker) -> None:
        """Give the sign of life, and the jobs of the dead to the living. The worker's own sign ends for good with the
        first error it meets, and its jobs would then be given away while it does them.
        """
        jobs = app.job_manager
        while True:
            with contextlib.suppress(procrastinate.exceptions.ConnectorException):
                if worker.worker_id is not None:
                    await jobs.update_heartbeat(worker.worker_id)
                for job in await jobs.get_stalled_jobs(queue=_QUEUE, seconds_since_heartbeat=self._lost_after_s):
                    with contextlib.suppress(procrastinate.exceptions.ConnectorException):  # somebody else was first
                        await jobs.retry_job(job, retry_at=datetime.now(UTC))
            await asyncio.sleep(self._lost_after_s / _SIGNS)


def _conninfo(address: Address) -> str:
    """A direct connection that finds Procrastinate's tables, which it names without their schema."""
    session = address.session("control_claim")
    options = conninfo_to_dict(session).get("options") or ""
    return make_conninfo(session, options=f"{options} -c search_path=control_queue")
