"""Start all services of the loan workflow, and stop them again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def loan_services(folder: Path, *, risk_failures: int = 2) -> Iterator[dict[str, str]]:
    """The services as child processes on free ports; yields the environment that the nodes read.

    Their ledgers are `bill.jsonl` and `mail.jsonl` in `folder`. They stop when this ends, or when this process dies.
    """
    with ExitStack() as running:
        bureau = running.enter_context(_service("credit_bureau", "--ledger", str(folder / "bill.jsonl")))
        risk = running.enter_context(_service("risk_service", "--failures", str(risk_failures)))
        mail = running.enter_context(_service("mail_sink", "--ledger", str(folder / "mail.jsonl")))
        smtp = _announced(mail)
        yield {
            "LOAN_BUREAU_URL": _announced(bureau)["url"],
            "LOAN_RISK_URL": _announced(risk)["url"],
            "LOAN_SMTP_HOST": smtp["smtp_host"],
            "LOAN_SMTP_PORT": str(smtp["smtp_port"]),
            "LOAN_MAIL_PROBE_URL": smtp["url"],
        }


@contextmanager
def _service(name: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", f"graphs.services.{name}", "--with-parent", *options]
    root = Path(__file__).parents[2]
    pipe = subprocess.PIPE
    # In a session of its own, Ctrl-C reaches it through its parent alone, which has something to ask it first.
    with subprocess.Popen(command, cwd=root, stdin=pipe, stdout=pipe, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def _announced(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a service did not start: it ended with exit code {process.wait()}")
    announced: dict[str, Any] = json.loads(line)
    return announced
