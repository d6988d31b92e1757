"""Where benchmarks run: a PostgreSQL server of their own, and a fresh database for each."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from control.store.migrations import migrate

PRODUCTION: Final[Mapping[str, Any]] = {"poll_s": 1.0, "takeover_poll_s": 0.25}
"""What `staged` would set for tests to go faster, at its default again."""


@dataclass(frozen=True, slots=True)
class Site:
    """server: the superuser's conninfo. folder: for files. scale: 1 for what is promised, less for a quick look.
    cloned: lends a database with our schema that is made already; else each is migrated, as an installation's is.
    """

    server: str
    folder: Path
    scale: float = 1.0
    rounds: int = 5
    say: Callable[[str], None] = field(default=lambda _: None)
    cloned: Callable[[], AbstractContextManager[str]] | None = None

    def some(self, number: int, *, least: int = 1) -> int:
        """`number` at this scale."""
        return max(least, round(number * self.scale))

    def database(self, name: str) -> AbstractContextManager[str]:
        """The superuser's conninfo of a fresh database with our schema, dropped after the block."""
        return self._migrated(name) if self.cloned is None else self.cloned()

    @contextmanager
    def _migrated(self, name: str) -> Iterator[str]:
        identifier = sql.Identifier(name := f"bench_{name}_{os.getpid()}")
        with psycopg.connect(self.server, autocommit=True) as conn:
            conn.execute(sql.SQL("create database {}").format(identifier))
            try:
                conninfo = make_conninfo(self.server, dbname=name)
                migrate(conninfo)
                yield conninfo
            finally:
                conn.execute(sql.SQL("drop database {} with (force)").format(identifier))

    def alternate(self, ours: Callable[[], float], peer: Callable[[], float]) -> Compared:
        """Measure both in every round, each going first in turn."""
        pairs: list[tuple[float, float]] = []
        for number in range(self.rounds):
            if number % 2:
                theirs, own = peer(), ours()
            else:
                own, theirs = ours(), peer()
            pairs.append((own, theirs))
            self.say(f"round {number + 1} of {self.rounds}: ours {own:.4g}, stock {theirs:.4g}, {own / theirs:.3g}×")
        return Compared(tuple(pairs))


@dataclass(frozen=True, slots=True)
class Compared:
    """The rounds' pairs: ours, the peer's."""

    pairs: Sequence[tuple[float, float]]

    @property
    def ours(self) -> float:
        return statistics.median(own for own, _ in self.pairs)

    @property
    def peer(self) -> float:
        return statistics.median(theirs for _, theirs in self.pairs)

    @property
    def ratios(self) -> list[float]:
        return [own / theirs for own, theirs in self.pairs]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def spread(self) -> str:
        """Between which ratios the rounds lay."""
        return f"rounds {min(self.ratios):.2f} to {max(self.ratios):.2f}"
