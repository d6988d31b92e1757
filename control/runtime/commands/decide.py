"""Decide a question: approve, reject, or answer.

What was said is checked against the question's packet and schema before anything is written; one that does not fit
leaves the question open. It is bound to the interrupt it was given for, and delivered by that id alone. Once a question
of the run has been decided, the next must be named: whoever says "yes" twice means the one question that was shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from control.core.answer import Said, Word, settle
from control.core.decision import ANSWER_INVALID
from control.core.lifecycle import VERB_NOT_LEGAL, Verb
from control.core.problem import Problem, Refusal
from control.runtime.commands import Change, Control, check_size
from control.store import questions, runs
from control.store.questions import Approval
from control.store.runs import Run

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

PACKET_CHANGED: Final = Problem(
    code="packet-changed",
    status=409,
    title="The question is not the one that was shown",
    next_step="Read the question again, and decide on what it asks now.",
)

_VERB: Final = {Word.APPROVED: Verb.APPROVE, Word.REJECTED: Verb.REJECT, Word.ANSWERED: Verb.ANSWER}


async def decide(
    control: Control,
    run_id: UUID,
    word: Word,
    *,
    answer: Any = None,
    edit: Mapping[str, Any] | None = None,
    decisions: Sequence[Any] | None = None,
    interrupt_id: str | None = None,
    digest: str | None = None,
    note: str | None = None,
) -> Run:
    """Record the one decision of a question. `answer`, `edit` and `decisions` are those of `core.answer.Said`.

    interrupt_id: None means the only question that this word can answer, in a run of which none was decided before.
    digest: of the packet that was shown. Raises `no-such-run`, `which-question`, `already-decided`, `verb-not-legal`,
    `answer-late`, `packet-changed`, `answer-invalid`.
    """
    said = Said(word, answer=answer, edit=edit, decisions=decisions, note=note)
    try:
        return await _decide(control, run_id, said, interrupt_id=interrupt_id, digest=digest)
    except Refusal as refusal:
        if refusal.problem is VERB_NOT_LEGAL and interrupt_id is not None:
            await _refuse_second(control, run_id, interrupt_id)
        raise


async def _decide(control: Control, run_id: UUID, said: Said, *, interrupt_id: str | None, digest: str | None) -> Run:
    async with control.changing(run_id, _VERB[said.word]) as change:
        question = await _meant(change, said.word, interrupt_id)
        _check_shown(question, digest, at=change.at)
        settled = settle(question.asks, said, by=control.by, at=change.at)
        _check(question, settled.value)
        text = control.serde.redact_json(json.dumps(settled.value, ensure_ascii=False))
        check_size(control, len(text.encode()))
        await questions.decide(
            change.conn,
            change.run,
            question.interrupt_id,
            decision=settled.word,
            answer=text,
            note=said.note,
            by=control.by,
            at=change.at,
        )
        kind, _, body = questions.decided(question.interrupt_id, settled.word, text, note=said.note, by=control.by)
        return await change.save(replace(change.run, woken_at=change.at), [change.entry(kind, body)])


def _check_shown(question: Approval, digest: str | None, *, at: datetime) -> None:
    if question.expires_at is not None and question.expires_at <= at:
        raise ANSWER_LATE.because(f"Its time ended at {question.expires_at:%Y-%m-%d %H:%M:%S} UTC.")
    now = bytes(question.packet_digest).hex()
    if digest is not None and digest != now:
        raise PACKET_CHANGED.because("Its digest differs from the one that was decided on.", digest=now)


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
        if before := await questions.last_decided(change.conn, change.run):
            who, at = before["decided_by"], f"{before['decided_at']:%Y-%m-%d %H:%M:%S} UTC"
            why = f"{who} {before['decision']} “{before['title']}” at {at}; name the one that is meant now."
            raise WHICH_QUESTION.because(why, open=[q.interrupt_id for q in fitting])
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
