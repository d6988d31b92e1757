"""Limits read back as they were typed, and say truthfully when there is room again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.limits import Hold, Limits, Per, Quota, Use, admission, hold, limit, tokens_of
from control.core.problem import Refusal

NOW = datetime(2026, 2, 28, 23, 59, 30, 5, tzinfo=UTC)
instants = st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC))
budgets = st.builds(Quota, st.decimals(0, 10**6, places=6), st.sampled_from([Per.HOUR, Per.DAY, Per.MONTH]))


@given(budgets, instants)
def test_a_window_holds_its_instant_and_ends_where_the_next_begins(quota: Quota, now: datetime) -> None:
    first, after = quota.window(now)
    assert first <= now < after
    assert quota.window(after)[0] == after
    assert quota.window(after - timedelta(microseconds=1)) == (first, after)


@given(budgets)
def test_a_quota_is_read_as_it_is_written(quota: Quota) -> None:
    assert limit("usd", str(quota)) == quota


@given(budgets, st.decimals(0, 10**6, places=9), instants)
def test_a_start_is_refused_exactly_where_a_run_is_held_back(quota: Quota, usd: Decimal, now: datetime) -> None:
    limits, use = Limits(usd=quota), Use(usd=usd)
    held, refused = hold(limits, use, now=now), admission(limits, use, now=now)
    assert (held is None) == (refused is None) == (usd < quota.most)
    if held and refused and quota.most:
        assert held.until is not None and held.until > now
        assert refused.facts["retry_at"] == held.until.isoformat()
        assert now + timedelta(seconds=refused.facts["retry_after_s"]) >= held.until


def test_a_rate_names_the_instant_when_the_oldest_start_has_passed() -> None:
    limits = Limits(starts=Quota(Decimal(2), Per.MINUTE))
    assert admission(limits, Use(), now=NOW) is None
    since = NOW - timedelta(seconds=59)
    refused = admission(limits, Use(full_since=since), now=NOW)
    assert refused is not None
    assert (refused.facts["retry_at"], refused.facts["retry_after_s"]) == (
        (since + timedelta(minutes=1)).isoformat(),
        1,
    )
    assert refused.why.endswith("There is room again at 2026-02-28 23:59:32 UTC."), "rounded up, never too early"
    assert admission(limits, Use(full_since=since), now=since + timedelta(minutes=1)) is None
    assert hold(limits, Use(full_since=since), now=NOW) is None, "a rate keeps no run from going on"


def test_a_budget_of_nothing_ends_at_no_time() -> None:
    limits = Limits(tokens=Quota(Decimal(0), Per.DAY))
    held, refused = hold(limits, Use(), now=NOW), admission(limits, Use(), now=NOW)
    assert held == Hold(
        "It is ready, but held back. The tenant has used 0 of 0 tokens in this day (tokens)."
        " It goes on when it has a budget."
    )
    assert refused is not None and "retry_at" not in refused.facts


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("runs_at_once", "ten", "it begins with no number"),
        ("runs_at_once", "5/day", "it is a number, whatever the time"),
        ("runs_at_once", "-1", "it is from 0 to 1,000,000"),
        ("runs_at_once", "1.5", "it is a whole number"),
        ("starts", "600", "it is per minute, hour or day"),
        ("starts", "600/month", "it is per minute, hour or day"),
        ("usd", "5/minute", "it is per hour, day or month"),
        ("usd", "nan/day", "it is from 0 to 1,000,000,000"),
        ("usd", "1e99/day", "it is from 0 to 1,000,000,000"),
        ("usd", "0.0000001/day", "it has at most 6 places"),
        ("tokens", "", "it begins with no number"),
        ("tokens", "1.5/day", "it is a whole number"),
    ],
)
def test_what_is_no_limit_is_refused(name: str, text: str, why: str) -> None:
    with pytest.raises(Refusal, match=why) as refused:
        limit(name, text)
    assert refused.value.code == "limit-invalid"


def test_the_word_none_takes_a_limit_away() -> None:
    assert [limit(name, "none") for name in ("runs_at_once", "starts", "usd", "tokens")] == [None] * 4


class Said:
    def __init__(self) -> None:
        self.usage_metadata = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}


@pytest.mark.parametrize(
    ("outcome", "tokens"),
    [
        (Said(), 7),
        ([Said(), Said()], 14),
        ({"raw": Said(), "parsed": None}, 7),
        ({"usage_metadata": {"total_tokens": 9}}, 9),
        ({"usage_metadata": {"total_tokens": "9"}}, 0),
        ("forty-two", 0),
        (None, 0),
        ({}, 0),
    ],
)
def test_tokens_are_those_that_the_answer_names(outcome: object, tokens: int) -> None:
    assert tokens_of(outcome) == tokens
