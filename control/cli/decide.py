"""Questions: the inbox, and the words that settle them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

import typer

from control.cli import options, output
from control.cli.lifecycle import order
from control.cli.options import AsJson, Note, Question, RunName, Wait
from control.cli.session import with_control
from control.core.answer import Word

if TYPE_CHECKING:
    from control.runtime.commands import Control
    from control.store.listing import Waiting
    from control.store.runs import Run

_COLUMNS: Final = ("run", "workflow", "question", "kind", "waits", "expires")

Answer = Annotated[
    str | None, typer.Option("--answer", metavar="JSON", help="What the question asks for: JSON, @file, or -.")
]


def approve(
    ctx: typer.Context,
    run: RunName,
    *,
    question: Question = None,
    answer: Answer = None,
    note: Note = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Approve what a run asks leave for. `control show` has the evidence."""
    given = _Given(Word.APPROVED, options.json_text(answer), question, note)
    order(ctx, run, given.decide, wait=wait, as_json=as_json)


def reject(
    ctx: typer.Context,
    run: RunName,
    *,
    question: Question = None,
    note: Note = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Reject what a run asks leave for."""
    order(ctx, run, _Given(Word.REJECTED, None, question, note).decide, wait=wait, as_json=as_json)


def answer(
    ctx: typer.Context,
    run: RunName,
    value: Annotated[
        str, typer.Argument(metavar="JSON", help="JSON, @file, or - for standard input.", show_default=False)
    ],
    *,
    question: Question = None,
    note: Note = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Answer what a run asks, or say whether an effect in doubt has happened."""
    given = _Given(Word.ANSWERED, options.json_text(value), question, note)
    order(ctx, run, given.decide, wait=wait, as_json=as_json)


def approvals(
    ctx: typer.Context,
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many, oldest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """The inbox: every question that waits for a person."""

    async def read(control: Control) -> list[Waiting]:
        from control.store.listing import inbox

        async with control.transaction() as conn:
            return await inbox(conn, control.tenant, limit=limit)

    waiting = with_control(ctx, read)
    if as_json:
        output.emit([_as_json(question) for question in waiting])
    elif waiting:
        output.console().print(output.table(_COLUMNS, map(_row, waiting)))
        output.say("`control show RUN` has the evidence; then `control approve`, `reject` or `answer` RUN.")
    else:
        output.say("Nobody is asked for anything.")


@dataclass(frozen=True, slots=True)
class _Given:
    """What was said, to be recorded as the decision of a question."""

    word: Word
    answer: Any
    interrupt_id: str | None
    note: str | None

    async def decide(self, control: Control, run_id: UUID) -> Run:
        from control.runtime.commands.decide import decide

        return await decide(
            control, run_id, self.word, answer=self.answer, interrupt_id=self.interrupt_id, note=self.note
        )


def _as_json(question: Waiting) -> dict[str, Any]:
    names = ("run_id", "workflow", "thread_id", "interrupt_id", "node", "kind", "title", "opened_at", "expires_at")
    return {name: getattr(question, name) for name in names} | {"packet": json.loads(question.packet)}


def _row(question: Waiting) -> tuple[Any, ...]:
    waited = output.span(datetime.now(UTC) - question.opened_at)
    return (
        str(question.run_id)[:8],
        question.workflow or "",
        question.title,
        question.kind,
        waited,
        output.moment(question.expires_at),
    )
