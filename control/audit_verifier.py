"""Verify an exported ledger without the system that wrote it.

    python audit_verifier.py BUNDLE --key PUBLIC.pem [--key ANOTHER.pem]

This one file needs Python 3.11 and the package `cryptography`, no database and nothing else of langgraph-control; it
shares no code with it. It exits with 0 where the bundle is what the holders of the given keys signed, and with 1 where
anything was changed, and says in which line.

What is checked, in the order of the file (one JSON object a line, in canonical form: sorted keys, no spaces, ASCII):

 1. `bundle`  the opening: which database (`lineage`) and tenant, and when.
 2. `key`     each signing key, oldest first. A key is accepted if you gave it, or if the accepted key that it replaces
              signed it in. It is valid from its statement until the statement of the key that replaces it.
 3. `tree`    signed statements about many runs at once: a Merkle root (RFC 6962) over where each run's ledger stood.
 4. `entry`   what happened, run by run. Each entry has digest = sha256(body), and
              hash = sha256(hash before || "seq|microseconds|kind|actor|epoch|" || digest), from 32 zero bytes on.
              A body may be missing where a later entry of the kind `erased` says who erased it, and only there.
    `head`    closes a run: its last hash, and a proof that the ledger, as far as it went then, stands in a tree.
 5. `seal`    a signed statement over all lines before the first run (`frame`) and over all head lines (`heads`), so
              that nothing can be cut off, left out or put in.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key


class Changed(Exception):
    """The bundle is not what was signed."""


def refuse(why: str) -> NoReturn:
    raise Changed(why)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def unhex(text: str) -> bytes:
    data = bytes.fromhex(text)
    return data if data.hex() == text else refuse("hexadecimal is written in lower case, without spaces")


def merkle_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, from hashed leaves, as the RFC defines it: split at the largest power of two below."""
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\1" + merkle_root(leaves[:split]) + merkle_root(leaves[split:]))


def root_of_path(leaf: bytes, place: int, *, size: int, path: list[bytes]) -> bytes:
    """The root that a leaf leads to; `path` holds the hashes of its neighbours, from the lowest to the highest."""
    if size == 1:
        return leaf if not path else refuse("the proof is too long")
    if not path:
        refuse("the proof is too short")
    split = 1 << (size - 1).bit_length() - 1
    if place < split:
        return sha256(b"\1" + root_of_path(leaf, place, size=split, path=path[:-1]) + path[-1])
    return sha256(b"\1" + path[-1] + root_of_path(leaf, place - split, size=size - split, path=path[:-1]))


class Verifier:
    """Reads a bundle line by line. `number` is the line at hand, `line` its bytes, `record` its content."""

    def __init__(self, lines: Iterable[bytes], trusted: Iterable[bytes]) -> None:
        self.lines, self.trusted = iter(lines), set(trusted)
        self.number, self.line, self.record = 0, b"", dict[str, Any]()
        self.keys: dict[str, tuple[bytes, int]] = {}  # accepted: public key, valid from
        self.replaced: dict[str, int] = {}  # when a key ceased to be valid
        self.trees: dict[int, dict[str, Any]] = {}
        self.newest: tuple[int, bytes] | None = None  # number and digest of the last tree
        self.heads: list[bytes] = []
        self.entries = self.erased = 0

    def verify(self) -> None:
        """Raise `Changed` unless every line is as it was signed."""
        try:
            self._verify()
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            refuse(f"not a record of a bundle ({error})")

    def _verify(self) -> None:
        self._next()
        if self.record["record"] != "bundle" or self.record["version"] != 1:
            refuse("not the opening of a bundle of version 1")
        opening, frame = self.record, hashlib.sha256(self.line)
        self._next()
        while self.record["record"] == "key":
            self._key()
            frame.update(self.line)
            self._next()
        while self.record["record"] == "tree":
            self._tree(opening)
            frame.update(self.line)
            self._next()
        before = ""
        while self.record["record"] == "entry":
            before = self._run(opening["tenant"], before)
        self._seal(opening, frame.digest())
        if next(self.lines, b""):
            self.number += 1
            refuse("there is more behind the seal")

    def _next(self) -> None:
        self.number += 1
        self.line = next(self.lines, b"")
        if not self.line:
            refuse("the bundle ends here, without a seal")
        self.record = json.loads(self.line)
        if canonical(self.record) + b"\n" != self.line:
            refuse("not in canonical form")

    def _statement(self) -> dict[str, Any]:
        if set(self.record) != {"record", "text", "signature"}:
            refuse("not a signed statement")
        said: dict[str, Any] = json.loads(self.record["text"])
        return said if canonical(said).decode() == self.record["text"] else refuse("statement not in canonical form")

    def _check_signature(self, public: bytes, purpose: str) -> None:
        message = f"langgraph-control {purpose} 1\n{self.record['text']}".encode()
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(unhex(self.record["signature"]), message)
        except InvalidSignature:
            refuse("the signature is not that of its key")

    def _check_signer(self, said: dict[str, Any], purpose: str) -> None:
        key, at = said["key"], said["at"]
        if key not in self.keys:
            refuse(f"signed by key {key}, which you do not trust")
        public, since = self.keys[key]
        if at < since or (key in self.replaced and at >= self.replaced[key]):
            refuse(f"signed by key {key} at a time when it was not valid")
        self._check_signature(public, purpose)

    def _key(self) -> None:
        said = self._statement()
        public, old = unhex(said["public"]), said["replaces"]
        if said["key"] != hashlib.sha256(public).hexdigest()[:16]:
            refuse("a key under the name of another")
        if old is not None:
            self.replaced[old] = said["at"]
        if old is None:
            self._check_signature(public, "key")
        elif old in self.keys:
            self._check_signature(self.keys[old][0], "key")
        if public in self.trusted or old in self.keys:
            self.keys[said["key"]] = (public, said["at"])

    def _tree(self, opening: dict[str, Any]) -> None:
        said = self._statement()
        if said["lineage"] != opening["lineage"] or said["tenant"] != opening["tenant"]:
            refuse("a tree of another database or tenant")
        if self.newest is not None:
            number, digest = self.newest
            if said["number"] <= number:
                refuse("trees are out of order")
            if (said["number"] == number + 1 or "restored" in said) and said["previous"] != digest.hex():
                refuse("the tree does not follow the one before it")
        elif said["number"] < 1:
            refuse("trees count from 1")
        if said["key"] is not None:
            self._check_signer(said, "tree")
        elif self.record["signature"] is not None:
            refuse("a signature by nobody")
        self.newest = (said["number"], sha256(self.record["text"].encode()))
        self.trees[said["number"]] = said

    def _run(self, tenant: str, before: str) -> str:
        run = self.record["run"]
        if str(UUID(run)) != run or run <= before:
            refuse("runs are out of order")
        hashes, gone, there = [bytes(32)], 0, 0  # the first bodies, by seq, that are missing and that are not
        while self.record["record"] == "entry" and self.record["run"] == run:
            entry = self.record
            hashes.append(self._entry(entry, len(hashes), hashes[-1]))
            if entry["kind"] != "erased":
                gone, there = (gone or len(hashes), there) if entry["body"] is None else (gone, there or len(hashes))
            elif entry["body"] is None or there:
                refuse("an erasure that did not happen as it says")
            else:
                gone = 0
            self._next()
        if gone:
            refuse("a body is missing, and no entry says who erased it")
        head = self.record
        if head["record"] != "head" or head["run"] != run:
            refuse("a run without its head")
        if (head["seq"], head["hash"]) != (len(hashes) - 1, hashes[-1].hex()):
            refuse("the head is not that of the entries before it")
        if head["proof"] is not None:
            self._proof(f"{tenant}|{run}|", head["proof"], hashes)
        self.heads.append(sha256(b"\0" + self.line))
        self._next()
        return str(run)

    def _entry(self, entry: dict[str, Any], seq: int, before: bytes) -> bytes:
        """The hash of an entry, which it must state."""
        fields = {"record": str, "run": str, "seq": int, "at": int, "kind": str, "actor": str, "epoch": int}
        fields |= {"digest": str, "hash": str}
        if {name: type(value) for name, value in entry.items() if name != "body"} != fields or "body" not in entry:
            refuse("not the fields of an entry")
        if entry["seq"] != seq:
            refuse(f"entry {seq} is expected here")
        digest, body = unhex(entry["digest"]), entry["body"]
        if body is not None and sha256(body.encode()) != digest:
            refuse("the body does not match its digest")
        link = f"{seq}|{entry['at']}|{entry['kind']}|{entry['actor']}|{entry['epoch']}|".encode() + digest
        found = sha256(before + link)
        if found != unhex(entry["hash"]):
            refuse("the entry does not match its hash, or does not follow the one before it")
        self.entries, self.erased = self.entries + 1, self.erased + (body is None)
        return found

    def _proof(self, named: str, proof: dict[str, Any], hashes: list[bytes]) -> None:
        seq, place, tree = proof["seq"], proof["place"], self.trees.get(proof["tree"])
        if not 0 < seq < len(hashes) or hashes[seq].hex() != proof["hash"]:
            refuse("the ledger is not the one that was gathered into the tree")
        if tree is None or not 0 <= place < tree["size"]:
            refuse("a proof from a tree that is not here")
        leaf = sha256(b"\0" + f"{named}{seq}|".encode() + hashes[seq])
        path = [unhex(step) for step in proof["path"]]
        if root_of_path(leaf, place, size=tree["size"], path=path).hex() != tree["root"]:
            refuse("the proof does not lead to the root of its tree")

    def _seal(self, opening: dict[str, Any], frame: bytes) -> None:
        if self.record["record"] != "seal":
            refuse("the seal is expected here")
        said = self._statement()
        expected = {name: opening[name] for name in ("at", "lineage", "tenant")}
        expected |= {"frame": frame.hex(), "heads": merkle_root(self.heads).hex(), "runs": len(self.heads)}
        if said != expected | {"key": said["key"]}:
            refuse("the seal was set on other content")
        self._check_signer(said, "seal")


def public_key(file: str) -> bytes:
    key = load_pem_public_key(Path(file).read_bytes())
    if not isinstance(key, Ed25519PublicKey):
        raise SystemExit(f"{file} is not an Ed25519 key")
    return key.public_bytes_raw()


def main() -> None:
    parser = argparse.ArgumentParser(description="Verify an exported ledger without the system that wrote it.")
    parser.add_argument("bundle")
    parser.add_argument("--key", action="append", required=True, help="a public key that you trust, as PEM")
    given = parser.parse_args()
    with Path(given.bundle).open("rb") as lines:
        verifier = Verifier(lines, [public_key(file) for file in given.key])
        try:
            verifier.verify()
        except Changed as changed:
            raise SystemExit(f"NOT PROVEN, line {verifier.number}: {changed}") from None
    print(f"Proven: {len(verifier.heads)} runs, {verifier.entries} entries, {verifier.erased} of them erased.")


if __name__ == "__main__":
    main()
