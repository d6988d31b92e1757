"""What happened outside, asked of those it happened to; and the checks, which compare it with the ledger."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx

from control.cli.standing import Standing
from control.core.ledger import Entry, Kind
from control.core.run_status import Status
from graphs.loan_demo.crew import Crew


@dataclass(frozen=True, slots=True)
class Killed:
    """The worker that was killed, and what it was doing. `effects` are the run's, read once the process was gone."""

    worker_id: str
    pid: int
    code: int
    at: datetime
    epoch: int
    nodes: tuple[str, ...]
    effects: tuple[dict[str, Any], ...]

    def in_flight(self, kind: str) -> int:
        """Calls that it had begun and not seen the end of."""
        return sum(row["state"] == "began" and row["kind"] == kind for row in self.effects)


@dataclass(frozen=True, slots=True)
class Outside:
    """The services' own word. `asked` is when the scripted model was; None where a real one was."""

    charges: list[dict[str, Any]]
    fee_eur: float
    repeats: int
    mail: list[dict[str, Any]]
    risk: dict[str, int]
    asked: list[float] | None

    @classmethod
    def of(cls, crew: Crew) -> Outside:
        bill = _get(crew, "LOAN_BUREAU_URL", "bill")
        asked = None
        if crew.scripted:
            asked = [json.loads(line)["asked_at_s"] for line in crew.model_log.read_text(encoding="utf-8").splitlines()]
        return cls(
            bill["charges"], bill["total_cents"] / 100, bill["repeats"], _get(crew, "LOAN_MAIL_PROBE_URL", "messages"),
            _get(crew, "LOAN_RISK_URL", "calls"), asked,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Counts:
    """Counted from the ledger: calls of the model, those cut off by the kill, and those made although an answer was
    recorded; retries that came by themselves; and how long the run was without a worker."""

    model_calls: int
    in_flight: int
    asked_again: int
    retries: int
    taken_over_by: str | None
    taken_over_s: float

    @classmethod
    def of(cls, entries: list[Entry], killed: Killed) -> Counts:
        claims = [entry for entry in entries if entry.kind is Kind.CLAIMED and entry.epoch > killed.epoch]
        waits = [entry for entry in entries if entry.kind is Kind.ENDED and entry.deadline("retry")]
        return cls(
            sum(entry.kind is Kind.EFFECT_BEGAN and entry.body["kind"] == "model" for entry in entries),
            killed.in_flight("model"), _asked_again(entries), len(waits),
            claims[0].body["worker"] if claims else None,
            (claims[0].at - killed.at).total_seconds() if claims else float("inf"),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Check:
    """What should be, whether it is, and what was found."""

    name: str
    holds: bool
    found: str


def checks(now: Standing, outside: Outside, counts: Counts, *, killed: Killed, run_id: UUID) -> Iterator[Check]:
    """Everything the demonstration claims, held against what was measured."""
    word, keys = now.status.word, [charge["key"] for charge in outside.charges]
    yield Check("The run ended as it should", word is Status.SUCCEEDED, str(word))
    held = bool(killed.nodes) and killed.code == -9
    yield Check("SIGKILL hit the worker that held it", held, f"exit {killed.code} in {', '.join(killed.nodes)}")
    other = counts.taken_over_by not in (None, killed.worker_id) and now.run.takeovers == 1
    yield Check("Another worker took it over", other, f"{counts.taken_over_s:.2f} s after the kill")
    turned, refused = counts.retries, outside.risk["unavailable"]
    yield Check("Each 503 led to a retry by itself", turned == refused > 0, f"503s: {refused}, retries: {turned}")
    ours = len(keys) == 1 and str(keys[0]).startswith(str(run_id))
    yield Check("The bureau charged once", ours, f"charges: {len(keys)}, EUR {outside.fee_eur:.2f}")
    yield Check("One letter was sent", len(outside.mail) == 1, f"in the mail server: {len(outside.mail)}")
    yield Check("No recorded answer was asked for again", counts.asked_again == 0, f"asked again: {counts.asked_again}")
    repeated = counts.model_calls - counts.in_flight
    cut_off = f"cut off: {counts.in_flight}, repeated: {counts.model_calls - 1}"
    yield Check("A call was repeated only if it was cut off", repeated == 1, cut_off)
    if outside.asked is not None:
        seen = len(outside.asked)
        yield Check("The model's own log agrees", seen == counts.model_calls, f"calls: {seen}")


def _asked_again(entries: list[Entry]) -> int:
    """Calls of effects, models included, that began although an outcome had been recorded."""
    done: set[str] = set()
    again = 0
    for entry in entries:
        if entry.kind is Kind.EFFECT_BEGAN:
            again += entry.body["key"] in done
        elif entry.kind is Kind.EFFECT_ENDED and entry.body["state"] == "done":
            done.add(entry.body["key"])
    return again


def _get(crew: Crew, variable: str, path: str) -> Any:
    return httpx.get(f"{crew.environment[variable]}/{path}").raise_for_status().json()


def opening(text: str, *, lines: int) -> list[str]:
    """The first lines that say something."""
    return [line for line in text.splitlines() if line.strip()][:lines]
