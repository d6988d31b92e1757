"""Which issuers are believed, and what their claims mean: one TOML file, read whole or refused whole.

    [[issuer]]
    issuer = "https://login.example.org/realms/work"    # as the tokens spell it
    audience = "langgraph-control"                      # or a list
    tenant = "acme"                                     # every token of this issuer is for this tenant
    claims = { roles = ["realm_access", "roles"] }      # a name, or a path of names
    roles = { "loan-officers" = "approver" }            # where given, no other role counts

Without `keys` (a JWKS file beside this one) or `jwks_url`, the issuer's own discovery document leads to its keys.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from control.core.principal import TENANT, PrincipalKind
from control.core.problem import Problem, Refusal

ISSUERS_INVALID: Final = Problem(
    code="issuers-invalid",
    status=500,
    title="The file of issuers cannot be used",
    next_step="Correct the file that CONTROL_ISSUERS names; the README shows one. Until then no token is accepted.",
)
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
]  # fmt: skip
"""Asymmetric, all of them: with a shared secret whoever checks tokens could make some."""


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def reachable(url: str) -> str:
    """Keys that came over plain HTTP could be anybody's."""
    parts = urlsplit(url)
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)):
        raise ValueError("an address begins with https:// (http:// on this machine alone)")
    return url


_Words = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_listed), Field(min_length=1)]
_Tenant = Annotated[str, Field(pattern=f"^{TENANT.pattern}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Claims(_Part):
    """Where a token says it: the name of a claim, or the path to it."""

    id: _Words = ("sub",)
    roles: _Words = ("roles",)
    tenant: _Words | None = None
    kind: _Words | None = None
    scopes: _Words | None = None


class Issuer(_Part):
    """One issuer. `roles` and `kinds` translate its words into ours; `id_prefix` goes before each id that it gives."""

    issuer: Annotated[str, Field(min_length=1)]
    audience: _Words
    tenant: _Tenant | None = None
    keys: Path | None = None
    jwks_url: str | None = None
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("RS256", "PS256", "ES256", "EdDSA")
    leeway_s: Annotated[float, Field(ge=0, le=300)] = 30
    id_prefix: str = ""
    claims: Claims = Claims()
    roles: Mapping[str, str] | None = None
    kinds: Mapping[str, PrincipalKind] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _whole(self) -> Issuer:
        if self.tenant is None and self.claims.tenant is None:
            raise ValueError("it needs a tenant, or claims.tenant to say where a token names one")
        if self.keys is not None and self.jwks_url is not None:
            raise ValueError("keys and jwks_url exclude each other")
        if self.keys is None:
            reachable(self.jwks_url or self.issuer)
        return self


class _File(_Part):
    issuer: Annotated[tuple[Issuer, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _apart(self) -> _File:
        """Two issuers never speak of the same principal."""
        for one, other in combinations(self.issuer, 2):
            if one.issuer == other.issuer:
                raise ValueError(f"{one.issuer} is named twice")
            shared = one.tenant is None or other.tenant is None or one.tenant == other.tenant
            nested = one.id_prefix.startswith(other.id_prefix) or other.id_prefix.startswith(one.id_prefix)
            if shared and nested:
                raise ValueError(
                    f"{one.issuer} and {other.issuer} may give the same id in one tenant: give each its own id_prefix"
                )
        return self


def load(path: Path) -> tuple[Issuer, ...]:
    """The issuers of a file. A path in it is relative to it. Raises `issuers-invalid`, with every fault."""
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
        named = _File.model_validate(given).issuer
    except OSError as error:
        raise _refusal(f"{path} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _refusal(f"{path} is no TOML: {error}") from None
    except ValidationError as error:
        raise _refusal(f"{path}: {'; '.join(_faults(error))}") from None
    return tuple(
        one.model_copy(update={"keys": path.parent / one.keys}) if one.keys is not None else one for one in named
    )


def _faults(error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False, include_input=False):
        where = ".".join(str(step) for step in fault["loc"])
        yield f"{where or 'the file'}: {fault['msg'].removeprefix('Value error, ')}"


def _refusal(why: str) -> Refusal:
    return ISSUERS_INVALID.because(f"{why.rstrip('.')}.")
