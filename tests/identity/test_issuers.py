"""The file of issuers is read whole or refused whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import httpx
import pytest

from control.core.problem import Refusal
from control.identity.bearer import Bearers
from control.identity.issuers import load
from tests.identity.issuer_site import Signer, Site

ONE: Final = '[[issuer]]\nissuer = "https://a.example"\naudience = "control"\n'
TWO: Final = ONE.replace("//a.", "//b.")


def refused(path: Path) -> str:
    with pytest.raises(Refusal) as found:
        load(path)
    assert found.value.code == "issuers-invalid"
    return found.value.why


async def test_keys_from_a_file_need_no_network(tmp_path: Path) -> None:
    signer = Signer("k", "EdDSA")
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [signer.public]}))
    (tmp_path / "issuers.toml").write_text(ONE + 'tenant = "acme"\nkeys = "keys.json"\nclaims = { roles = "groups" }\n')
    (issuer,) = load(tmp_path / "issuers.toml")

    def offline(_: httpx.Request) -> httpx.Response:
        raise AssertionError("nothing is fetched")

    async with httpx.AsyncClient(transport=httpx.MockTransport(offline)) as client:
        token = signer.token(Site("https://a.example").claims(groups="viewer operator"))
        found = await Bearers([issuer], client).principal(token)
    assert (found.actor, found.tenant, found.roles) == ("ana", "acme", {"viewer", "operator"})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "issuer: Field required"),
        ("x =", "is no TOML"),
        (ONE, "issuer.0: it needs a tenant, or claims.tenant to say where a token names one"),
        (ONE + 'tenant = "a b"', "issuer.0.tenant: String should match pattern"),
        (ONE + 'tenant = "a"\nalgorithms = ["HS256"]', "issuer.0.algorithms.0: Input should be 'RS256'"),
        (ONE + 'tenant = "a"\nalgorithms = ["none"]', "issuer.0.algorithms.0: Input should be 'RS256'"),
        (ONE + 'tenant = "a"\nalgorithms = []', "issuer.0.algorithms: Tuple should have at least 1 item"),
        (ONE + 'tenant = "a"\naudience_ = "b"', "issuer.0.audience_: Extra inputs are not permitted"),
        (ONE + 'tenant = "a"\nleeway_s = 900', "issuer.0.leeway_s: Input should be less than or equal to 300"),
        (ONE + 'tenant = "a"\nkeys = "k"\njwks_url = "https://k"', "issuer.0: keys and jwks_url exclude each other"),
        (ONE + 'tenant = "a"\njwks_url = "http://k.example"', "issuer.0: an address begins with https://"),
        (ONE + 'tenant = "a"\n' + ONE + 'tenant = "b"', "https://a.example is named twice"),
        (ONE + 'tenant = "a"\n' + TWO + 'tenant = "a"', "may give the same id in one tenant"),
        (ONE + 'tenant = "a"\nid_prefix = "x"\n' + TWO + 'tenant = "a"\nid_prefix = "xy"', "may give the same id"),
    ],
)
def test_a_file_with_a_fault_is_refused_with_the_place(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "issuers.toml").write_text(text)
    assert why in refused(tmp_path / "issuers.toml")


def test_issuers_that_cannot_meet_stand_side_by_side(tmp_path: Path) -> None:
    apart = ONE + 'tenant = "a"\nid_prefix = "x|"\n' + TWO + 'tenant = "a"\nid_prefix = "y|"\n'
    for text in (apart, ONE + 'tenant = "a"\n' + TWO + 'tenant = "b"\n'):
        (tmp_path / "issuers.toml").write_text(text)
        assert len(load(tmp_path / "issuers.toml")) == 2


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "absent") == f"{tmp_path / 'absent'} cannot be read: No such file or directory."
