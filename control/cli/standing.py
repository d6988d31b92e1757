"""Where one run stands: read in one transaction, shown to people or given as JSON."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from control.core.facts import Facts
from control.core.lifecycle import Verdict
from control.core.run_status import RunStatus
from control.core.translation import WORDS

if TYPE_CHECKING:
    from control.core.execution import Head
    from control.runtime.authority import Authority
    from control.runtime.commands import Control, Now
    from control.store.database import Connection
    from control.store.questions import Approval
    from control.store.runs import Run


@dataclass(frozen=True, slots=True)
class Standing:
    """A run now. `nodes`: those that its worker runs, read from the thread's head; without a worker, those that ask or
    wait. `questions` and `effects` only in a close look.

    named: whether a question must be named to be decided, since another was decided before.
    """

    run: Run
    facts: Facts
    status: RunStatus
    at: datetime
    authority: Authority
    nodes: tuple[str, ...] = ()
    questions: tuple[Approval, ...] = ()
    effects: tuple[dict[str, Any], ...] = field(default=())
    named: bool = False

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What whoever looks may do next, and why not the rest. `start` is never done to a run."""
        return self.authority.next_verbs(self.run, self.status.word, self.facts)[1:]


async def find(control: Control, name: str) -> UUID:
    """The run that a person means. Raises `no-such-run`."""
    async with control.transaction() as conn:
        return await control.find(conn, name)


async def standing(control: Control, run_id: UUID, *, close: bool = False) -> Standing:
    """The run as it stands; `close` reads its questions and effects too. Raises `no-such-run`."""
    from control.store import listing, questions, runs

    async with control.transaction() as conn:
        authority = await control.authority(conn)
        now = await control.look(conn, await runs.read_run(conn, control.tenant, run_id))
        run, facts = now.run, now.facts
        head, _ = await asyncio.gather(_head(conn, run), _require_seen(authority, now))
        asking = (*(ask.node for ask in facts.asks), *(wait.node for wait in facts.waits))
        return Standing(
            run,
            facts,
            now.status,
            now.at,
            authority,
            nodes=head.next if head else tuple(dict.fromkeys(asking)),
            questions=tuple(await questions.open_approvals(conn, run)) if close else (),
            effects=tuple(await listing.effects(conn, control.tenant, run_id)) if close else (),
            named=close and await questions.last_decided(conn, run) is not None,
        )


async def _head(conn: Connection, run: Run) -> Head | None:
    """Where the thread of a run stands that a worker holds."""
    from control.store.checkpoints import heads

    return (await heads(conn, [run.thread_id]))[run.thread_id] if run.worker_id is not None else None


async def _require_seen(authority: Authority, now: Now) -> None:
    """Ask policy, while the database reads the head: the two take longest of a look. Raises `no-such-run`."""
    authority.require_seen(*now.seen)


def brief(standing: Standing) -> dict[str, Any]:
    """The standing as JSON values, without what only a close look reads."""
    run, status = standing.run, standing.status
    return {
        "run_id": str(run.run_id),
        "thread_id": run.thread_id,
        "workflow": run.workflow,
        "tenant": run.tenant,
        "status": status.word.value,
        "because": list(status.because),
        "since": status.since,
        "until": status.until,
        "terminal": status.terminal,
        "facets": sorted(status.facets),
        "progress": {
            "done": status.progress.done,
            "total": status.progress.total,
            "parts": list(status.progress.parts),
            "nodes": list(standing.nodes),
        },
        "created_at": run.created_at,
        "created_by": run.created_by,
        "restarted_from": run.restarted_from,
        "epoch": run.epoch,
        "worker_id": run.worker_id,
        "takeovers": run.takeovers,
        "retries": run.retries,
        "priority": run.priority,
        "head_checkpoint_id": run.head_checkpoint_id,
    }


def full(standing: Standing) -> dict[str, Any]:
    """Everything a close look has read, as JSON values."""
    words = WORDS[standing.status.word]
    return brief(standing) | {
        "questions": [asked(question) for question in standing.questions],
        "effects": list(standing.effects),
        "next": [{"verb": v.verb.value, "allowed": v.allowed, "why": v.why} for v in standing.verdicts],
        "words": words._asdict(),
    }


def asked(question: Approval) -> dict[str, Any]:
    """An open question as JSON values, its packet unpacked."""
    return {
        "interrupt_id": question.interrupt_id,
        "kind": question.kind,
        "title": question.title,
        "node": question.node,
        "opened_at": question.opened_at,
        "expires_at": question.expires_at,
        "packet": json.loads(question.packet),
        "packet_digest": bytes(question.packet_digest).hex(),
        "schema": question.schema,
        "returned": question.returned,
    }
