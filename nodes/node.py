"""What the functions in this package make."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol


class Node(Protocol):
    """A synchronous node: state in, update out. It runs in a thread."""

    def __call__(self, state: Any) -> dict[str, Any]: ...


class AsyncNode(Protocol):
    """An asynchronous node: it must not block the event loop."""

    def __call__(self, state: Any) -> Awaitable[dict[str, Any]]: ...
