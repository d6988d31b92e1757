"""The auditor: what the database says of each run, against the ledger replayed by `core` alone, and the witness file.

It reads with a superuser's eyes and its own SQL, and shares no code with the store.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from control.core.audit import replay
from control.core.ledger import START, Entry, Kind, Loss, verify
from control.core.run_status import index
from control.testing.chaos import Seen, Toll, Work
from tests.chaos.graphs import expected

_RUNS = """
select r.run_id, r.status, r.execution, r.epoch, r.crashes, r.takeovers, r.retries, r.head_checkpoint_id, r.head_step,
       r.outcome, r.worker_id, r.ledger_hash, (c.checkpoint -> 'channel_values' ->> 'total')::int as total,
       array(select a.interrupt_id from control.approval a where a.tenant = r.tenant and a.run_id = r.run_id
             and a.decision is null order by 1) as asks,
       array(select w.interrupt_id from control.wait w where w.tenant = r.tenant and w.run_id = r.run_id
             and w.fired_at is null and w.withdrawn_at is null order by 1) as waits
from control.run r left join checkpoints c
    on c.thread_id = r.thread_id and c.checkpoint_ns = '' and c.checkpoint_id = r.head_checkpoint_id
"""
_ENTRIES = """
select run_id, seq, at, kind, actor, epoch, body, digest, hash from control.ledger order by tenant, run_id, seq
"""


@dataclass(frozen=True, slots=True)
class Books:
    """Every run's row and ledger as of one instant."""

    runs: Mapping[UUID, Mapping[str, Any]]
    ledgers: Mapping[UUID, Sequence[Entry]]


@dataclass(slots=True)
class Findings:
    """What does not add up, by run; and what was counted."""

    faults: list[str] = field(default_factory=list)
    second_epochs: int = 0
    executions: int = 0
    repeated: int = 0
    takeovers_s: list[float] = field(default_factory=list)

    def summary(self, toll: Toll, runs: int) -> str:
        done = ", ".join(f"{count} {what}" for what, count in sorted(toll.faults.items()))
        spans = self.takeovers_s or [0.0]
        p50, worst = median(spans), max(spans)
        return (
            f"seed {toll.seed}: {runs:,} runs in {toll.took_s:.1f} s, {toll.idle}; {done}; "
            f"{self.executions:,} executions, {self.repeated} of them repeated; "
            f"{self.second_epochs} runs took a second epoch; {len(self.takeovers_s)} takeovers, "
            f"kill to claim p50 {p50:.2f} s, worst {worst:.2f} s"
        )


def books(conninfo: str) -> Books:
    """Read everything in one snapshot."""
    with psycopg.connect(conninfo, row_factory=dict_row) as conn:
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        runs = {row["run_id"]: row for row in conn.execute(_RUNS)}
        ledgers = defaultdict[UUID, list[Entry]](list)
        for row in conn.execute(_ENTRIES):
            chain = ledgers[row["run_id"]]
            chain.append(_entry(row, prev=chain[-1].hash if chain else START))
    return Books(runs, ledgers)


def _entry(row: Mapping[str, Any], *, prev: bytes) -> Entry:
    return Entry(
        row["seq"], row["at"], Kind(row["kind"]), row["actor"], row["epoch"], json.loads(row["body"]), prev,
        row["hash"], row["digest"],
    )  # fmt: skip


def audit(found: Books) -> list[str]:
    """Where a run's row and its ledger disagree, or a chain is broken."""
    ledgers = found.ledgers
    return [f"run {run_id}: {fault}" for run_id, row in found.runs.items() for fault in _disputed(row, ledgers[run_id])]


def _disputed(row: Mapping[str, Any], ledger: Sequence[Entry]) -> Iterator[str]:
    if broken := verify(ledger, head=row["ledger_hash"]):
        yield f"the chain is broken at entry {broken.seq}: {broken.why}"
    account = replay(ledger)
    facts = account.facts
    replayed = {
        "status": index(facts).status, "execution": facts.execution, "epoch": account.epoch, "crashes": facts.crashes,
        "takeovers": facts.takeovers, "retries": account.retries, "head_checkpoint_id": account.head_checkpoint_id,
        "head_step": account.head_step, "outcome": facts.outcome.kind if facts.outcome else None,
        "asks": sorted(ask.interrupt_id for ask in facts.asks),
        "waits": sorted(wait.interrupt_id for wait in facts.waits),
    }  # fmt: skip
    for name, value in replayed.items():
        if row[name] != value:
            yield f"{name} is {row[name]!r} in the row and {value!r} by the ledger {_told(ledger)}"


def _told(ledger: Sequence[Entry]) -> str:
    return " ".join(f"{entry.kind}@{entry.epoch}" for entry in ledger)


def examine(found: Books, work: Sequence[Work], seen: Sequence[Seen], toll: Toll) -> Findings:
    """The whole examination of a campaign that is over."""
    findings = Findings()
    findings.faults += audit(found)
    findings.faults += _wrong_ends(found, work)
    findings.faults += _unseen(work, seen)
    findings.faults += _doubled(found, seen)
    findings.faults += _slandered(found, toll)
    begun = [(one.run_id, one.task) for one in seen if not one.note]
    findings.executions, findings.repeated = len(begun), len(begun) - len(set(begun))
    findings.second_epochs = sum(row["epoch"] > 1 for row in found.runs.values())
    findings.takeovers_s = [span.total_seconds() for span in takeovers(found, toll)]
    return findings


def _wrong_ends(found: Books, work: Sequence[Work]) -> Iterator[str]:
    """Runs that were lost, made up, or ended in another state than they should have."""
    if strangers := set(found.runs) ^ {each.run_id for each in work}:
        yield f"lost or made up: {sorted(map(str, strangers))}"
    for each in work:
        row = found.runs.get(each.run_id, {})
        if (row.get("status"), row.get("total")) != ("succeeded", expected(each)):
            yield (
                f"run {each.run_id} ({each.workflow}) is {row.get('status')} with {row.get('total')}, not "
                f"{expected(each)}: {_told(found.ledgers.get(each.run_id, ()))}"
            )


def _unseen(work: Sequence[Work], seen: Sequence[Seen]) -> Iterator[str]:
    """Runs of which the witness knows nothing: what it does not see, it does not find done twice either."""
    yield from (f"nobody saw run {run_id}" for run_id in {each.run_id for each in work} - {one.run_id for one in seen})


def _doubled(found: Books, seen: Sequence[Seen]) -> Iterator[str]:
    """Executions that the ledger does not account for: twice in an epoch, in none, or after the step was committed."""
    begun = [one for one in seen if not one.note]
    for (run_id, task, epoch), times in Counter((one.run_id, one.task, one.epoch) for one in begun).items():
        if times > 1:
            yield f"run {run_id} executed {task} {times} times in epoch {epoch}"
    claimed = {(run, e.epoch): e for run, chain in found.ledgers.items() for e in chain if e.kind is Kind.CLAIMED}
    finished = _finished(found)
    for one in begun:
        if (one.run_id, one.epoch) not in claimed:
            yield f"run {one.run_id} executed {one.task} in epoch {one.epoch}, which the ledger does not know"
        if finished.get((one.run_id, one.node), one.epoch) < one.epoch:
            yield f"run {one.run_id} executed {one.node} again in epoch {one.epoch} after its step was committed"


def trespasses(found: Books) -> list[str]:
    """Entries of an epoch that come after the claim of a later one."""
    return [
        f"run {run_id}: entry {late.seq} ({late.kind}) of epoch {late.epoch} comes after epoch {before.epoch}"
        for run_id, chain in found.ledgers.items() for before, late in pairwise(chain) if late.epoch < before.epoch
    ]  # fmt: skip


def _finished(found: Books) -> dict[tuple[UUID, str], int]:
    """In which epoch each node's step was committed."""
    return {
        (run_id, node): entry.epoch
        for run_id, chain in found.ledgers.items() for entry in chain if entry.kind is Kind.STEPPED
        for node in entry.body["nodes"]
    }  # fmt: skip


def _slandered(found: Books, toll: Toll) -> Iterator[str]:
    """Workers declared dead that nobody had killed. Only a database that was away takes a claim from a living one, and
    then the worker itself says so.
    """
    excused = {Loss.GAVE_UP, Loss.UNHEARD} if toll.restarts else set[Loss]()
    for run_id, entry in _lost(found.ledgers.items()):
        if entry.body["why"] in excused:
            continue
        killed_at = toll.killed.get(entry.body["worker"])
        if entry.body["worker"] not in toll.killed or (killed_at and entry.at < killed_at):
            yield f"run {run_id} was taken from {entry.body['worker']}, which lived: {entry.body['why']}"


def takeovers(found: Books, toll: Toll) -> Iterator[timedelta]:
    """From each kill to the next claim of each run that the killed worker held."""
    for run_id, entry in _lost(found.ledgers.items()):
        killed_at = toll.killed.get(entry.body["worker"])
        claimed_at = _next_claim(found.ledgers[run_id], entry)
        if killed_at and claimed_at:
            yield claimed_at - killed_at


def _next_claim(chain: Sequence[Entry], lost: Entry) -> datetime | None:
    return next((entry.at for entry in chain if entry.seq > lost.seq and entry.kind is Kind.CLAIMED), None)


def _lost(ledgers: Iterable[tuple[UUID, Sequence[Entry]]]) -> Iterator[tuple[UUID, Entry]]:
    for run_id, chain in ledgers:
        yield from ((run_id, entry) for entry in chain if entry.kind is Kind.WORKER_LOST)
