"""From a credential to a principal. An API key is looked up at each use, so that a revoked one is of no more use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from control.core.api_key import MARK, Condition, presented
from control.core.principal import Principal
from control.identity.credential import CREDENTIAL_EXPIRED, refuse
from control.store import api_keys
from control.store.database import Database

if TYPE_CHECKING:
    from control.identity.bearer import Bearers


@dataclass(frozen=True, slots=True)
class Authentication:
    """Who sent this. Built by `control.app`."""

    database: Database
    bearers: Callable[[], Bearers]
    """What checks tokens, made when the first one comes: API keys need none of its libraries."""

    async def principal(self, credential: str) -> Principal:
        """Whom an API key or a bearer token stands for.

        Raises `credential-invalid`, `credential-expired`, `issuer-away` and the problems of the database. None of them
        holds the credential. `issuers-invalid` where the first token comes.
        """
        if credential.startswith(MARK):
            return await self._holder(credential)
        return await self.bearers().principal(credential)

    async def _holder(self, credential: str) -> Principal:
        """An unknown id and a wrong secret are refused alike; whoever has the key learns what became of it."""
        sent = presented(credential)
        found = await api_keys.find(self.database, sent) if sent else None
        if found is None:
            refuse("key", "No API key has this id and this secret")
        key, now = found
        match key.condition(now):
            case Condition.REVOKED:
                raise CREDENTIAL_EXPIRED.because("The API key was revoked.", check="revocation", key_id=key.key_id)
            case Condition.EXPIRED:
                raise CREDENTIAL_EXPIRED.because("The API key has expired.", check="expiry", key_id=key.key_id)
            case Condition.VALID:
                await api_keys.touch(self.database, key, now)
                return key.principal
