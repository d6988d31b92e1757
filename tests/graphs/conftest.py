"""The loan's other side as real processes, and documents to try it with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from graphs.loan_approval import build
from graphs.services.launch import loan_services

DATA = Path(__file__).parents[2] / "graphs" / "data" / "loan"


@dataclass(frozen=True)
class Outside:
    """What the services and the scripted model saw."""

    environment: dict[str, str]
    model_log: Path

    def bill(self) -> dict[str, Any]:
        return self._json("LOAN_BUREAU_URL", "bill")

    def mail(self) -> list[dict[str, Any]]:
        return self._json("LOAN_MAIL_PROBE_URL", "messages")

    def scored(self) -> dict[str, int]:
        return self._json("LOAN_RISK_URL", "calls")

    def model_calls(self) -> int:
        return len(self.model_log.read_text().splitlines()) if self.model_log.exists() else 0

    def _json(self, variable: str, path: str) -> Any:
        return httpx.get(f"{self.environment[variable]}/{path}").json()


@pytest.fixture
def risk_failures() -> int:
    """How often the risk service turns a request away first; parametrize to change it."""
    return 0


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, risk_failures: int) -> Iterator[Outside]:
    with loan_services(tmp_path, risk_failures=risk_failures) as environment:
        seen = Outside(environment, tmp_path / "model.jsonl")
        for name, value in {**environment, "SCRIPTED_MODEL_LOG": str(seen.model_log)}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        yield seen


@pytest.fixture
def loan() -> Any:
    """The workflow under LangGraph alone, with a saver that gives back only plain values."""
    return build().compile(checkpointer=InMemorySaver(serde=JsonPlusSerializer(allowed_msgpack_modules=None)))


@pytest.fixture
def files_of() -> Callable[[str], dict[str, Any]]:
    """The input for one of the shipped applications."""

    def files(name: str) -> dict[str, Any]:
        statements = sorted(str(path) for path in (DATA / name).glob("*.csv"))
        return {"application_pdf": str(DATA / name / "application.pdf"), "statements": statements}

    return files


@pytest.fixture
def pdf(tmp_path: Path) -> Callable[[Sequence[Sequence[str]]], str]:
    """Write a PDF with one page for each list of lines; an empty list gives a page without a text layer."""

    def write(pages: Sequence[Sequence[str]]) -> str:
        path = tmp_path / "made.pdf"
        path.write_bytes(_pdf(pages))
        return str(path)

    return write


def _pdf(pages: Sequence[Sequence[str]]) -> bytes:
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, lines in enumerate(pages):
        shown = "".join(f"({line}) Tj T* " for line in lines)
        content = f"BT /F1 11 Tf 14 TL 50 780 Td {shown}ET" if lines else ""
        page = f"/Resources << /Font << /F1 3 0 R >> >> /Contents {5 + 2 * number} 0 R"
        objects.append(f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] {page} >>".encode())
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream".encode())
    body, offsets = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, start=1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%b\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    return (
        body
        + b"xref\n0 %d\n0000000000 65535 f \n%b" % (size, table)
        + b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size, len(body))
    )
