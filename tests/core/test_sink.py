"""What may be told where: one address, without anything hidden in it, and at least one event."""

from __future__ import annotations

import pytest

from control.core.problem import Refusal
from control.core.sink import Event, SinkKind, Wanted

ASKED = frozenset({Event.ASKED})


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (SinkKind.WEBHOOK, "ftp://example.org/"),
        (SinkKind.WEBHOOK, "https:///path"),
        (SinkKind.WEBHOOK, "https://me:key@example.org/"),
        (SinkKind.WEBHOOK, "https://example.org:port/"),
        (SinkKind.WEBHOOK, "https://example.org/\r\nhost: other"),
        (SinkKind.WEBHOOK, f"https://example.org/{'x' * 2000}"),
        (SinkKind.MAIL, "nobody"),
        (SinkKind.MAIL, "a@example.org, b@example.org"),
        (SinkKind.MAIL, "a@example.org\nbcc: b@example.org"),
        (SinkKind.WEBHOOK, "https://example.org\\@127.0.0.1/"),
        (SinkKind.WEBHOOK, "https://example.org/#part"),
        (SinkKind.WEBHOOK, "https://[::1/"),
        (SinkKind.WEBHOOK, "https://example.org:65536/"),
        (SinkKind.WEBHOOK, "https://bücher.example/"),
        (SinkKind.MAIL, "ana <ana@example.org>"),
    ],
)
def test_what_is_no_address_is_refused(kind: SinkKind, target: str) -> None:
    with pytest.raises(Refusal, match="Nobody can be told there"):
        Wanted(kind, target, ASKED).check()


def test_what_asks_for_nothing_is_refused() -> None:
    with pytest.raises(Refusal, match="No event is named"):
        Wanted(SinkKind.MAIL, "ana@example.org", frozenset()).check()


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (SinkKind.WEBHOOK, "https://example.org"),
        (SinkKind.WEBHOOK, "https://hooks.example.org:8443/services/T0/B1?key=a%20b&c=@d"),
        (SinkKind.WEBHOOK, "http://[fd00::1]:80/x"),
        (SinkKind.MAIL, "ana.o'neil+desk@mail.example.org"),
    ],
)
def test_an_address_is_taken_as_it_is(kind: SinkKind, target: str) -> None:
    Wanted(kind, target, ASKED).check()
