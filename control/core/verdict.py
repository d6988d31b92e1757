"""What policy says of a request: yes, no, or yes once a person agrees. Each names the rules that made it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Permit:
    """rules: the ids of the rules that decided, never empty. why: a sentence for people."""

    rules: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Deny:
    """rules: the ids of the rules that decided; empty where none permits it, which denies by default."""

    rules: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Permitted once somebody with one of `of` agrees. of: roles, never empty."""

    rules: tuple[str, ...]
    why: str
    of: tuple[str, ...]


Verdict = Permit | Deny | Ask
