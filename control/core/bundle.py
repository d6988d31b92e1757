"""A bundle: the ledgers of a tenant, or of one run, taken out of the database with what proves them.

A bundle is a file of JSON lines, each exactly as `canonical` writes it and ended by one line feed, in this order:

    {"record": "bundle", "version": 1, "at", "lineage", "tenant"}
    {"record": "key", "text", "signature"}            each signing key, oldest first (`core.tree.key_text`)
    {"record": "tree", "text", "signature"}           each statement that a proof below names, and the newest, by number
    for each run, in the order of their ids:
        {"record": "entry", "run", "seq", "at", "kind", "actor", "epoch", "body", "digest", "hash"}
        {"record": "head", "run", "seq", "hash", "proof": {"tree", "place", "seq", "hash", "path"} or null}
    {"record": "seal", "text", "signature"}

Instants are microseconds since 1970, bytes are lower-case hexadecimal, `body` is the text that was hashed or null where
it was erased. The seal's text is {"at", "frame", "heads", "key", "lineage", "runs", "tenant"}: `frame` is the sha256
over all lines before the first run, `heads` the Merkle root over the head lines. So every byte is covered: entries by
the chain up to their head, heads and all that comes before them by the seal, the seal by its signature; and what two
writings of the same value might differ in is refused. What a bundle cannot show is a run that was left out on purpose
by whoever holds the key; an earlier tree or bundle shows that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, NoReturn
from uuid import UUID

from control.core import merkle
from control.core.ledger import EPOCH, KINDS, START, Entry, canonical, instant, verify
from control.core.tree import KEY_DOMAIN, SEAL_DOMAIN, TREE_DOMAIN, Leaf, digest, key_id

Verifies = Callable[[bytes, bytes, bytes], bool]
"""Whether a public key (32 bytes) made this signature over this message."""

_UNREADABLE: Final = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
_ENTRY: Final = dict.fromkeys(("record", "run", "kind", "actor", "digest", "hash"), str) | dict.fromkeys(
    ("seq", "at", "epoch"), int
)


@dataclass(frozen=True, slots=True)
class Fault:
    """The first thing that is wrong. `line` counts from 1."""

    line: int
    why: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a bundle holds, as far as it was read. It is proven where `fault` is None."""

    tenant: str = ""
    lineage: str = ""
    at: datetime = EPOCH
    runs: int = 0
    entries: int = 0
    erased: int = 0
    trees: int = 0
    attested: int = 0
    fault: Fault | None = None


def line(record: Mapping[str, Any]) -> bytes:
    """A record as it stands in a bundle."""
    return canonical(record) + b"\n"


def entry_record(run_id: UUID, entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry as its row has it: `at` in microseconds, `body` the stored text or None, hashes as bytes."""
    hashes = {"digest": bytes(entry["digest"]).hex(), "hash": bytes(entry["hash"]).hex()}
    kept = {name: entry[name] for name in ("seq", "at", "kind", "actor", "epoch", "body")}
    return {"record": "entry", "run": str(run_id), **kept, **hashes}


def seal_text(opening: Mapping[str, Any], *, frame: bytes, heads: list[bytes], key: str | None) -> str:
    """What the seal says. `heads` are the head lines as leaves of a tree."""
    said = {name: opening[name] for name in ("at", "lineage", "tenant")}
    said |= {"frame": frame.hex(), "heads": merkle.root(heads).hex(), "runs": len(heads), "key": key}
    return canonical(said).decode()


def check(lines: Iterable[bytes], *, trusted: Collection[bytes], verifies: Verifies) -> Report:
    """Whether a bundle proves what it holds to somebody who trusts these public keys, and theirs alone."""
    checker = _Checker(_Lines(iter(lines)), frozenset(trusted), verifies)
    try:
        checker.run()
    except _Found as found:
        return replace(checker.report, fault=found.fault)
    except _UNREADABLE as error:
        why = f"This is no record of a bundle: {str(error) or type(error).__name__}."
        return replace(checker.report, fault=Fault(checker.lines.number, why))
    return checker.report


class _Found(Exception):
    def __init__(self, line: int, why: str) -> None:
        self.fault = Fault(line, why)


@dataclass(slots=True)
class _Lines:
    """The records one by one, with one line of foresight. `raw` and `number` are those of the record at hand."""

    rest: Iterator[bytes]
    number: int = 0
    raw: bytes = b""
    record: dict[str, Any] = field(default_factory=dict)

    def advance(self) -> None:
        self.raw = next(self.rest, b"")
        self.number += 1
        self.record = self._parsed() if self.raw else {"record": "nothing more"}

    def _parsed(self) -> dict[str, Any]:
        record = json.loads(self.raw)
        if not isinstance(record, dict) or line(record) != self.raw:
            self.fail("The line is not written as a bundle's lines are.")
        return record

    def fail(self, why: str) -> NoReturn:
        raise _Found(self.number, why)

    def at(self, kind: str) -> bool:
        found: bool = self.record["record"] == kind
        return found

    def expect(self, kind: str) -> None:
        if not self.at(kind):
            self.fail(f"A record of the kind {kind} is expected here, and there is {self.record['record']}.")


@dataclass(slots=True)
class _Checker:
    """One pass over a bundle, in the order of its records."""

    lines: _Lines
    trusted: frozenset[bytes]
    verifies: Verifies
    report: Report = Report()
    keys: dict[str, tuple[bytes, int]] = field(default_factory=dict)  # accepted: public key, from when
    until: dict[str, int] = field(default_factory=dict)  # when a key was replaced
    trees: dict[int, dict[str, Any]] = field(default_factory=dict)
    heads: list[bytes] = field(default_factory=list)

    def run(self) -> None:
        lines = self.lines
        lines.advance()
        lines.expect("bundle")
        opening, frame = lines.record, sha256()
        if opening["version"] != 1:
            lines.fail(f"Version {opening['version']} of bundles is not known here.")
        at = instant(opening["at"])
        self.report = Report(opening["tenant"], opening["lineage"], at)
        for kind, take in (("bundle", _nothing), ("key", self._key), ("tree", self._tree)):
            while lines.at(kind):
                take()
                frame.update(lines.raw)
                lines.advance()
        last = ""
        while lines.at("entry"):
            last = self._run(after=last)
        self._seal(opening, frame.digest())
        lines.advance()
        if lines.raw:
            lines.fail("The bundle goes on behind its seal.")

    def _key(self) -> None:
        """A key is accepted if it is trusted, or brought in by one that is accepted."""
        said = _said(self.lines)
        public = _octets(said["public"])
        replaced = self.keys.get(said["replaces"])
        by = public if said["replaces"] is None else replaced[0] if replaced else None
        if said["key"] != key_id(public):
            self.lines.fail("The key goes by the name of another.")
        if by is not None and not self._signed(by, KEY_DOMAIN):
            self.lines.fail("The key was not signed by itself, nor by the one it replaces.")
        if said["replaces"] is not None:
            self.until[said["replaces"]] = said["at"]
        if public in self.trusted or (by is not None and said["replaces"] is not None):
            self.keys[said["key"]] = (public, said["at"])

    def _tree(self) -> None:
        said, lines = _said(self.lines), self.lines
        if (said["lineage"], said["tenant"]) != (self.report.lineage, self.report.tenant):
            lines.fail("The tree is of another database or tenant.")
        newest = max(self.trees, default=0)
        if said["number"] <= newest:
            lines.fail(f"Tree {said['number']} cannot follow tree {newest}.")
        before = self.trees.get(newest)
        follows = before is not None and (said["number"] == newest + 1 or "restored" in said)
        if follows and before is not None and said["previous"] != digest(before["text"]).hex():
            lines.fail("The tree does not follow the tree before it.")
        self._by_key(said, TREE_DOMAIN)
        self.trees[said["number"]] = said | {"text": lines.record["text"]}
        self.report = replace(self.report, trees=self.report.trees + 1)

    def _run(self, *, after: str) -> str:
        """One run: its entries up to its head. Returns its id."""
        lines, run, hashes, erased = self.lines, self.lines.record["run"], list[bytes](), 0
        if str(UUID(run)) != run or run <= after:
            lines.fail("Runs stand in the order of their ids, each once.")
        first = lines.number

        def entries() -> Iterator[Entry]:
            nonlocal erased
            prev = START
            while lines.at("entry") and lines.record["run"] == run:
                entry = _entry(lines, prev)
                prev = entry.hash
                erased += entry.erased
                hashes.append(prev)
                yield entry
                lines.advance()

        broken = verify(entries())
        if broken is not None:
            raise _Found(first + broken.seq - 1, broken.why)
        lines.expect("head")
        head = lines.record
        if (head["run"], head["seq"], head["hash"]) != (run, len(hashes), hashes[-1].hex()):
            lines.fail("The head is not that of the entries before it.")
        if head["proof"] is not None:
            self._proof(UUID(run), head["proof"], hashes)
        self.heads.append(merkle.leaf(lines.raw))
        done = self.report
        self.report = replace(
            done, runs=done.runs + 1, entries=done.entries + len(hashes), erased=done.erased + erased,
            attested=done.attested + (head["proof"] is not None),
        )  # fmt: skip
        lines.advance()
        return str(run)

    def _proof(self, run_id: UUID, proof: Mapping[str, Any], hashes: list[bytes]) -> None:
        """The run's ledger went through this entry when the tree was made."""
        leaf = Leaf(run_id, proof["seq"], _octets(proof["hash"]))
        if not 0 < leaf.seq <= len(hashes) or hashes[leaf.seq - 1] != leaf.hash:
            self.lines.fail("The ledger is not the one that was gathered into the tree.")
        tree = self.trees.get(proof["tree"])
        path = [_octets(step) for step in proof["path"]]
        start, size = leaf.hashed(self.report.tenant), tree["size"] if tree else 0
        found = merkle.climbed(start, place=proof["place"], size=size, path=path)
        if tree is None or found is None or found.hex() != tree["root"]:
            self.lines.fail("The proof does not lead to the root of its tree.")

    def _seal(self, opening: Mapping[str, Any], frame: bytes) -> None:
        lines = self.lines
        lines.expect("seal")
        said = _said(lines)
        if lines.record["text"] != seal_text(opening, frame=frame, heads=self.heads, key=said["key"]):
            lines.fail("The seal was set on other content than this.")
        if said["key"] is None:
            lines.fail("The seal is not signed, so nothing here is proven.")
        self._by_key(said, SEAL_DOMAIN)

    def _by_key(self, said: Mapping[str, Any], domain: bytes) -> None:
        """The statement is signed by an accepted key in its time; or says that nobody signs it, and nobody does."""
        name, lines = said["key"], self.lines
        if name is None:
            if lines.record["signature"] is not None:
                lines.fail("It says that nobody signs it, and carries a signature.")
            return
        if name not in self.keys:
            lines.fail(f"It is signed by key {name}, which is not among those trusted.")
        public, since = self.keys[name]
        if not since <= said["at"] < self.until.get(name, said["at"] + 1):
            lines.fail(f"It is signed by key {name} at a time when that was not valid.")
        if not self._signed(public, domain):
            lines.fail(f"The signature is not that of key {name}.")

    def _signed(self, public: bytes, domain: bytes) -> bool:
        record = self.lines.record
        return self.verifies(public, _octets(record["signature"]), domain + record["text"].encode())


def _octets(text: str) -> bytes:
    """The bytes that are written so, and no other way."""
    found = bytes.fromhex(text)
    if found.hex() != text:
        raise ValueError("bytes are written in lower case, without spaces")
    return found


def _nothing() -> None:
    """The opening is checked already."""


def _said(lines: _Lines) -> dict[str, Any]:
    """The statement in a record, which must be written as statements are."""
    if lines.record.keys() != {"record", "text", "signature"}:
        lines.fail("A statement has a text and a signature, and nothing else.")
    said: dict[str, Any] = json.loads(lines.record["text"])
    if canonical(said).decode() != lines.record["text"]:
        lines.fail("The statement is not written as statements are.")
    return said


def _entry(lines: _Lines, prev: bytes) -> Entry:
    """The entry at hand, its body held to its digest byte by byte."""
    record = lines.record
    if {name: type(value) for name, value in record.items() if name != "body"} != _ENTRY:
        lines.fail("The entry has other fields than an entry has.")
    content, known = record["body"], _octets(record["digest"])
    if content is not None and sha256(content.encode()).digest() != known:
        lines.fail("Its content does not match its digest.")
    kind: Any = KINDS.get(record["kind"], record["kind"])
    return Entry(
        record["seq"], instant(record["at"]), kind, record["actor"], record["epoch"],
        json.loads(content) if content is not None else {}, prev, _octets(record["hash"]), known,
    )  # fmt: skip
