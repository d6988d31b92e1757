"""The loan on its real files with its real services, under LangGraph alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph.types import Command
from pydantic import ValidationError
from pypdf import PdfReader

from control.sdk import Refusal
from graphs.loan_approval import ENTRIES, graph

RUN = {"configurable": {"thread_id": "t1"}}
ROOT = Path(__file__).parents[2]
Files = Callable[[str], dict[str, Any]]


async def question(loan: Any) -> Any:
    (asked,) = (await loan.aget_state(RUN)).interrupts
    return asked


async def answer(loan: Any, given: Mapping[str, Any]) -> Any:
    return await loan.ainvoke(Command(resume={(await question(loan)).id: given}), RUN)


@pytest.mark.parametrize("risk_failures", [2])
async def test_a_large_loan_survives_the_503s_and_waits_for_the_officer(
    *, loan: Any, outside: Any, files_of: Files
) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="503"):
        await loan.ainvoke(files_of("lindqvist"), RUN)
    with pytest.raises(httpx.HTTPStatusError, match="503"):
        await loan.ainvoke(None, RUN)
    await loan.ainvoke(None, RUN)
    assert outside.scored() == {"scored": 1, "unavailable": 2}
    assert len(outside.bill()["charges"]) == 1, "the bureau is not asked again when a later node fails"
    assert outside.model_calls() == 1
    assert outside.mail() == []

    given = {"decision": "approve", "answer": {"amount_eur": 20_000}, "by": "ana", "note": "windows later"}
    done = await answer(loan, given)
    assert done["decision"] == {
        "granted": True,
        "by": "ana",
        "note": "windows later",
        "reasons": ["Large loan (EUR)"],
        "amount_eur": 20_000.0,
        "term_months": 60,
        "rate_percent": 7.29,
        "instalment_eur": 398.77,
    }
    (mail,) = outside.mail()
    assert mail["recipients"] == ["maria.lindqvist@example.org"]
    assert mail["message_id"] == done["letter"]["message_id"]
    assert "EUR 20,000.00 over 60 months at 7.29 % a year" in mail["text"]
    assert outside.bill()["total_cents"] == 250
    assert outside.model_calls() == 1


async def test_the_officer_sees_what_the_question_rests_on(*, loan: Any, outside: Any, files_of: Files) -> None:
    await loan.ainvoke(files_of("lindqvist"), RUN)
    asked = (await question(loan)).value
    assert asked["title"] == "Grant EUR 28,000 to Maria Lindqvist?"
    assert asked["action"] == {
        "do": "grant loan",
        "application_id": "CL7-2026-004182",
        "name": "Maria Lindqvist",
        "amount_eur": 28_000.0,
        "term_months": 60,
        "rate_percent": 7.29,
        "instalment_eur": 558.27,
    }
    by_kind: dict[str, list[Any]] = {}
    for item in asked["evidence"]:
        by_kind.setdefault(item["kind"], []).append(item)
    assert [item["rule"] for item in by_kind["rule"]] == ["R4"]
    assert {item["page"] for item in by_kind["page"]} == {1, 2, 3}
    pages = PdfReader(files_of("lindqvist")["application_pdf"]).pages
    employer = next(item for item in by_kind["page"] if "employer" in item)
    assert employer["employer"] in pages[employer["page"] - 1].extract_text()
    (flow,), (bureau,), (memo,) = by_kind["statement summary"], by_kind["credit report"], by_kind["memo"]
    assert (flow["lines"], flow["salary_months"], flow["breaks"]) == (147, 6, [])
    assert bureau["score"] == 702
    assert "no model was asked" in memo["text"] and "Lindqvist" not in memo["text"]
    json.dumps(asked)


async def test_the_officer_may_not_grant_more_than_was_asked_for(*, loan: Any, outside: Any, files_of: Files) -> None:
    await loan.ainvoke(files_of("lindqvist"), RUN)
    with pytest.raises(ValidationError, match="less than or equal to 28000"):
        await answer(loan, {"decision": "approve", "answer": {"amount_eur": 30_000}})
    assert outside.mail() == []
    assert (await answer(loan, {"decision": "approve"}))["decision"]["amount_eur"] == 28_000.0


async def test_a_refusal_by_the_officer_is_mailed_too(*, loan: Any, outside: Any, files_of: Files) -> None:
    await loan.ainvoke(files_of("lindqvist"), RUN)
    done = await answer(loan, {"decision": "reject", "by": "ben"})
    assert done["decision"] == {"granted": False, "by": "ben", "note": "", "reasons": ["Large loan (EUR)"]}
    (mail,) = outside.mail()
    assert "we cannot grant the loan of EUR 28,000.00" in mail["text"]


async def test_a_small_loan_is_decided_by_the_rules(*, loan: Any, outside: Any, files_of: Files) -> None:
    done = await loan.ainvoke(files_of("okafor"), RUN)
    assert done["verdict"]["outcome"] == "approve"
    assert done["decision"]["by"] == "the rules"
    assert outside.model_calls() == 0, "nobody pays for a memo that nobody reads"
    assert ["EUR 4,500.00 over 24 months" in mail["text"] for mail in outside.mail()] == [True]


async def test_the_strictest_rule_decides(*, loan: Any, outside: Any, files_of: Files) -> None:
    done = await loan.ainvoke(files_of("brandt"), RUN)
    assert {each["rule"]: each["then"] for each in done["verdict"]["findings"]} == {
        "R1": "reject",
        "R2": "reject",
        "R4": "ask",
        "R5": "ask",
        "R6": "ask",
    }
    assert done["decision"]["granted"] is False
    assert ["Unpaid default on file" in mail["text"] for mail in outside.mail()] == [True]


def form(**changes: str) -> list[list[str]]:
    """A complete application as the lines of two pages, with some entries changed; an empty one is left out."""
    entries = {
        "application_id": "CL7-1",
        "name": "Eva Novak",
        "born_on": "1990-05-05",
        "national_id": "EN900505",
        "email": "eva@example.org",
        "amount_eur": "EUR 5,000.00",
        "term_months": "24",
        "purpose": "Piano",
        "income_month_eur": "EUR 2,311.40",
        "instalments_month_eur": "EUR 0.00",
        "employee": "Eva Novak",
        "employer": "Rheinland Print & Media KG",
        "employed_since": "2020-01-01",
        "consent": "yes",
        "signed_on": "2026-02-01",
    } | changes
    lines = [f"{entry.label}: {entries[entry.name]}" for entry in ENTRIES if entries[entry.name]]
    return [lines[:10], lines[10:]]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"consent": "no"}, "No consent to a credit report"),
        ({"born_on": "2008-02-02"}, "Under age when signing"),
    ],
)
async def test_without_admission_no_report_is_bought(
    *, loan: Any, outside: Any, files_of: Files, pdf: Any, changes: dict[str, str], reason: str
) -> None:
    done = await loan.ainvoke({**files_of("okafor"), "application_pdf": pdf(form(**changes))}, RUN)
    assert done["decision"]["reasons"] == [reason]
    assert outside.bill()["charges"] == []
    assert len(outside.mail()) == 1


async def test_a_statement_that_was_tampered_with_goes_to_a_person(
    *, loan: Any, outside: Any, files_of: Files, tmp_path: Path
) -> None:
    files = files_of("okafor")
    forged = tmp_path / "forged.csv"
    shutil.copy(files["statements"][0], forged)
    lines = forged.read_text().splitlines()
    salary = next(number for number, line in enumerate(lines) if "SALARY" in line)
    forged.write_text("\n".join([*lines[:salary], lines[salary].replace("2311.40", "9311.40"), *lines[salary + 1 :]]))
    await loan.ainvoke({**files, "statements": [str(forged), files["statements"][1]]}, RUN)
    asked = (await question(loan)).value
    assert [item["rule"] for item in asked["evidence"] if item["kind"] == "rule"] == ["R7"]
    (flow,) = (item for item in asked["evidence"] if item["kind"] == "statement summary")
    assert flow["breaks"] == [f"forged.csv:{salary + 1}"]


async def refused(loan: Any, files: Mapping[str, Any]) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        await loan.ainvoke(files, RUN)
    return refusal.value


@pytest.fixture
def cut_pdf(files_of: Files, tmp_path: Path) -> Path:
    """A real application of which only the beginning arrived."""
    path = tmp_path / "cut.pdf"
    path.write_bytes(Path(files_of("lindqvist")["application_pdf"]).read_bytes()[:700])
    return path


async def test_a_broken_pdf_is_a_final_problem_that_names_the_file(
    *, loan: Any, files_of: Files, cut_pdf: Path, tmp_path: Path
) -> None:
    files = files_of("lindqvist")
    for path in (cut_pdf, tmp_path / "absent.pdf", tmp_path):
        problem = await refused(loan, {**files, "application_pdf": str(path)})
        assert (problem.code, problem.facts["file"]) == ("document-unreadable", path.name)


async def test_a_scan_without_text_is_said_to_be_one(*, loan: Any, files_of: Files, pdf: Any) -> None:
    problem = await refused(loan, {**files_of("okafor"), "application_pdf": pdf([[], []])})
    assert problem.why == "made.pdf has no text layer; it may be a scan."


async def test_missing_and_illegible_entries_are_all_named(*, loan: Any, files_of: Files, pdf: Any) -> None:
    pages = form(email="", term_months="two years", consent="maybe")
    problem = await refused(loan, {**files_of("okafor"), "application_pdf": pdf(pages)})
    assert problem.lines() == (
        "A document lacks what this workflow needs",
        "made.pdf has no legible entry for: E-mail, Term in months, Consent to credit report.",
        "Ask the sender for the missing entries and start a new run with the completed document.",
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "bad.csv has the columns None."),
        ("day,amount\n", "bad.csv has the columns ['day', 'amount']."),
        ("date,description,counterparty,amount_eur,balance_eur\n", "bad.csv has no bookings."),
        ("date,description,counterparty,amount_eur,balance_eur\n2026-01-01,RENT,X,ten,0\n", "bad.csv, line 2: "),
    ],
)
async def test_a_broken_statement_is_a_final_problem_that_names_the_place(
    *, loan: Any, outside: Any, files_of: Files, tmp_path: Path, content: str, why: str
) -> None:
    (tmp_path / "bad.csv").write_text(content)
    problem = await refused(loan, {**files_of("okafor"), "statements": [str(tmp_path / "bad.csv")]})
    assert problem.code == "statement-unreadable"
    assert problem.why.startswith(why)


async def test_an_unset_address_names_the_variable(
    *, loan: Any, outside: Any, files_of: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOAN_BUREAU_URL")
    problem = await refused(loan, files_of("okafor"))
    assert (problem.code, problem.why) == ("address-unset", "LOAN_BUREAU_URL is not set.")


def test_langgraph_json_names_the_graph_and_it_brings_no_saver() -> None:
    configured = json.loads((ROOT / "langgraph.json").read_text())["graphs"]["loan_approval"]
    path, _, attribute = configured.partition(":")
    module = ".".join(Path(path).with_suffix("").parts)
    assert getattr(import_module(module), attribute) is graph
    assert graph.checkpointer is None
    assert graph.get_input_jsonschema()["required"] == ["application_pdf", "statements"]
