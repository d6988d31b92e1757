"""The chain: every change, deletion, insertion and reordering is found; a truncation is, once the head is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.ledger import BODY_KEYS, START, Break, Entry, Kind, canonical, chained, link, verify

AT = datetime(2026, 3, 1, 9, 30, 0, 123456, tzinfo=UTC)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=3,
)
drafts = st.lists(
    st.builds(
        Entry,
        seq=st.just(0),
        at=st.integers(0, 10**12).map(lambda us: AT + timedelta(microseconds=us)),
        kind=st.sampled_from([kind for kind in Kind if kind is not Kind.ERASED]),
        actor=st.sampled_from(["ana", "worker:1", "a|b", "zoë", ""]),
        epoch=st.integers(0, 9),
        body=st.dictionaries(st.text(max_size=4), st.none() | st.integers() | st.text(max_size=4), max_size=2),
    ),
    min_size=1,
    max_size=6,
)


def chain(drafted: list[Entry]) -> list[Entry]:
    entries: list[Entry] = []
    for seq, draft in enumerate(drafted, start=1):
        entries.append(chained(replace(draft, seq=seq), prev=entries[-1].hash if entries else START))
    return entries


chains = drafts.map(chain)

CHANGES: list[Callable[[Entry], Entry]] = [
    lambda e: replace(e, seq=e.seq + 1),
    lambda e: replace(e, at=e.at + timedelta(microseconds=1)),
    lambda e: replace(e, kind=Kind.ENDED if e.kind is not Kind.ENDED else Kind.ASKED),
    lambda e: replace(e, actor=e.actor + "|"),
    lambda e: replace(e, epoch=e.epoch + 1),
    lambda e: replace(e, body={**e.body, "decision": "approved!"}),
    lambda e: replace(e, body={**e.body, "score": float("nan")}),
    lambda e: replace(e, body={}, digest=sha256(b"forged").digest()),
    lambda e: replace(e, body={"forged": True}, digest=sha256(canonical(e.body)).digest()),
    lambda e: replace(e, prev=bytes([e.prev[0] ^ 1]) + e.prev[1:]),
    lambda e: replace(e, hash=e.hash[:-1] + bytes([e.hash[-1] ^ 1])),
    lambda e: chained(replace(e, actor="somebody else"), prev=e.prev),
    lambda e: chained(e, prev=bytes(31) + b"\x01"),
]


@given(chains)
def test_a_whole_chain_is_whole(entries: list[Entry]) -> None:
    assert verify(entries) is None
    assert verify(entries, head=entries[-1].hash) is None
    assert verify([]) is None and verify([], head=START) is None


@given(chains, st.data(), st.sampled_from(CHANGES))
def test_a_change_of_one_entry_is_found_there_or_right_after(
    entries: list[Entry], data: st.DataObject, change: Callable[[Entry], Entry]
) -> None:
    place = data.draw(st.integers(0, len(entries) - 1))
    forged = [*entries[:place], change(entries[place]), *entries[place + 1 :]]
    found = verify(forged, head=entries[-1].hash)
    assert found is not None and found.seq in (place + 1, place + 2)


@given(chains, st.data())
def test_a_missing_entry_is_found(entries: list[Entry], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(entries) - 1))
    found = verify([*entries[:place], *entries[place + 1 :]], head=entries[-1].hash)
    assert found is not None and found.seq == place + 1


@given(chains, st.data())
def test_an_entry_that_stands_twice_is_found(entries: list[Entry], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(entries) - 1))
    found = verify([*entries[: place + 1], *entries[place:]], head=entries[-1].hash)
    assert found is not None and found.seq == place + 2


@given(chains.filter(lambda entries: len(entries) > 1), st.data())
def test_two_entries_that_changed_places_are_found(entries: list[Entry], data: st.DataObject) -> None:
    first, second = sorted(data.draw(st.sets(st.integers(0, len(entries) - 1), min_size=2, max_size=2)))
    swapped = list(entries)
    swapped[first], swapped[second] = swapped[second], swapped[first]
    found = verify(swapped)
    assert found is not None and found.seq == first + 1


@given(chains, st.data())
def test_a_truncation_shows_against_the_known_head_only(entries: list[Entry], data: st.DataObject) -> None:
    kept = entries[: data.draw(st.integers(0, len(entries) - 1))]
    assert verify(kept) is None
    expected = Break(len(kept) + 1, "The chain does not end in the hash it is known to end in.")
    assert verify(kept, head=entries[-1].hash) == expected


@given(chains, st.data())
def test_an_erasure_on_record_keeps_the_chain(entries: list[Entry], data: st.DataObject) -> None:
    """All bodies before the record are gone, and all after it are there. Anything else is found."""
    full = [replace(entry, body=entry.body | {"k": 1}) for entry in entries]
    place = data.draw(st.integers(1, len(full)))
    whole = chain(
        [*full[:place], Entry(0, AT, Kind.ERASED, "ana", 1, {"why": "asked", "bodies": place}), *full[place:]]
    )
    gone = [without_body(entry) for entry in whole]
    assert all(entry.erased for entry in gone)
    head = whole[-1].hash
    assert verify([*gone[:place], *whole[place:]], head=head) is None
    spared = data.draw(st.integers(0, place - 1))
    left = [whole[i] if i == spared else gone[i] for i in range(place)]
    assert verify([*left, *whole[place:]]) == Break(spared + 1, "Its content is said to be erased, and stands here.")
    more = [*gone[:place], gone[place], *whole[place + 1 :]]
    assert verify(more) == Break(place + 1, "It is the record of an erasure, and was erased itself.")
    if place < len(full):
        secret = data.draw(st.integers(place + 1, len(full)))
        taken = [*gone[:place], *(gone[i] if i == secret else whole[i] for i in range(place, len(whole)))]
        assert verify(taken) == Break(secret + 1, "Its content is gone, and no entry says who erased it.")


def without_body(entry: Entry) -> Entry:
    return replace(entry, body={}, digest=sha256(canonical(entry.body)).digest())


def test_a_break_says_what_is_wrong() -> None:
    entries = chain([Entry(0, AT, Kind.ORDERED, "ana", 1, {"verb": "pause"})] * 3)
    forged = replace(entries[1], body={"verb": "cancel"})
    assert verify([entries[0], forged, entries[2]]) == Break(2, "Its content does not match its hash.")
    told = replace(forged, digest=sha256(canonical(entries[1].body)).digest())
    assert verify([entries[0], told, entries[2]]) == Break(2, "Its content does not match its digest.")
    rewritten = chained(forged, prev=entries[0].hash)
    assert verify([entries[0], rewritten, entries[2]]) == Break(3, "It does not follow the entry before it.")
    assert verify([entries[0], entries[2]]) == Break(2, "Entry 2 is expected here, and entry 3 stands here.")


def test_the_link_is_these_bytes() -> None:
    """The database computes the same; this vector holds the two together."""
    entry = Entry(7, AT, Kind.DECIDED, "zoë|1", 3, {"b": "€", "a": [1, None]})
    body = rb'{"a":[1,null],"b":"\u20ac"}'
    assert canonical(entry.body) == body
    assert link(entry) == "7|1772357400123456|decided|zoë|1|3|".encode() + sha256(body).digest()
    assert chained(entry, prev=START).hash == sha256(bytes(32) + link(entry)).digest()


def test_an_instant_is_the_same_in_every_zone() -> None:
    entry = Entry(1, AT, Kind.HANDLED, "ana", 1, {})
    abroad = replace(entry, at=AT.astimezone(timezone(timedelta(hours=-7))))
    assert link(entry) == link(abroad)


@given(st.dictionaries(st.text(), values, max_size=4))
def test_a_body_read_back_has_the_same_bytes(body: dict[str, object]) -> None:
    assert canonical(json.loads(canonical(body))) == canonical(body)
    assert canonical(body).isascii()


def test_a_body_that_json_cannot_say_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"score": float("inf")})


def test_every_kind_has_its_body_described() -> None:
    assert set(BODY_KEYS) == set(Kind)
