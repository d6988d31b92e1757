"""How exceptions are told apart, and when a failed run is tried again."""

from __future__ import annotations

import asyncio
import errno
import smtplib
import socket
from datetime import UTC, datetime, timedelta
from types import MappingProxyType, SimpleNamespace

import httpx
import psycopg
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph import errors as langgraph
from psycopg_pool import PoolTimeout

from control.core.failure import BY_NAME, FailureClass, classify
from control.core.retry import Backoff, RetryPolicy, next_retry

NOW = datetime(2026, 3, 1, tzinfo=UTC)
REQUEST = httpx.Request("POST", "http://crm.example/charge")


class WithStatus(Exception):
    def __init__(self, status_code: object) -> None:
        super().__init__("refused")
        self.status_code = status_code


class OnResponse(Exception):
    def __init__(self, status: int) -> None:
        super().__init__("refused")
        self.response = SimpleNamespace(status=status)


class Declared(ValueError):
    failure_class = FailureClass.HUMAN


class Unheard(Exception):
    pass


def http(code: int) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError("no", request=REQUEST, response=httpx.Response(code, request=REQUEST))


def invalid() -> pydantic.ValidationError:
    with pytest.raises(pydantic.ValidationError) as caught:
        pydantic.TypeAdapter(int).validate_python("x")
    return caught.value


CASES = [
    (langgraph.InvalidUpdateError("two writes"), "poisoned"),
    (langgraph.UnknownInterruptError("gone", reason="not_pending", interrupt_ids=(), pending_ids=()), "incompatible"),
    (langgraph.GraphRecursionError("25"), "permanent"),
    (langgraph.EmptyInputError("nothing"), "permanent"),
    (langgraph.NodeTimeoutError.__new__(langgraph.NodeTimeoutError), "transient"),
    (TimeoutError(), "transient"),
    (ConnectionResetError(), "transient"),
    (asyncio.CancelledError(), "transient"),
    (socket.gaierror(-2, "no such host"), "transient"),
    (OSError(errno.EHOSTUNREACH, "no route"), "transient"),
    (OSError(errno.ENOSPC, "disk full"), "permanent"),
    (FileNotFoundError(errno.ENOENT, "gone"), "permanent"),
    (httpx.ConnectTimeout("slow"), "transient"),
    (httpx.RemoteProtocolError("cut off"), "transient"),
    (httpx.UnsupportedProtocol("ftp"), "permanent"),
    (smtplib.SMTPServerDisconnected("gone"), "transient"),
    (smtplib.SMTPConnectError(-1, "no greeting"), "transient"),
    (smtplib.SMTPDataError(451, b"try again later"), "transient"),
    (smtplib.SMTPDataError(554, b"spam"), "permanent"),
    (smtplib.SMTPSenderRefused(421, b"too many connections", "a@bank.example"), "transient"),
    (smtplib.SMTPAuthenticationError(535, b"who are you"), "permanent"),
    (smtplib.SMTPRecipientsRefused({"b@home.example": (450, b"greylisted")}), "transient"),
    (smtplib.SMTPRecipientsRefused({"b@home.example": (450, b"later"), "c@d.example": (550, b"who")}), "permanent"),
    (smtplib.SMTPRecipientsRefused({}), "permanent"),
    (psycopg.OperationalError("server closed"), "transient"),
    (psycopg.errors.DeadlockDetected("deadlock"), "transient"),
    (psycopg.errors.UniqueViolation("twice"), "permanent"),
    (PoolTimeout("none free"), "transient"),
    (invalid(), "permanent"),
    (KeyError("score"), "permanent"),
    (TypeError("no"), "permanent"),
    (UnicodeDecodeError("utf-8", b"", 0, 1, "bad"), "permanent"),
    (Unheard(), "permanent"),
    (Declared(), "human"),
    (ExceptionGroup("several", [ConnectionResetError(), ValueError()]), "transient"),
    (WithStatus("503"), "permanent"),
    (WithStatus(True), "permanent"),
]


@pytest.mark.parametrize(("exc", "failure"), CASES, ids=[type(exc).__name__ for exc, _ in CASES])
def test_an_exception_has_a_class(exc: BaseException, failure: str) -> None:
    assert classify(exc) == failure


@pytest.mark.parametrize("code", [400, 401, 403, 404, 408, 409, 410, 422, 425, 429, 451, 500, 502, 503, 504, 529, 599])
@pytest.mark.parametrize("carrier", [http, WithStatus, OnResponse])
def test_an_http_status_decides_wherever_it_is_carried(carrier: type[Exception], code: int) -> None:
    transient = code >= 500 or code in (408, 425, 429)
    assert classify(carrier(code)) == ("transient" if transient else "permanent")


def test_an_exception_that_says_nothing_is_judged_by_its_cause() -> None:
    error = Unheard("could not charge")
    error.__cause__ = http(503)
    assert classify(error) is FailureClass.TRANSIENT
    error.__cause__ = error
    assert classify(error) is FailureClass.PERMANENT


def test_the_names_in_the_table_exist_in_the_installed_libraries() -> None:
    for name in BY_NAME:
        module, _, kind = name.rpartition(".")
        if module in ("langgraph.errors", "builtins", "asyncio.exceptions", "socket", "smtplib", "httpx", "psycopg"):
            found = getattr(__import__(module, fromlist=["_"]), kind)
            assert f"{found.__module__}.{found.__qualname__}" == name


POLICY = RetryPolicy(MappingProxyType({FailureClass.TRANSIENT: Backoff(5, initial_s=1, factor=2, max_s=5, spread=0.5)}))


def test_pauses_grow_up_to_a_limit_and_then_end() -> None:
    retries = [next_retry(POLICY, FailureClass.TRANSIENT, n, now=NOW, jitter=0) for n in range(5)]
    assert [at and (at - NOW).total_seconds() for at in retries] == [1, 2, 4, 5, None]


@given(st.sampled_from([kind for kind in FailureClass if kind is not FailureClass.TRANSIENT]), st.floats(0, 1))
def test_other_classes_are_not_tried_again_unless_the_policy_says_so(failure: FailureClass, jitter: float) -> None:
    assert next_retry(RetryPolicy(), failure, 0, now=NOW, jitter=jitter) is None
    if failure is not FailureClass.POISONED:
        asked_for = RetryPolicy({failure: Backoff(2)})
        assert next_retry(asked_for, failure, 0, now=NOW, jitter=jitter) is not None


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_jitter_shortens_a_pause_by_its_share_at_most(retries: int, jitter: float) -> None:
    backoff = Backoff(attempts=20_000, initial_s=1, factor=2, max_s=60, spread=0.25)
    full = backoff.pause_s(retries, 0)
    assert 0.75 * full <= backoff.pause_s(retries, jitter) <= full <= 60
    at = next_retry(
        RetryPolicy({FailureClass.TRANSIENT: backoff}), FailureClass.TRANSIENT, retries, now=NOW, jitter=jitter
    )
    assert at is not None and NOW < at <= NOW + timedelta(seconds=60)


def test_a_policy_cannot_retry_what_cannot_advance() -> None:
    with pytest.raises(AssertionError, match="a poisoned checkpoint cannot advance"):
        RetryPolicy({FailureClass.POISONED: Backoff(2)})
