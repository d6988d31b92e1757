"""No order of events lets an action through that its gate does not, and what is settled stays settled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any, Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from control.core.approval import (
    EDGES,
    Approval,
    On,
    State,
    Vote,
    Voter,
    barred_of,
    cast,
    empty_seats,
    lapse,
    next_due,
    objection,
    step,
)
from control.core.gate import Gate, OnTimeout, Rung
from control.core.problem import Refusal

BEGIN: Final = datetime(2026, 3, 1, 9, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
PEOPLE: Final = ("ana", "ben", "cleo", "dan")
ROLES: Final = ("finance", "risk", "lead")

names = st.sampled_from(PEOPLE)
roles = st.frozensets(st.sampled_from(ROLES))


@st.composite
def gates(draw: st.DrawFn) -> tuple[Gate, timedelta | None]:
    """A gate that `read_gate` would take, and the span it is open for."""
    expires_in = draw(st.none() | st.just(6 * HOUR))
    ways = tuple(OnTimeout) if expires_in else (OnTimeout.DENY,)
    on_timeout = draw(st.sampled_from(ways))
    rungs = tuple(Rung(hours * HOUR, ("lead",)) for hours in draw(st.sampled_from([(), (1,), (1, 2), (2, 5)])))
    if on_timeout is OnTimeout.ESCALATE:
        rungs = (*rungs, Rung(draw(st.sampled_from([6, 9])) * HOUR, ("lead",)))
    quorum = draw(st.integers(1, 3))
    kept = draw(st.lists(st.sampled_from(ROLES[:2]), max_size=quorum, unique=True))
    return Gate(
        quorum=quorum,
        roles=tuple(sorted(draw(roles))),
        voters=tuple(sorted(draw(st.frozensets(names, min_size=3)))) if draw(st.booleans()) else (),
        seats=tuple((role, 1) for role in sorted(kept)),
        four_eyes=draw(st.booleans()),
        on_timeout=on_timeout,
        ladder=rungs,
        skills=() if draw(st.booleans()) else None,
    ), expires_in


@dataclass(frozen=True)
class Moment:
    """Something that happens to an approval, after a while."""

    after: timedelta
    voter: Voter | None  # None: the clock is looked at
    yes: bool = True
    answer: str = ""


voters = st.builds(Voter, names, roles, st.none() | names, st.frozensets(names, max_size=2))
moments = st.builds(
    Moment,
    st.sampled_from([timedelta(), HOUR / 2, HOUR, 3 * HOUR]),
    st.none() | voters,
    st.sampled_from([True, True, True, False]),
    st.sampled_from(["", "", "", "other"]),
)


@dataclass(frozen=True)
class Told:
    """One moment of a history: what the approval was, what happened, and what it became."""

    before: Approval
    moment: Moment
    now: datetime
    after: Approval


@st.composite
def histories(draw: st.DrawFn) -> list[Told]:
    gate, expires_in = draw(gates())
    approval = Approval(
        BEGIN,
        gate=gate,
        expires_at=BEGIN + expires_in if expires_in else None,
        barred=barred_of(gate, started_by=["ana"]),
    )
    story, now = [], BEGIN
    for moment in draw(st.lists(moments, max_size=12)):
        now += moment.after
        after = happen(approval, moment, now)
        story.append(Told(approval, moment, now, after))
        approval = after
    return story


def happen(approval: Approval, moment: Moment, now: datetime) -> Approval:
    """What a command or a sweep does; a refused vote leaves the approval as the clock has it."""
    approval = next((lapsed.after for lapsed in reversed([*lapse(approval, now)])), approval)
    if moment.voter is None:
        return approval
    try:
        return cast(approval, Vote(moment.voter, moment.yes, now, moment.answer))
    except Refusal:
        return approval


def seats_filled(approval: Approval) -> bool:
    """The law, said another way than the code says it: some order of the voters fills every seat."""
    wanted = [{role} | approval.escalated_to for role, n in approval.gate.seats for _ in range(n)]
    wanted += [set()] * (approval.gate.quorum - len(wanted))
    held = [vote.voter.roles for vote in approval.yes]
    return any(
        all(not seat or seat & roles for seat, roles in zip(wanted, chosen, strict=True))
        for chosen in permutations(held, len(wanted))
    )


@given(histories())
def test_nothing_is_approved_without_its_quorum(story: list[Told]) -> None:
    for told in story:
        if told.after.state is not State.APPROVED:
            continue
        approval = told.after
        assert seats_filled(approval)
        assert len({person for vote in approval.yes for person in vote.voter.persons}) >= approval.gate.quorum
        assert not any(vote.voter.persons & approval.barred for vote in approval.yes)
        assert len({vote.answer for vote in approval.yes}) == 1
        assert all(vote.yes for vote in approval.votes)
        assert approval.overdue or not approval.expires_at or approval.votes[-1].at < approval.expires_at


@given(histories())
def test_a_person_counts_once(story: list[Told]) -> None:
    for told in story:
        persons = [person for vote in told.after.yes for person in vote.voter.persons]
        assert len(persons) == len(set(persons))


@given(histories())
def test_whoever_votes_may(story: list[Told]) -> None:
    for told in story:
        if len(told.after.votes) > len(told.before.votes):
            approval, voter = told.after, told.after.votes[-1].voter
            everybody = not approval.roles and not approval.gate.voters
            assert everybody or voter.seat in approval.gate.voters or voter.roles & approval.roles


@given(histories(), st.sampled_from(On))
def test_a_settled_question_never_changes(story: list[Told], on: On) -> None:
    for told in story:
        if not told.before.open:
            assert told.after == told.before
            with pytest.raises(Refusal) as refused:
                step(told.before, on)
            assert refused.value.code == "already-decided"


@given(histories())
def test_one_no_of_somebody_who_may_vote_settles_it(story: list[Told]) -> None:
    for told in story:
        voter, approval = told.moment.voter, told.before
        if voter is None or told.moment.yes:
            continue
        now = next((lapsed.after for lapsed in reversed([*lapse(approval, told.now)])), approval)
        if now.open and objection(now, voter, yes=False) is None:
            assert told.after.state is State.REJECTED


@given(histories())
def test_an_open_question_still_lacks_somebody(story: list[Told]) -> None:
    for told in story:
        if told.after.open:
            assert empty_seats(told.after) > 0 and not seats_filled(told.after)


def test_a_yes_that_fills_no_seat_is_not_taken_and_may_be_said_once_it_fills_one() -> None:
    """Taken before, it would fill a seat with the rung that calls in its voter's role, and nobody would see."""
    gate = Gate(voters=("ana",), seats=(("finance", 1),), ladder=(Rung(HOUR, ("lead",)),))
    approval, ana = Approval(BEGIN, gate=gate), Voter("ana", frozenset({"lead"}))
    with pytest.raises(Refusal, match="No seat that is empty is for ana, who has the role lead") as refused:
        cast(approval, Vote(ana, True, BEGIN))
    assert refused.value.code == "not-entitled"
    (climbed,) = lapse(approval, BEGIN + HOUR)
    assert cast(climbed.after, Vote(ana, True, BEGIN + HOUR)).state is State.APPROVED
    assert cast(approval, Vote(ana, False, BEGIN)).state is State.REJECTED


@given(histories(), st.lists(st.integers(0, 400), max_size=5))
def test_it_does_not_matter_how_often_anybody_looks_at_the_clock(story: list[Told], looks: list[int]) -> None:
    """Nobody for days, or a sweep a minute: the same things happen, once each, in the same order."""
    assume(story)
    approval, end = story[0].before, BEGIN + 400 * HOUR / 10
    at_once = [*lapse(approval, end)]
    in_turn: list[Any] = []
    for minutes in [*sorted(looks), 400]:
        found = [*lapse(approval, BEGIN + minutes * HOUR / 10)]
        in_turn += found
        approval = found[-1].after if found else approval
    assert [(lapsed.due, lapsed.after) for lapsed in in_turn] == [(lapsed.due, lapsed.after) for lapsed in at_once]
    assert [lapsed.due.at for lapsed in at_once] == sorted(lapsed.due.at for lapsed in at_once)


@given(histories())
def test_time_alone_denies_defaults_or_escalates_as_the_gate_says(story: list[Told]) -> None:
    assume(story)
    first = story[0].before
    end = first
    for lapsed in lapse(first, BEGIN + 100 * HOUR):
        end = lapsed.after
    if first.expires_at is None:
        assert end.open and end.rung == len(first.gate.ladder)
        return
    expected = {OnTimeout.DENY: State.DENIED, OnTimeout.DEFAULT: State.DEFAULTED, OnTimeout.ESCALATE: State.OPEN}
    assert end.state is expected[first.gate.on_timeout]
    assert end.rung == len(first.gate.ladder) and next_due(end) is None


def test_every_way_out_of_open_is_in_the_table_and_there_is_no_other() -> None:
    assert {state for state, _ in EDGES} == {State.OPEN}
    assert {on for _, on in EDGES} == set(On)
    assert set(EDGES.values()) == set(State)


@given(st.lists(roles, max_size=4), st.lists(st.sampled_from(ROLES[:2]), max_size=2), st.integers(0, 2))
def test_seats_are_filled_as_well_as_they_can_be(held: list[frozenset[str]], kept: list[str], free: int) -> None:
    quorum = max(1, len(kept) + free)
    gate = Gate(quorum=quorum, seats=tuple((role, kept.count(role)) for role in dict.fromkeys(kept)))
    votes = tuple(Vote(Voter(f"p{n}", had), True, BEGIN) for n, had in enumerate(held))
    assert (empty_seats(Approval(BEGIN, gate=gate, votes=votes)) == 0) is seats_filled(
        Approval(BEGIN, gate=gate, votes=votes)
    )


def asked(**gate: Any) -> Approval:
    made = Gate(**gate)
    return Approval(BEGIN, gate=made, expires_at=BEGIN + HOUR, barred=barred_of(made, started_by=["ana"]))


def yes(name: str, *held: str, at: datetime = BEGIN, place: str | None = None, answer: str = "") -> Vote:
    return Vote(Voter(name, frozenset(held), place), True, at, answer)


AFTER_BEN: Final = cast(asked(quorum=2, roles=("finance",)), yes("ben", "finance", "risk"))

REFUSED: Final[list[tuple[str, Callable[[], Approval], str]]] = [
    ("not-entitled", lambda: cast(asked(roles=("finance", "lead")), yes("ben", "risk")),
     "It takes the role finance or lead; ben has the role risk."),
    ("not-entitled", lambda: cast(asked(voters=("cleo",), roles=("lead",)), yes("ben")),
     "It takes the role lead, or to be cleo; ben has no role."),
    ("not-entitled", lambda: cast(asked(roles=("lead",)), yes("ben", "risk", place="cleo")),
     "It takes the role lead; ben for cleo has the role risk."),
    ("not-entitled", lambda: cast(asked(four_eyes=True), yes("ana")),
     "Four eyes are wanted here, and ana may not approve."),
    ("not-entitled", lambda: cast(asked(four_eyes=True), yes("ben", place="ana")),
     "Four eyes are wanted here, and ana may not approve."),
    ("not-entitled", lambda: cast(asked(not_by=("ben",)), yes("ben")),
     "Four eyes are wanted here, and ben may not approve."),
    ("voted-already", lambda: cast(AFTER_BEN, yes("ben", "finance")),
     "ben said yes at 2026-03-01 09:00:00 UTC, and ben counts once."),
    ("voted-already", lambda: cast(AFTER_BEN, yes("cleo", "finance", place="ben")),
     "ben said yes at 2026-03-01 09:00:00 UTC, and ben counts once."),
    ("voted-already", lambda: cast(AFTER_BEN, yes("ben", "finance", place="cleo")),
     "ben said yes at 2026-03-01 09:00:00 UTC, and ben counts once."),
    ("votes-differ", lambda: cast(AFTER_BEN, yes("cleo", "finance", answer="d")),
     "ben agreed at 2026-03-01 09:00:00 UTC, to another answer."),
    ("answer-late", lambda: cast(asked(), yes("ben", at=BEGIN + HOUR)),
     "Its time ended at 2026-03-01 10:00:00 UTC."),
    ("already-decided", lambda: cast(replace(asked(), state=State.REJECTED), yes("ben")),
     "It is rejected; a yes that leaves seats empty changes nothing any more."),
]  # fmt: skip


@pytest.mark.parametrize(("code", "act", "why"), REFUSED, ids=[f"{n}-{code}" for n, (code, *_) in enumerate(REFUSED)])
def test_a_refusal_says_what_was_missing(code: str, act: Callable[[], Approval], why: str) -> None:
    with pytest.raises(Refusal) as refused:
        act()
    assert (refused.value.code, refused.value.why) == (code, why)


def test_two_of_three_approve() -> None:
    approval = cast(asked(quorum=2, roles=("finance",)), yes("ben", "finance"))
    assert approval.open and empty_seats(approval) == 1
    assert cast(approval, yes("dan", "finance")).state is State.APPROVED


def test_a_seat_for_each_role_is_not_filled_by_one_person_or_by_two_of_one_role() -> None:
    approval = asked(quorum=2, seats=(("finance", 1), ("risk", 1)))
    both = cast(approval, yes("ben", "finance", "risk"))
    assert both.open
    assert cast(both, yes("cleo", "finance")).state is State.APPROVED  # ben then sits for risk
    one = cast(approval, yes("ben", "finance"))
    with pytest.raises(Refusal, match="No seat that is empty is for cleo, who has the role finance"):
        cast(one, yes("cleo", "finance"))
    assert cast(one, yes("dan", "risk")).state is State.APPROVED


def test_whoever_said_yes_may_still_say_no() -> None:
    assert cast(AFTER_BEN, replace(yes("ben", "finance"), yes=False)).state is State.REJECTED


def test_the_starter_may_say_no_to_what_four_eyes_guard() -> None:
    assert cast(asked(four_eyes=True), replace(yes("ana"), yes=False)).state is State.REJECTED


def test_a_rung_calls_in_others_and_shuts_nobody_out() -> None:
    approval = asked(roles=("finance",), ladder=(Rung(HOUR / 2, ("lead",)),))
    with pytest.raises(Refusal):
        cast(approval, yes("dan", "lead"))
    (climbed,) = lapse(approval, BEGIN + HOUR / 2)
    assert climbed.due.on is On.RUNG
    for name, role in (("dan", "lead"), ("ben", "finance")):
        assert cast(climbed.after, yes(name, role, at=BEGIN + HOUR / 2)).state is State.APPROVED


def test_a_question_whose_time_ended_in_an_escalation_can_still_be_decided() -> None:
    approval = asked(roles=("finance",), on_timeout=OnTimeout.ESCALATE, ladder=(Rung(3 * HOUR, ("lead",)),))
    *_, last = lapse(approval, BEGIN + HOUR)
    assert (last.due.on, last.after.rung, last.after.overdue) == (On.ESCALATE, 1, True)
    assert cast(last.after, yes("dan", "lead", at=BEGIN + 9 * HOUR)).state is State.APPROVED
