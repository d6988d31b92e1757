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
from control.core.answer import Said, Word
from control.core.run_status import Status

if TYPE_CHECKING:
    from control.runtime.commands import Control
    from control.store.listing import Waiting
    from control.store.runs import Run

_COLUMNS: Final = ("run", "workflow", "question", "kind", "waits", "expires")

Answer = Annotated[
    str | None, typer.Option("--answer", metavar="JSON", help="What the question asks for: JSON, @file, or -.")
]


Edit = Annotated[
    str | None,
    typer.Option("--edit", metavar="JSON", help="Arguments of the action to change; the others stay as they are."),
]
Decisions = Annotated[
    str | None,
    typer.Option(
        "--decisions", metavar="JSON", help='One for each action, in order: ["approve", {"type": "reject", …}].'
    ),
]
Digest = Annotated[
    str | None, typer.Option("--digest", metavar="HEX", help="Of the packet that was shown; refused if it changed.")
]


def approve(
    ctx: typer.Context,
    run: RunName,
    *,
    question: Question = None,
    answer: Answer = None,
    edit: Edit = None,
    decisions: Decisions = None,
    digest: Digest = None,
    note: Note = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Approve what a run asks leave for. `control show` has the evidence."""
    said = Said(
        Word.APPROVED, options.json_text(answer), options.json_text(edit), options.json_text(decisions), note=note
    )
    given = _Given(said, question, digest)
    order(ctx, run, given.decide, wait=wait, as_json=as_json)


def reject(
    ctx: typer.Context,
    run: RunName,
    *,
    question: Question = None,
    digest: Digest = None,
    note: Note = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Reject what a run asks leave for."""
    given = _Given(Said(Word.REJECTED, note=note), question, digest)
    order(ctx, run, given.decide, wait=wait, as_json=as_json)


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
    given = _Given(Said(Word.ANSWERED, options.json_text(value), note=note), question, None)
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
            authority = await control.authority(conn)
            found = await inbox(
                conn, control.tenant, limit=limit, stall_after=control.stall_after, where=authority.visible().where
            )
        return [question for question in found if authority.sees(question, Status(question.status))]

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

    said: Said
    interrupt_id: str | None
    digest: str | None

    async def decide(self, control: Control, run_id: UUID) -> Run:
        from control.runtime.commands.decide import decide

        said = self.said
        return await decide(
            control,
            run_id,
            said.word,
            answer=said.answer,
            edit=said.edit,
            decisions=said.decisions,
            interrupt_id=self.interrupt_id,
            digest=self.digest,
            note=said.note,
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
