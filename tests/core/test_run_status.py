"""The status of a run: laws over arbitrary facts."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from control.core.execution import Execution
from control.core.facts import AskKind, Claim, Facts, Progress
from control.core.run_status import CLAIMED, RULES, STUCK, TERMINAL, Facet, Index, Status, index, without_worker
from tests.core.facts import ANA, STALL_AFTER, T, alive, anything, claims, idle, now, past, status
from tests.core.histories import BEGIN


@given(anything)
def test_every_combination_of_facts_has_a_status_that_says_why(facts: Facts) -> None:
    found = status(facts)
    assert found.because
    assert all(sentence[-1] == "." and "None" not in sentence and ".." not in sentence for sentence in found.because)
    assert found == status(facts)


@given(anything)
def test_it_has_been_so_since_some_moment_that_is_past(facts: Facts) -> None:
    assert BEGIN <= status(facts).since <= now


@given(anything)
def test_a_deadline_of_a_word_that_time_changes_lies_ahead(facts: Facts) -> None:
    found = status(facts)
    if found.word in (Status.RUNNING, Status.WAITING) and found.until is not None:
        assert found.until > now
        later = status(facts, found.until)
        assert later.word is {Status.RUNNING: Status.STALLED, Status.WAITING: Status.QUEUED}[found.word]
        assert later.since == found.until or later.since == found.since > found.until


def listed(row: Index, progress_at: datetime | None) -> tuple[str, datetime]:
    """What a list shows: the SQL of the module's docstring, said in Python."""
    if row.status == "running" and progress_at is not None and progress_at + STALL_AFTER <= now:
        return "stalled", progress_at + STALL_AFTER
    if row.status == "waiting" and row.due_at is not None and row.due_at <= now:
        return "queued", max(row.since, row.due_at)
    return row.status, row.since


@given(alive)
def test_the_clock_applied_to_the_stored_index_gives_the_status(facts: Facts) -> None:
    progress_at = facts.claim.progress_at if facts.claim else None
    found = status(facts)
    assert listed(index(facts), progress_at) == (found.word, found.since)


@given(alive, past)
def test_nothing_but_stalling_and_falling_due_depends_on_the_clock(facts: Facts, then: datetime) -> None:
    words = {status(facts, then).word, status(facts).word}
    assert len(words) == 1 or words in ({Status.RUNNING, Status.STALLED}, {Status.WAITING, Status.QUEUED})


@given(anything)
def test_the_index_holds_no_word_that_only_the_clock_gives(facts: Facts) -> None:
    assert index(facts).status is not Status.STALLED


@given(alive)
def test_a_run_is_at_work_exactly_while_a_living_worker_holds_it(facts: Facts) -> None:
    assert (status(facts).word in CLAIMED) is (facts.claim is not None)


@given(anything, claims, past)
def test_a_dead_workers_run_is_already_what_the_takeover_will_make_it(facts: Facts, claim: Claim, at: datetime) -> None:
    orphaned = replace(facts, claim=replace(claim, alive=False))
    foreseen = status(orphaned)
    assert foreseen.word is status(without_worker(orphaned, at=at)).word
    assert foreseen.because[0] == "The worker that held it is gone; a peer takes it over."
    assert foreseen.word not in CLAIMED


@given(idle)
def test_finished_work_is_never_called_anything_else(facts: Facts) -> None:
    done = status(replace(facts, execution=Execution.FINISHED, compensating=False)).word
    assert done is (Status.PARTIAL if facts.shortfalls else Status.SUCCEEDED)
    if facts.execution is not Execution.FINISHED:
        assert status(facts).word not in (Status.SUCCEEDED, Status.PARTIAL)


@given(idle)
def test_nothing_wakes_a_paused_run(facts: Facts) -> None:
    paused = replace(facts, pause=ANA, compensating=False)
    assert status(paused).word in TERMINAL | {Status.PAUSED, Status.BLOCKED}


@given(idle)
def test_an_order_to_cancel_an_idle_run_ends_it(facts: Facts) -> None:
    assert status(replace(facts, cancel=ANA, compensating=False)).terminal


@given(idle, st.sampled_from(sorted(STUCK)))
def test_a_checkpoint_that_cannot_advance_is_never_entered_again(facts: Facts, execution: Execution) -> None:
    assert status(replace(facts, execution=execution, compensating=False)).terminal


@given(idle)
def test_what_is_queued_can_go_on(facts: Facts) -> None:
    if status(facts).word is Status.QUEUED and facts.asks:
        failed_task = facts.execution is Execution.FAILED
        retry_due = facts.retry_at is not None and facts.retry_at <= now
        assert facts.ready or failed_task or retry_due


@given(alive)
def test_an_open_question_is_always_mentioned_while_it_can_be_answered(facts: Facts) -> None:
    found = status(facts)
    speaking = {Status.RUNNING, Status.STALLED, Status.PAUSED, Status.AWAITING_APPROVAL, Status.AWAITING_INPUT}
    if facts.asks and found.word in speaking:
        assert any("“Pay out 12,000 EUR”" in sentence for sentence in found.because)


@given(anything)
def test_a_doubt_is_a_facet_in_every_status(facts: Facts) -> None:
    doubtful = any(ask.kind is AskKind.DOUBT for ask in facts.asks)
    assert (Facet.IN_DOUBT in status(facts).facets) is doubtful
    if facts.replans:
        assert Facet.REPLANNED in status(facts).facets


def test_the_last_rule_catches_everything_and_all_but_one_word_is_stored() -> None:
    assert RULES[-1].holds(Facts(created_at=BEGIN))
    assert {rule.status for rule in RULES} == set(Status) - {Status.STALLED}


def test_progress_and_facets_are_passed_on() -> None:
    facts = Facts(created_at=T, progress=Progress(2, 3, ("draft", "check")), takeovers=1)
    assert status(facts).progress == Progress(2, 3, ("draft", "check"))
    assert status(facts).facets == {Facet.RESUMED}
