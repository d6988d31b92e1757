"""A token becomes a principal, or is refused with the check that it failed. No text here holds any part of a token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import httpx
import jwt

from control.core.principal import TENANT, Principal, PrincipalKind, personal
from control.core.problem import Refusal
from control.identity.credential import CREDENTIAL_EXPIRED, CREDENTIAL_INVALID, refuse
from control.identity.issuers import Issuer
from control.identity.key_set import FetchedKeys, FiledKeys, Keys

TOKEN_LIMIT: Final = 16 * 1024
_ID_LIMIT: Final = 255
_CHECKER: Final = jwt.PyJWT(options={"enforce_minimum_key_length": True})
_SAID: Final[tuple[tuple[type[jwt.PyJWTError], str, str], ...]] = (
    (jwt.ImmatureSignatureError, "time", "It is not valid yet"),
    (jwt.InvalidIssuedAtError, "time", "It says that it was made in the future"),
    (jwt.InvalidAudienceError, "audience", "It was made for another audience"),
    (jwt.InvalidIssuerError, "issuer", "Its issuer is another one"),
    (jwt.MissingRequiredClaimError, "claims", "It lacks one of the claims exp, iss and aud"),
    (jwt.InvalidSignatureError, "signature", "Its signature is wrong"),
    (jwt.InvalidKeyError, "key", "Its issuer's key is too short to be trusted"),
    (jwt.PyJWTError, "form", "It cannot be read as a token"),
)
"""Which check an error of PyJWT's stands for, the first that fits, and what to say of it."""


class Bearers:
    """The tokens of these issuers. `client` reads the keys that issuers publish."""

    def __init__(self, issuers: Iterable[Issuer], client: httpx.AsyncClient) -> None:
        self._believed: Mapping[str, tuple[Issuer, Keys]] = {
            one.issuer: (one, FiledKeys(one.keys) if one.keys is not None else FetchedKeys(one, client))
            for one in issuers
        }

    async def principal(self, token: str) -> Principal:
        """Whom the token stands for. Raises `credential-invalid`, `credential-expired`, `issuer-away`."""
        header, claimed = _unverified(token)
        issuer, keys = self._believed.get(str(claimed.get("iss")), (None, None))
        if issuer is None or keys is None:
            refuse("issuer", "Its issuer is none that is believed here")
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in issuer.algorithms:
            refuse("algorithm", f"It is not signed with any of {', '.join(issuer.algorithms)}")
        key = await keys.find(None if kid is None else str(kid), algorithm)
        if key is None:
            refuse("key", "Its issuer has no such key, or had none a moment ago")
        return _principal(_verified(token, key, issuer), issuer)


def _unverified(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Header and claims of what may be anybody's, only to find out whose key it has to be checked with."""
    if len(token) > TOKEN_LIMIT:
        refuse("form", f"It is longer than {TOKEN_LIMIT:,} characters")
    try:
        found = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        refuse("form", "It is neither an API key nor a token (a JWT)")
    return found["header"], found["payload"]


def _verified(token: str, key: jwt.PyJWK, issuer: Issuer) -> Mapping[str, Any]:
    """The claims, once everything about the token holds."""
    try:
        return _CHECKER.decode(
            token, key, algorithms=[key.algorithm_name], audience=issuer.audience, issuer=issuer.issuer,
            leeway=issuer.leeway_s, options={"require": ["exp", "iss", "aud"]},
        )  # fmt: skip
    except jwt.ExpiredSignatureError:
        raise CREDENTIAL_EXPIRED.because("The token has expired.", check="expiry") from None
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
        raise _refusal(error) from None


def _refusal(error: Exception) -> Refusal:
    _, check, why = next(one for one in _SAID if isinstance(error, one[0]) or one[0] is jwt.PyJWTError)
    return CREDENTIAL_INVALID.because(f"{why}.", check=check)


def _principal(claims: Mapping[str, Any], issuer: Issuer) -> Principal:
    where = issuer.claims
    kind = _kind(_at(claims, where.kind), issuer) if where.kind else PrincipalKind.PERSON
    roles = _words(claims, where.roles)
    renamed = roles if issuer.roles is None else frozenset(issuer.roles[role] for role in roles & issuer.roles.keys())
    scopes = _words(claims, where.scopes) if where.scopes else None
    return Principal(_id(claims, issuer, kind), _tenant(claims, issuer), kind, renamed, scopes)


def _id(claims: Mapping[str, Any], issuer: Issuer, kind: PrincipalKind) -> str:
    given = _at(claims, issuer.claims.id)
    if not isinstance(given, str) or not given or not given.isprintable():
        refuse("claims", f"It does not say who it is for in {_named(issuer.claims.id)}")
    id = issuer.id_prefix + given
    if len(id) > _ID_LIMIT:
        refuse("claims", f"What it says in {_named(issuer.claims.id)} is longer than {_ID_LIMIT} characters")
    if kind is PrincipalKind.PERSON and not personal(id):
        refuse("claims", "The id of a person is not as that of a service, an agent, a worker or the control plane")
    return id


def _tenant(claims: Mapping[str, Any], issuer: Issuer) -> str:
    if issuer.tenant is not None:
        return issuer.tenant
    assert issuer.claims.tenant is not None
    given = _at(claims, issuer.claims.tenant)
    if not isinstance(given, str) or not TENANT.fullmatch(given):
        refuse("claims", f"It does not name a tenant in {_named(issuer.claims.tenant)}")
    return given


def _kind(given: Any, issuer: Issuer) -> PrincipalKind:
    """A token without the claim is a person's; a word that nobody explained is refused."""
    if given is None:
        return PrincipalKind.PERSON
    if not isinstance(given, str) or (given not in issuer.kinds and given not in tuple(PrincipalKind)):
        refuse("claims", f"What it says in {_named(issuer.claims.kind or ())} is no kind of principal")
    return issuer.kinds.get(given) or PrincipalKind(given)


def _words(claims: Mapping[str, Any], path: tuple[str, ...]) -> frozenset[str]:
    """Words of a claim: a list, or a text with spaces between them. None at all where it is anything else."""
    given = _at(claims, path)
    words = given.split() if isinstance(given, str) else given if isinstance(given, list) else ()
    return frozenset(word for word in words if isinstance(word, str) and word)


def _at(claims: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = claims
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _named(path: tuple[str, ...]) -> str:
    return "the claim " + ".".join(path)
