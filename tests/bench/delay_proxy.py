"""A network between a client and its database: every byte arrives one millisecond later, in each direction.

A process of its own, so that what it costs does not slow the client's event loop. The delay is of time, not of rate:
what is sent together arrives together, and several messages may be under way at once, as on a wire.
"""

from __future__ import annotations

import asyncio
import selectors
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import psycopg
from psycopg.conninfo import make_conninfo

_SOCKET = ".s.PGSQL.5432"


@contextmanager
def delayed(conninfo: str, *, each_way_s: float) -> Iterator[str]:
    """The conninfo of the same database at the far end of a wire."""
    with psycopg.connect(conninfo) as conn:
        server = Path(conn.info.host) / f".s.PGSQL.{conn.info.port}"
    with tempfile.TemporaryDirectory(prefix="wire") as folder:
        command = [sys.executable, "-m", "tests.bench.delay_proxy", str(server), f"{folder}/{_SOCKET}", str(each_way_s)]
        proxy = subprocess.Popen(command, stdout=subprocess.PIPE)
        try:
            assert proxy.stdout is not None and proxy.stdout.readline() == b"ready\n"
            yield make_conninfo(conninfo, host=folder, port=5432)
        finally:
            proxy.kill()
            proxy.wait()


class _End(asyncio.Protocol):
    """One end of a connection: passes what it receives to the other end, `each_way_s` later and in order."""

    def __init__(self, each_way_s: float, other: _End | None = None) -> None:
        self._each_way_s, self.other = each_way_s, other
        self._under_way: deque[bytes | None] = deque()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._send(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._send(None)

    def _send(self, data: bytes | None) -> None:
        self._under_way.append(data)
        asyncio.get_running_loop().call_later(self._each_way_s, self._arrive)

    def _arrive(self) -> None:
        data = self._under_way.popleft()
        if self.other is None or self.other.transport is None or self.other.transport.is_closing():
            return
        if data is None:
            self.other.transport.close()
        else:
            self.other.transport.write(data)


class _Near(_End):
    """The client's end: it opens the far one."""

    def __init__(self, server: str, each_way_s: float) -> None:
        super().__init__(each_way_s)
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        cast(asyncio.Transport, transport).pause_reading()
        self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        _, self.other = await loop.create_unix_connection(lambda: _End(self._each_way_s, self), self._server)
        assert self.transport is not None
        self.transport.resume_reading()


async def _serve(server: str, listen: str, each_way_s: float) -> None:
    loop = asyncio.get_running_loop()
    listening = await loop.create_unix_server(lambda: _Near(server, each_way_s), listen)
    print("ready", flush=True)
    await listening.serve_forever()


def main() -> None:
    server, listen, each_way_s = sys.argv[1:]
    # select(2) waits for microseconds, where the default, epoll, rounds up to the next millisecond.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(_serve(server, listen, float(each_way_s)))


if __name__ == "__main__":
    main()
