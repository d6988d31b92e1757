"""Sending a webhook: to the address that was checked, once, and no further.

The name is resolved here, every address it has is judged (`core.outbound`), and the connection goes to one of those,
not to whatever the name means a moment later; the certificate is still checked against the name. Proxies of the
environment are not used, redirects are not followed, and of the answer nothing but its status is read.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache
from typing import Final
from urllib.parse import urlsplit

import httpx

from control.core.outbound import Network, refused

_PORTS: Final = {"http": 80, "https": 443}
_NO_MORE: Final = httpx.codes.GONE
"""What a receiver answers that wants to be told no more."""


class Undelivered(Exception):
    """Why a notice did not arrive. for_good: another try would meet the same."""

    def __init__(self, why: str, *, for_good: bool = False) -> None:
        super().__init__(why)
        self.for_good = for_good


@dataclass(frozen=True, slots=True)
class Webhooks:
    """networks: what may be reached although it is not public. executor: where names are resolved; None: the loop's."""

    networks: Sequence[Network]
    timeout_s: float
    executor: Executor | None

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Post the body. Raises `Undelivered`."""
        parts = urlsplit(url)
        try:
            async with asyncio.timeout(self.timeout_s):
                address = await self.judged(url)
                target = httpx.URL(url).copy_with(host=address)
                given = {**headers, "host": parts.netloc, "content-type": "application/json"}
                await self._post(target, body, given, name=parts.hostname or "")
        except TimeoutError:
            raise Undelivered(f"It did not answer within {self.timeout_s:g} s.") from None
        except httpx.HTTPError as error:
            raise Undelivered(said(error)) from None

    async def judged(self, url: str) -> str:
        """An address of the host that may be reached. Raises `Undelivered` for good if there is one that may not be,
        or if the way there is not encrypted and not within the networks."""
        parts = urlsplit(url)
        addresses = await self._addresses(parts.hostname or "", parts.port or _PORTS[parts.scheme])
        for address in addresses:
            if why := refused(address, allowed=self.networks):
                raise Undelivered(f"{why}, and CONTROL_NOTIFY_NETWORKS does not allow it.", for_good=True)
            if parts.scheme == "http" and not refused(address, allowed=()):
                raise Undelivered("It is not encrypted: only https is used beyond one's own networks.", for_good=True)
        return addresses[0]

    async def _addresses(self, host: str, port: int) -> list[str]:
        """What the name means now. Resolvers also read forms that no parser of ours knows, such as 127.1."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self.executor, _resolved, host, port)
        except (OSError, UnicodeError) as error:
            raise Undelivered(f"{host} cannot be resolved: {error}.") from None
        if not found:
            raise Undelivered(f"{host} has no address.")
        return found

    async def _post(self, target: httpx.URL, body: bytes, headers: Mapping[str, str], *, name: str) -> None:
        tls = await asyncio.get_running_loop().run_in_executor(self.executor, trusted)
        named = {"sni_hostname": name}  # the certificate is the name's, whatever address it was checked to have
        async with (
            httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=self.timeout_s, verify=tls) as client,
            client.stream("POST", target, content=body, headers=headers, extensions=named) as answer,
        ):
            if not answer.is_success:
                why = f"It answered {answer.status_code} {answer.reason_phrase[:100]}".rstrip()
                raise Undelivered(f"{why}.", for_good=answer.status_code == _NO_MORE)


def said(error: Exception) -> str:
    """What an error says, as a sentence; some say nothing."""
    return f"{type(error).__name__}: {error}".rstrip(": .") + "."


@cache
def trusted() -> ssl.SSLContext:
    """Whose certificates are believed: the usual authorities, or those of SSL_CERT_FILE, and whom the system believes.
    Reading them takes a while, so once.
    """
    context = httpx.create_ssl_context()
    context.load_default_certs()
    return context


def _resolved(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
