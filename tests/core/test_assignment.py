"""A question goes to somebody who may, can and has the time, and it is said why."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.approval import Approval, Vote, Voter
from control.core.assignment import Candidate, Nobody, Picked, pick
from control.core.gate import Gate

BEGIN: Final = datetime(2026, 3, 1, 9, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
ASKED: Final = Approval(BEGIN, gate=Gate(roles=("finance",), skills=("tax",)), expires_at=BEGIN + HOUR)

skills = st.frozensets(st.sampled_from(["tax", "law"]))
candidates = st.builds(
    Candidate,
    st.sampled_from(["ana", "ben", "cleo", "dan"]),
    st.frozensets(st.sampled_from(["finance", "risk"])),
    skills,
    st.integers(0, 3),
    st.integers(0, 4),
    st.integers(0, 4),
    st.none() | st.sampled_from([BEGIN - HOUR, BEGIN + HOUR]),
)
lists = st.lists(candidates, max_size=5, unique_by=lambda c: c.name)


def fits(who: Candidate) -> bool:
    here = who.away_until is None or who.away_until <= BEGIN
    return "tax" in who.skills and "finance" in who.roles and who.open < who.capacity and here


@given(lists)
def test_whoever_is_picked_fits_and_nobody_who_fits_is_better(among: list[Candidate]) -> None:
    picked = pick(ASKED, among, now=BEGIN)
    fitting = [who for who in among if fits(who)]
    if isinstance(picked, Nobody):
        assert fitting == [] and picked.why.endswith(".")
        return
    (best,) = [who for who in fitting if who.name == picked.name]
    assert all(best.due_sooner <= who.due_sooner for who in fitting)
    equals = [who for who in fitting if who.due_sooner == best.due_sooner]
    assert all((best.open + 1) / best.capacity <= (who.open + 1) / who.capacity for who in equals)
    assert picked.why.startswith(best.name) and picked.why.endswith(".")


@given(lists, st.randoms())
def test_the_order_of_the_list_does_not_matter(among: list[Candidate], chance: Any) -> None:
    shuffled = chance.sample(among, len(among))
    assert pick(ASKED, among, now=BEGIN) == pick(ASKED, shuffled, now=BEGIN)


BEN: Final = Candidate("ben", frozenset({"finance"}), frozenset({"tax"}), 3)


@pytest.mark.parametrize(
    ("approval", "who", "why"),
    [
        (ASKED, replace(BEN, skills=frozenset()), "1 without the skills"),
        (ASKED, replace(BEN, roles=frozenset({"risk"})), "1 may not approve it"),
        (ASKED, replace(BEN, open=3), "1 without room"),
        (ASKED, replace(BEN, capacity=0), "1 without room"),
        (ASKED, replace(BEN, away_until=BEGIN + timedelta(seconds=1)), "1 away"),
        (replace(ASKED, assignee="ben"), BEN, "1 had it already"),
        (replace(ASKED, barred=frozenset({"ben"})), BEN, "1 may not approve it"),
        (
            replace(ASKED, gate=Gate(quorum=2, skills=()), votes=(Vote(Voter("ben"), True, BEGIN),)),
            BEN,
            "1 may not approve it",
        ),
    ],
)
def test_it_is_said_what_each_lacked(approval: Approval, who: Candidate, why: str) -> None:
    assert pick(approval, [who], now=BEGIN) == Nobody(f"Of those on the list, {why}.")


def test_the_reason_names_skill_room_and_queue() -> None:
    cleo = replace(BEN, name="cleo", open=1, due_sooner=1)
    assert pick(ASKED, [cleo, BEN], now=BEGIN) == Picked(
        "ben", "ben knows tax, has room for 3 of 3 with nothing due sooner; chosen among 2."
    )
    assert pick(ASKED, [cleo], now=BEGIN) == Picked("cleo", "cleo knows tax, has room for 2 of 3 with 1 due sooner.")


def test_nobody_is_on_the_list() -> None:
    assert pick(ASKED, [], now=BEGIN) == Nobody("Nobody is on the list of assignees.")
