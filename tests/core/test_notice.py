"""What a notice says, how it is signed, and when it is tried again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core import webhook
from control.core.notice import Asked, Notice, next_try
from control.core.sink import Event

AT = datetime(2026, 11, 21, 2, 30, tzinfo=UTC)


def notice(event: str = "asked", title: str = "Pay?", **about: Any) -> Notice:
    asked = Asked("i1", "approval", title, "pay", "d" * 64, None, open=True)
    told: dict[str, Any] = {"run_id": "r1", "thread_id": "a/b c", "status": "awaiting_approval", "seq": 4}
    told |= {"workflow": "pay", "by": "worker:1", "question": asked} | about
    return Notice(notice_id="n1", event=event, at=AT, tenant="acme", **told)


def test_the_signature_is_that_of_the_specification() -> None:
    """The example that the specification's own libraries are tested with."""
    secret = webhook.parsed("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = webhook.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', secrets=[secret])
    assert made["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert webhook.spelled(secret) == "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@given(st.binary(min_size=24, max_size=64))
def test_a_secret_reads_as_it_was_written(secret: bytes) -> None:
    assert webhook.parsed(webhook.spelled(secret)) == secret


def test_a_notice_tells_nothing_that_it_does_not_name() -> None:
    entry = {"interrupt_id": "i1", "decision": "answered", "note": "a secret", "rules": ["r"], "digest": "d"}
    told = json.loads(
        notice("decided", entry=entry, by="ana").body("https://desk/{tenant}/{thread_id}?q={interrupt_id}")
    )
    assert told == {
        "id": "n1", "type": "decided", "timestamp": AT.isoformat(),
        "data": {
            "tenant": "acme", "run_id": "r1", "thread_id": "a/b c", "workflow": "pay", "status": "awaiting_approval",
            "seq": 4, "by": "ana", "decision": "answered", "link": "https://desk/acme/a%2Fb%20c?q=i1",
            "question": {
                "interrupt_id": "i1", "kind": "approval", "title": "Pay?", "node": "pay", "digest": "d" * 64,
                "expires_at": None, "open": True,
            },
        },
    }  # fmt: skip


@pytest.mark.parametrize("event", [*Event, "test"])
@given(title=st.text())
def test_a_mail_has_one_line_of_subject_whatever_the_title(event: str, title: str) -> None:
    told = notice(event, title)
    assert told.subject.isprintable() and 0 < len(told.subject) <= 200
    assert told.text(None).isascii() or not title.isascii()


def test_a_mail_names_what_is_known() -> None:
    assert notice(entry={}).text("https://desk/{run_id}").splitlines() == [
        "A question is open.", "", "Question: Pay?", "Node: pay", "Run: r1", "Thread: a/b c", "Workflow: pay",
        "Status: awaiting_approval", "By: worker:1", "At: 2026-11-21T02:30:00+00:00", "Tenant: acme",
        "Open it: https://desk/r1",
    ]  # fmt: skip
    bare = Notice(notice_id="n1", event="test", at=AT, tenant="acme")
    assert bare.text("https://desk/{run_id}") == "This is a test.\n\nAt: 2026-11-21T02:30:00+00:00\nTenant: acme\n"
    assert bare.subject == "[control] This is a test: acme"


@given(st.integers(1, 200), st.integers(1, 200), st.floats(0, 1))
def test_each_try_comes_later_than_the_one_before_and_there_are_no_more_than_allowed(
    tries: int, limit: int, luck: float
) -> None:
    wait = next_try(tries, limit=limit, luck=luck)
    assert (wait is None) == (tries >= limit)
    if wait is not None:
        middle = min(timedelta(seconds=5) * 2 ** min(tries - 1, 20), timedelta(hours=1))
        assert middle * 0.75 <= wait <= middle * 1.25


def test_twelve_tries_take_about_two_hours() -> None:
    waits = [next_try(tries, limit=12, luck=0.5) for tries in range(1, 12)]
    assert timedelta(hours=1.5) < sum((wait for wait in waits if wait), timedelta()) < timedelta(hours=3)
