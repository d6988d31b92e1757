"""Who has had much stands back behind who has had little, by so much and for so long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from control.core.turns import AHEAD, FADES_S, Turns

served = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 10)), max_size=60)


@given(served)
def test_nobody_stands_back_further_than_the_bound_or_for_ever(history: list[tuple[str, float]]) -> None:
    turns, now = Turns(), 0.0
    for tenant, later in history:
        now += later
        turns = turns.given([tenant], now)
    assert all(0 < back <= AHEAD for back in turns.behind(now).values())
    assert set(turns.behind(now)) <= {tenant for tenant, _ in history}
    assert turns.behind(now + 30 * FADES_S) == {}, "it is forgotten, and takes no room"


@given(st.integers(1, 10))
def test_what_was_had_fades_by_half(times: int) -> None:
    turns = Turns().given(["a"] * times, 5.0)
    assert turns.behind(5.0) == {"a": times}
    assert turns.behind(5.0 + FADES_S) == {"a": times / 2}


def test_a_quiet_tenant_is_ahead_of_a_busy_one() -> None:
    turns = Turns().given(["noisy"] * 500, 1.0).given(["quiet"] * 3, 2.0)
    behind = turns.behind(2.0)
    assert behind["noisy"] == AHEAD and behind["quiet"] == 3
