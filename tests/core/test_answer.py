"""An answer is taken whole or refused whole, and what comes of it is what the asker takes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from control.core.answer import Said, Settled, Word, is_plain_yes, read_back, settle
from control.core.packet import Choice, Shape, packet_of
from control.core.problem import Refusal

AT = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
SIGNED = {"note": "seen", "by": "ada", "at": AT.isoformat()}
DOUBT = {"type": "control.doubt", "title": "Did “charge” happen?", "name": "charge", "key": "run/4711", "call": 2}
EVERY = ["approve", "edit", "reject", "respond"]


def batch(*names: str, allowed: list[str] = EVERY) -> dict[str, Any]:
    return {
        "action_requests": [{"name": name, "args": {"n": number}} for number, name in enumerate(names)],
        "review_configs": [{"action_name": name, "allowed_decisions": allowed} for name in names],
    }


def inbox(**allows: bool) -> dict[str, Any]:
    return {"action_request": {"action": "mail", "args": {"to": "ada"}}, "config": allows}


CALL = {"type": "tool_approval", "tool_call_id": "c", "name": "mail", "args": {"to": "ada"}, "description": ""}
MAIL = {"name": "mail", "args": {}}
LEGACY = inbox(allow_accept=True, allow_edit=True, allow_respond=True, allow_ignore=True)
DEAF = inbox(allow_accept=True, allow_edit=False, allow_respond=True, allow_ignore=False)


def settled(value: Any, word: str = "approved", **said: Any) -> Settled:
    return settle(packet_of(value), Said(Word(word), **{"note": "seen", **said}), by="ada", at=AT)


def refused(value: Any, word: str = "approved", **said: Any) -> str:
    with pytest.raises(Refusal) as refusal:
        settled(value, word, **said)
    assert refusal.value.code == "answer-invalid"
    return refusal.value.why


@pytest.mark.parametrize(
    ("value", "word", "answer", "expected"),
    [
        ({"type": "control.approval"}, "approved", {"eur": 5}, {"decision": "approve", "answer": {"eur": 5}, **SIGNED}),
        ({"type": "control.approval"}, "rejected", None, {"decision": "reject", "answer": None, **SIGNED}),
        ({"type": "control.question"}, "answered", {"n": 1}, {"answer": {"n": 1}, **SIGNED}),
        (batch("mail", "wipe"), "approved", None, {"decisions": [{"type": "approve"}] * 2}),
        (batch("mail", "wipe"), "rejected", None, {"decisions": [{"type": "reject", "message": "seen"}] * 2}),
        (CALL, "approved", None, {"type": "approve"}),
        (CALL, "rejected", "reject", {"type": "reject", "message": "seen"}),
        ([LEGACY], "approved", None, [{"type": "accept", "args": None}]),
        (LEGACY, "rejected", None, [{"type": "ignore", "args": None}]),
        ([DEAF], "rejected", None, [{"type": "response", "args": "seen"}]),
        ("Which one?", "answered", "the second", "the second"),
        ("Which one?", "answered", None, None),
    ],
)
def test_an_answer_takes_the_shape_of_the_question(value: Any, word: str, answer: Any, expected: Any) -> None:
    assert settled(value, word, answer=answer) == Settled(Word(word), expected)


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({"type": "accept", "args": None}, {"type": "approve"}),
        ({"type": "accept", "args": {"action": "mail", "args": {"n": 0}}}, {"type": "approve"}),
        ({"type": "ignore", "args": None}, {"type": "reject", "message": "seen"}),
        ({"type": "response", "args": "sent"}, {"type": "respond", "message": "sent"}),
        (
            {"type": "edit", "args": {"action": "mail", "args": {"n": 5}}},
            {"type": "edit", "edited_action": {"name": "mail", "args": {"n": 5}}},
        ),
        (
            {
                "type": "edit",
                "edited_action": {"name": "mail", "args": {}},
                "editedAction": {"name": "mail", "args": {}},
            },
            {"type": "edit", "edited_action": {"name": "mail", "args": {}}},
        ),
        ({"type": "edit", "args": {"n": 7}}, {"type": "edit", "edited_action": {"name": "mail", "args": {"n": 7}}}),
    ],
)
def test_the_words_of_every_client_are_understood(given_: Any, expected: Any) -> None:
    for form in ([given_], {"decisions": [given_]}, given_):
        assert settled(batch("mail"), answer=form).value == {"decisions": [expected]}
    assert settled(batch("mail"), decisions=[given_]).value == {"decisions": [expected]}


def test_an_edit_changes_what_it_names_and_nothing_else() -> None:
    value = CALL | {"args": {"to": "ada", "amount": 40}}
    edited = settled(value, edit={"amount": 5})
    assert edited == Settled(
        Word.APPROVED, {"type": "edit", "edited_action": {"name": "mail", "args": {"to": "ada", "amount": 5}}}
    )
    assert value["args"] == {"to": "ada", "amount": 40}


@pytest.mark.parametrize(
    ("value", "said", "why"),
    [
        (batch("a", "b"), {"decisions": ["approve"]}, "2 actions wait for a decision each, in order; 1 came."),
        (batch("a"), {"decisions": []}, "1 action waits for a decision each, in order; 0 came."),
        (batch("a"), {"decisions": "approve"}, "Decisions are a list"),
        (batch("a"), {"decisions": [5]}, "a: a decision is a word or an object with `type`."),
        (batch("a"), {"decisions": [{"type": ["approve"]}]}, 'a: there is no decision ["approve"].'),
        (batch("a"), {"decisions": [{"type": "approve", "edited_action": {}}]}, "a: approve takes no edited_action."),
        (batch("a"), {"decisions": [{"type": "accept", "args": {"n": 9}}]}, "what is approved is not what was asked"),
        (batch("a"), {"decisions": [{"type": "edit"}]}, "an edit has `edited_action`"),
        (batch("a"), {"decisions": [{"type": "edit", "edited_action": {"name": "b", "args": {}}}]}, 'make it "b"'),
        (batch("a"), {"decisions": [{"type": "edit", "edited_action": {"args": {}}}]}, "has a name and args"),
        (batch("a"), {"decisions": [{"type": "edit", "edited_action": {"name": "a", "args": 5}}]}, "are an object"),
        (batch("a"), {"decisions": [{"type": "respond"}]}, "respond takes a text"),
        (batch("a"), {"decisions": [{"type": "reject", "message": 5}]}, "reject takes a text"),
        (batch("a"), {"answer": {"decisions": ["approve"], "more": 1}}, "`decisions` is a list, and stands alone."),
        (batch("a"), {"decisions": ["approve"], "edit": {"n": 1}}, "exclude each other"),
        (batch("a", "b"), {"edit": {"n": 1}}, "say in decisions which of them is edited"),
        (batch("a"), {"edit": 5}, "An edit is an object"),
        (batch("a", allowed=["approve"]), {"edit": {}}, "a does not take edit; it takes approve."),
        (batch("a", allowed=[]), {}, "it takes nothing: it can only be cancelled."),
        (batch("a"), {"answer": float("nan")}, "It is not JSON"),
        (batch("a"), {"answer": object()}, "It is not JSON"),
        ({"type": "control.approval"}, {"edit": {"n": 1}}, "what an approver sets is given as the answer"),
        ("x", {}, "It asks for an answer, not for leave."),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(value: Any, said: dict[str, Any], why: str) -> None:
    assert why in refused(value, **said)


def test_a_rejection_lets_nothing_through() -> None:
    assert "A rejection refuses every action" in refused(batch("a", "b"), "rejected", decisions=["reject", "approve"])
    assert "does not take reject" in refused(batch("a", allowed=["approve"]), "rejected")
    assert "It is approved or rejected." in refused(CALL, "answered", answer={"type": "approve"})


def test_what_the_decisions_come_to_is_said_truly() -> None:
    def word(*decisions: Any) -> Word:
        return settled(batch("a", "b"), decisions=list(decisions)).word

    text = {"type": "respond", "message": "done"}
    assert word("reject", "reject") is Word.REJECTED
    assert word("approve", "reject") is word("approve", "approve") is Word.APPROVED
    assert word(text, "reject") is word(text, text) is Word.ANSWERED


def test_equal_calls_of_a_batch_are_decided_alike() -> None:
    value = batch("a", "a")
    value["action_requests"][1] = value["action_requests"][0]
    assert "Two of the actions are the same call of a" in refused(value, decisions=["approve", "reject"])
    assert settled(value, decisions=["reject", "reject"]).word is Word.REJECTED


def test_an_answer_to_a_doubt_says_which_call_was_doubted() -> None:
    assert settled(DOUBT, "answered", answer={"happened": True}).value == {"happened": True, "call": 2}
    assert settled(DOUBT, "answered", answer={"happened": True, "call": 1}).value == {"happened": True, "call": 1}
    assert settled(DOUBT, "answered", answer="yes").value == "yes", "the schema refuses it"


# The law: whatever is settled is taken by the asker. Each consumer does what its library does with a resume value.


def langchain_batch(value: dict[str, Any], resumed: Any) -> None:
    """`HumanInTheLoopMiddleware.after_model`."""
    decisions = resumed["decisions"]
    assert len(decisions) == len(value["action_requests"])
    for request, config, decision in zip(value["action_requests"], value["review_configs"], decisions, strict=True):
        langchain_decision(request, config["allowed_decisions"], decision)


def langchain_decision(request: dict[str, Any], allowed: list[str], decision: dict[str, Any]) -> None:
    assert decision["type"] in allowed
    match decision["type"]:
        case "edit":
            edited = decision["edited_action"]
            assert set(decision) == {"type", "edited_action"} and set(edited) == {"name", "args"}
            assert edited["name"] == request["name"] and isinstance(edited["args"], dict)
        case "respond":
            assert set(decision) == {"type", "message"} and isinstance(decision["message"], str)
        case "reject":
            assert set(decision) <= {"type", "message"} and isinstance(decision.get("message", ""), str)
        case "approve":
            assert decision == {"type": "approve"}


def agent_inbox(value: dict[str, Any], resumed: Any) -> None:
    """What reads `interrupt([request])[0]`."""
    (response,) = resumed
    config = value["config"]
    assert set(response) == {"type", "args"}
    match response["type"]:
        case "accept":
            assert config["allow_accept"] and response["args"] is None
        case "ignore":
            assert config["allow_ignore"] and response["args"] is None
        case "response":
            assert config["allow_respond"] and isinstance(response["args"], str)
        case "edit":
            assert config["allow_edit"] and response["args"]["action"] == value["action_request"]["action"]
            assert isinstance(response["args"]["args"], dict)
        case unknown:
            raise AssertionError(unknown)


names = st.sampled_from(["mail", "wipe", "pay"])
allowed_lists = st.lists(st.sampled_from(EVERY), min_size=1, unique=True)
texts = st.text(max_size=5)
args = st.dictionaries(texts, st.integers() | texts, max_size=2)
decision = st.one_of(
    st.sampled_from([*EVERY, "accept", "ignore", "yes"]),
    st.builds(lambda kind, text: {"type": kind, "message": text}, st.sampled_from(EVERY), texts | st.none()),
    st.builds(
        lambda kind, text: {"type": kind, "args": text}, st.sampled_from(["response", "ignore", "accept"]), texts
    ),
    st.builds(lambda name, given: {"type": "edit", "edited_action": {"name": name, "args": given}}, names, args),
    st.builds(lambda given: {"type": "edit", "args": given}, args),
    st.builds(lambda name, given: {"type": "edit", "args": {"action": name, "args": given}}, names, args),
)
actions = st.lists(st.tuples(names, args, allowed_lists, decision), min_size=1, max_size=3)
said = st.one_of(
    st.builds(lambda given: {"decisions": given}, st.lists(decision, min_size=1, max_size=2)),
    st.builds(lambda given: {"answer": given}, decision),
    st.builds(lambda given: {"edit": given}, args),
    st.just({}),
)
words = st.sampled_from(["approved", "rejected"])


def taken(value: Any, schema: Any, word: str, given_: dict[str, Any]) -> list[Any]:
    """What was settled: one value, or none where it was refused."""
    packet = packet_of(value, schema)
    try:
        found = settle(packet, Said(Word(word), **given_), by="ada", at=AT)
    except Refusal as refusal:
        assert refusal.code == "answer-invalid"
        return []
    assert found.word is Word.REJECTED or word == "approved"
    heard = read_back(packet, found.value)
    assert len(heard) == len(packet.actions), "what was settled can be read again"
    assert is_plain_yes(packet, found.value) is all(one.choice is Choice.APPROVE for one in heard)
    return [found.value]


@given(actions, words, said | st.none())
def test_a_batch_takes_what_is_settled(asked: list[Any], word: str, given_: dict[str, Any] | None) -> None:
    value = {
        "action_requests": [{"name": name, "args": arguments} for name, arguments, _, _ in asked],
        "review_configs": [{"action_name": name, "allowed_decisions": allowed} for name, _, allowed, _ in asked],
    }
    each = {"decisions": [stated for *_, stated in asked]}
    for resumed in taken(value, None, word, each if given_ is None else given_):
        langchain_batch(value, resumed)


@given(names, args, allowed_lists, words, said)
def test_a_single_call_takes_what_is_settled(
    name: str, arguments: dict[str, Any], allowed: list[str], word: str, given_: dict[str, Any]
) -> None:
    schema = {"oneOf": [{"properties": {"type": {"const": kind}}, "required": ["type"]} for kind in allowed]}
    value = {"type": "tool_approval", "tool_call_id": "c", "name": name, "args": arguments, "description": ""}
    for resumed in taken(value, schema, word, given_):
        langchain_decision({"name": name}, allowed, resumed)


@given(names, args, st.tuples(*[st.booleans()] * 4), st.booleans(), words, said)
def test_the_older_shape_takes_what_is_settled(
    name: str, arguments: dict[str, Any], flags: Any, listed: bool, word: str, given_: dict[str, Any]
) -> None:  # fmt: skip
    allows = ("allow_accept", "allow_edit", "allow_respond", "allow_ignore")
    value = {"action_request": {"action": name, "args": arguments}, "config": dict(zip(allows, flags, strict=True))}
    for resumed in taken([value] if listed else value, None, word, given_):
        agent_inbox(value, resumed)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
)


@given(json_values, json_values, st.sampled_from(Word))
def test_anything_else_takes_the_answer_as_it_was_given(value: Any, answer: Any, word: Word) -> None:
    packet = packet_of(value)
    assume(packet.shape is Shape.OPEN)
    if word is Word.ANSWERED:
        assert settled(value, "answered", answer=answer).value == answer
    else:
        assert refused(value, word.value, answer=answer)
