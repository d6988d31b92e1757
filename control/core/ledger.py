"""The audit record of a run: what happened, in order, each entry chained to the one before.

The rule is the database's, mirrored byte for byte (`control.link`, `control.chain_step`):

    link = "{seq}|{at}|{kind}|{actor}|{epoch}|" + sha256(body)      at: microseconds since 1970 in UTC, as an integer
    hash = sha256(prev || link)                                     prev of entry 1: 32 zero bytes

The fields before the actor cannot hold a bar, those after it have digits only or a fixed length, so a link reads one
way only. `body` is hashed as the bytes that are stored, and what is stored is `canonical(body)`. A body may be erased:
its digest stays, and so does the chain. An erasure takes every body before it, and appends an entry that says who did
it and why, which is never erased itself: a body that is missing without such an entry was taken away in secret.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final


class Kind(StrEnum):
    """What an entry records. The keys of each body are listed in `BODY_KEYS`."""

    ACCEPTED = "accepted"
    CLAIMED = "claimed"
    STEPPED = "stepped"
    ASKED = "asked"
    SUSPENDED = "suspended"
    DELEGATED = "delegated"
    VOTED = "voted"
    REASSIGNED = "reassigned"
    ESCALATED = "escalated"
    EXPIRED = "expired"
    DECIDED = "decided"
    STALE = "stale"
    RETURNED = "returned"
    FIRED = "fired"
    WOKEN = "woken"
    SIGNALLED = "signalled"
    SUPERSEDED = "superseded"
    ORDERED = "ordered"
    REWOUND = "rewound"
    EFFECT_BEGAN = "effect_began"
    EFFECT_ENDED = "effect_ended"
    SPENT = "spent"
    TASK_FAILED = "task_failed"
    HANDLED = "handled"
    ENDED = "ended"
    WORKER_LOST = "worker_lost"
    ADOPTED = "adopted"
    UNFIT = "unfit"
    REFUSED = "refused"
    DELETED = "deleted"
    JUDGED = "judged"
    ERASED = "erased"
    RESTORED = "restored"


BODY_KEYS: Final[Mapping[Kind, str]] = {
    Kind.ACCEPTED: "workflow thread_id priority not_before? restarted_from? crash_limit?",
    Kind.CLAIMED: "worker",
    Kind.STEPPED: "checkpoint_id step source nodes",
    Kind.ASKED: "interrupt_id kind node title digest expires_at? expires_in_s? due_in_s? quorum? evidence?",
    Kind.SUSPENDED: "interrupt_id kind node due_at? due_in_s? signal?",
    Kind.DELEGATED: "interrupt_id giver taker roles from until by",
    Kind.VOTED: "interrupt_id vote digest roles on_behalf_of? note?",
    Kind.REASSIGNED: "interrupt_id why assignee? from? due_at?",
    Kind.ESCALATED: "interrupt_id rung to notify? due_at?",
    Kind.EXPIRED: "interrupt_id outcome due_at?",
    Kind.DECIDED: "interrupt_id decision digest note?",
    Kind.STALE: "interrupt_id found moved",
    Kind.RETURNED: "interrupt_id by why",
    Kind.FIRED: "interrupt_id kind signal?",
    Kind.WOKEN: "why",
    Kind.SIGNALLED: "name",
    Kind.SUPERSEDED: "interrupt_id why execution?",
    Kind.ORDERED: "verb reason?",
    Kind.REWOUND: "checkpoint_id to_checkpoint_id step? execution?",
    Kind.EFFECT_BEGAN: "key name kind call guarded_by?",
    Kind.EFFECT_ENDED: "key name kind state how error? tokens?",
    Kind.SPENT: "key name usd tokens",
    Kind.TASK_FAILED: "node error",
    Kind.HANDLED: "node",
    Kind.ENDED: "outcome execution failure_class? error? retry_at? fit? delivered?",
    Kind.WORKER_LOST: "worker why execution? crash? delivered?",
    Kind.ADOPTED: "digest from execution?",
    Kind.UNFIT: "digest why",
    Kind.REFUSED: "action why of?",
    Kind.DELETED: "checkpoints reason?",
    Kind.JUDGED: "key digest action name verdict why of? demand?",
    Kind.ERASED: "why bodies",
    Kind.RESTORED: "why tree seen_at",
}
"""The keys of each body; a question mark means that the key may be absent. Instants (`_at`) are ISO 8601 in UTC,
spans (`_in_s`) seconds from the entry's own instant; `due_at` is when the clock brings something next. What a
principal did, or was refused, also holds the keys of `LEAVE`. `why` of `woken` is `retry` or `start`: what its time
came for. `found` of `stale` is `answer` or `effect`: what it kept from happening. `verdict` of `judged`, on what an
agent was about to do, is `permit`, `deny` or `ask`."""


class Loss(StrEnum):
    """Why a claim was taken from its worker: `why` of `worker_lost`. The first three are the words of `control.gone`.

    The others a worker says of itself: it has stopped driving the run, as one does that is cut off from the database,
    or the answer to its claim never reached it.
    """

    LEFT = "it left"
    LAPSED = "its lease ran out"
    CUT_OFF = "its session is gone"
    GAVE_UP = "it gave the claim up"
    UNHEARD = "its worker never heard of the claim"


LEAVE: Final = ("rules", "policy", "request")
"""What policy said of it: the ids of the rules, the version of the policy, and the request that was decided."""

START: Final = bytes(32)
"""What the first entry is chained to."""

_OF_NOTHING: Final = sha256(b"{}").digest()


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. `digest` is the body's; it must be given where the body was erased, and is then all that is left."""

    seq: int
    at: datetime
    kind: Kind
    actor: str
    epoch: int
    body: Mapping[str, Any]
    prev: bytes = START
    hash: bytes = b""
    digest: bytes | None = None

    @property
    def erased(self) -> bool:
        return self.digest is not None and not self.body and self.digest != _OF_NOTHING

    def deadline(self, name: str) -> datetime | None:
        """What the body names as `{name}_at` or `{name}_in_s`, if it does."""
        if (seconds := self.body.get(f"{name}_in_s")) is not None:
            return self.at + timedelta(seconds=seconds)
        return datetime.fromisoformat(at) if (at := self.body.get(f"{name}_at")) else None


@dataclass(frozen=True, slots=True)
class Break:
    """Where a chain is broken, and how. `seq` is the first entry that does not fit."""

    seq: int
    why: str


def canonical(body: Mapping[str, Any]) -> bytes:
    """The bytes of a body: JSON with sorted keys, no spaces, ASCII only. Refuses NaN and infinities (ValueError)."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def link(entry: Entry) -> bytes:
    """What an entry adds to the chain."""
    head = f"{entry.seq}|{microseconds(entry.at)}|{entry.kind}|{entry.actor}|{entry.epoch}|"
    return head.encode() + (entry.digest or sha256(canonical(entry.body)).digest())


def chained(entry: Entry, *, prev: bytes) -> Entry:
    """The entry with its place in the chain: what it follows, and its own hash."""
    return replace(entry, prev=prev, hash=sha256(prev + link(entry)).digest())


def verify(entries: Iterable[Entry], *, head: bytes | None = None) -> Break | None:
    """The first break of a run's chain, or None. Finds every change, deletion, insertion and reordering of entries.

    A chain that was cut at its end, or rewritten from some entry on, is consistent in itself: only `head`, the hash of
    the last entry as somebody else keeps it, shows that.
    """
    prev, seq, erasures = START, 0, _Erasures()
    for seq, entry in enumerate(entries, start=1):
        if (why := _fault(entry, seq, prev)) is not None:
            return Break(seq, why)
        prev = entry.hash
        if (found := erasures.contradicted(entry)) is not None:
            return found
    if head is not None and head != prev:
        return Break(seq + 1, "The chain does not end in the hash it is known to end in.")
    if erasures.missing:
        return Break(erasures.missing, "Its content is gone, and no entry says who erased it.")
    return None


@dataclass(slots=True)
class _Erasures:
    """The first entry since the last erasure whose body is `missing`, and the first that has one; 0 for none."""

    missing: int = 0
    present: int = 0

    def contradicted(self, entry: Entry) -> Break | None:
        """Hold one more entry against what the erasures say. What is missing may still be owned up to."""
        if entry.kind is not Kind.ERASED:
            self.missing = self.missing or (entry.seq if entry.erased else 0)
            self.present = self.present or (0 if entry.erased else entry.seq)
            return None
        if entry.erased:
            return Break(entry.seq, "It is the record of an erasure, and was erased itself.")
        if self.present:
            return Break(self.present, "Its content is said to be erased, and stands here.")
        self.missing = 0
        return None


def _fault(entry: Entry, seq: int, prev: bytes) -> str | None:
    if entry.seq != seq:
        return f"Entry {seq} is expected here, and entry {entry.seq} stands here."
    if entry.prev != prev:
        return "It does not follow the entry before it."
    if entry.digest is not None and not entry.erased and not _digests(entry.body, entry.digest):
        return "Its content does not match its digest."
    if not _hashes(entry, prev):
        return "Its content does not match its hash."
    return None


def _digests(body: Mapping[str, Any], digest: bytes) -> bool:
    try:
        return sha256(canonical(body)).digest() == digest
    except (TypeError, ValueError):
        return False


def _hashes(entry: Entry, prev: bytes) -> bool:
    try:
        return sha256(prev + link(entry)).digest() == entry.hash
    except (TypeError, ValueError):
        return False


KINDS: Final[Mapping[str, Kind]] = {str(kind): kind for kind in Kind}
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def microseconds(at: datetime) -> int:
    """An instant as the chain has it."""
    return (at - EPOCH) // _MICROSECOND


def instant(at: int) -> datetime:
    """The instant that the chain has as `at`. Raises `OverflowError` for one beyond the calendar."""
    return EPOCH + at * _MICROSECOND
