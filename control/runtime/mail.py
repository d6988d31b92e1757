"""Sending a notice by mail, through the one server that the settings name.

`smtps://` is encrypted from the start. `smtp://` is encrypted where the server offers it, and never carries a password
where it does not.
"""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from concurrent.futures import Executor
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Final
from urllib.parse import unquote, urlsplit

from control.runtime.webhook import Undelivered

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
                smtp.send_message(message)
        except smtplib.SMTPRecipientsRefused as error:
            code, said = next(iter(error.recipients.values()))
            raise _refused(code, said) from None
        except smtplib.SMTPResponseException as error:
            raise _refused(error.smtp_code, error.smtp_error) from None
        except (OSError, smtplib.SMTPException) as error:
            raise Undelivered(f"{type(error).__name__}: {error}".rstrip(": ") + ".") from None

    def _connected(self) -> smtplib.SMTP:
        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        name, context = self.sender.rpartition("@")[2], ssl.create_default_context()
        if parts.scheme == "smtps":
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(
                host, port, local_hostname=name, timeout=self.timeout_s, context=context
            )
        else:
            smtp = smtplib.SMTP(host, port, local_hostname=name, timeout=self.timeout_s)
            smtp.ehlo_or_helo_if_needed()
            if parts.username or smtp.has_extn("starttls"):
                smtp.starttls(context=context)
        if parts.username:
            smtp.login(unquote(parts.username), unquote(parts.password or ""))
        return smtp


def _refused(code: int, said: bytes | str) -> Undelivered:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    return Undelivered(f"The mail server answered {code} {text[:200]}.", for_good=code >= _PERMANENT)
