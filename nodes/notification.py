"""Send a letter by SMTP, once: the mail's Message-ID comes from the effect's key, so the sink can be asked for it."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import httpx

from control.sdk import effect
from nodes.address import address
from nodes.node import Node


def notification(
    letter: Callable[[Any], dict[str, str]],
    *,
    key: Callable[[Any], str],
    target: str,
    prefix: str = "LOAN",
    timeout_s: float = 10.0,
) -> Node:
    """A node that mails `letter(state)` (`sender`, `recipient`, `subject`, `text`) and puts it into `target`.

    `target` also gets the `message_id`. The addresses are {prefix}_SMTP_HOST, {prefix}_SMTP_PORT and, to ask whether a
    mail was accepted, {prefix}_MAIL_PROBE_URL.
    """

    def send(state: Any) -> dict[str, Any]:
        written = letter(state)
        host, port = address(f"{prefix}_SMTP_HOST"), int(address(f"{prefix}_SMTP_PORT"))
        probe_url = address(f"{prefix}_MAIL_PROBE_URL")

        def deliver(idempotency_key: str) -> str:
            message = _message(written, message_id=message_id(idempotency_key, sender=written["sender"]))
            with smtplib.SMTP(host, port, local_hostname=_domain(written["sender"]), timeout=timeout_s) as smtp:
                smtp.send_message(message)
            return str(message["Message-ID"])

        def accepted(idempotency_key: str) -> str | None:
            sought = message_id(idempotency_key, sender=written["sender"])
            answer = httpx.get(f"{probe_url}/messages/{quote(sought, safe='')}", timeout=timeout_s)
            return sought if _was_accepted(answer, sought) else None

        sent = effect("decision letter", deliver, key=key(state), probe=accepted)
        return {target: {**written, "message_id": sent}}

    return send


def message_id(idempotency_key: str, *, sender: str) -> str:
    """The same key always gives the same Message-ID, in the sender's domain."""
    return f"<{sha256(idempotency_key.encode()).hexdigest()[:32]}@{_domain(sender)}>"


def _domain(sender: str) -> str:
    return sender.rpartition("@")[2]


def _message(letter: Mapping[str, str], *, message_id: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = letter["sender"], letter["recipient"], letter["subject"]
    message["Message-ID"] = message_id
    message.set_content(letter["text"])
    return message


def _was_accepted(answer: httpx.Response, sought: str) -> bool:
    """A 404 says no only if it names the mail: one from a wrong address must not cause a second mail."""
    if answer.status_code == httpx.codes.NOT_FOUND and sought in answer.text:
        return False
    return bool(answer.raise_for_status().json()["message_id"] == sought)
