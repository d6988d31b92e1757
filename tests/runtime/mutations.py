"""Changes to a bundle, one kind a function: what a disk, a careless hand or a forger without the key can do.

A forger is taken to know the format as well as we do: he recomputes every digest, hash, head and proof that he can.
Each function returns the changed bytes, or None where the bundle has no place for this change.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from random import Random
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from control.core.ledger import canonical
from control.core.tree import KEY_DOMAIN, SEAL_DOMAIN, TREE_DOMAIN, key_id

Record = dict[str, Any]


@dataclass(frozen=True)
class Originals:
    """The bundle to change, and others by the same keys: of the same tenant earlier, and of another tenant."""

    bundle: bytes
    earlier: bytes
    foreign: bytes

    def other(self, random: Random) -> bytes:
        return random.choice((self.earlier, self.foreign))


def lines(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)


def records(data: bytes) -> list[Record]:
    return [json.loads(line) for line in lines(data)]


def written(found: list[Record]) -> bytes:
    return b"".join(canonical(record) + b"\n" for record in found)


def of_kind(found: list[Record], *kinds: str) -> list[int]:
    return [place for place, record in enumerate(found) if record["record"] in kinds]


def blocks(found: list[Record]) -> list[range]:
    """Each run's records, with its head."""
    ends = of_kind(found, "head")
    first = of_kind(found, "entry")[0]
    return [range(start, end + 1) for start, end in zip([first, *(end + 1 for end in ends)], ends, strict=False)]


def rechained(entries: list[Record], head: Record) -> list[Record]:
    """A run's records made consistent: numbered, digested, chained, and closed by a head that fits."""
    prev, made = bytes(32), list[Record]()
    for seq, entry in enumerate(entries, 1):
        digest = (
            sha256(entry["body"].encode()).digest() if entry["body"] is not None else bytes.fromhex(entry["digest"])
        )
        link = f"{seq}|{entry['at']}|{entry['kind']}|{entry['actor']}|{entry['epoch']}|".encode() + digest
        prev = sha256(prev + link).digest()
        made.append(entry | {"run": head["run"], "seq": seq, "digest": digest.hex(), "hash": prev.hex()})
    return [*made, head | {"seq": len(made), "hash": prev.hex()}]


def flip_a_bit(of: Originals, random: Random) -> bytes:
    data = bytearray(of.bundle)
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(data)


def change_the_length(of: Originals, random: Random) -> bytes:
    place = random.randrange(len(of.bundle) + 1)
    return of.bundle[:place] + (
        random.randbytes(1) + of.bundle[place:] if random.random() < 0.5 else of.bundle[place + 1 :]
    )


def delete_lines(of: Originals, random: Random) -> bytes:
    found = lines(of.bundle)
    start = random.randrange(len(found))
    del found[start : start + random.choice((1, 1, 2, 5))]
    return b"".join(found)


def repeat_a_line(of: Originals, random: Random) -> bytes:
    found = lines(of.bundle)
    found.insert(random.randrange(len(found) + 1), random.choice(found))
    return b"".join(found)


def reorder_lines(of: Originals, random: Random) -> bytes:
    found = lines(of.bundle)
    one, other = random.sample(range(len(found)), 2)
    found[one], found[other] = found[other], found[one]
    return b"".join(found)


def reorder_runs(of: Originals, random: Random) -> bytes:
    found = records(of.bundle)
    order = blocks(found)
    changed = random.sample(order, len(order))
    return written([*found[: order[0].start], *(found[i] for run in changed for i in run), *found[order[-1].stop :]])


def truncate_the_file(of: Originals, random: Random) -> bytes:
    if random.random() < 0.5:
        return of.bundle[: random.randrange(len(of.bundle))]
    found = lines(of.bundle)
    return b"".join(found[: random.randrange(len(found))])


def truncate_a_run(of: Originals, random: Random) -> bytes | None:
    """Its last entries are gone, and its head fits what is left."""
    found = records(of.bundle)
    run = random.choice(blocks(found))
    entries = [found[i] for i in run][:-1]
    if len(entries) < 2:
        return None
    kept = entries[: random.randrange(1, len(entries))]
    return written([*found[: run.start], *rechained(kept, _unproven(found[run[-1]], random)), *found[run.stop :]])


def leave_a_run_out(of: Originals, random: Random) -> bytes:
    found = records(of.bundle)
    run = random.choice(blocks(found))
    return written([*found[: run.start], *found[run.stop :]])


def splice_an_entry(of: Originals, random: Random) -> bytes:
    """An entry of another run in the place of one, as it stands or fitted in."""
    found, source = records(of.bundle), records(random.choice((of.bundle, of.other(random))))
    run = random.choice(blocks(found))
    entries = [found[i] for i in run][:-1]
    place = random.randrange(len(entries))
    taken = source[random.choice(of_kind(source, "entry"))]
    entries[place] = taken
    head = found[run[-1]]
    fitted = rechained(entries, _unproven(head, random)) if random.random() < 0.7 else [*entries, head]
    return written([*found[: run.start], *fitted, *found[run.stop :]])


def splice_a_run(of: Originals, random: Random) -> bytes:
    """A whole run from another bundle, in the place of one; of the same tenant even with a proof that holds."""
    found, source = records(of.bundle), records(of.other(random))
    run, other = random.choice(blocks(found)), random.choice(blocks(source))
    taken = [source[i] for i in other]
    if random.random() < 0.5:
        taken = rechained(taken[:-1], taken[-1] | {"run": found[run.start]["run"]})
    return written([*found[: run.start], *taken, *found[run.stop :]])


def rewrite_an_entry(of: Originals, random: Random) -> bytes:
    """One fact is another, and everything that follows from it is computed anew; but for the signatures."""
    found = records(of.bundle)
    run = random.choice(blocks(found))
    entries = [found[i] for i in run][:-1]
    place = random.randrange(len(entries))
    changes: list[Record] = [
        {"actor": "eve"}, {"at": entries[place]["at"] + random.choice((-1, 1))}, {"epoch": entries[place]["epoch"] + 1},
        {"kind": "handled", "body": '{"node":"x"}'}, {"body": '{"why":"another"}'},
    ]  # fmt: skip
    entries[place] = entries[place] | random.choice(changes)
    return written([*found[: run.start], *rechained(entries, _unproven(found[run[-1]], random)), *found[run.stop :]])


def take_a_body_away(of: Originals, random: Random) -> bytes | None:
    """A body is missing; sometimes an entry claims that it was erased."""
    found = records(of.bundle)
    run = random.choice(blocks(found))
    entries, head = [found[i] for i in run][:-1], found[run[-1]]
    if all(entry["body"] is None for entry in entries):
        return None
    place = random.choice([place for place, entry in enumerate(entries) if entry["body"] is not None])
    entries[place] = entries[place] | {"body": None}
    if random.random() < 0.5:
        entries = [entry | {"body": None} for entry in entries]
        claim = entries[-1] | {"kind": "erased", "actor": "ana", "body": '{"bodies":1,"why":"asked to"}'}
        return written([*found[: run.start], *rechained([*entries, claim], head), *found[run.stop :]])
    return written([*found[: run.start], *entries, head, *found[run.stop :]])


def swap_signatures(of: Originals, random: Random) -> bytes:
    found = records(of.bundle)
    signed = of_kind(found, "key", "tree", "seal")
    place = random.choice(signed)
    source = records(of.other(random)) if random.random() < 0.5 else found
    other = source[random.choice(of_kind(source, "key", "tree", "seal"))]["signature"]
    found[place]["signature"] = random.choice((other, random.randbytes(64).hex(), None))
    return written(found)


def swap_statements(of: Originals, random: Random) -> bytes:
    """A signed record of another bundle in the place of one: another key, another tree, another seal."""
    found, source = records(of.bundle), records(of.other(random))
    kind = random.choice(("key", "tree", "seal", "bundle"))
    found[random.choice(of_kind(found, kind))] = source[random.choice(of_kind(source, kind))]
    return written(found)


def sign_with_another_key(of: Originals, random: Random) -> bytes:
    """A rewritten bundle, signed throughout by the forger's own keys under the names of ours, or of his own."""
    found, forged = records(rewrite_an_entry(of, random)), {}
    own_names = random.random() < 0.5
    for place in of_kind(found, "key", "tree", "seal"):
        said = json.loads(found[place]["text"])
        key = forged.setdefault(said["key"], Ed25519PrivateKey.from_private_bytes(random.randbytes(32)))
        public = key.public_key().public_bytes_raw()
        if own_names:
            said["key"] = key_id(public)
        if found[place]["record"] == "key":
            said["public"] = public.hex()
            replaced = forged.get(said["replaces"])
            if own_names and replaced:
                said["replaces"] = key_id(replaced.public_key().public_bytes_raw())
            key = replaced or key
        domain = {"key": KEY_DOMAIN, "tree": TREE_DOMAIN, "seal": SEAL_DOMAIN}[found[place]["record"]]
        text = canonical(said)
        found[place] |= {"text": text.decode(), "signature": key.sign(domain + text).hex()}
    return written(found)


def _unproven(head: Record, random: Random) -> Record:
    """Sometimes without its proof, which a forger would rather not show."""
    return head | {"proof": random.choice((head["proof"], None))}


KINDS: Final[tuple[Callable[[Originals, Random], bytes | None], ...]] = (
    flip_a_bit, change_the_length, delete_lines, repeat_a_line, reorder_lines, reorder_runs, truncate_the_file,
    truncate_a_run, leave_a_run_out, splice_an_entry, splice_a_run, rewrite_an_entry, take_a_body_away, swap_signatures,
    swap_statements, sign_with_another_key,
)  # fmt: skip
