"""A wire between a program and its database that a test can cut, with the server's answer still in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

_FAREWELL = b"SFATAL\0"  # how a message opens after which the server hangs up
_BEFORE = 5  # bytes of it that come before: its kind and its length


@dataclass
class Wire:
    """`conninfo` leads through it. While `swallowing`, what the server says is dropped, and `answered` is set. While
    `mute`, a connection that the server ends falls in silence: its last word, which gives the reason, is dropped.
    """

    conninfo: str
    server: Path
    swallowing: bool = False
    mute: bool = False
    open: bool = True
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    _ends: set[asyncio.StreamWriter] = field(default_factory=set)

    def cut(self) -> None:
        """Hang up on both sides. A server that is at work notices only when it has an answer to give."""
        while self._ends:
            self._ends.pop().transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.open:
            writer.transport.abort()
            return
        answers, requests = await asyncio.open_unix_connection(str(self.server))
        self._ends |= {writer, requests}
        await asyncio.gather(self._carry(reader, requests), self._carry(answers, writer, answer=True))

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answer: bool = False) -> None:
        with suppress(ConnectionError):
            while data := await source.read(1 << 16):
                if answer and self.swallowing:
                    self.answered.set()
                elif answer and self.mute and _FAREWELL in data:
                    sink.write(data[: data.index(_FAREWELL) - _BEFORE])
                    break
                else:
                    sink.write(data)
        sink.close()


@asynccontextmanager
async def wired(conninfo: str, folder: Path) -> AsyncIterator[Wire]:
    """A wire to the server of this conninfo, which must listen on a Unix socket."""
    given = conninfo_to_dict(conninfo)
    name = f".s.PGSQL.{given.get('port') or 5432}"
    wire = Wire(make_conninfo(conninfo, host=str(folder)), Path(str(given["host"])) / name)
    listening = await asyncio.start_unix_server(wire.serve, str(folder / name))
    try:
        yield wire
    finally:
        listening.close()
        wire.cut()
