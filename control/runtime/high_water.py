"""How far this installation has seen a database come, kept outside of it.

One small file for each database in the audit folder, `<lineage>.seen.json`, holds the newest tree of each tenant. A
database whose trees end before that, or run through another tree of that number, is an earlier copy of itself: a backup
was restored, and what happened after it was taken is forgotten, though not undone in the world outside.

A backup that carries this folder along restores the memory with the database. Keep it apart: CONTROL_AUDIT_DIR.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from control.core.problem import Problem
from control.core.tree import Mark

SEEN_UNREADABLE: Final = Problem(
    code="high-water-unreadable",
    status=500,
    title="What was seen of the database cannot be read",
    next_step="Restore the file, or remove it: a restored backup is then not recognised until it is written anew.",
)


@dataclass(frozen=True, slots=True)
class HighWater:
    """The file for one database."""

    folder: Path
    lineage: UUID

    @property
    def file(self) -> Path:
        return self.folder / f"{self.lineage}.seen.json"

    def read(self) -> Mapping[str, Mark]:
        """The newest tree seen of each tenant. Raises `high-water-unreadable`."""
        try:
            found = json.loads(self.file.read_text(encoding="utf-8"))
            return {tenant: Mark(**mark) for tenant, mark in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise SEEN_UNREADABLE.because(f"{self.file}: {error}.") from error

    def rise(self, tenant: str, mark: Mark) -> None:
        """Remember a tree, unless a newer one is remembered. Whole or not at all, whoever else writes."""
        with self._alone():
            known = dict(self.read())
            if tenant in known and known[tenant].number >= mark.number:
                return
            known[tenant] = mark
            draft = self.file.with_suffix(".draft")
            with draft.open("w", encoding="utf-8") as out:
                json.dump({tenant: asdict(mark) for tenant, mark in sorted(known.items())}, out, indent=1)
                out.flush()
                os.fsync(out.fileno())
            draft.replace(self.file)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
