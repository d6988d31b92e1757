"""How a service starts: bind, say where, serve, and leave when its parent does."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that every service has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--with-parent", action="store_true", help="stop when standard input closes")
    return parser


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, so that the printed address works from the first moment."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(128)
    return listener


def serve(app: Starlette, options: argparse.Namespace, **more: Any) -> None:
    """Print `{"url": ..., **more}` and serve until SIGTERM, or until the parent is gone."""
    listener = bind(options.host, options.port)
    host, port = listener.getsockname()
    print(json.dumps({"url": f"http://{host}:{port}", **more}), flush=True)
    if options.with_parent:
        threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)).run(sockets=[listener])


def append_synced(path: Path, entry: dict[str, Any]) -> None:
    """Add one JSON line and return when it is on disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_entries(path: Path) -> list[dict[str, Any]]:
    """The lines written so far. A line that a crash cut off was never answered for: it is removed."""
    if not path.exists():
        return []
    whole, newline, _ = path.read_bytes().rpartition(b"\n")
    os.truncate(path, len(whole + newline))
    return [json.loads(line) for line in whole.splitlines()]


def _stop_at_end_of_input() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
