"""Tokens of a real issuer: what is believed, what is refused, and that no refusal repeats a token."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from functools import cache
from typing import Any, Final

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from control.core.principal import Principal, PrincipalKind
from control.core.problem import Refusal
from control.identity.bearer import Bearers
from control.identity.issuers import Issuer
from control.identity.key_set import AGAIN_S, FRESH_S, KEEP_S, FetchedKeys
from tests.identity.issuer_site import DISCOVERY, KEYS, Signer, Site, site

ALL: Final = ("RS256", "PS256", "ES256", "ES384", "EdDSA")


@cache
def signer(algorithm: str = "ES256", kid: str = "one") -> Signer:
    return Signer(kid, algorithm)


@pytest.fixture(scope="module")
def running() -> Iterator[Site]:
    with site() as made:
        yield made


@pytest.fixture
def issuer(running: Site) -> Site:
    running.keys, running.answers = [signer().public], {}
    running.asked.clear()
    return running


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as made:
        yield made


def believing(issuer: Site, client: httpx.AsyncClient, **about: Any) -> Bearers:
    return Bearers([Issuer(**{"issuer": issuer.url, "audience": "control", "tenant": "acme"} | about)], client)


async def refused(bearers: Bearers, token: str, caplog: pytest.LogCaptureFixture | None = None) -> Refusal:
    """The refusal, which holds no part of the token."""
    with pytest.raises(Refusal) as found:
        await bearers.principal(token)
    said = f"{found.value} {found.value.lines()} {json.dumps(found.value.as_json())} {found.value!r}"
    said += caplog.text if caplog else ""
    assert not [part for part in token.split(".") if len(part) > 8 and part in said]
    assert found.value.__cause__ is None
    return found.value


@pytest.mark.parametrize("algorithm", ALL)
async def test_a_token_of_each_algorithm_stands_for_its_person(
    issuer: Site, client: httpx.AsyncClient, algorithm: str
) -> None:
    issuer.keys = [signer(algorithm).public]
    bearers = believing(issuer, client, algorithms=ALL)
    found = await bearers.principal(signer(algorithm).token(issuer.claims(roles=["viewer", "approver"])))
    assert found == Principal("ana", "acme", roles=frozenset({"viewer", "approver"}))
    assert issuer.asked == {DISCOVERY: 1, KEYS: 1}


async def test_claims_mean_what_the_issuers_file_says(issuer: Site, client: httpx.AsyncClient) -> None:
    bearers = believing(
        issuer, client, tenant=None, id_prefix="kc|", roles={"officers": "approver"}, kinds={"robot": "service"},
        claims={"id": "azp", "roles": ["realm", "roles"], "tenant": "org", "kind": "typ", "scopes": "scope"},
    )  # fmt: skip
    claims = issuer.claims(
        azp="ci", org="beta", typ="robot", scope="openid start read", realm={"roles": ["officers", "admin"]}
    )
    found = await bearers.principal(signer().token(claims))
    assert (found.id, found.tenant, found.kind) == ("kc|ci", "beta", PrincipalKind.SERVICE)
    assert found.roles == {"approver"}, "a role that nobody explained does not count"
    assert found.covers("start") and not found.covers("cancel")
    unlimited = await bearers.principal(signer().token(claims | {"scope": None}))
    assert unlimited.scopes == frozenset(), "a token without the claim stands for nothing, not for everything"


@pytest.mark.parametrize(
    ("claims", "about", "check", "why"),
    [
        ({"exp": 1}, {}, "expiry", "The token has expired."),
        ({"exp": None}, {}, "claims", "It lacks one of the claims exp, iss and aud."),
        ({"exp": []}, {}, "form", "It cannot be read as a token."),
        ({"exp": float("inf")}, {}, "form", "It cannot be read as a token."),
        ({"nbf": 2**40}, {}, "time", "It is not valid yet."),
        ({"aud": "other"}, {}, "audience", "It was made for another audience."),
        ({"aud": None}, {}, "claims", "It lacks one of the claims exp, iss and aud."),
        ({"iss": "https://other.example"}, {}, "issuer", "Its issuer is none that is believed here."),
        ({"iss": None}, {}, "issuer", "Its issuer is none that is believed here."),
        ({"sub": None}, {}, "claims", "It does not say who it is for in the claim sub."),
        ({"sub": ""}, {}, "claims", "It does not say who it is for in the claim sub."),
        ({"sub": "a\nb"}, {}, "claims", "It does not say who it is for in the claim sub."),
        ({"sub": "x" * 256}, {}, "claims", "What it says in the claim sub is longer than 255 characters."),
        (
            {"sub": "service:ci"}, {}, "claims",
            "The id of a person is not as that of a service, an agent, a worker or the control plane.",
        ),
        (
            {"sub": "clock"}, {}, "claims",
            "The id of a person is not as that of a service, an agent, a worker or the control plane.",
        ),
        (
            {"org": "a b"}, {"tenant": None, "claims": {"tenant": "org"}}, "claims",
            "It does not name a tenant in the claim org.",
        ),
        (
            {"typ": "king"}, {"claims": {"kind": "typ"}}, "claims",
            "What it says in the claim typ is no kind of principal.",
        ),
    ],
)  # fmt: skip
async def test_a_claim_that_does_not_hold_is_named(
    issuer: Site, client: httpx.AsyncClient, claims: dict[str, Any], about: dict[str, Any], check: str, why: str
) -> None:
    refusal = await refused(believing(issuer, client, **about), signer().token(issuer.claims(**claims)))
    assert (refusal.problem.status, refusal.facts["check"], refusal.why) == (401, check, why)
    assert refusal.code == ("credential-expired" if check == "expiry" else "credential-invalid")


async def test_clocks_may_differ_by_the_leeway(issuer: Site, client: httpx.AsyncClient) -> None:
    token = signer().token(issuer.claims(exp=int(time.time()) - 20))
    assert (await believing(issuer, client, leeway_s=60).principal(token)).id == "ana"
    assert (await refused(believing(issuer, client, leeway_s=0), token)).code == "credential-expired"


def forged(header: dict[str, Any], claims: dict[str, Any], *, secret: bytes | None = None) -> str:
    """A token by hand: without a signature, or with a shared secret."""
    head, body = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims))
    made = hmac.new(secret, head + b"." + body, hashlib.sha256).digest() if secret is not None else b""
    return b".".join([head, body, base64.urlsafe_b64encode(made).rstrip(b"=")]).decode()


async def test_a_token_without_a_signature_or_with_a_public_key_as_its_secret_is_refused(
    issuer: Site, client: httpx.AsyncClient
) -> None:
    rs = signer("RS256")
    issuer.keys, bearers = [rs.public], believing(issuer, client)
    public = rs.private.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for none in ("none", "None", "", "HS256", ["RS256"]):
        refusal = await refused(bearers, forged({"alg": none, "kid": "one"}, issuer.claims(), secret=pem))
        assert refusal.facts["check"] in ("algorithm", "form")
    for alg in ("RS256", "ES256"):  # the header lies about how it was signed
        refusal = await refused(bearers, forged({"alg": alg, "kid": "one"}, issuer.claims(), secret=pem))
        assert refusal.facts["check"] == ("signature" if alg == "RS256" else "key")


async def test_a_shared_secret_that_the_issuer_publishes_is_no_key(issuer: Site, client: httpx.AsyncClient) -> None:
    secret = base64.urlsafe_b64encode(b"s" * 32).rstrip(b"=").decode()
    issuer.keys = [{"kty": "oct", "kid": "one", "k": secret, "alg": "HS256"}]
    token = jwt.encode(issuer.claims(), b"s" * 32, "HS256", {"kid": "one"})
    assert (await refused(believing(issuer, client), token)).facts["check"] == "algorithm"
    assert (await refused(believing(issuer, client), signer().token(issuer.claims()))).facts["check"] == "key"


async def test_a_key_serves_the_algorithm_it_was_published_for_alone(issuer: Site, client: httpx.AsyncClient) -> None:
    ps = Signer("one", "PS256", signer("RS256").private)
    issuer.keys = [signer("RS256").public | {"alg": "RS256"}]
    assert (await refused(believing(issuer, client), ps.token(issuer.claims()))).facts["check"] == "key"
    issuer.keys = [signer("RS256").public | {"use": "enc"}]
    assert (await refused(believing(issuer, client), signer("RS256").token(issuer.claims()))).facts["check"] == "key"


async def test_a_short_key_is_not_trusted(issuer: Site, client: httpx.AsyncClient) -> None:
    weak = Signer("one", "RS256", rsa.generate_private_key(65537, 1024))
    issuer.keys = [weak.public]
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = weak.token(issuer.claims())
    assert (await refused(believing(issuer, client), token)).why == "Its issuer's key is too short to be trusted."


async def test_a_changed_token_is_refused(
    issuer: Site, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    bearers, token = believing(issuer, client), signer().token(issuer.claims())
    head, body, signature = token.split(".")
    more = base64.urlsafe_b64encode(json.dumps(issuer.claims(roles=["admin"])).encode()).rstrip(b"=").decode()
    assert (await refused(bearers, f"{head}.{more}.{signature}", caplog)).facts["check"] == "signature"
    stranger = Signer("one").token(issuer.claims())
    assert (await refused(bearers, stranger, caplog)).why == "Its signature is wrong."
    for broken in ("", "hello", "a.b.c", f"{head}.{body}", "é" * 20, "." * 9, "x" * 20_000, token * 40):
        assert (await refused(bearers, broken, caplog)).facts["check"] == "form"
    deep = base64.urlsafe_b64encode(b"[" * 8000).decode()
    assert (await refused(bearers, f"{head}.{deep}.{signature}", caplog)).facts["check"] == "form"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_a_new_key_is_taken_up_and_unknown_ids_do_not_ask_at_will(
    issuer: Site, client: httpx.AsyncClient
) -> None:
    clock = Clock()
    keys = FetchedKeys(Issuer(issuer=issuer.url, audience="control", tenant="acme"), client, clock=clock)
    assert await keys.find("one", "ES256")
    issuer.keys = [signer(kid="two").public]
    for _ in range(50):
        assert await keys.find("two", "ES256") is None
    assert issuer.asked[KEYS] == 1, "asked a moment ago"
    clock.now += AGAIN_S
    assert await keys.find("two", "ES256")
    assert await keys.find("one", "ES256") is None, "what the issuer withdrew is gone"
    assert issuer.asked[KEYS] == 2
    clock.now += FRESH_S + 1
    assert await keys.find("two", "ES256")
    assert issuer.asked == {DISCOVERY: 3, KEYS: 3}


async def test_without_an_id_the_only_fitting_key_is_meant(issuer: Site, client: httpx.AsyncClient) -> None:
    issuer.keys = [signer().public, signer("RS256", "three").public]
    bearers, token = believing(issuer, client), signer().token(issuer.claims(), named=False)
    assert (await bearers.principal(token)).id == "ana"
    issuer.keys = [signer().public, signer(kid="two").public]
    assert (await refused(believing(issuer, client), token)).facts["check"] == "key"


async def test_an_issuer_that_is_away_is_believed_for_a_while(issuer: Site, client: httpx.AsyncClient) -> None:
    clock = Clock()
    keys = FetchedKeys(Issuer(issuer=issuer.url, audience="control", tenant="acme"), client, clock=clock)
    assert await keys.find("one", "ES256")
    issuer.answers = {KEYS: 503}
    clock.now += FRESH_S + 1
    assert await keys.find("one", "ES256")
    clock.now += KEEP_S
    with pytest.raises(Refusal) as found:
        await keys.find("one", "ES256")
    assert (found.value.code, found.value.problem.status) == ("issuer-away", 503)
    assert found.value.why == f"{issuer.url}: {issuer.url}{KEYS} answers 503."
    asked = issuer.asked[KEYS]
    with pytest.raises(Refusal):
        await keys.find("one", "ES256")
    assert issuer.asked[KEYS] == asked, "an issuer that is away is not asked for every token"


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({DISCOVERY: 404}, "answers 404"),
        ({DISCOVERY: {"issuer": "https://other.example"}}, "its discovery document is another issuer's"),
        ({DISCOVERY: []}, "its discovery document is another issuer's"),
        ({KEYS: {"keys": "none"}}, 'it is no key set: {"keys": [...]}'),
        ({KEYS: {"keys": [], "filler": "x" * 1_100_000}}, "answers more than 1,048,576 bytes"),
    ],
)
async def test_what_an_issuer_publishes_is_checked(
    issuer: Site, client: httpx.AsyncClient, answers: dict[str, Any], why: str
) -> None:
    issuer.answers = answers
    refusal = await refused(believing(issuer, client), signer().token(issuer.claims()))
    assert refusal.code == "issuer-away"
    assert why in refusal.why


async def test_keys_are_not_fetched_over_plain_http_from_elsewhere(issuer: Site, client: httpx.AsyncClient) -> None:
    issuer.answers = {DISCOVERY: {"issuer": issuer.url, "jwks_uri": "http://keys.example/jwks"}}
    refusal = await refused(believing(issuer, client), signer().token(issuer.claims()))
    assert "begins with https://" in refusal.why
