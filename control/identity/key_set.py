"""The public keys of an issuer (JWKS, RFC 7517): from a file, or from where the issuer publishes them.

Fetched keys are used for `FRESH_S`, then asked for again; where that fails, for `KEEP_S` altogether. A key id that is
not among them makes us ask at once, since the issuer may have begun to use a new key, but at most every `AGAIN_S`:
anybody can send key ids that do not exist.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import httpx
from jwt import PyJWK, PyJWTError

from control.core.problem import Problem
from control.identity.issuers import ISSUERS_INVALID, Issuer, reachable

ISSUER_AWAY: Final = Problem(
    code="issuer-away",
    status=503,
    title="The issuer's keys cannot be had",
    next_step="Try again shortly. If it stays so, see whether the issuer can be reached from here and its address is"
    " right in the file that CONTROL_ISSUERS names.",
)
FRESH_S: Final = 300.0
KEEP_S: Final = 3600.0
AGAIN_S: Final = 10.0
FETCH_S: Final = 5.0
DOCUMENT_LIMIT: Final = 1024 * 1024
DISCOVERY: Final = "/.well-known/openid-configuration"
_CURVES: Final = {"ES256": ("P-256",), "ES384": ("P-384",), "ES512": ("P-521",), "EdDSA": ("Ed25519", "Ed448")}
_log: Final = logging.getLogger("control.identity")


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys as they were published, without those that sign nothing for us."""

    keys: tuple[Mapping[str, Any], ...]

    @classmethod
    def read(cls, document: Any) -> KeySet:
        """Raises ValueError where it is no key set. Keys of a kind we do not know are no fault: others may use them."""
        keys = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(keys, list):
            raise ValueError('it is no key set: {"keys": [...]}')
        return cls(tuple(key for key in keys if isinstance(key, dict) and key.get("use", "sig") == "sig"))

    def choose(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """The key with this id that makes such signatures; without an id, the only one that does. None: no such key."""
        fitting = [key for key in self.keys if _fits(key, algorithm) and kid in (None, key.get("kid"))]
        if not fitting or (kid is None and len(fitting) > 1):
            return None
        try:
            return PyJWK(dict(fitting[0]), algorithm)
        except PyJWTError:
            return None


def _fits(key: Mapping[str, Any], algorithm: str) -> bool:
    """Whether the key is of the algorithm's own kind. A symmetric key (`oct`) is of none of them."""
    if key.get("alg", algorithm) != algorithm:
        return False
    if algorithm in _CURVES:
        return key.get("kty") == ("OKP" if algorithm == "EdDSA" else "EC") and key.get("crv") in _CURVES[algorithm]
    return key.get("kty") == "RSA"


class Keys(Protocol):
    """Where an issuer's keys come from."""

    async def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """The key, or None where the issuer has no such key. Raises `issuer-away`."""
        ...


class FiledKeys:
    """Keys from a file, read once. Raises `issuers-invalid`."""

    def __init__(self, path: Path) -> None:
        try:
            self._set = KeySet.read(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ISSUERS_INVALID.because(f"{path} cannot be read: {error.strerror or error}.") from None
        except (ValueError, RecursionError) as error:
            raise ISSUERS_INVALID.because(f"{path} cannot be understood: {error}.") from None

    async def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        return self._set.choose(kid, algorithm)


class FetchedKeys:
    """Keys from where the issuer publishes them. `clock` counts seconds."""

    def __init__(
        self, issuer: Issuer, client: httpx.AsyncClient, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._issuer, self._client, self._clock = issuer, client, clock
        self._set, self._read_at, self._tried_at = KeySet(()), float("-inf"), float("-inf")
        self._fault, self._turn = "", asyncio.Lock()

    async def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        if self._clock() - self._read_at > FRESH_S:
            await self._ask()
        if self._clock() - self._read_at > KEEP_S:
            raise ISSUER_AWAY.because(f"{self._issuer.issuer}: {self._fault}.", issuer=self._issuer.issuer)
        if found := self._set.choose(kid, algorithm):
            return found
        await self._ask()
        return self._set.choose(kid, algorithm)

    async def _ask(self) -> None:
        """Read the keys anew, unless that was tried a moment ago. Whoever comes meanwhile waits for the same answer."""
        async with self._turn:
            if self._clock() - self._tried_at < AGAIN_S:
                return
            self._tried_at = self._clock()
            try:
                async with asyncio.timeout(FETCH_S):
                    self._set = KeySet.read(await self._document(await self._where()))
                self._read_at = self._clock()
            except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, RecursionError) as error:
                self._fault = str(error) or f"no answer within {FETCH_S:g} s"
                _log.warning("the keys of %s cannot be had: %s", self._issuer.issuer, self._fault)

    async def _where(self) -> str:
        """The address of the keys: as configured, or as the issuer says of itself (OpenID Connect Discovery)."""
        if self._issuer.jwks_url is not None:
            return self._issuer.jwks_url
        said = await self._document(self._issuer.issuer.rstrip("/") + DISCOVERY)
        if not isinstance(said, dict) or said.get("issuer") != self._issuer.issuer:
            raise ValueError("its discovery document is another issuer's")
        return reachable(str(said.get("jwks_uri", "")))

    async def _document(self, url: str) -> Any:
        """The JSON there. A redirection is not followed: it could lead anywhere."""
        body = bytearray()
        async with self._client.stream("GET", url, follow_redirects=False) as response:
            if response.status_code != httpx.codes.OK:
                raise ValueError(f"{url} answers {response.status_code}")
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > DOCUMENT_LIMIT:
                    raise ValueError(f"{url} answers more than {DOCUMENT_LIMIT:,} bytes")
        return json.loads(body)
