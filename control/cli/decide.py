"""Questions: the inbox, and the words that settle them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

import typer

from control.cli import options, output
from control.cli.lifecycle import command, order
from control.cli.options import AsJson, Note, Question, RunName, Wait
from control.cli.session import with_control
from control.core.answer import Said, Word
from control.core.lifecycle import Verb
from control.core.run_status import Status

if TYPE_CHECKING:
    from rich.table import Table

    from control.runtime.commands import Control
    from control.store.inbox import Waiting
    from control.store.runs import Run

_COLUMNS: Final = ("run", "workflow", "question", "kind", "waits", "ends in")

OnBehalfOf = Annotated[
    str | None, typer.Option("--for", metavar="NAME", help="Vote in the place of somebody who has arranged it.")
]
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
    on_behalf_of: OnBehalfOf = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Approve what a run asks leave for, or vote for it where it takes several. `control show` has the evidence."""
    said = Said(
        Word.APPROVED, options.json_text(answer), options.json_text(edit), options.json_text(decisions), note=note
    )
    given = _Given(said, question, digest, on_behalf_of)
    order(ctx, run, given.decide, wait=wait, as_json=as_json)


def reject(
    ctx: typer.Context,
    run: RunName,
    *,
    question: Question = None,
    digest: Digest = None,
    note: Note = None,
    on_behalf_of: OnBehalfOf = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Reject what a run asks leave for."""
    given = _Given(Said(Word.REJECTED, note=note), question, digest, on_behalf_of)
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


def reassign(
    ctx: typer.Context,
    run: RunName,
    *,
    to: Annotated[
        str | None, typer.Option("--to", metavar="NAME", help="To whom. Default: whoever has the skill and the room.")
    ] = None,
    question: Question = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Give what a run asks leave for to somebody else to decide."""

    order(ctx, run, command(Verb.REASSIGN, to=to, interrupt_id=question), wait=wait, as_json=as_json)


def approvals(
    ctx: typer.Context,
    *,
    mine: Annotated[bool, typer.Option("--mine", help="Only what is mine to decide.")] = False,
    oldest: Annotated[bool, typer.Option("--oldest", help="The longest open first, not what ends first.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """The inbox: every question that waits for a person, what ends first before the rest."""

    async def read(control: Control) -> list[Waiting]:
        from control.runtime.commands.delegate import voters
        from control.store.inbox import inbox

        async with control.transaction() as conn:
            authority = await control.authority(conn)
            speakers = await voters(control, conn) if mine else []
            found = await inbox(
                conn,
                control.tenant,
                limit=limit,
                stall_after=control.stall_after,
                where=authority.visible().where,
                voters=speakers,
                oldest=oldest,
            )
        return [question for question in found if authority.sees(question, Status(question.status))]

    waiting = with_control(ctx, read)
    if as_json:
        output.emit([_as_json(question) for question in waiting])
    elif waiting:
        output.console().print(_table(waiting))
        output.say("`control show RUN` has the evidence; then `control approve`, `reject` or `answer` RUN.")
    else:
        output.say("Nobody is asked for anything.")


@dataclass(frozen=True, slots=True)
class _Given:
    """What was said, to be recorded as the decision of a question."""

    said: Said
    interrupt_id: str | None
    digest: str | None
    on_behalf_of: str | None = None

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
            on_behalf_of=self.on_behalf_of,
        )


def _as_json(question: Waiting) -> dict[str, Any]:
    names = ("run_id", "workflow", "thread_id", "interrupt_id", "node", "kind", "title", "opened_at", "expires_at")
    approval = question.approval
    return {name: getattr(question, name) for name in names} | {
        "next_at": question.due_at,
        "quorum": approval.gate.quorum,
        "votes": [vote.voter.name for vote in approval.yes],
        "roles": sorted(approval.roles),
        "rung": approval.rung,
        "assignee": approval.assignee,
        "assigned_why": question.assigned_why,
        "packet": json.loads(question.packet),
    }


def _table(waiting: Sequence[Waiting]) -> Table:
    """The inbox; with whom a question lies is told where any lies with somebody."""
    desks = [question.approval.assignee or "" for question in waiting]
    if not any(desks):
        return output.table(_COLUMNS, map(_row, waiting))
    rows = [(*_row(question), desk) for question, desk in zip(waiting, desks, strict=True)]
    return output.table((*_COLUMNS, "with"), rows)


def _row(question: Waiting) -> tuple[Any, ...]:
    now, gate = datetime.now(UTC), question.approval.gate
    votes = f", {len(question.approval.yes)} of {gate.quorum}" if gate.quorum > 1 else ""
    left = "" if question.expires_at is None else output.span(question.expires_at - now)
    return (
        str(question.run_id)[:8],
        question.workflow or "",
        question.title,
        f"{question.kind}{votes}",
        output.span(now - question.opened_at),
        "overdue" if question.approval.overdue else left,
    )
