"""Which verb is legal when, and what a refusal says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.execution import Execution
from control.core.facts import AskKind, Facts, Fit, Outcome, OutcomeKind
from control.core.failure import FailureClass
from control.core.lifecycle import EFFECT, LEGAL, Verb, judge, next_verbs, require
from control.core.problem import Refusal
from control.core.run_status import CLAIMED, TERMINAL, Status
from tests.core.facts import ANA, PAY, SENT, WHICH, anything, status
from tests.core.histories import BEGIN

verbs = st.sampled_from(Verb)


@given(anything, verbs)
def test_a_verb_is_legal_exactly_where_the_table_has_it_and_nothing_speaks_against_it(facts: Facts, verb: Verb) -> None:
    word = status(facts).word
    objection = LEGAL[verb].get(word)
    assert judge(verb, word, facts).allowed is (objection is not None and objection(facts) is None)


@given(anything)
def test_the_next_verbs_answer_for_every_verb_in_order(facts: Facts) -> None:
    verdicts = next_verbs(status(facts).word, facts)
    assert [verdict.verb for verdict in verdicts] == list(Verb)
    assert all(verdict.why.endswith(".") for verdict in verdicts)
    assert all(verdict.why == EFFECT[verdict.verb] for verdict in verdicts if verdict.allowed)


@given(anything, verbs)
def test_requiring_a_verb_refuses_exactly_what_is_not_legal(facts: Facts, verb: Verb) -> None:
    word = status(facts).word
    verdict = judge(verb, word, facts)
    if verdict.allowed:
        require(verb, word, facts)
        return
    with pytest.raises(Refusal) as refused:
        require(verb, word, facts)
    assert refused.value.code == "verb-not-legal" and refused.value.problem.status == 409
    assert refused.value.why == verdict.why
    assert refused.value.facts["legal"] == [v.verb for v in next_verbs(word, facts) if v.allowed]


@given(anything)
def test_nobody_is_left_without_a_way_on(facts: Facts) -> None:
    """Whatever stands still until a person acts offers that person a verb."""
    word = status(facts).word
    if word in TERMINAL | {Status.PAUSED, Status.BLOCKED, Status.AWAITING_APPROVAL, Status.AWAITING_INPUT}:
        assert any(verdict.allowed for verdict in next_verbs(word, facts))


@given(anything, st.sampled_from(("erased", "deleted")))
def test_nothing_is_done_to_a_run_that_is_gone(facts: Facts, how: str) -> None:
    gone = replace(facts, **{how: True})
    assert not any(verdict.allowed for verdict in next_verbs(status(gone).word, gone))


def legal_in(verb: Verb) -> set[Status]:
    return set(LEGAL[verb])


def test_laws_of_the_table() -> None:
    assert legal_in(Verb.START) == legal_in(Verb.INJECT) == set()
    assert legal_in(Verb.RESUME) == {Status.PAUSED}
    assert legal_in(Verb.RESTART) == TERMINAL | {Status.BLOCKED}
    assert not legal_in(Verb.CANCEL) & TERMINAL
    assert not legal_in(Verb.REWIND) & (CLAIMED | {Status.QUEUED, Status.CANCELLED})
    assert legal_in(Verb.APPROVE) == legal_in(Verb.REJECT) == legal_in(Verb.ANSWER)
    assert not legal_in(Verb.APPROVE) & (TERMINAL | {Status.BLOCKED, Status.CANCELLING})
    assert legal_in(Verb.RETRY) == {Status.FAILED, Status.ABANDONED, Status.BLOCKED, Status.WAITING}


def failed(failure: FailureClass) -> Outcome:
    return Outcome(OutcomeKind.FAILED, BEGIN, failure)


REFUSALS: list[tuple[Verb, Status, dict[str, Any], str]] = [
    (Verb.START, Status.RUNNING, {}, "The run is running. A run is started once; start a new one instead."),
    (
        Verb.PAUSE,
        Status.RUNNING,
        {"pause": ANA},
        "A pause is ordered already; it takes hold at the next step boundary.",
    ),
    (Verb.PAUSE, Status.PAUSED, {"pause": ANA}, "The run is paused. It stays paused until somebody resumes it."),
    (Verb.INJECT, Status.RUNNING, {}, "The run is running. Nothing in it will take new context into account."),
    (Verb.RESUME, Status.AWAITING_APPROVAL, {}, "The run is awaiting approval. Only a paused run is resumed."),
    (
        Verb.APPROVE,
        Status.AWAITING_INPUT,
        {"asks": (WHICH, SENT)},
        "No approval is open: none was asked for, or it was decided already.",
    ),
    (
        Verb.ANSWER,
        Status.AWAITING_APPROVAL,
        {"asks": (PAY,)},
        "No question is open: none was asked, or it was answered already.",
    ),
    (
        Verb.APPROVE,
        Status.CANCELLED,
        {"asks": (PAY,)},
        "The run was cancelled. Its approvals can no longer be decided.",
    ),
    (
        Verb.REJECT,
        Status.BLOCKED,
        {"asks": (PAY,)},
        "The run is blocked. A decision could not be delivered while it is blocked.",
    ),
    (Verb.CANCEL, Status.SUCCEEDED, {}, "The run has succeeded. There is nothing left to stop."),
    (Verb.CANCEL, Status.CANCELLING, {}, "The run is cancelling. An order to cancel is being carried out already."),
    (
        Verb.RETRY,
        Status.FAILED,
        {"outcome": failed(FailureClass.POISONED)},
        "It cannot advance from its checkpoint, so a retry fails again; rewind or restart it.",
    ),
    (
        Verb.RETRY,
        Status.FAILED,
        {"execution": Execution.ROUTING_FAILED},
        "It cannot advance from its checkpoint, so a retry fails again; rewind or restart it.",
    ),
    (
        Verb.RETRY,
        Status.BLOCKED,
        {"fit": Fit.CHANGED},
        "Its checkpoint does not fit the deployed graph; deploy one that fits, rewind or restart it.",
    ),
    (Verb.RETRY, Status.WAITING, {}, "No attempt has failed, so there is nothing to retry."),
    (Verb.RETRY, Status.CANCELLED, {}, "The run was cancelled. A cancelled run stays cancelled; restart it instead."),
    (
        Verb.RESTART,
        Status.QUEUED,
        {},
        "The run is queued. Only a run that has ended or is blocked is restarted; cancel it first.",
    ),
    (Verb.REWIND, Status.FAILED, {}, "It has no checkpoint yet to go back to."),
    (
        Verb.REWIND,
        Status.STALLED,
        {},
        "The run is stalled. Only a run that no worker holds or may take is rewound; pause it first.",
    ),
    (Verb.SIGNAL, Status.PARTIAL, {}, "The run has finished in part. Nothing in it can wait for a signal any more."),
]


@pytest.mark.parametrize(("verb", "word", "about", "why"), REFUSALS)
def test_a_refusal_says_why(verb: Verb, word: Status, about: dict[str, Any], why: str) -> None:
    verdict = judge(verb, word, Facts(created_at=BEGIN, **about))
    assert (verdict.allowed, verdict.why) == (False, why)


ALLOWED: list[tuple[Verb, Status, dict[str, Any]]] = [
    (Verb.APPROVE, Status.PAUSED, {"asks": (PAY,)}),
    (Verb.REJECT, Status.RUNNING, {"asks": (PAY, WHICH)}),
    (Verb.ANSWER, Status.AWAITING_APPROVAL, {"asks": (SENT,)}),
    (Verb.RETRY, Status.FAILED, {"outcome": failed(FailureClass.PERMANENT), "execution": Execution.FAILED}),
    (Verb.RETRY, Status.WAITING, {"outcome": failed(FailureClass.TRANSIENT), "retry_at": BEGIN}),
    (Verb.RETRY, Status.BLOCKED, {"outcome": failed(FailureClass.HUMAN)}),
    (Verb.RETRY, Status.ABANDONED, {"crashes": 3}),
    (Verb.REWIND, Status.SUCCEEDED, {"execution": Execution.FINISHED}),
    (Verb.CANCEL, Status.BLOCKED, {}),
]


@pytest.mark.parametrize(("verb", "word", "about"), ALLOWED)
def test_what_is_legal(verb: Verb, word: Status, about: dict[str, Any]) -> None:
    assert judge(verb, word, Facts(created_at=BEGIN, **about)).allowed


def test_questions_of_every_kind_can_be_decided_by_some_verb() -> None:
    deciders = {AskKind.APPROVAL: Verb.APPROVE, AskKind.INPUT: Verb.ANSWER, AskKind.DOUBT: Verb.ANSWER}
    for ask in (PAY, WHICH, SENT):
        facts = Facts(created_at=BEGIN, execution=Execution.WAITING, asks=(ask,))
        assert judge(deciders[ask.kind], status(facts).word, facts).allowed
