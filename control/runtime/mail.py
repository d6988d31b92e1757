"""Sending a notice by mail, through the one server that the settings name.

`smtps://` is encrypted from the start. `smtp://` is encrypted where the server offers it, and never carries a password
where it does not.
"""

from __future__ import annotations

import asyncio
import smtplib
from concurrent.futures import Executor
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Final
from urllib.parse import unquote, urlsplit

from control.runtime.webhook import Undelivered, said, trusted

_PORTS: Final = {"smtp": 587, "smtps": 465}
_PERMANENT: Final = 500  # the first reply code of those that another try does not change


@dataclass(frozen=True, slots=True)
class Post:
    """url: of the mail server, with a user and a password where it wants them. executor: smtplib blocks."""

    url: str
    sender: str
    timeout_s: float
    executor: Executor

    async def send(self, recipient: str, *, message_id: str, subject: str, text: str) -> None:
        """Hand a mail to the server. Raises `Undelivered`. The same id gives the same Message-ID."""
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = self.sender, recipient, subject
        message["Message-ID"] = f"<{message_id}@{self.sender.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        await asyncio.get_running_loop().run_in_executor(self.executor, self._hand_over, message)

    def _hand_over(self, message: EmailMessage) -> None:
        try:
            with self._connected() as smtp:
                self._introduced(smtp)
                smtp.send_message(message)
        except smtplib.SMTPRecipientsRefused as error:
            code, text = next(iter(error.recipients.values()))
            raise _refused(code, text) from None
        except smtplib.SMTPResponseException as error:
            raise _refused(error.smtp_code, error.smtp_error) from None
        except (OSError, smtplib.SMTPException) as error:
            raise Undelivered(said(error)) from None

    def _connected(self) -> smtplib.SMTP:
        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        name = self.sender.rpartition("@")[2]
        if parts.scheme == "smtp":
            return smtplib.SMTP(host, port, local_hostname=name, timeout=self.timeout_s)
        return smtplib.SMTP_SSL(host, port, local_hostname=name, timeout=self.timeout_s, context=trusted())

    def _introduced(self, smtp: smtplib.SMTP) -> None:
        parts = urlsplit(self.url)
        smtp.ehlo_or_helo_if_needed()
        if parts.scheme == "smtp" and (parts.username or smtp.has_extn("starttls")):
            smtp.starttls(context=trusted())
        if parts.username:
            smtp.login(unquote(parts.username), unquote(parts.password or ""))


def _refused(code: int, text: bytes | str) -> Undelivered:
    words = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return Undelivered(f"The mail server answered {code} {words[:200].rstrip('.')}.", for_good=code >= _PERMANENT)
