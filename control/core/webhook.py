"""The signature of a webhook's messages, as the Standard Webhooks specification has it (standardwebhooks.com, 1.0).

    signature = "v1," + base64(HMAC-SHA256(secret, "{webhook-id}.{webhook-timestamp}.{body}"))

A receiver computes it from the headers and the bytes of the body, compares it with any of the header
`webhook-signature`, and refuses a timestamp that is minutes away. `webhook-id` is the same in every try of one notice,
so that a message which comes twice is known for the same.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

PREFIX: Final = "whsec_"
SECRET_BYTES: Final = 32


def spelled(secret: bytes) -> str:
    """A secret as people and libraries are given it."""
    return PREFIX + b64encode(secret).decode()


def parsed(text: str) -> bytes:
    """The secret that `spelled` wrote."""
    return b64decode(text.removeprefix(PREFIX), validate=True)


def headers(message_id: str, timestamp: int, body: bytes, *, secrets: Iterable[bytes]) -> dict[str, str]:
    """The headers that identify and sign a message, by each of the secrets that are valid. timestamp: Unix seconds."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    signatures = (hmac.digest(secret, signed, sha256) for secret in secrets)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{b64encode(signature).decode()}" for signature in signatures),
    }
