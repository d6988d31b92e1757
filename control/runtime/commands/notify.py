"""Say where a tenant is told of what happens, and look at what became of it. Each asks policy for `manage_sinks`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from secrets import token_bytes, token_hex
from typing import TYPE_CHECKING, Final
from uuid import UUID

from control.core.action import Action
from control.core.sink import SINK_UNFIT, Sink, SinkKind, Wanted
from control.core.webhook import SECRET_BYTES, spelled
from control.runtime.webhook import Undelivered, Webhooks
from control.store import notices, sinks
from control.store.notices import Told

if TYPE_CHECKING:
    from datetime import datetime

    from control.runtime.commands import Control
    from control.store.database import Connection

OVERLAP: Final = timedelta(days=1)
"""How long the secret before stays valid unless something else is said."""
_LOOK_S: Final = 0.1


async def add_sink(control: Control, wanted: Wanted, *, webhooks: Webhooks | None = None) -> tuple[Sink, str | None]:
    """A new sink and, of a webhook, the secret that signs: this is the only time that it is given.

    With `webhooks`, an address that nothing would ever be sent to is refused at once; whoever delivers judges it again,
    each time. Raises `sink-unfit`, `not-permitted`.
    """
    wanted.check()
    if webhooks is not None and wanted.kind is SinkKind.WEBHOOK:
        await _judge(webhooks, wanted.target)
    secret = token_bytes(SECRET_BYTES) if wanted.kind is SinkKind.WEBHOOK else None
    async with _managing(control) as conn:
        made = await sinks.add(conn, control.tenant, wanted, sink_id=token_hex(4), secret=secret, by=control.by)
    return made, spelled(secret) if secret else None


async def list_sinks(control: Control, *, removed: bool = False) -> list[Sink]:
    """The tenant's sinks. Raises `not-permitted`."""
    async with _managing(control) as conn:
        return await sinks.listed(conn, control.tenant, removed=removed)


async def remove_sink(control: Control, sink_id: str) -> Sink:
    """Tell a sink nothing more; what is being tried is given up. Raises `no-such-sink`, `not-permitted`."""
    async with _managing(control) as conn:
        return await sinks.remove(conn, control.tenant, sink_id, by=control.by)


async def rotate_secret(control: Control, sink_id: str, *, overlap: timedelta = OVERLAP) -> tuple[str, datetime]:
    """A new secret for a webhook, and until when messages are signed with the one before as well.

    Raises `no-such-sink`, `not-permitted`.
    """
    secret = token_bytes(SECRET_BYTES)
    async with _managing(control) as conn:
        until = await sinks.rotate(conn, control.tenant, sink_id, secret=secret, overlap=overlap)
    return spelled(secret), until


async def try_sink(control: Control, sink_id: str, *, patience: timedelta) -> Told:
    """Have a worker tell a sink that this is a test, and wait a while for what comes of the first try.

    Raises `no-such-sink`, `not-permitted`.
    """
    async with _managing(control) as conn:
        notice_id = await notices.try_out(conn, control.tenant, sink_id)
    deadline = asyncio.get_running_loop().time() + patience.total_seconds()
    while True:
        told = await _read(control, notice_id)
        if told.delivered_at or told.error or asyncio.get_running_loop().time() > deadline:
            return told
        await asyncio.sleep(_LOOK_S)


async def log(control: Control, *, failed: bool = False, limit: int = 100) -> list[Told]:
    """The newest notices, or those of them that were given up. Raises `not-permitted`."""
    async with _managing(control) as conn:
        return await notices.listed(conn, control.tenant, failed=failed, limit=limit)


@asynccontextmanager
async def _managing(control: Control) -> AsyncIterator[Connection]:
    """The transaction in which it is permitted and done. Raises `not-permitted`."""
    async with control.transaction() as conn:
        await control.require(conn, Action.MANAGE_SINKS)
        yield conn


async def _judge(webhooks: Webhooks, url: str) -> None:
    try:
        await webhooks.judged(url)
    except Undelivered as error:
        if error.for_good:
            raise SINK_UNFIT.because(str(error)) from None


async def _read(control: Control, notice_id: UUID) -> Told:
    async with control.transaction() as conn:
        return await notices.read_one(conn, control.tenant, notice_id)
