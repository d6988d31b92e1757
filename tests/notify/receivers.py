"""What notifications are sent to in these tests: a web server and a mail server that keep what they are sent."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

OK = 204


@dataclass
class Received:
    """A request: its headers with lower-case names, and the bytes of its body."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class WebServer:
    """answers: the status of the next requests; then 204. `arrived` is set at each request, before it is answered, and
    the answer waits for `go`.
    """

    port: int = 0
    answers: list[int] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?key=1"


@contextmanager
def web_server(tls: ssl.SSLContext | None = None) -> Iterator[WebServer]:
    """With `tls`, it is encrypted."""
    kept = WebServer()
    kept.go.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            kept.received.append(Received(self.path, headers, body))
            kept.arrived.set()
            kept.go.wait(30)
            status = kept.answers.pop(0) if kept.answers else OK
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("location", f"http://127.0.0.1:{kept.port}/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    kept.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield kept
    finally:
        kept.go.set()
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class MailServer:
    """answers: what the next mails are answered with; then they are accepted. `mail` is what was accepted."""

    port: int = 0
    answers: list[str] = field(default_factory=list)
    mail: list[Envelope] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Called by aiosmtpd for each mail."""
        if self.answers:
            return self.answers.pop(0)
        self.mail.append(envelope)
        return "250 Accepted"


@asynccontextmanager
async def mail_server(**how: Any) -> AsyncIterator[MailServer]:
    """`how`: what aiosmtpd's `SMTP` takes besides."""
    kept = MailServer()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(kept, hostname="localhost", **how), "127.0.0.1", 0)
    async with server:
        kept.port = server.sockets[0].getsockname()[1]
        yield kept
