"""A mail server that keeps what it is sent, and can be asked for a Message-ID.

Mail arrives by SMTP and is written to the ledger before it is accepted. `GET /messages` lists all mail in order of
arrival, `GET /messages/<message-id>` answers with one mail, or with a 404 that repeats the
Message-ID, so that it cannot be mistaken for a wrong address.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as MODERN
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from graphs.services.serving import append_synced, arguments, bind, read_entries, serve


class Mailbox:
    """All mail ever accepted, from the ledger on."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._mail = read_entries(ledger)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Called by aiosmtpd for each mail; what it returns is said to the sender."""
        content = envelope.original_content or b""
        message = message_from_bytes(content, EmailMessage, policy=MODERN)
        entry = {
            "message_id": str(message["Message-ID"]),
            "sender": envelope.mail_from,
            "recipients": envelope.rcpt_tos,
            "subject": str(message["Subject"]),
            "text": message.get_content(),
        }
        append_synced(self._ledger, entry)
        self._mail.append(entry)
        return "250 Message accepted"

    async def list(self, request: Request) -> JSONResponse:
        return JSONResponse(self._mail)

    async def find(self, request: Request) -> JSONResponse:
        sought = request.path_params["message_id"]
        found = next((mail for mail in self._mail if mail["message_id"] == sought), None)
        if found is None:
            return JSONResponse({"error": "no such mail", "message_id": sought}, status_code=404)
        return JSONResponse(found)


def application(mailbox: Mailbox, listener: Any) -> Starlette:
    @asynccontextmanager
    async def smtp(app: Starlette) -> AsyncIterator[None]:
        server = await asyncio.get_running_loop().create_server(
            lambda: SMTP(mailbox, hostname="localhost", enable_SMTPUTF8=True), sock=listener
        )
        async with server:
            yield

    return Starlette(
        lifespan=smtp,
        routes=[
            Route("/messages", mailbox.list, methods=["GET"]),
            Route("/messages/{message_id:path}", mailbox.find, methods=["GET"]),
        ],
    )


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--smtp-port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--ledger", type=Path, required=True, help="what was accepted, one JSON line each")
    options = parser.parse_args()
    listener = bind(options.host, options.smtp_port)
    host, port = listener.getsockname()
    serve(application(Mailbox(options.ledger), listener), options, service="mail sink", smtp_host=host, smtp_port=port)


if __name__ == "__main__":
    main()
