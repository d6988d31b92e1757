"""Bank statements as CSV exports: read, checked line by line against the running balance, and added up."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from control.sdk import Problem
from nodes.node import Node

STATEMENT_UNREADABLE: Final = Problem(
    code="statement-unreadable",
    status=422,
    title="A bank statement cannot be read",
    next_step="Ask for the export again (CSV with date, description, counterparty, amount_eur, balance_eur).",
)
COLUMNS: Final = ("date", "description", "counterparty", "amount_eur", "balance_eur")


@dataclass(frozen=True, slots=True)
class Line:
    """One booking; `balance` is the account's after it."""

    file: str
    number: int
    booked_on: date
    description: str
    counterparty: str
    amount: Decimal
    balance: Decimal


def statement_analyst(*, source: str, target: str) -> Node:
    """A node that reads the CSV files whose paths are in `source` and puts their figures into `target`.

    Problem, final: `statement-unreadable`.
    """

    def analyse(state: Any) -> dict[str, Any]:
        return {target: cash_flow([line for path in state[source] for line in read_lines(Path(path))])}

    return analyse


def read_lines(path: Path) -> list[Line]:
    """The bookings of one file in its order. Problem: `statement-unreadable`."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if tuple(rows.fieldnames or ()) != COLUMNS:
                raise STATEMENT_UNREADABLE.because(f"{path.name} has the columns {rows.fieldnames}.", file=path.name)
            lines = [_line(path.name, rows.line_num, row=row) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise STATEMENT_UNREADABLE.because(f"{path.name}: {error}.", file=path.name) from error
    if not lines:
        raise STATEMENT_UNREADABLE.because(f"{path.name} has no bookings.", file=path.name)
    return lines


def cash_flow(lines: Sequence[Line]) -> dict[str, Any]:
    """What the account shows over its months: salary, fixed costs, lowest point, and whether the sums are consistent.

    Amounts are in euros, per month where the name says so; a returned debit is taken off what it was for. `breaks`
    names each line whose balance does not follow from the one before it, as `file:line`.
    """
    ordered = sorted(lines, key=lambda line: line.booked_on)  # stable: bookings of one day keep their order
    months = sorted({line.booked_on.strftime("%Y-%m") for line in ordered})
    salaries = [line for line in ordered if line.amount > 0 and line.description.startswith("SALARY")]
    return {
        "files": sorted({line.file for line in ordered}),
        "lines": len(ordered),
        "first_month": months[0],
        "last_month": months[-1],
        "months": len(months),
        "employer": salaries[-1].counterparty if salaries else "",
        "salary_months": len({line.booked_on.strftime("%Y-%m") for line in salaries}),
        "salary_month_eur": _per_month(salaries, months),
        "rent_month_eur": abs(_per_month(_matching(ordered, "RENT"), months)),
        "instalments_month_eur": abs(_per_month(_matching(ordered, "LOAN", "INSTALMENT"), months)),
        "returned_debits": len(_matching(ordered, "RETURNED")),
        "lowest_balance_eur": float(min(line.balance for line in ordered)),
        "closing_balance_eur": float(ordered[-1].balance),
        "overdrawn_days": len({line.booked_on for line in ordered if line.balance < 0}),
        "breaks": [
            f"{line.file}:{line.number}"
            for before, line in pairwise(ordered)
            if before.balance + line.amount != line.balance
        ],
    }


def _line(file: str, number: int, *, row: Mapping[str, str]) -> Line:
    try:
        return Line(
            file=file,
            number=number,
            booked_on=date.fromisoformat(row["date"]),
            description=row["description"],
            counterparty=row["counterparty"],
            amount=Decimal(row["amount_eur"]),
            balance=Decimal(row["balance_eur"]),
        )
    except (ValueError, TypeError, InvalidOperation) as error:
        raise STATEMENT_UNREADABLE.because(f"{file}, line {number}: {error}.", file=file, line=number) from error


def _matching(lines: Sequence[Line], *words: str) -> list[Line]:
    return [line for line in lines if not set(words).isdisjoint(line.description.split())]


def _per_month(lines: Sequence[Line], months: Sequence[str]) -> float:
    total = sum((line.amount for line in lines), Decimal(0))
    return float((total / len(months)).quantize(Decimal("0.01")))
