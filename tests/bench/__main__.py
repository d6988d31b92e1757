"""`python -m tests.bench [name ...]`: measure, print, and end with 1 if a goal was missed."""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer
from rich.console import Console

from control.store import embedded
from control.testing import server
from tests.bench.row import Row, markdown, table
from tests.bench.site import Site

NAMES = (
    "throughput",
    "latency",
    "slow_database",
    "recovery",
    "status",
    "page",
    "memory",
    "overhead",
    "governance",
    "policy",
    "fairness",
)
_FOLDER = Path(".control")  # where the development database is too: on the disk that would be used, and ignored by git
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(NAMES)}; all, if none is named.")] = None,
    scale: Annotated[float, typer.Option(help="1 for what is promised; less for a quick look.")] = 1.0,
    rounds: Annotated[int, typer.Option(help="How often ours and the peer take turns.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a table for the README.")] = False,
) -> None:
    if unknown := sorted(set(names or ()) - set(NAMES)):
        raise typer.BadParameter(f"{', '.join(unknown)}; known are {', '.join(NAMES)}.")
    console, progress = Console(), Console(stderr=True)
    measured: dict[str, list[Row]] = {}
    with prepared(scale, rounds, progress) as (site, about):
        progress.print(" · ".join(f"{key} {value}" for key, value in about.items()), style="dim")
        for name in names or NAMES:
            begun = time.perf_counter()
            measured[name] = importlib.import_module(f"tests.bench.{name}").measure(site)
            progress.print(f"{name}: {time.perf_counter() - begun:.0f} s", style="dim")
            if not (as_json or as_markdown):
                console.print(table(name, measured[name]))
    rows = [row for found in measured.values() for row in found]
    if as_json:
        found = {name: [row.values() for row in some] for name, some in measured.items()}
        print(json.dumps({"about": about, "benchmarks": found}, indent=2, ensure_ascii=False))
    if as_markdown:
        print(markdown(rows))
    for row in rows:
        if row.met is False:
            progress.print(f"missed: {row.what}", style="bold red")
    raise typer.Exit(any(row.met is False for row in rows))


@contextmanager
def prepared(scale: float, rounds: int, progress: Console) -> Iterator[tuple[Site, dict[str, Any]]]:
    """A server of our own, gone after the block, and what is worth knowing about it and the machine."""
    _FOLDER.mkdir(mode=0o700, exist_ok=True)
    data = _FOLDER.absolute() / f"bench-{os.getpid()}"
    conninfo = embedded.ensure(data)
    try:
        with tempfile.TemporaryDirectory(prefix="bench") as folder, psycopg.connect(conninfo, autocommit=True) as held:
            site = Site(conninfo, Path(folder), scale, rounds, lambda text: progress.print(f"  {text}", style="dim"))
            yield site, _about(held)
    finally:
        server.stop(data)
        shutil.rmtree(data, ignore_errors=True)


def _about(conn: psycopg.Connection[Any]) -> dict[str, Any]:
    """The machine, the versions, and how durable and how quick a commit is."""
    durable = conn.execute("show fsync").fetchone(), conn.execute("show synchronous_commit").fetchone()
    assert durable == (("on",), ("on",)), durable
    begun = time.perf_counter()
    for _ in range(200):
        conn.execute("select pg_logical_emit_message(true, 'bench', 'a commit with something to write')")
    return {
        "cores": os.cpu_count(),
        "Python": platform.python_version(),
        "PostgreSQL": _version(conn.info.server_version),
        "langgraph": version("langgraph"),
        "langgraph-checkpoint-postgres": version("langgraph-checkpoint-postgres"),
        "commit_ms": round((time.perf_counter() - begun) * 1000 / 200, 2),
        "load": round(os.getloadavg()[0], 1),
    }


def _version(number: int) -> str:
    return f"{number // 10_000}.{number % 10_000}"


if __name__ == "__main__":
    app()
