"""What a key looks like, and what may be asked for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.api_key import ApiKey, Condition, Wanted, presented, spelled
from control.core.principal import Principal, PrincipalKind
from control.core.problem import Refusal

NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)
KEY: Final = ApiKey(
    tenant="acme", key_id="0" * 16, digest=bytes(32), name="ci", kind=PrincipalKind.SERVICE,
    roles=frozenset({"service"}), scopes=frozenset({"start"}), created_by="ana", created_at=NOW,
    expires_at=NOW + timedelta(days=1),
)  # fmt: skip
GOOD: Final = Wanted(name="ci", kind=PrincipalKind.SERVICE, roles=frozenset({"service"}))
MAKER: Final = Principal("ana", "acme")
BASE64URL: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@given(st.text("0123456789abcdef", min_size=16, max_size=16), st.text(BASE64URL, min_size=43, max_size=43))
def test_a_key_is_read_back_by_its_id_and_digest_alone(key_id: str, secret: str) -> None:
    text = spelled(key_id, secret)
    found = presented(text)
    assert found is not None
    assert (found.key_id, found.digest) == (key_id, sha256(text.encode()).digest())
    assert secret not in repr(found)
    assert presented(text + "x") is None and presented(text[:-1]) is None and presented(f" {text}") is None


@given(st.timedeltas(timedelta(days=-5), timedelta(days=5)), st.booleans())
def test_a_key_is_valid_until_it_expires_or_is_revoked(after: timedelta, revoked: bool) -> None:
    key = replace(KEY, revoked_at=NOW, revoked_by="ana") if revoked else KEY
    expected = Condition.REVOKED if revoked else Condition.EXPIRED if after >= timedelta(days=1) else Condition.VALID
    assert key.condition(NOW + after) is expected


def test_a_key_stands_for_its_principal_within_its_scopes() -> None:
    principal = KEY.principal
    assert (principal.actor, principal.tenant, principal.roles) == ("service:ci", "acme", {"service"})
    assert principal.covers("start") and not principal.covers("read")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": ""}, "Its name has 1 to 200 letters"),
        ({"name": "x" * 201}, "Its name has 1 to 200 letters"),
        ({"name": "a\nb"}, "Its name has 1 to 200 letters"),
        ({"name": "worker:1", "kind": PrincipalKind.PERSON}, "The name of a person is not as that of"),
        ({"name": "clock", "kind": PrincipalKind.PERSON}, "The name of a person is not as that of"),
        ({"roles": frozenset()}, "Without a role it could do nothing."),
        ({"roles": frozenset({"a b"})}, "'a b' cannot be the name of a role."),
        ({"scopes": frozenset({"fly"})}, "'fly' is no action; known: answer, apply_policy, approve"),
        ({"lifetime": timedelta(0)}, "It has to expire, within 366 days."),
        ({"lifetime": timedelta(days=367)}, "It has to expire, within 366 days."),
    ],
)
def test_a_key_that_cannot_be_is_refused_with_every_fault(change: dict[str, Any], why: str) -> None:
    GOOD.check(MAKER)
    with pytest.raises(Refusal) as found:
        replace(GOOD, **change).check(MAKER)
    assert found.value.code == "api-key-unfit"
    assert found.value.why.startswith(why)


@given(
    st.sets(st.sampled_from(["read", "start", "manage_keys"])), st.sets(st.sampled_from(["read", "start", "cancel"]))
)
def test_a_key_never_stands_for_more_than_the_credential_that_made_it(held: set[str], asked: set[str]) -> None:
    maker = replace(MAKER, scopes=frozenset(held))
    try:
        replace(GOOD, scopes=frozenset(asked)).check(maker)
    except Refusal as refusal:
        assert not asked <= held
        assert refusal.why.startswith("Your own credential does not stand for ")
    else:
        assert asked <= held
    with pytest.raises(Refusal, match="a key that it makes needs some too"):
        GOOD.check(maker)
