"""Merkle trees as RFC 6962 section 2.1 has them: one hash for many, and short proofs that one is among them.

Leaves and inner nodes are hashed under different first bytes, so that no inner node can be passed off as a leaf. A node
without a neighbour moves up as it is, which makes the same tree as the RFC's split at a power of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

EMPTY: Final = sha256(b"").digest()
"""The root over nothing."""


def leaf(data: bytes) -> bytes:
    """The hash of what a leaf stands for."""
    return sha256(b"\0" + data).digest()


def node(left: bytes, right: bytes) -> bytes:
    """The hash of two hashes."""
    return sha256(b"\1" + left + right).digest()


def levels(leaves: Sequence[bytes]) -> list[Sequence[bytes]]:
    """The leaves (their hashes, in order), then each level above them, up to the root alone."""
    found = [leaves]
    while len(below := found[-1]) > 1:
        pairs = [node(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)]
        found.append([*pairs, *below[len(below) & ~1 :]])
    return found


def root(leaves: Sequence[bytes]) -> bytes:
    """The hash over all leaves (their hashes), in their order."""
    return levels(leaves)[-1][0] if leaves else EMPTY


def path(levels: Sequence[Sequence[bytes]], place: int) -> tuple[bytes, ...]:
    """The neighbours on the way from one leaf to the root, lowest first: what proves that it stands at its place."""
    assert 0 <= place < len(levels[0]), f"there is no leaf {place} among {len(levels[0])}"
    beside = ((level, (place >> height) ^ 1) for height, level in enumerate(levels))
    return tuple(level[neighbour] for level, neighbour in beside if neighbour < len(level))


def climbed(start: bytes, *, place: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root to which a leaf's path leads in a tree of `size` leaves; None where no such tree has such a path."""
    if not 0 <= place < size:
        return None
    steps, last = iter(path), size - 1
    try:
        while last:
            if place & 1:
                start = node(next(steps), start)
            elif place < last:
                start = node(start, next(steps))
            place, last = place >> 1, last >> 1
    except StopIteration:
        return None
    return start if next(steps, None) is None else None
