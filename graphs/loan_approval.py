"""A consumer loan, from the scanned application to the letter.

The file is read; without consent it ends there. Then two things happen side by side: the bureau sells a report, and the
bank statements are added up. The risk service scores the case, and fixed rules decide it, or find that a person must:
a chat model then writes a memo, and an officer sees the exact loan with the evidence (pages, figures, score, memo) and
may grant it, grant less, or refuse. Whatever was decided, the applicant gets one letter.

    read → admit ─┬─ bureau ─────┬→ score → rules ─┬─────────────────→ decide → notify
             │    └─ statements ─┘                 └→ memo → officer ─┘
             └───────────────────────────────────────────────────────┘

What can go wrong on the way is meant: the risk service answers 503 at first, the bureau charges for every report, and
the worker may be killed anywhere.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, Literal

from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel, Field, create_model
from typing_extensions import TypedDict  # not typing's: before 3.12 that one has no JSON schema

from nodes.bank_statement import statement_analyst
from nodes.chat_model import chat_model
from nodes.compliance_check import Packet, Rule, policy_check, review
from nodes.document_parser import Field as Entry
from nodes.document_parser import document_parser, euros, iso_date, yes_or_no
from nodes.eligibility import eligibility
from nodes.notification import notification
from nodes.risk_scorer import annuity_eur, memo_writer, risk_scorer

ENTRIES: Final = (
    Entry("application_id", "Application number"),
    Entry("name", "Full name"),
    Entry("born_on", "Date of birth", iso_date),
    Entry("national_id", "National ID"),
    Entry("email", "E-mail"),
    Entry("amount_eur", "Amount requested", euros),
    Entry("term_months", "Term in months", int),
    Entry("purpose", "Purpose"),
    Entry("income_month_eur", "Net monthly income", euros),
    Entry("instalments_month_eur", "Other loan instalments per month", euros),
    Entry("employee", "Employee"),
    Entry("employer", "Employer"),
    Entry("employed_since", "Employed since", iso_date),
    Entry("consent", "Consent to credit report", yes_or_no),
    Entry("signed_on", "Date of signature", iso_date),
)

ADMISSION: Final = (
    Rule(id="A1", title="No consent to a credit report", fact="consent", compares="is", limit=False, then="reject"),
    Rule(id="A2", title="Under age when signing", fact="age_years", compares="below", limit=18, then="reject"),
)

POLICY: Final = (
    Rule(id="R1", title="Credit score too low", fact="bureau_score", compares="below", limit=500, then="reject"),
    Rule(id="R2", title="Unpaid default on file", fact="unpaid_defaults", compares="above", limit=0, then="reject"),
    Rule(
        id="R3",
        title="Instalments too high for the income (percent of it)",
        fact="debt_to_income_percent",
        compares="above",
        limit=45,
        then="reject",
    ),
    Rule(id="R4", title="Large loan (EUR)", fact="amount_eur", compares="above", limit=15_000, then="ask"),
    Rule(
        id="R5",
        title="Default probability above the automatic limit (percent)",
        fact="default_probability_percent",
        compares="above",
        limit=8,
        then="ask",
    ),
    Rule(
        id="R6",
        title="Stated income above the salary received (percent)",
        fact="income_overstated_percent",
        compares="above",
        limit=5,
        then="ask",
    ),
    Rule(id="R7", title="Statements do not add up (lines)", fact="breaks", compares="above", limit=0, then="ask"),
    Rule(id="R8", title="Employer not confirmed", fact="employer_confirmed", compares="is", limit=False, then="ask"),
)

OFFICER_HAS: Final = timedelta(days=5)
BANK: Final = "loans@meridian-savings.example"


class LoanInput(TypedDict):
    """Paths of the files, as the worker sees them."""

    application_pdf: str
    statements: list[str]


class LoanState(LoanInput, total=False):
    """Plain values only: dicts, lists, strings and numbers."""

    application: dict[str, Any]
    verdict: dict[str, Any]
    bureau: dict[str, Any]
    cash_flow: dict[str, Any]
    risk: dict[str, Any]
    memo: dict[str, Any]
    officer: dict[str, Any]
    decision: dict[str, Any]
    letter: dict[str, Any]


def person(state: LoanState) -> dict[str, str]:
    """Whom the bureau is asked about."""
    return {name: state["application"][name] for name in ("national_id", "name", "born_on")}


def features(state: LoanState) -> dict[str, float]:
    """What the risk service scores. Income is what the account received, never what the form says."""
    asked, flow = state["application"], state["cash_flow"]
    income = max(flow["salary_month_eur"], 1.0)
    instalment = annuity_eur(asked["amount_eur"], rate_percent=8.0, months=asked["term_months"])
    owed = max(asked["instalments_month_eur"], flow["instalments_month_eur"]) + instalment
    return {
        "bureau_score": state["bureau"]["score"],
        "debt_to_income_percent": round(100 * owed / income, 1),
        "amount_to_income": round(asked["amount_eur"] / income, 2),
        "overdrawn_days": flow["overdrawn_days"],
        "returned_debits": flow["returned_debits"],
    }


def admission_facts(state: LoanState) -> dict[str, Any]:
    asked = state["application"]
    return {"consent": asked["consent"], "age_years": _years(asked["born_on"], asked["signed_on"])}


def policy_facts(state: LoanState) -> dict[str, Any]:
    """The facts that the rules name."""
    asked, flow, risk = state["application"], state["cash_flow"], state["risk"]
    stated, received = asked["income_month_eur"], max(flow["salary_month_eur"], 1.0)
    return {
        "bureau_score": state["bureau"]["score"],
        "unpaid_defaults": state["bureau"]["unpaid_defaults"],
        "debt_to_income_percent": risk["debt_to_income_percent"],
        "amount_eur": asked["amount_eur"],
        "default_probability_percent": risk["default_probability_percent"],
        "income_overstated_percent": round(max(0.0, 100 * (stated - received) / received), 1),
        "breaks": len(flow["breaks"]),
        "employer_confirmed": asked["employer"] == flow["employer"] and asked["employee"] == asked["name"],
    }


def memo_facts(state: LoanState) -> dict[str, Any]:
    """What the memo may speak of: no name, no number that identifies the applicant."""
    asked, flow, risk, bureau = state["application"], state["cash_flow"], state["risk"], state["bureau"]
    return {
        "loan": f"EUR {asked['amount_eur']:,.0f} over {asked['term_months']} months for {asked['purpose'].lower()}",
        "salary": f"EUR {flow['salary_month_eur']:,.2f} a month received, EUR {asked['income_month_eur']:,.2f} stated",
        "salary paid in": f"{flow['salary_months']} of {flow['months']} months",
        "fixed costs": f"rent EUR {flow['rent_month_eur']:,.2f}, instalments EUR {flow['instalments_month_eur']:,.2f}",
        "lowest balance": f"EUR {flow['lowest_balance_eur']:,.2f}, overdrawn on {flow['overdrawn_days']} days",
        "bureau score": bureau["score"],
        "open loans": bureau["open_loans"],
        "unpaid defaults": bureau["unpaid_defaults"],
        "risk": f"grade {risk['grade']}, default probability {risk['default_probability_percent']} %",
        "debt to income": f"{risk['debt_to_income_percent']} % with this loan",
    }


def packet(state: LoanState) -> Packet:
    """The question to the officer: the exact loan, why it is asked, and what it rests on."""
    asked, risk = state["application"], state["risk"]
    loan = _loan(state, asked["amount_eur"])
    return {
        "title": f"Grant EUR {asked['amount_eur']:,.0f} to {asked['name']}?",
        "action": {"do": "grant loan", "application_id": asked["application_id"], "name": asked["name"], **loan},
        "evidence": _evidence(state),
        "answer": _terms(asked["amount_eur"]),
        "risk": f"grade {risk['grade']}",
        "confidence": round(1 - risk["default_probability_percent"] / 100, 3),
        "on_yes": "The loan is granted on these terms and the applicant is told by mail.",
        "on_no": "The application is declined and the applicant is told by mail.",
        "on_silence": "It counts as a no: the application is declined.",
        "reversible": False,
        "expires_in": OFFICER_HAS,
    }


def decide(state: LoanState) -> dict[str, Any]:
    """One decision out of the rules' verdict and, where one was asked, the officer's word."""
    verdict, officer = state["verdict"], state.get("officer")
    by = officer["by"] if officer else "the rules"
    reasons = [finding["title"] for finding in verdict["findings"]]
    granted = officer["approved"] if officer else verdict["outcome"] == "approve"
    decision = {"granted": granted, "by": by, "note": officer["note"] if officer else "", "reasons": reasons}
    if granted:
        decision |= _loan(state, officer["amount_eur"] if officer else state["application"]["amount_eur"])
    return {"decision": decision}


def letter(state: LoanState) -> dict[str, str]:
    """The letter to the applicant: the terms, or the reasons."""
    asked, decision = state["application"], state["decision"]
    if decision["granted"]:
        said = (
            f"we are glad to grant you EUR {decision['amount_eur']:,.2f} over {decision['term_months']} months at "
            f"{decision['rate_percent']} % a year. The monthly instalment is EUR {decision['instalment_eur']:,.2f}."
        )
    else:
        reasons = "\n".join(f"  - {reason}" for reason in decision["reasons"])
        said = (
            f"we cannot grant the loan of EUR {asked['amount_eur']:,.2f} you asked for. What weighed on the "
            f"decision:\n\n{reasons}\n\nYou may ask for a person to look at it again."
        )
    return {
        "sender": BANK,
        "recipient": asked["email"],
        "subject": f"Your loan application {asked['application_id']}",
        "text": f"Dear {asked['name']},\n\n{said}\n\nDecided by {decision['by']}.\n\nMeridian Savings Bank\n",
    }


def after_admission(state: LoanState) -> list[str]:
    return ["decide"] if state["verdict"]["outcome"] == "reject" else ["bureau", "statements"]


def after_rules(state: LoanState) -> Literal["memo", "decide"]:
    return "memo" if state["verdict"]["outcome"] == "ask" else "decide"


def build() -> StateGraph[LoanState, None, LoanInput, LoanState]:
    """The workflow, not compiled: whoever runs it brings the saver."""
    return (
        StateGraph(LoanState, input_schema=LoanInput)
        .add_node("read", document_parser(ENTRIES, source="application_pdf", target="application"))
        .add_node("admit", policy_check(ADMISSION, facts=admission_facts, target="verdict"))
        .add_node("bureau", eligibility(person, key=lambda s: f"report/{_number(s)}", target="bureau"))
        .add_node("statements", statement_analyst(source="statements", target="cash_flow"))
        .add_node("score", risk_scorer(features, target="risk"))
        .add_node("rules", policy_check(POLICY, facts=policy_facts, target="verdict"))
        .add_node("memo", memo_writer(memo_facts, model=chat_model, target="memo"))
        .add_node("officer", review(packet, target="officer"))
        .add_node("decide", decide)
        .add_node("notify", notification(letter, key=lambda s: f"letter/{_number(s)}", target="letter"))
        .add_edge(START, "read")
        .add_edge("read", "admit")
        .add_conditional_edges("admit", after_admission, ["bureau", "statements", "decide"])
        .add_edge(["bureau", "statements"], "score")
        .add_edge("score", "rules")
        .add_conditional_edges("rules", after_rules, ["memo", "decide"])
        .add_edge("memo", "officer")
        .add_edge("officer", "decide")
        .add_edge("decide", "notify")
        .add_edge("notify", END)
    )


def _evidence(state: LoanState) -> list[dict[str, Any]]:
    """What the officer sees. The story names the kinds: "having seen 3 pages, the credit report, ..."."""
    asked, flow, bureau = state["application"], state["cash_flow"], state["bureau"]
    shown = ("amount_eur", "term_months", "purpose", "income_month_eur", "employer", "employed_since", "consent")
    pages: dict[int, dict[str, Any]] = {}
    for name in shown:
        pages.setdefault(asked["page_of"][name], {})[name] = asked[name]
    return [
        *({"kind": "rule", **finding} for finding in state["verdict"]["findings"]),
        *({"kind": "page", "file": asked["document"], "page": page, **pages[page]} for page in sorted(pages)),
        {"kind": "statement summary", **flow},
        {"kind": "credit report", **bureau},
        {"kind": "risk score", **state["risk"]},
        {"kind": "memo", **state["memo"]},
    ]


def _loan(state: LoanState, amount_eur: float) -> dict[str, Any]:
    months, rate = state["application"]["term_months"], state["risk"]["rate_percent"]
    instalment = annuity_eur(amount_eur, rate_percent=rate, months=months)
    return {"amount_eur": amount_eur, "term_months": months, "rate_percent": rate, "instalment_eur": instalment}


def _terms(most_eur: float) -> type[BaseModel]:
    """The officer may grant less than was asked for, never more."""
    amount = Field(most_eur, gt=0, le=most_eur, description="Granted amount in euros")
    return create_model("Terms", amount_eur=(float, amount))


def _number(state: LoanState) -> str:
    number: str = state["application"]["application_id"]
    return number


def _years(born_on: str, day: str) -> int:
    return int(day[:4]) - int(born_on[:4]) - (day[5:] < born_on[5:])


graph = build().compile(name="loan_approval")
