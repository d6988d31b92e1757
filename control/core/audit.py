"""The state of a run, worked out from its ledger alone.

`replay` folds the entries into an `Account`: the facts that the status is derived from, and the counters of the run
row. It shares no code with the store, so that the doctor and the chaos auditor can hold one against the other. Three
things the ledger does not say: whether a claim's worker lives (taken as yes), the clock, and named parts of progress.

Rules that the store must keep for the two to agree:

- A claim removes the last outcome and its `retry_at`. So do a retry, a rewind and a retry whose time came (`woken`); a
  resume removes a breakpoint's outcome.
- A step, a retry and a rewind set `crashes` and `retries` to 0; a rewind also removes a cancel order and withdraws
  every open question, open wait and undelivered answer. An attempt that ends without failing sets `retries` to 0, one
  that fails with a `retry_at` adds 1.
- A lost worker counts as a crash unless its entry says `crash: false` (it left in order, or never heard of the claim).
- An answer is ready from its decision until an entry (`ended`, `worker_lost`) lists it in `delivered`, withdraws it, or
  returns it (`returned`); what is returned is asked anew, without a vote, by an `asked` of the same interrupt.
- `execution` is what an entry names (`ended` always, others where they know); a step leaves `runnable`. A lost worker's
  entry that names none leaves `waiting` where something is open or undelivered, and otherwise what it was. Withdrawing
  the last question of a waiting run leaves `runnable`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from control.core.execution import Execution
from control.core.facts import Ask, AskKind, Claim, Facts, Fit, Order, Outcome, OutcomeKind, Wait, WaitKind
from control.core.failure import FailureClass
from control.core.ledger import Entry, Kind
from control.core.run_status import without_worker


@dataclass(frozen=True, slots=True)
class Account:
    """What a ledger says about its run. `undelivered` holds the interrupt ids whose answers are ready."""

    facts: Facts
    epoch: int = 0
    retries: int = 0
    branch: int = 0
    head_checkpoint_id: str | None = None
    head_step: int | None = None
    undelivered: frozenset[str] = frozenset()


def replay(entries: Iterable[Entry]) -> Account:
    """The account of a whole ledger, from `accepted` on, with no body erased."""
    remaining = iter(entries)
    account = opened(next(remaining))
    for entry in remaining:
        account = advance(account, entry)
    return account


def opened(entry: Entry) -> Account:
    """The account after the first entry."""
    assert entry.kind is Kind.ACCEPTED, f"a ledger begins with accepted, not with {entry.kind}"
    begin = entry.body.get("not_before")
    facts = Facts(created_at=entry.at, not_before=datetime.fromisoformat(begin) if begin else None)
    limit = entry.body.get("crash_limit")
    return Account(facts if limit is None else replace(facts, crash_limit=limit))


def advance(account: Account, entry: Entry) -> Account:
    """The account after one more entry."""
    change = CHANGES.get(entry.kind)
    return account if change is None else change(account, entry)


def _claimed(account: Account, entry: Entry) -> Account:
    claim = Claim(entry.epoch, entry.body["worker"], entry.at, entry.at)
    facts = replace(account.facts, claim=claim, outcome=None, retry_at=None)
    return replace(account, facts=facts, epoch=entry.epoch)


def _stepped(account: Account, entry: Entry) -> Account:
    claim = account.facts.claim
    moved = replace(claim, progress_at=entry.at) if claim else None
    facts = replace(account.facts, claim=moved, crashes=0, execution=_execution(entry) or Execution.RUNNABLE)
    head, step = entry.body["checkpoint_id"], entry.body["step"]
    return replace(account, facts=facts, retries=0, head_checkpoint_id=head, head_step=step)


def _asked(account: Account, entry: Entry) -> Account:
    body = entry.body
    ask = Ask(
        body["interrupt_id"],
        AskKind(body["kind"]),
        body["title"],
        body["node"],
        entry.at,
        entry.deadline("expires"),
        due_at=entry.deadline("due"),
        quorum=body.get("quorum", 1),
    )
    return replace(account, facts=replace(account.facts, asks=(*account.facts.asks, ask)))


def _voted(account: Account, entry: Entry) -> Account:
    if entry.body["vote"] != "yes":
        return account
    return _asking(account, entry, lambda ask: replace(ask, voters=(*ask.voters, entry.actor)))


def _reassigned(account: Account, entry: Entry) -> Account:
    taker = entry.body.get("assignee")
    return _asking(account, entry, lambda ask: replace(ask, assignee=taker or ask.assignee, due_at=_due(entry)))


def _escalated(account: Account, entry: Entry) -> Account:
    return _asking(account, entry, lambda ask: replace(ask, rung=entry.body["rung"], due_at=_due(entry)))


def _expired(account: Account, entry: Entry) -> Account:
    """Its time is over. Where that decides it, the decision follows as an entry of its own."""
    return _asking(account, entry, lambda ask: replace(ask, expires_at=None, due_at=_due(entry)))


def _due(entry: Entry) -> datetime | None:
    return entry.deadline("due")


def _asking(account: Account, entry: Entry, change: Callable[[Ask], Ask]) -> Account:
    """The account with one open question changed."""
    name = entry.body["interrupt_id"]
    asks = tuple(change(ask) if ask.interrupt_id == name else ask for ask in account.facts.asks)
    return replace(account, facts=replace(account.facts, asks=asks))


def _suspended(account: Account, entry: Entry) -> Account:
    body = entry.body
    wait = Wait(
        body["interrupt_id"],
        WaitKind(body["kind"]),
        body["node"],
        entry.at,
        entry.deadline("due"),
        body.get("signal"),
    )
    return replace(account, facts=replace(account.facts, waits=(*account.facts.waits, wait)))


def _settled(account: Account, entry: Entry) -> Account:
    """A question was decided, or a wait fired: its answer is ready."""
    name = entry.body["interrupt_id"]
    closed = _closed(account, name)
    woken = replace(closed, facts=replace(closed.facts, woken_at=entry.at))
    return _with_undelivered(woken, account.undelivered | {name})


def _stale(account: Account, entry: Entry) -> Account:
    """A question has to be asked again. Where an effect found that out, it had been decided and delivered."""
    return _settled(account, entry) if entry.body["found"] == "answer" else account


def _returned(account: Account, entry: Entry) -> Account:
    """Its step did not take the answer. The question is asked anew by the entry that follows."""
    return _with_undelivered(account, account.undelivered - {entry.body["interrupt_id"]})


def _woken(account: Account, entry: Entry) -> Account:
    """The time of a retry or of a start came."""
    facts = replace(account.facts, woken_at=entry.at)
    retry = entry.body["why"] == "retry"
    woken = replace(facts, retry_at=None, outcome=None) if retry else replace(facts, not_before=None)
    return replace(account, facts=woken)


def _superseded(account: Account, entry: Entry) -> Account:
    name = entry.body["interrupt_id"]
    left = _with_undelivered(_closed(account, name), account.undelivered - {name})
    execution = _execution(entry)
    if execution is None:
        answerable = left.facts.asks or left.facts.waits or left.undelivered
        was_waiting = left.facts.execution is Execution.WAITING
        execution = Execution.RUNNABLE if was_waiting and not answerable else left.facts.execution
    return replace(left, facts=replace(left.facts, execution=execution))


def _ordered(account: Account, entry: Entry) -> Account:
    order = Order(entry.actor, entry.at, entry.body.get("reason"))
    match entry.body["verb"]:
        case "pause":
            return replace(account, facts=replace(account.facts, pause=order))
        case "cancel":
            return replace(account, facts=replace(account.facts, cancel=order))
        case "resume":
            return replace(account, facts=_resumed(account.facts, entry.at))
        case "retry":
            return _afresh(account, entry.at)
        case verb:
            raise ValueError(f"no order is called {verb}")


def _resumed(facts: Facts, at: datetime) -> Facts:
    at_breakpoint = facts.outcome is not None and facts.outcome.kind is OutcomeKind.BREAKPOINT
    return replace(facts, pause=None, outcome=None if at_breakpoint else facts.outcome, woken_at=at)


def _afresh(account: Account, at: datetime) -> Account:
    facts = replace(account.facts, outcome=None, retry_at=None, crashes=0, woken_at=at)
    return replace(account, facts=facts, retries=0)


def _rewound(account: Account, entry: Entry) -> Account:
    fresh = _afresh(account, entry.at)
    execution = _execution(entry) or Execution.RUNNABLE
    facts = replace(fresh.facts, cancel=None, asks=(), waits=(), ready=0, execution=execution, fit=Fit.FITS)
    return replace(
        fresh,
        facts=facts,
        branch=account.branch + 1,
        head_checkpoint_id=entry.body["checkpoint_id"],
        head_step=entry.body.get("step", account.head_step),
        undelivered=frozenset(),
    )


def _ended(account: Account, entry: Entry) -> Account:
    body, kind = entry.body, OutcomeKind(entry.body["outcome"])
    failed = kind is OutcomeKind.FAILED
    retry_at = entry.deadline("retry") if failed else None
    failure = FailureClass(body["failure_class"]) if failed and body.get("failure_class") else None
    facts = replace(
        account.facts,
        claim=None,
        outcome=Outcome(kind, entry.at, failure, body.get("error")),
        execution=Execution(body["execution"]),
        retry_at=retry_at,
        fit=Fit(body["fit"]) if body.get("fit") else account.facts.fit,
    )
    retries = account.retries + (retry_at is not None) if failed else 0
    return _delivered(replace(account, facts=facts, retries=retries), entry)


def _worker_lost(account: Account, entry: Entry) -> Account:
    left = _delivered(account, entry)
    facts = without_worker(left.facts, at=entry.at)
    if entry.body.get("crash") is False:
        facts = replace(facts, crashes=left.facts.crashes)
    pending = facts.asks or facts.waits or facts.ready
    execution = _execution(entry) or (Execution.WAITING if pending else facts.execution)
    return replace(left, facts=replace(facts, execution=execution))


def _handled(account: Account, _: Entry) -> Account:
    return replace(account, facts=replace(account.facts, shortfalls=account.facts.shortfalls + 1))


def _adopted(account: Account, entry: Entry) -> Account:
    execution = _execution(entry) or account.facts.execution
    woken_at = account.facts.woken_at if account.facts.claim else entry.at
    return replace(account, facts=replace(account.facts, fit=Fit.FITS, execution=execution, woken_at=woken_at))


def _unfit(account: Account, _: Entry) -> Account:
    return replace(account, facts=replace(account.facts, fit=Fit.CHANGED))


def _deleted(account: Account, _: Entry) -> Account:
    return replace(account, facts=replace(account.facts, deleted=True))


CHANGES: Final[Mapping[Kind, Callable[[Account, Entry], Account]]] = {
    Kind.CLAIMED: _claimed,
    Kind.STEPPED: _stepped,
    Kind.ASKED: _asked,
    Kind.SUSPENDED: _suspended,
    Kind.VOTED: _voted,
    Kind.REASSIGNED: _reassigned,
    Kind.ESCALATED: _escalated,
    Kind.EXPIRED: _expired,
    Kind.DECIDED: _settled,
    Kind.STALE: _stale,
    Kind.RETURNED: _returned,
    Kind.FIRED: _settled,
    Kind.WOKEN: _woken,
    Kind.SUPERSEDED: _superseded,
    Kind.ORDERED: _ordered,
    Kind.REWOUND: _rewound,
    Kind.HANDLED: _handled,
    Kind.ENDED: _ended,
    Kind.WORKER_LOST: _worker_lost,
    Kind.ADOPTED: _adopted,
    Kind.UNFIT: _unfit,
    Kind.DELETED: _deleted,
}
"""What each kind of entry changes. A kind that is missing tells something and changes no fact."""


def _closed(account: Account, interrupt_id: str) -> Account:
    asks = tuple(ask for ask in account.facts.asks if ask.interrupt_id != interrupt_id)
    waits = tuple(wait for wait in account.facts.waits if wait.interrupt_id != interrupt_id)
    return replace(account, facts=replace(account.facts, asks=asks, waits=waits))


def _delivered(account: Account, entry: Entry) -> Account:
    return _with_undelivered(account, account.undelivered - set(entry.body.get("delivered", ())))


def _with_undelivered(account: Account, undelivered: frozenset[str]) -> Account:
    return replace(account, facts=replace(account.facts, ready=len(undelivered)), undelivered=undelivered)


def _execution(entry: Entry) -> Execution | None:
    named: Any = entry.body.get("execution")
    return Execution(named) if named else None


def parts_at(entries: Iterable[Entry], checkpoint_id: str) -> tuple[str, ...]:
    """The nodes that had finished when a checkpoint was committed, in order. A rewind goes back in this too."""
    parts: tuple[str, ...] = ()
    at: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        body = entry.body
        if entry.kind is Kind.STEPPED:
            parts = tuple(dict.fromkeys((*parts, *body["nodes"])))
        elif entry.kind is Kind.REWOUND:
            parts = at.get(body["to_checkpoint_id"], ())
        else:
            continue
        at[body["checkpoint_id"]] = parts
    return at.get(checkpoint_id, ())
