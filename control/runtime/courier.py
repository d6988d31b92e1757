"""The courier delivers notices: at least once, each under the same id in every try, a bounded number of times.

A sink whose last try here has failed is given a few tries at a time, so that one which never answers leaves room to the
others. What comes beyond that is put off, and not counted: each behind those put off before it, by as long as tries to
such a sink may take, up to an hour. However many wait for it, they come back no faster than they could be tried.

A try is counted before anything is sent, and what came of it is recorded after. A courier that dies between the two
leaves a job that another is given: the receiver may then get the notice twice, and knows it by its id.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, assert_never
from uuid import UUID

from control.core import webhook
from control.core.notice import LONGEST, next_try
from control.core.sink import SinkKind
from control.runtime.mail import Post
from control.runtime.webhook import Undelivered, Webhooks
from control.store import notices
from control.store.database import Database
from control.store.notices import Try

_log = logging.getLogger(__name__)
FAILING_AT_ONCE: Final = 4
_Sink = tuple[str, str | None]
"""A tenant, and the id of one of its sinks."""


@dataclass(frozen=True, slots=True)
class Courier:
    """post: None where no mail server is set. link: the template of `Notice.link`. kept: how long it is known what
    became of a notice, from when it was made; each that is settled takes some older ones with it, so that they cannot
    pile up. try_s: how long one try may take. failing: until when (`time.monotonic`) those for a sink are put off.
    """

    database: Database
    webhooks: Webhooks
    post: Post | None
    tries_limit: int
    link: str | None
    kept: timedelta
    try_s: float
    busy: Counter[_Sink] = field(default_factory=Counter)
    failing: dict[_Sink, float] = field(default_factory=dict)

    async def deliver(self, tenant: str, notice_id: UUID) -> timedelta | None:
        """Try once, or put it off. Returns after which time to try again; None where nothing is left to do."""
        async with self.database.scope("control_command", tenant) as conn:
            sink = tenant, await notices.sink_of(conn, tenant, notice_id)
        if sink in self.failing and self.busy[sink] >= FAILING_AT_ONCE:
            return self._put_off(sink)
        self.busy[sink] += 1
        try:
            return await self._deliver(sink, notice_id)
        finally:
            self.busy[sink] -= 1
            if not self.busy[sink]:
                del self.busy[sink]

    def _put_off(self, sink: _Sink) -> timedelta:
        """Until those before it may have been tried, give or take a quarter."""
        now = time.monotonic()
        after_s = max(self.failing[sink] - now, 0) + self.try_s / FAILING_AT_ONCE
        after_s = min(after_s, LONGEST.total_seconds())
        self.failing[sink] = now + after_s
        return timedelta(seconds=after_s * random.uniform(0.75, 1.25))

    async def _deliver(self, sink: _Sink, notice_id: UUID) -> timedelta | None:
        tenant, _ = sink
        async with self.database.scope("control_command", tenant) as conn:
            trying = await notices.begin(conn, tenant, notice_id)
        if trying is None:
            return None
        if trying.tries > self.tries_limit:  # each of them began, and none of them came to an end
            return await self._undelivered(trying, Undelivered("Its couriers died, one after the other."))
        try:
            await self._send(trying)
        except Undelivered as error:
            self.failing.setdefault(sink, time.monotonic())
            return await self._undelivered(trying, error)
        except Exception as error:  # a fault of ours is the notice's too: it is tried again, and counted
            _log.exception("notice %s could not be sent", notice_id)
            return await self._undelivered(trying, Undelivered(f"It could not be sent: {type(error).__name__}."))
        self.failing.pop(sink, None)
        await self._settle(trying, delivered=True)
        return None

    async def _send(self, trying: Try) -> None:
        if trying.removed:
            raise Undelivered("The sink was removed.", for_good=True)
        notice = trying.notice
        match trying.kind:
            case SinkKind.WEBHOOK:
                body, at = notice.body(self.link), int(trying.at.timestamp())
                signed = webhook.headers(notice.notice_id, at, body, secrets=trying.secrets)
                await self.webhooks.send(trying.target, body, signed)
            case SinkKind.MAIL:
                if self.post is None:
                    raise Undelivered("No mail server is set: CONTROL_SMTP_URL.", for_good=True)
                text = notice.text(self.link)
                await self.post.send(trying.target, message_id=notice.notice_id, subject=notice.subject, text=text)
            case _:
                assert_never(trying.kind)

    async def _undelivered(self, trying: Try, error: Undelivered) -> timedelta | None:
        after = next_try(trying.tries, limit=self.tries_limit, luck=random.random())
        failed, notice = error.for_good or after is None, trying.notice
        if failed:
            tried = trying.tries
            _log.warning("notice %s of tenant %s is given up after %d tries", notice.notice_id, notice.tenant, tried)
        await self._settle(trying, failed=failed, error=str(error))
        return None if failed else after

    async def _settle(self, trying: Try, *, delivered: bool = False, failed: bool = False, **more: Any) -> None:
        tenant, notice_id = trying.notice.tenant, UUID(trying.notice.notice_id)
        async with self.database.scope("control_command", tenant) as conn:
            await notices.settle(conn, tenant, notice_id, delivered=delivered, failed=failed, **more)
            if delivered or failed:
                await notices.prune(conn, tenant, kept=self.kept)
