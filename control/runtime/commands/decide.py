"""Decide a question: approve, reject, or answer.

What was said is checked against the question's packet and schema before anything is written; one that does not fit
leaves the question open. It is bound to the interrupt it was given for, and delivered by that id alone. Once a question
of the run has been decided, the next must be named: whoever says "yes" twice means the one question that was shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from control.core.answer import Said, Word, read_back, settle, takes_no
from control.core.approval import ALREADY_DECIDED, On, objection, step
from control.core.decision import ANSWER_INVALID, invalid
from control.core.freshness import ANSWER_STALE, STALE, Moved, refused
from control.core.intent import edited
from control.core.lifecycle import VERB_NOT_LEGAL, Verb
from control.core.packet import packet_text
from control.core.phrasing import instant
from control.core.problem import Problem, Refusal
from control.core.verdict import Permit
from control.runtime.agency import beyond
from control.runtime.authority import AGREEMENT_NEEDED, NOT_PERMITTED, Authority, resource
from control.runtime.commands import Change, Control, check_size
from control.runtime.commands.vote import count, hear
from control.runtime.dissent import dissent
from control.runtime.rules_in_force import in_force_at
from control.store import binding, questions
from control.store.questions import Approval
from control.store.runs import Run

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
    on_behalf_of: str | None = None,
) -> Run:
    """Record the one decision of a question, or a vote towards it. `answer`, `edit` and `decisions` are those of
    `core.answer.Said`.

    interrupt_id: None means the only question that this word can answer, in a run of which none was decided before.
    digest: of the packet that was shown. on_behalf_of: in whose place the vote is cast. Raises `no-such-run`,
    `which-question`, `already-decided`, `verb-not-legal`, `answer-late`, `answer-stale`, `packet-changed`,
    `answer-invalid`, `not-entitled`, `voted-already`, `votes-differ`.
    """
    said = Said(word, answer=answer, edit=edit, decisions=decisions, note=note)
    try:
        async with control.changing(run_id, _VERB[word]) as change:
            question = await _meant(change, word, interrupt_id)
            _check_shown(question, digest)
            decided = await _decide(change, question, said, on_behalf_of=on_behalf_of)
    except Refusal as refusal:
        if refusal.problem in (NOT_PERMITTED, AGREEMENT_NEEDED) and interrupt_id is not None:
            await _refuse_outruled(control, run_id, word, interrupt_id=interrupt_id, refusal=refusal)
        if refusal.problem is VERB_NOT_LEGAL and interrupt_id is not None:
            await _refuse_second(control, run_id, interrupt_id)
        raise
    if isinstance(decided, Refusal):
        raise decided
    return decided


async def _decide(change: Change, question: Approval, said: Said, *, on_behalf_of: str | None) -> Run | Refusal:
    """The run as decided; or why the answer is stale, which is on record then."""
    control, asked = change.control, question.asks
    heard = await hear(change, question, on_behalf_of)
    verdict = settle(asked, said, by=control.by, at=change.at).word
    yes = verdict is not Word.REJECTED
    by = heard.signature(yes=yes)
    value = settle(asked, said, by=by, at=change.at).value
    _check(question, value)
    await _check_changes(change, question, value)
    text = control.serde.redact_json(json.dumps(value, ensure_ascii=False))
    check_size(control, len(text.encode()))
    if yes and (unfit := objection(heard.asked.approval, heard.voter, yes=True)):
        raise unfit
    about = binding.Subject(question.interrupt_id, asked, question.node)
    if (
        yes
        and asked.is_approval
        and (
            moves := await binding.moves(
                change.conn, change.run, about, opened_at=question.opened_at, at=change.at, dissent=dissent
            )
        )
    ):
        if not takes_no(asked):
            raise refused(ANSWER_STALE, moves)
        kind, body = await binding.outdate(change.conn, change.run, about, moves=moves, found="answer", at=change.at)
        await change.save(replace(change.run, woken_at=change.at), [*heard.entries, change.entry(kind, body)])
        return refused(ANSWER_STALE, moves)
    if asked.is_approval:
        agreed = _agreed(control, said)
        settled, entries = await count(change, heard, yes=yes, agreed=agreed, note=said.note)
        if not settled:
            return await change.save(change.run, entries)
    else:
        step(heard.asked.approval, On.ANSWER)
        entries = list(heard.entries)
    key = question.interrupt_id
    await questions.decide(
        change.conn, change.run, key, decision=verdict, answer=text, note=said.note, by=by, at=change.at
    )
    kind, _, body = questions.decided(key, verdict, text, note=said.note, by=control.by)
    return await change.save(replace(change.run, woken_at=change.at), [*entries, change.entry(kind, body)])


async def _check_changes(change: Change, question: Approval, value: Any) -> None:
    """Refuse changed arguments that others would have to agree to, or nobody may."""
    asked = question.asks
    changed = edited(asked, read_back(asked, value))
    if changed and (why := await beyond(change.conn, change.run, asked, changed=changed, node=question.node)):
        raise invalid(f"{why}. Reject it with a reason, and let the agent ask for that instead.")


async def _refuse_outruled(control: Control, run_id: UUID, word: Word, *, interrupt_id: str, refusal: Refusal) -> None:
    """Whoever might have decided when it was asked, and may not now, is told that the policy has moved."""
    async with control.transaction() as conn:
        now = await control.read(conn, run_id)
        question = await questions.read_approval(conn, now.run, interrupt_id)
        if question is None:
            return
        before = Authority(await in_force_at(conn, control.tenant, question.opened_at), control.principal)
        if isinstance(before.judge(_VERB[word], resource(*now.seen)), Permit):
            verb = f"on {_VERB[word]} by {control.by}"
            raise refused(ANSWER_STALE, [Moved("policy", verb, "permitted", refusal.why)], **refusal.facts)


def _agreed(control: Control, said: Said) -> str | None:
    """What a yes agrees to besides the question as it was asked, as JSON text."""
    given = {"answer": said.answer, "edit": said.edit, "decisions": said.decisions}
    stated = {name: value for name, value in given.items() if value is not None}
    return control.serde.redact_json(packet_text(stated)) if stated else None


def _check_shown(question: Approval, digest: str | None) -> None:
    now = bytes(question.packet_digest).hex()
    if digest is not None and digest != now:
        raise PACKET_CHANGED.because("Its digest differs from the one that was decided on.", digest=now)


async def _refuse_second(control: Control, run_id: UUID, interrupt_id: str) -> None:
    """Whoever decides second is told who decided, and when, whatever the run has become since."""
    async with control.transaction() as conn:
        known = await questions.read_approval(conn, (await control.read(conn, run_id)).run, interrupt_id)
    if known is not None and known.decision is not None:
        raise _decided(known)


async def _meant(change: Change, word: Word, interrupt_id: str | None) -> Approval:
    """The open question that is decided, held by the run's lock."""
    fitting = [q for q in await questions.open_approvals(change.conn, change.run) if _answers(word, q)]
    if interrupt_id is None:
        if before := await questions.last_decided(change.conn, change.run):
            who, at = before["decided_by"], instant(before["decided_at"])
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
    assert known.decided_at is not None, "what is decided was so at some time"
    at = instant(known.decided_at)
    if known.decision == "superseded":
        move = Moved("head", known.node, "asked", f"no longer asked since {at}")
        return refused(ANSWER_STALE, [move])
    if known.decision == STALE:
        return ANSWER_STALE.because(f"{json.loads(known.answer or '{}').get('note')}, which was found before.")
    who = known.decided_by or "the control plane"
    return ALREADY_DECIDED.because(
        f"{who} {known.decision} it at {at}.",
        decided_by=known.decided_by,
        decision=known.decision,
        decided_at=known.decided_at.isoformat(),
    )


def _check(question: Approval, value: Any) -> None:
    if question.schema is None:
        return
    fault = best_match(Draft202012Validator(question.schema).iter_errors(value))
    if fault is not None:
        where = fault.json_path.removeprefix("$.").removeprefix("$") or "the answer"
        said = "a value is needed here" if fault.validator == "not" else fault.message
        raise ANSWER_INVALID.because(f"{where}: {said}.", schema=question.schema)
