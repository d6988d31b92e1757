"""What kind of failure an exception is, and when to try again.

The class decides what follows: a transient failure is retried by itself, the others wait for somebody or end the run.
Exceptions are told apart by the names in their ancestry and by the HTTP status or SMTP reply they carry, so that
nothing of LangGraph, httpx or a model's SDK is imported. A cause (`raise ... from`) is consulted where the exception
itself says nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final


class FailureClass(StrEnum):
    TRANSIENT = "transient"  # the surroundings failed: the same attempt may succeed later
    PERMANENT = "permanent"  # the same input fails again
    POLICY = "policy"  # a rule forbids it
    HUMAN = "human"  # a person has to put something right first
    POISONED = "poisoned"  # the checkpoint cannot advance: every re-entry fails
    INCOMPATIBLE = "incompatible"  # the checkpoint or an answer does not fit what is deployed


BY_NAME: Final[Mapping[str, FailureClass]] = {
    # LangGraph
    "langgraph.errors.InvalidUpdateError": FailureClass.POISONED,
    "langgraph.errors.UnknownInterruptError": FailureClass.INCOMPATIBLE,
    "langgraph.errors.GraphRecursionError": FailureClass.PERMANENT,
    "langgraph.errors.EmptyInputError": FailureClass.PERMANENT,
    "langgraph.errors.NodeTimeoutError": FailureClass.TRANSIENT,
    "langgraph.errors.NodeCancelledError": FailureClass.TRANSIENT,
    # clients of other systems, where no HTTP status tells
    "httpx.UnsupportedProtocol": FailureClass.PERMANENT,
    "httpx.TransportError": FailureClass.TRANSIENT,
    "httpcore.TimeoutException": FailureClass.TRANSIENT,
    "httpcore.NetworkError": FailureClass.TRANSIENT,
    "aiohttp.client_exceptions.ClientConnectionError": FailureClass.TRANSIENT,
    "requests.exceptions.ConnectionError": FailureClass.TRANSIENT,
    "requests.exceptions.Timeout": FailureClass.TRANSIENT,
    "urllib3.exceptions.TimeoutError": FailureClass.TRANSIENT,
    "openai.APIConnectionError": FailureClass.TRANSIENT,
    "anthropic.APIConnectionError": FailureClass.TRANSIENT,
    "psycopg.OperationalError": FailureClass.TRANSIENT,
    "psycopg_pool.PoolTimeout": FailureClass.TRANSIENT,
    # the standard library
    "builtins.TimeoutError": FailureClass.TRANSIENT,
    "builtins.ConnectionError": FailureClass.TRANSIENT,
    "builtins.InterruptedError": FailureClass.TRANSIENT,
    "asyncio.exceptions.CancelledError": FailureClass.TRANSIENT,
    "socket.gaierror": FailureClass.TRANSIENT,
    "smtplib.SMTPServerDisconnected": FailureClass.TRANSIENT,
    "smtplib.SMTPConnectError": FailureClass.TRANSIENT,
    "builtins.TypeError": FailureClass.PERMANENT,
    "builtins.LookupError": FailureClass.PERMANENT,
    "builtins.ValueError": FailureClass.PERMANENT,
    "builtins.AttributeError": FailureClass.PERMANENT,
}
"""The nearest ancestor listed here decides. Every `ValidationError`, whoever's it is, is permanent."""

NETWORK_ERRNOS: Final = frozenset(
    {
        errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.ETIMEDOUT, errno.EHOSTUNREACH,
        errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN, errno.ENETRESET, errno.EAGAIN, errno.EINTR,
    }
)  # fmt: skip

RETRYABLE_HTTP: Final = frozenset({408, 425, 429})
"""Of the client errors, those that ask the client to come back. All server errors (5xx) do."""

_MAX_CAUSES: Final = 8


def classify(exc: BaseException) -> FailureClass:
    """The class of a failure. Says PERMANENT where nothing is known: a retry might repeat what went wrong."""
    return next((found for error in _causes(exc) if (found := _class_of(error))), FailureClass.PERMANENT)


def _class_of(exc: BaseException) -> FailureClass | None:
    declared = getattr(exc, "failure_class", None)
    if isinstance(declared, FailureClass):
        return declared
    if (status := _http_status(exc)) is not None:
        return FailureClass.TRANSIENT if status >= 500 or status in RETRYABLE_HTTP else FailureClass.PERMANENT
    if _asked_to_come_back(exc):
        return FailureClass.TRANSIENT
    if isinstance(exc, OSError) and exc.errno in NETWORK_ERRNOS:
        return FailureClass.TRANSIENT
    return next((found for kind in type(exc).__mro__ if (found := _class_of_type(kind))), None)


def _class_of_type(kind: type) -> FailureClass | None:
    if kind.__name__ == "ValidationError":
        return FailureClass.PERMANENT
    return BY_NAME.get(f"{kind.__module__}.{kind.__qualname__}")


def _http_status(exc: BaseException) -> int | None:
    """The HTTP status an exception carries, itself (`status_code`, `status`) or on its `response`."""
    response = getattr(exc, "response", None)
    for holder, name in ((exc, "status_code"), (response, "status_code"), (exc, "status"), (response, "status")):
        status = getattr(holder, name, None)
        if isinstance(status, int) and not isinstance(status, bool) and 400 <= status <= 599:
            return status
    return None


def _asked_to_come_back(exc: BaseException) -> bool:
    """Whether a mail server answered 4xx, such as "greylisted": to the sender, or about every recipient."""
    replies = [getattr(exc, "smtp_code", None)]
    refused = getattr(exc, "recipients", None)
    if isinstance(refused, Mapping) and refused:
        replies = [reply[0] if isinstance(reply, tuple) and reply else None for reply in refused.values()]
    return all(isinstance(code, int) and 400 <= code <= 499 for code in replies)


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """The exception, then what it says it was raised from. A group counts as its first member."""
    current: BaseException | None = exc
    for _ in range(_MAX_CAUSES):
        if current is None:
            return
        yield current
        current = current.exceptions[0] if isinstance(current, BaseExceptionGroup) else current.__cause__
