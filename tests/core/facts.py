"""Arbitrary facts, and some with names, for the tests of what follows from them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from control.core.execution import Execution
from control.core.facts import Ask, AskKind, Claim, Facts, Fit, Order, Outcome, OutcomeKind, Wait, WaitKind
from control.core.failure import FailureClass
from control.core.run_status import RunStatus, derive
from tests.core.histories import BEGIN, SECOND

HOUR = timedelta(hours=1)
STALL_AFTER = timedelta(minutes=10)

past = st.integers(0, 3600).map(lambda seconds: BEGIN + seconds * SECOND)
future = st.integers(0, 7200).map(lambda seconds: BEGIN + seconds * SECOND)
now = BEGIN + HOUR
"""Everything recorded lies within the hour before `now`; deadlines lie on both sides of it."""

orders = st.none() | st.builds(Order, by=st.just("Ana"), at=past, reason=st.none() | st.just("the customer called"))
asks = st.builds(
    Ask,
    interrupt_id=st.uuids().map(str),
    kind=st.sampled_from(AskKind),
    title=st.just("Pay out 12,000 EUR"),
    node=st.just("pay"),
    since=past,
    expires_at=st.none() | future,
)
waits = st.builds(
    Wait, interrupt_id=st.uuids().map(str), kind=st.just(WaitKind.TIMER), node=st.just("nap"), since=past, due_at=future
) | st.builds(
    Wait,
    interrupt_id=st.uuids().map(str),
    kind=st.just(WaitKind.SIGNAL),
    node=st.just("inbox"),
    since=past,
    signal=st.just("paid"),
)
claims = st.builds(
    lambda claimed_at, moved, alive, node: Claim(3, "w1", claimed_at, max(claimed_at, moved), alive, node),
    past,
    past,
    st.booleans(),
    st.none() | st.just("score"),
)
outcomes = st.builds(
    Outcome,
    kind=st.sampled_from(OutcomeKind),
    at=past,
    failure=st.none() | st.sampled_from(FailureClass),
    why=st.none() | st.just("ValueError: no such account"),
)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


anything = st.builds(
    Facts,
    created_at=st.just(BEGIN),
    execution=st.sampled_from(Execution),
    claim=maybe(claims),
    outcome=maybe(outcomes),
    retry_at=maybe(future),
    crashes=st.integers(0, 3),
    crash_limit=st.just(3),
    takeovers=st.integers(0, 2),
    pause=orders,
    cancel=orders,
    compensating=st.booleans(),
    asks=st.lists(asks, max_size=2).map(tuple),
    waits=st.lists(waits, max_size=2).map(tuple),
    ready=st.integers(0, 2),
    woken_at=maybe(past),
    not_before=maybe(future),
    fit=st.sampled_from(Fit),
    shortfalls=st.integers(0, 2),
    replans=st.integers(0, 1),
)
idle = anything.map(lambda facts: replace(facts, claim=None))
alive = anything.map(lambda facts: replace(facts, claim=facts.claim and replace(facts.claim, alive=True)))


M = timedelta(minutes=1)
T = BEGIN
HELD = Claim(2, "w1", T + M, T + 58 * M)
PAY = Ask("q1", AskKind.APPROVAL, "Pay out 12,000 EUR", "pay", T + 2 * M, T + 90 * M)
WHICH = Ask("q2", AskKind.INPUT, "Which account?", "ask", T + 3 * M)
SENT = Ask("q3", AskKind.DOUBT, "send the letter", "send", T + 3 * M)
NAP = Wait("w1", WaitKind.TIMER, "nap", T + M, T + 70 * M)
PAID = Wait("w2", WaitKind.SIGNAL, "inbox", T + M, signal="paid")
ANA = Order("Ana", T + 20 * M, "the customer called.")


def status(facts: Facts, at: datetime = now) -> RunStatus:
    return derive(facts, now=at, stall_after=STALL_AFTER)
