"""Why a credential is refused, whichever kind it is of. No text here holds any part of one."""

from __future__ import annotations

from typing import Final, NoReturn

from control.core.problem import Problem

CREDENTIAL_INVALID: Final = Problem(
    code="credential-invalid",
    status=401,
    title="The key or token is not accepted",
    next_step="Send a key that `control keys create` made, or a token that an issuer of this installation made for it.",
)
CREDENTIAL_EXPIRED: Final = Problem(
    code="credential-expired",
    status=401,
    title="The key or token is no longer valid",
    next_step="Get a new token from the issuer, or a new key with `control keys create`.",
)


def refuse(check: str, why: str) -> NoReturn:
    raise CREDENTIAL_INVALID.because(f"{why}.", check=check)
