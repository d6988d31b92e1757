"""Looking, and changing nothing: runs, show, story, workers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple
from uuid import UUID

import typer

from control.cli import output
from control.cli.follow import follow
from control.cli.options import AsJson, RunName, Wait, Watch
from control.cli.session import caller, with_control
from control.cli.standing import find, full, standing
from control.core.run_status import Status

if TYPE_CHECKING:
    from rich.table import Table

    from control.core.story import Sentence
    from control.runtime.commands import Control
    from control.store.listing import Listed

_LOOK_S: Final = 1.0
_COLUMNS: Final = ("run", "workflow", "status", "for", "done", "started", "by")


class Asked(NamedTuple):
    """Which runs to list. `after`: a run as a person names it; the list goes on behind it."""

    status: Status | None
    limit: int
    after: str | None


class Page(NamedTuple):
    """Runs, newest first; `next` is the last of them where older ones follow."""

    runs: list[Listed]
    next: UUID | None


def runs(
    ctx: typer.Context,
    *,
    status: Annotated[Status | None, typer.Option("--status", help="Only runs with this status.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many, newest first.")] = 20,
    after: Annotated[
        str | None, typer.Option("--after", metavar="RUN", help="Only older runs than this one: the next page.")
    ] = None,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """List the newest runs, a page at a time; with --watch, a live table."""
    asked = Asked(status, limit, after)

    async def look(control: Control) -> None:
        if watch:
            await _keep_looking(control, asked, as_json=as_json)
        page = await listed(control, asked)
        if as_json:
            output.emit(as_plain(page))
        elif page.runs:
            output.console().print(runs_table(page.runs))
            _say_next(page, asked, tenant=caller(ctx).tenant)
        else:
            none_at_all = status is None and after is None
            output.say("There is no run yet; `control start` makes one." if none_at_all else "There is no such run.")

    with_control(ctx, look)


def show(ctx: typer.Context, run: RunName, *, wait: Wait = False, as_json: AsJson = False) -> None:
    """Show one run: status and why, progress, open questions with their evidence, effects, and what may be done."""

    async def look(control: Control) -> None:
        run_id = await find(control, run)
        if wait:
            await follow(control, run_id, as_json=as_json)
        seen = await standing(control, run_id, close=True)
        if as_json:
            output.emit(full(seen))
        else:
            from control.cli.portrait import portrait

            output.console().print(portrait(seen))

    with_control(ctx, look)


def story(
    ctx: typer.Context,
    run: RunName,
    *,
    entries: Annotated[bool, typer.Option("--entries", help="List the ledger's entries behind each sentence.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell what happened to a run, in sentences made from its ledger."""

    async def read(control: Control) -> None:
        from control.core.ledger import canonical
        from control.core.story import tell
        from control.store import listing

        run_id = await find(control, run)
        async with control.transaction() as conn:
            await control.read(conn, run_id)
            ledger = {entry.seq: entry async for entry in listing.entries(conn, control.tenant, run_id)}
        told = tell(ledger.values())
        if as_json:
            output.emit([_sentence(sentence) for sentence in told])
            return
        for sentence in told:
            output.say(f"{output.moment(sentence.at)}  {sentence.text}")
            for seq in sentence.entries if entries else ():
                entry = ledger[seq]
                output.say(f"{'':>25}{seq:>4}  {entry.kind}  {entry.actor}  {canonical(entry.body).decode()}")

    with_control(ctx, read)


def workers(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """List the processes that may hold runs, and whether they live."""

    async def read(control: Control) -> list[dict[str, Any]]:
        from control.core.action import Action
        from control.store import claims

        async with control.transaction() as conn:
            await control.require(conn, Action.READ)
            return await claims.workers(conn, grace=control.failover_wait)

    found = with_control(ctx, read)
    if as_json:
        output.emit(found)
    elif found:
        output.console().print(output.table(("worker", "kind", "where", "state", "since"), map(_worker, found)))
    else:
        output.say("No worker is registered; `control worker` or `control dev` starts one.")


async def listed(control: Control, asked: Asked) -> Page:
    """The runs asked for, as they stand now. Raises `no-such-run` where there is none to go on behind."""
    from control.store import listing

    async with control.transaction() as conn:
        before = listing.NEWEST
        if asked.after is not None:
            last = (await control.read(conn, await control.find(conn, asked.after))).run
            before = (last.created_at, last.run_id)
        authority = await control.authority(conn)
        found = await listing.page(
            conn,
            control.tenant,
            where=authority.visible().where,
            limit=asked.limit + 1,
            stall_after=control.stall_after,
            status=asked.status,
            before=before,
        )
    shown = [run for run in found[: asked.limit] if authority.sees(run, Status(run.status))]
    return Page(shown, found[asked.limit - 1].run_id if len(found) > asked.limit else None)


def _say_next(page: Page, asked: Asked, *, tenant: str | None) -> None:
    if page.next is None:
        return
    whose = f" --tenant {tenant}" if tenant else ""
    status = f" --status {asked.status}" if asked.status else ""
    output.say(f"There are older ones: `control{whose} runs{status} --limit {asked.limit} --after {page.next}`.")


def runs_table(listed: Iterable[Listed]) -> Table:
    """Runs for people. Times are spans until now."""
    now = datetime.now(UTC)
    return output.table(
        _COLUMNS,
        (
            (
                str(run.run_id)[:8],
                run.workflow or "",
                output.word(run.status),
                output.span(now - run.since),
                f"{len(run.parts)} of {run.parts_total}" if run.parts_total else str(len(run.parts)),
                f"{output.span(now - run.created_at)} ago",
                run.created_by,
            )
            for run in listed
        ),
    )


def as_plain(page: Page) -> dict[str, Any]:
    """A page as JSON values. `next` is what `--after` takes for the page that follows; None at the end."""
    return {"runs": [_run(run) for run in page.runs], "next": page.next}


def _run(run: Listed) -> dict[str, Any]:
    return {
        "run_id": str(run.run_id),
        "thread_id": run.thread_id,
        "workflow": run.workflow,
        "status": run.status,
        "since": run.since,
        "until": run.due_at,
        "progress": {"done": len(run.parts), "total": run.parts_total},
        "created_at": run.created_at,
        "created_by": run.created_by,
        "worker_id": run.worker_id,
        "epoch": run.epoch,
        "takeovers": run.takeovers,
    }


async def _keep_looking(control: Control, asked: Asked, *, as_json: bool) -> None:
    """Until Ctrl-C. JSON and a plain pipe get a new list only where something changed."""
    from rich.live import Live

    screen = output.console()
    live = Live(console=screen, auto_refresh=False) if sys.stdout.isatty() and not as_json else None
    last: dict[str, Any] | None = None
    if live:
        live.start()
    try:
        while True:
            page = await listed(control, asked)
            now = as_plain(page)
            if live:
                live.update(runs_table(page.runs), refresh=True)
            elif now != last:
                output.emit(now, line=True) if as_json else screen.print(runs_table(page.runs))
            last = now
            await asyncio.sleep(_LOOK_S)
    finally:
        if live:
            live.stop()


def _sentence(sentence: Sentence) -> dict[str, Any]:
    return {"at": sentence.at, "text": sentence.text, "entries": list(sentence.entries)}


def _worker(row: dict[str, Any]) -> tuple[Any, ...]:
    state = "gone" if not row["alive"] else "draining" if row["draining"] else "alive"
    colour = {"gone": "red", "draining": "magenta", "alive": "green"}[state]
    return (
        str(row["worker_id"])[:8],
        row["kind"],
        f"{row['host']}:{row['pid']}",
        output.text(state, colour),
        output.moment(row["started_at"]),
    )
