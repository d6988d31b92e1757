"""Blanking what must never be stored: known secrets, and whatever matches a pattern.

A match becomes as many asterisks as it has characters. Texts are looked at one by one, never as they are written in
some format: an escape would hide a secret, and digits of the format itself would look like one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

_SHORTEST_SECRET: Final = 6  # characters; blanking every "1" would ruin the state


class Redaction:
    """secrets: texts to blank wherever they appear, the longest first. patterns: regular expressions."""

    def __init__(self, secrets: Iterable[str] = (), patterns: Iterable[str] = ()) -> None:
        known = sorted({s for s in secrets if len(s) >= _SHORTEST_SECRET}, key=lambda s: (-len(s), s))
        self._known = [secret.encode() for secret in known]
        self._patterned = [re.compile(pattern) for pattern in patterns]
        self._searched = [*(re.compile(re.escape(secret)) for secret in known), *self._patterned]

    def __bool__(self) -> bool:
        return bool(self._searched)

    def may_touch(self, packed: bytes) -> bool:
        """Whether redacting could change what these bytes encode. Text is UTF-8 in them, as it is."""
        return bool(self._patterned) or any(secret in packed for secret in self._known)

    def text(self, text: str) -> str:
        for pattern in self._searched:
            text = pattern.sub(_blank, text)
        return text

    def data(self, data: bytes) -> bytes:
        """Bytes that may hold text, with the same length as before."""
        if not self._searched:
            return data
        text = data.decode("latin-1")
        for secret in self._known:
            text = text.replace(secret.decode("latin-1"), "*" * len(secret))
        for pattern in self._patterned:
            text = pattern.sub(_blank, text)
        return text.encode("latin-1")

    def value(self, value: Any) -> Any:
        """Plain data with every text and key in it redacted. Anything that is not plain data stays as it is."""
        match value:
            case str():
                return self.text(value)
            case bytes():
                return self.data(value)
            case dict():
                return {self.value(key): self.value(item) for key, item in value.items()}
            case list():
                return [self.value(item) for item in value]
            case tuple():
                return tuple(self.value(item) for item in value)
            case _:
                return value


def _blank(match: re.Match[str]) -> str:
    return "*" * len(match[0])
