"""Who has to agree where several rules ask: whatever meets all of them meets each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from control.core.approval import Approval, Vote, Voter, empty_seats
from control.core.demand import Demand, merged, read_demand
from control.core.gate import Gate, Rung, read_gate

AT = datetime(2026, 11, 21, tzinfo=UTC)
ROLES = ("treasurer", "legal", "risk")
roles = st.lists(st.sampled_from(ROLES), min_size=1, max_size=2, unique=True).map(tuple)


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    seats = tuple(sorted(draw(st.dictionaries(st.sampled_from(ROLES), st.integers(1, 2), max_size=2)).items()))
    free = draw(st.integers(0 if seats else 1, 2))
    expires_in = draw(st.none() | st.integers(1, 9).map(lambda hours: timedelta(hours=hours)))
    quorum = sum(count for _, count in seats) + free
    return Demand(Gate(quorum=quorum, roles=draw(roles), seats=seats, four_eyes=draw(st.booleans())), expires_in)


def met(demand: Demand, voters: list[Voter]) -> bool:
    asked = Approval(AT, gate=demand.gate)
    entitled = [voter for voter in voters if voter.roles & asked.roles]
    return empty_seats(Approval(AT, gate=demand.gate, votes=tuple(Vote(each, True, AT) for each in entitled))) == 0


@given(st.lists(demands(), min_size=1, max_size=3), st.lists(roles, max_size=8))
def test_what_meets_the_merged_demand_meets_each(several: list[Demand], held: list[tuple[str, ...]]) -> None:
    voters, whole = [Voter(str(at), frozenset(those)) for at, those in enumerate(held)], merged(several)
    assert not met(whole, voters) or all(met(demand, voters) for demand in several)
    assert whole.gate.four_eyes is any(demand.gate.four_eyes for demand in several)
    times = [demand.expires_in for demand in several if demand.expires_in]
    assert whole.expires_in == min(times, default=None)
    assert read_demand(whole.as_json()) == whole
    assert merged([*several, whole]).gate.quorum == whole.gate.quorum, "nothing is demanded twice"


def test_one_demand_stays_as_it_is() -> None:
    gate = Gate(quorum=2, roles=("treasurer",), ladder=(Rung(timedelta(hours=1), ("director",)),))
    one = Demand(gate, timedelta(hours=4))
    assert merged([one, one]) == one
    assert merged([one, Demand(Gate(roles=("legal",)))]) == Demand(
        Gate(quorum=3, seats=(("legal", 1), ("treasurer", 2))), timedelta(hours=4)
    )


def test_a_seat_of_either_role_is_filled_by_one_of_them() -> None:
    gate = read_gate({"quorum": 2, "seats": {"risk|legal": 1, "treasurer": 1}}, None)
    assert gate.named_roles == {"risk", "legal", "treasurer"}
    voters = [Voter("a", frozenset({"legal"})), Voter("b", frozenset({"risk"})), Voter("c", frozenset({"treasurer"}))]
    assert not met(Demand(gate), voters[:2]) and met(Demand(gate), voters[1:])
