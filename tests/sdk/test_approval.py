"""Questions carry what the approver needs, and only an answer that fits comes back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command
from pydantic import BaseModel, Field, ValidationError

from control.sdk import Decision, approval, ask

RUN = {"configurable": {"thread_id": "t1"}}


class Conditions(BaseModel):
    rate_percent: float = Field(ge=0, le=30)


class State(TypedDict, total=False):
    seen: Any


def asks(answer: type[BaseModel] | None = None) -> Any:
    decisions: list[Decision[Any]] = []

    def node(state: State) -> State:
        decision = approval(
            "Grant the loan?",
            action={"grant": 18_000},
            evidence=[{"page": 2}],
            answer=answer,
            risk="high",
            confidence=0.7,
            on_yes="The letter is sent.",
            on_no="The applicant is told.",
            on_silence="Nothing is granted.",
            reversible=False,
            expires_in=timedelta(hours=2),
        )
        decisions.append(decision)
        return {"seen": decision.approved}

    graph = StateGraph(State).add_node("node", node).add_edge(START, "node").compile(checkpointer=InMemorySaver())
    graph.invoke({}, RUN)
    graph.decisions = decisions  # type: ignore[attr-defined]  # the node's view, for the tests below
    return graph


def answer_with(graph: Any, answer: Any) -> Any:
    (question,) = graph.get_state(RUN).interrupts
    return graph.invoke(Command(resume={question.id: answer}), RUN)


def test_the_question_carries_the_whole_packet() -> None:
    (question,) = asks().get_state(RUN).interrupts
    assert question.value == {
        "type": "control.approval",
        "title": "Grant the loan?",
        "action": {"grant": 18_000},
        "evidence": [{"page": 2}],
        "risk": "high",
        "confidence": 0.7,
        "on_yes": "The letter is sent.",
        "on_no": "The applicant is told.",
        "on_silence": "Nothing is granted.",
        "reversible": False,
        "expires_in_s": 7200.0,
    }
    assert question.response_schema["properties"]["decision"]["enum"] == ["approve", "reject"]
    assert question.response_schema["required"] == ["decision"]


def test_a_decision_says_who_and_when() -> None:
    graph = asks()
    given = {"decision": "approve", "answer": None, "note": "seen", "by": "ana", "at": "2026-03-01T10:00:00+00:00"}
    assert answer_with(graph, given) == {"seen": True}
    assert graph.decisions == [Decision(True, None, "ana", datetime(2026, 3, 1, 10, tzinfo=UTC), "seen")]


def test_a_rejection_needs_no_answer_and_is_not_an_approval() -> None:
    graph = asks(Conditions)
    assert answer_with(graph, {"decision": "reject", "note": "no"}) == {"seen": False}
    assert graph.decisions[0].answer is None


def test_a_typed_answer_arrives_as_its_model() -> None:
    graph = asks(Conditions)
    answer_with(graph, {"decision": "approve", "answer": {"rate_percent": 6.5}})
    assert graph.decisions[0].answer == Conditions(rate_percent=6.5)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ("yes", "valid dictionary"),
        ({"decision": "maybe"}, "'approve' or 'reject'"),
        ({"decision": "approve"}, "needs an answer"),
        ({"decision": "approve", "answer": {"rate_percent": 99}}, "less than or equal to 30"),
        ({"decision": "approve", "answer": {"rate_percent": 5}, "at": "2026-03-01T10:00:00"}, "timezone"),
        ({"decision": "approve", "answer": {"rate_percent": 5}, "aproved_by": "x"}, "Extra inputs"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused_and_the_question_stays_open(*, answer: Any, complaint: str) -> None:
    graph = asks(Conditions)
    with pytest.raises(ValidationError, match=complaint):
        answer_with(graph, answer)
    assert answer_with(graph, {"decision": "approve", "answer": {"rate_percent": 5}}) == {"seen": True}


def test_the_json_schema_also_says_that_an_approval_needs_its_answer() -> None:
    (question,) = asks(Conditions).get_state(RUN).interrupts
    assert question.response_schema["then"]["required"] == ["answer"]
    assert question.response_schema["$defs"]["Conditions"]["properties"]["rate_percent"]["maximum"] == 30


def test_an_answer_type_is_not_an_answer_where_none_was_asked_for() -> None:
    with pytest.raises(ValidationError):
        answer_with(asks(), {"decision": "approve", "answer": {"rate_percent": 5}})


def test_a_question_for_information_returns_the_model() -> None:
    def node(state: State) -> State:
        return {"seen": ask("Which rate?", answer=Conditions, evidence=[{"page": 1}]).rate_percent}

    graph = StateGraph(State).add_node("node", node).add_edge(START, "node").compile(checkpointer=InMemorySaver())
    graph.invoke({}, RUN)
    (question,) = graph.get_state(RUN).interrupts
    assert question.value == {
        "type": "control.question",
        "title": "Which rate?",
        "evidence": [{"page": 1}],
    }
    assert question.response_schema["required"] == ["answer"]
    with pytest.raises(ValidationError):
        answer_with(graph, {"rate_percent": 4})
    assert answer_with(graph, {"answer": {"rate_percent": 4}, "by": "ana"}) == {"seen": 4.0}


class Terms(BaseModel):
    amount_eur: int = Field(9_000, le=9_000)


@pytest.mark.parametrize(
    ("given", "amount"), [({}, 9_000), ({"answer": None}, 9_000), ({"answer": {"amount_eur": 100}}, 100)]
)
def test_an_answer_that_is_all_defaults_may_be_left_out(*, given: dict[str, Any], amount: int) -> None:
    graph = asks(Terms)
    answer_with(graph, {"decision": "approve", **given})
    assert graph.decisions[0].answer == Terms(amount_eur=amount)


def test_a_rejection_carries_no_answer_even_if_one_was_given() -> None:
    graph = asks(Terms)
    answer_with(graph, {"decision": "reject", "answer": {"amount_eur": 100}})
    assert graph.decisions[0].answer is None
