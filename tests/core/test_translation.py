"""One table says what a status is called elsewhere, and official clients can rely on it."""

from __future__ import annotations

import pytest

from control.core.run_status import CLAIMED, TERMINAL, Status
from control.core.translation import WORDS, AguiOutcome, TaskState, ThreadWord, TurnWord


def test_every_status_has_its_words() -> None:
    assert set(WORDS) == set(Status)
    sentences = [words.sentence for words in WORDS.values()]
    assert len(set(sentences)) == len(sentences)
    assert all(sentence.endswith(".") for sentence in sentences)


def test_the_words_are_those_of_langgraphs_clients() -> None:
    assert {word.value for word in TurnWord} == {"pending", "running", "error", "success", "timeout", "interrupted"}
    assert {word.value for word in ThreadWord} == {"idle", "busy", "interrupted", "error"}


@pytest.mark.parametrize("status", Status)
def test_the_protocols_agree_with_each_other(status: Status) -> None:
    words = WORDS[status]
    assert words.run.over is (words.agui is not None)
    assert (words.thread is ThreadWord.BUSY) is not words.run.over
    assert (words.thread is ThreadWord.ERROR) is (words.run is TurnWord.ERROR) is (words.agui is AguiOutcome.ERROR)


def test_laws_of_the_table() -> None:
    ended_tasks = {TaskState.COMPLETED, TaskState.CANCELED, TaskState.FAILED}
    assert {status for status in Status if WORDS[status].a2a in ended_tasks} == TERMINAL
    assert all(WORDS[status].run is TurnWord.RUNNING for status in CLAIMED)
    asking = {Status.AWAITING_APPROVAL, Status.AWAITING_INPUT}
    assert {status for status in Status if WORDS[status].a2a is TaskState.INPUT_REQUIRED} == asking
    assert all(WORDS[status].thread is ThreadWord.INTERRUPTED for status in asking)
    assert WORDS[Status.CANCELLED].thread is ThreadWord.IDLE, (
        "a cancelled run must not look as if it waits for a person"
    )
