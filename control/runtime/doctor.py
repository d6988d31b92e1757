"""The doctor: recomputes what the database says about every run, and reports where it differs. It repairs nothing.

A run's status is worked out three ways that share no code: as the row stores it, from the row's own facts
(`core.run_status`), and from the run's ledger alone (`core.audit`). The ledger's chain is verified against the head
that the run keeps, and against the tree that gathered it last. What was erased is not replayed. A difference is a bug
or a tampered row, and is reported as a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from control.core.audit import Account, advance, opened
from control.core.execution import Execution
from control.core.facts import Facts, Order
from control.core.ledger import Entry, Kind, verify
from control.core.run_status import TERMINAL, Index, index
from control.store.doctor import Case
from control.store.runs import facts_of


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not add up. `stored` is what the database says, `follows` what it should say."""

    tenant: str
    run_id: UUID
    what: str
    stored: str
    follows: str


@dataclass(slots=True)
class Reading:
    """What one pass over a ledger leaves: the account, how many entries, and why there is no account."""

    account: Account | None = None
    entries: int = 0
    fault: str | None = None
    erased: bool = False
    gathered: tuple[int, int, bytes] | None = None
    rewritten: bool = False

    def through(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Pass the entries on, and keep the account of them."""
        for entry in entries:
            self.entries += 1
            if self.gathered and self.gathered[1] == entry.seq:
                self.rewritten = self.gathered[2] != entry.hash
            self.erased = self.erased or entry.erased
            if self.fault is None and not self.erased:
                self._fold(entry)
            yield entry

    def _fold(self, entry: Entry) -> None:
        try:
            assert entry.kind in _KINDS, f"nothing is known of the kind {entry.kind}"
            self.account = opened(entry) if self.account is None else advance(self.account, entry)
        except (AssertionError, KeyError, ValueError, TypeError, AttributeError) as error:
            self.fault = f"entry {entry.seq} cannot be replayed: {error or type(error).__name__}"


@dataclass(frozen=True, slots=True)
class Examined:
    """What is wrong with one run, how many entries its ledger has, and whether it was erased, and so not replayed."""

    findings: list[Finding]
    entries: int
    erased: bool


def examine(case: Case, *, crash_limit: int) -> Examined:
    """Hold one run against its facts and its ledger. `crash_limit` is the installation's."""
    reading = Reading(gathered=case.gathered)
    found = verify(reading.through(case.entries), head=case.head)
    for _ in reading.through(case.entries):  # a break ends the verification before the ledger ends
        pass
    drifts = [("ledger chain", "broken at entry " + str(found.seq), found.why)] if found else []
    if case.gathered and (reading.rewritten or reading.entries < case.gathered[1]):
        number, seq, _ = case.gathered
        drifts.append(("ledger", f"not as tree {number} gathered it", f"the entry {seq} that it had then"))
    if case.run is None:
        drifts = [("run", "missing", f"a run, since there is a ledger of {reading.entries} entries")]
    else:
        drifts += _by_facts(case, crash_limit=crash_limit)
        drifts += _by_ledger(case, reading, crash_limit=crash_limit)
    findings = [Finding(case.tenant, case.run_id, *drift) for drift in drifts]
    return Examined(findings, reading.entries, reading.erased)


Drift = tuple[str, str, str]


def _by_facts(case: Case, *, crash_limit: int) -> Iterator[Drift]:
    """Where the stored status is not the one that the row's facts give."""
    run = case.run
    assert run is not None
    stored = Index(run.status, run.since, run.due_at)  # type: ignore[arg-type]  # a tampered word is no Status
    try:
        follows = index(facts_of(run, case.asked, crash_limit=crash_limit))
    except ValueError as error:
        yield "facts", "unreadable", str(error)
        return
    if _shown(stored) != _shown(follows):
        yield "status", _shown(stored), _shown(follows)
    if (run.closed_at is not None) is not (follows.status in TERMINAL):
        yield "closed_at", str(run.closed_at), "set where the run has ended, and only there"


def _by_ledger(case: Case, reading: Reading, *, crash_limit: int) -> Iterator[Drift]:
    """Where the row is not what its ledger replays to. An erased ledger is not replayed."""
    run = case.run
    assert run is not None
    if reading.fault:
        yield "ledger", "unreadable", reading.fault
    if reading.account is None or reading.fault or reading.erased:
        return
    replayed = replace(reading.account.facts, crash_limit=crash_limit)
    stored = facts_of(run, case.asked, crash_limit=crash_limit)
    for what, of in _FACTS.items():
        if of(stored) != of(replayed):
            yield f"{what} (replayed)", _told(of(stored)), _told(of(replayed))
    for what in ("epoch", "retries", "branch", "head_checkpoint_id"):
        if (ours := getattr(run, what)) != (theirs := getattr(reading.account, what)):
            yield f"{what} (replayed)", _told(ours), _told(theirs)
    if (shown := _shown(Index(run.status, run.since, run.due_at))) != (follows := _shown(index(replayed))):  # type: ignore[arg-type]  # a tampered word is no Status
        yield "status (replayed)", shown, follows


def _execution(facts: Facts) -> Execution | None:
    """While a worker holds the run, the checkpoint is ahead of both."""
    return None if facts.claim else facts.execution


def _order(order: Order | None) -> tuple[str, datetime] | None:
    return (order.by, order.at) if order else None


_KINDS: Final = frozenset(Kind)
_FACTS: Final[Mapping[str, Callable[[Facts], Any]]] = {
    "execution": _execution,
    "claim": lambda facts: (facts.claim.epoch, facts.claim.worker_id) if facts.claim else None,
    "outcome": lambda facts: (facts.outcome.kind, facts.outcome.at) if facts.outcome else None,
    "failure": lambda facts: facts.outcome.failure if facts.outcome else None,
    "retry_at": lambda facts: facts.retry_at,
    "crashes": lambda facts: facts.crashes,
    "takeovers": lambda facts: facts.takeovers,
    "shortfalls": lambda facts: facts.shortfalls,
    "pause": lambda facts: _order(facts.pause),
    "cancel": lambda facts: _order(facts.cancel),
    "questions": lambda facts: sorted(ask.interrupt_id for ask in facts.asks),
    "votes": lambda facts: sorted((ask.interrupt_id, ask.voters, ask.rung, ask.assignee or "") for ask in facts.asks),
    "waits": lambda facts: sorted((wait.interrupt_id, wait.due_at, wait.signal) for wait in facts.waits),
    "answers ready": lambda facts: facts.ready,
    "fit": lambda facts: facts.fit,
    "deleted": lambda facts: facts.deleted,
}
"""What the row and the ledger must agree on."""


def _shown(stored: Index) -> str:
    due = f", until {stored.due_at.isoformat()}" if stored.due_at else ""
    return f"{stored.status} since {stored.since.isoformat()}{due}"


def _told(value: Any) -> str:
    match value:
        case None:
            return "none"
        case datetime():
            return value.isoformat()
        case tuple() | list():
            return ", ".join(map(_told, value)) or "none"
    return str(value)
