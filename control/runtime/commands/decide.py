"""Decide a question: approve, reject, or answer.

The answer is checked against the question's schema before anything is written; one that does not fit leaves the
question open. It is bound to the interrupt it was given for, and delivered by that id alone.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from control.core.answer import Word, resume_value
from control.core.lifecycle import VERB_NOT_LEGAL, Verb
from control.core.problem import Problem, Refusal
from control.runtime.commands import Change, Control, check_size
from control.store import questions, runs
from control.store.questions import Approval
from control.store.runs import Run

ANSWER_INVALID: Final = Problem(
    code="answer-invalid",
    status=422,
    title="The answer does not have the shape that was asked for",
    next_step="Correct it and send it again; the question is still open.",
)
ALREADY_DECIDED: Final = Problem(
    code="already-decided",
    status=409,
    title="The question has been decided",
    next_step="Read the run again; a decision is made once.",
)
ANSWER_LATE: Final = Problem(
    code="answer-late",
    status=409,
    title="The time to decide is over",
    next_step="Silence counts as a no, which the next worker records; restart the run to ask again.",
)
WHICH_QUESTION: Final = Problem(
    code="which-question",
    status=409,
    title="It is not clear which question is meant",
    next_step="Name the question's id; `control show RUN` lists those that are open.",
)

_VERB: Final = {Word.APPROVED: Verb.APPROVE, Word.REJECTED: Verb.REJECT, Word.ANSWERED: Verb.ANSWER}


async def decide(
    control: Control,
    run_id: UUID,
    word: Word,
    *,
    answer: Any = None,
    interrupt_id: str | None = None,
    note: str | None = None,
) -> Run:
    """Record the one decision of a question; None means the only one that this word can answer.

    Raises `no-such-run`, `which-question`, `already-decided`, `verb-not-legal`, `answer-invalid`.
    """
    try:
        return await _decide(control, run_id, word, answer=answer, interrupt_id=interrupt_id, note=note)
    except Refusal as refusal:
        if refusal.problem is VERB_NOT_LEGAL and interrupt_id is not None:
            await _refuse_second(control, run_id, interrupt_id)
        raise


async def _decide(
    control: Control, run_id: UUID, word: Word, *, answer: Any, interrupt_id: str | None, note: str | None
) -> Run:
    async with control.changing(run_id, _VERB[word]) as change:
        question = await _meant(change, word, interrupt_id)
        if question.expires_at is not None and question.expires_at <= change.at:
            raise ANSWER_LATE.because(f"Its time ended at {question.expires_at:%Y-%m-%d %H:%M:%S} UTC.")
        packet = json.loads(question.packet)
        value = resume_value(packet, word, answer, note=note, by=control.by, at=change.at)
        _check(question, value)
        text = control.serde.redact_json(json.dumps(value, ensure_ascii=False))
        check_size(control, len(text.encode()))
        await questions.decide(
            change.conn,
            change.run,
            question.interrupt_id,
            decision=word,
            answer=text,
            note=note,
            by=control.by,
            at=change.at,
        )
        kind, _, body = questions.decided(question.interrupt_id, word, text, note=note, by=control.by)
        return await change.save(replace(change.run, woken_at=change.at), [change.entry(kind, body)])


async def _refuse_second(control: Control, run_id: UUID, interrupt_id: str) -> None:
    """Whoever decides second is told who decided, and when, whatever the run has become since."""
    async with control.transaction() as conn:
        run = await runs.read_run(conn, control.tenant, run_id)
        known = await questions.read_approval(conn, run, interrupt_id)
    if known is not None and known.decision is not None:
        raise _decided(known)


async def _meant(change: Change, word: Word, interrupt_id: str | None) -> Approval:
    """The open question that is decided, held by the run's lock."""
    fitting = [q for q in await questions.open_approvals(change.conn, change.run) if _answers(word, q)]
    if interrupt_id is None:
        if len(fitting) != 1:
            ids = [q.interrupt_id for q in fitting]
            raise WHICH_QUESTION.because(f"{len(fitting)} are open that could be {word}.", open=ids)
        return fitting[0]
    for question in fitting:
        if question.interrupt_id == interrupt_id:
            return question
    known = await questions.read_approval(change.conn, change.run, interrupt_id)
    if known is not None and known.decision is not None:
        raise _decided(known)
    raise WHICH_QUESTION.because(f"None that could be {word} has the id {interrupt_id}.", interrupt_id=interrupt_id)


def _answers(word: Word, question: Approval) -> bool:
    return (question.kind == "approval") is (word is not Word.ANSWERED)


def _decided(known: Approval) -> Refusal:
    at = f"{known.decided_at:%Y-%m-%d %H:%M:%S} UTC" if known.decided_at else "some time"
    who = known.decided_by or "the control plane"
    return ALREADY_DECIDED.because(
        f"{who} {known.decision} it at {at}.",
        decided_by=known.decided_by,
        decision=known.decision,
        decided_at=known.decided_at.isoformat() if known.decided_at else None,
    )


def _check(question: Approval, value: Any) -> None:
    if question.schema is None:
        return
    fault = best_match(Draft202012Validator(question.schema).iter_errors(value))
    if fault is not None:
        where = fault.json_path.removeprefix("$.").removeprefix("$") or "the answer"
        said = "a value is needed here" if fault.validator == "not" else fault.message
        raise ANSWER_INVALID.because(f"{where}: {said}.", schema=question.schema)
