"""The tree is RFC 6962's, every leaf is proven by its path, and by no other."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core import merkle

SIZES = st.integers(1, 70)


def split(leaves: list[bytes]) -> bytes:
    """The root as RFC 6962 section 2.1 defines it, from hashed leaves."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return merkle.node(split(leaves[:k]), split(leaves[k:]))


def leaves(size: int) -> list[bytes]:
    return [merkle.leaf(str(number).encode()) for number in range(size)]


def test_the_rfcs_own_examples() -> None:
    """The roots over the first entries of the RFC's reference test data."""
    given = [b"", b"\0", b"\x10", b"\x20\x21", b"\x30\x31", b"\x40\x41\x42\x43", bytes(range(0x50, 0x58))]
    roots = {
        0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        4: "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        6: "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    }
    for size, expected in roots.items():
        assert merkle.root([merkle.leaf(data) for data in given[:size]]).hex() == expected


@given(SIZES)
def test_the_root_is_that_of_the_rfcs_definition(size: int) -> None:
    assert merkle.root(leaves(size)) == split(leaves(size))


@given(st.data(), SIZES)
def test_a_path_proves_its_leaf_at_its_place_and_nothing_else(data: st.DataObject, size: int) -> None:
    hashed = leaves(size)
    place = data.draw(st.integers(0, size - 1))
    path = merkle.path(merkle.levels(hashed), place)
    root = merkle.root(hashed)
    assert merkle.climbed(hashed[place], place=place, size=size, path=path) == root
    other = data.draw(st.integers(-2, size + 1).filter(lambda other: other != place))
    assert merkle.climbed(hashed[place], place=other, size=size, path=path) != root
    assert merkle.climbed(merkle.leaf(b"another"), place=place, size=size, path=path) != root
    assert merkle.climbed(hashed[place], place=place, size=size, path=(*path, root)) is None
    if path:
        assert merkle.climbed(hashed[place], place=place, size=size, path=path[:-1]) is None


def test_a_node_cannot_pass_for_a_leaf() -> None:
    one, two = leaves(2)
    assert merkle.leaf(one + two) != merkle.node(one, two) != sha256(one + two).digest()


def test_there_is_no_path_to_a_leaf_that_is_not_there() -> None:
    with pytest.raises(AssertionError, match="there is no leaf 2 among 2"):
        merkle.path(merkle.levels(leaves(2)), 2)
