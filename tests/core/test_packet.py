"""Every shape of question is read into one form; its digest stands for exactly what was shown."""

from __future__ import annotations

import copy
import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.packet import Choice, Packet, Shape, call_digest, digest, packet_of, packet_text
from control.core.problem import Refusal
from control.core.question import Question, Suspension, recognise

ALL = frozenset(Choice)
ONE_SCHEMA = {
    "oneOf": [{"$ref": "#/$defs/Approve"}, {"$ref": "#/$defs/Reject"}],
    "$defs": {
        "Approve": {"properties": {"type": {"const": "approve"}}},
        "Reject": {"properties": {"type": {"enum": ["reject"]}}},
    },
}
BATCH = {
    "action_requests": [
        {"name": "mail", "args": {"to": "ada"}, "description": "A letter"},
        {"name": "wipe", "args": {}},
        {"name": "mail", "args": {"to": "bob"}},
    ],
    "review_configs": [
        {"action_name": "mail", "allowed_decisions": ["approve", "edit"]},
        {"action_name": "wipe", "allowed_decisions": ["approve", "reject", "nonsense"]},
        {"action_name": "mail", "allowed_decisions": ["respond"]},
    ],
}
CALL = {"type": "tool_approval", "tool_call_id": "c1", "name": "mail", "args": {"to": "ada"}, "description": "D"}
INBOX = {
    "action_request": {"action": "mail", "args": {"to": "ada"}},
    "config": {"allow_accept": True, "allow_edit": False, "allow_respond": True, "allow_ignore": False},
    "description": None,
}

leaf = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
arguments = st.dictionaries(st.text(max_size=5), values, max_size=4)


def allowed(packet: Packet) -> list[frozenset[Choice]]:
    return [action.allowed for action in packet.actions]


def test_a_batch_has_an_action_for_each_request_with_what_its_own_review_allows() -> None:
    packet = packet_of(BATCH)
    assert packet.shape is Shape.BATCH and packet.title == "Run mail and wipe and mail?" and packet.is_approval
    assert [(action.name, dict(action.args)) for action in packet.actions] == [
        ("mail", {"to": "ada"}),
        ("wipe", {}),
        ("mail", {"to": "bob"}),
    ]
    assert allowed(packet) == [{Choice.APPROVE, Choice.EDIT}, {Choice.APPROVE, Choice.REJECT}, {Choice.RESPOND}]


def test_a_batch_without_a_review_takes_a_plain_yes_or_no() -> None:
    assert allowed(packet_of({"action_requests": [{"name": "mail", "args": {}}]})) == [{Choice.APPROVE, Choice.REJECT}]


def test_a_single_call_takes_what_its_schema_lists() -> None:
    packet = packet_of(CALL, ONE_SCHEMA)
    assert packet.shape is Shape.CALL and packet.actions[0].call_id == "c1"
    assert allowed(packet) == [{Choice.APPROVE, Choice.REJECT}]
    assert allowed(packet_of(CALL)) == [ALL], "without a schema nothing is ruled out"


@pytest.mark.parametrize("value", [INBOX, [INBOX], [INBOX, INBOX]])
def test_the_older_shape_is_read_alone_or_in_a_list(value: Any) -> None:
    packet = packet_of(value)
    assert packet.shape is Shape.INBOX
    assert set(allowed(packet)) == {frozenset({Choice.APPROVE, Choice.RESPOND})}
    assert len(packet.actions) == (len(value) if isinstance(value, list) else 1)


def test_our_own_approval_carries_everything_it_was_asked_with() -> None:
    told: dict[str, Any] = {
        "type": "control.approval",
        "title": "Grant the loan?",
        "action": {"grant": 18_000},
        "evidence": [{"kind": "statement", "page": 2}],
        "risk": "high",
        "confidence": 0.7,
        "cost_usd": 1,
        "on_yes": "The letter is sent.",
        "on_no": "The applicant is told.",
        "on_silence": "Nothing is granted.",
        "reversible": False,
        "asked_by": "agent:clerk",
        "rules": ["large-loans"],
        "waits": ["the letter"],
        "fresh": {"score": 82},
        "valid_for_s": 60,
        "gate": {"quorum": 2, "roles": ["risk"]},
    }
    packet = packet_of(told)
    for name in told.keys() - {"type", "action", "evidence", "rules", "waits", "fresh"}:
        assert getattr(packet, name) == told[name], name
    for name in ("evidence", "rules", "waits"):
        assert getattr(packet, name) == tuple(told[name]), name
    assert packet.fresh == {"score": 82}
    assert packet.actions[0].args == {"grant": 18_000} and packet.value == told


def test_a_rule_that_is_no_name_is_left_out() -> None:
    told = {"type": "control.approval", "rules": ["large-loans", {"b": 1, "a": 2}, 5]}
    assert packet_of(told).rules == ("large-loans",)


def test_only_our_own_questions_speak_for_the_gate() -> None:
    assert packet_of(BATCH | {"gate": {"quorum": 0}, "risk": "none"}).gate == {}


@pytest.mark.parametrize(
    "value",
    [None, 5, "x", [], {}, [1], [INBOX, 1], {"action_requests": []}, {"action_requests": "x"}, {"config": 1},
     {"action_request": None, "config": None}, {"type": ["control.approval"]}, {"type": None}],
)  # fmt: skip
def test_what_no_shape_fits_is_an_open_question(value: Any) -> None:
    packet = packet_of(value)
    assert packet.shape is Shape.OPEN and not packet.is_approval and packet.actions == ()


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError("no")


ODD = [Odd(), float("nan"), float("inf"), datetime(2026, 3, 1), b"\xff", {1: 2}, "\ud800\0", {3}]


@pytest.mark.parametrize("odd", ODD)
def test_a_value_that_json_lacks_does_not_hide_the_shape(odd: Any) -> None:
    keyed = {odd: 1} if isinstance(odd, str) else {}
    text = packet_text({"action_requests": [{"name": "mail", "args": {"odd": odd, "to": [odd]}}], **keyed})
    again = packet_of(json.loads(text))
    assert again.shape is Shape.BATCH and packet_text(again.value) == text
    text.encode()


def test_a_value_that_contains_itself_is_shown_so_far() -> None:
    loop: dict[str, Any] = {"name": "mail"}
    loop["args"] = {"again": loop}
    assert packet_of({"action_requests": [loop]}).shape is Shape.BATCH


@given(st.one_of(values, st.fixed_dictionaries({"type": st.sampled_from(["control.approval", "tool_approval",
       "control.question", "control.doubt"])}, optional={"action": values, "gate": values, "evidence": values, "args":
       values, "rules": values}), st.fixed_dictionaries({"action_requests": values, "review_configs": values}),
       st.fixed_dictionaries({"action_request": values, "config": values})), values)  # fmt: skip
def test_reading_never_raises_and_reads_the_same_from_what_is_stored(value: Any, schema: Any) -> None:
    packet = packet_of(value, schema)
    assert packet_of(json.loads(packet_text(value)), schema) == packet
    try:
        assert isinstance(recognise("i", value, schema), Question | Suspension)
    except Refusal as refusal:  # whoever is to decide cannot be told: then nobody is asked
        assert refusal.code == "gate-invalid"
    assert "\0" not in packet.title


@given(arguments, st.randoms(use_true_random=False))
def test_a_digest_does_not_depend_on_the_order_of_keys(args: dict[str, Any], random: Any) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            keys = list(value)
            random.shuffle(keys)
            return {key: shuffled(value[key]) for key in keys}
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    assert digest(shuffled(args)) == digest(args)
    assert call_digest("pay", shuffled(args)) == call_digest("pay", args)


@given(arguments, st.text(max_size=5), values, st.text(max_size=5))
def test_a_digest_changes_with_any_argument(args: dict[str, Any], name: str, other: Any, tool: str) -> None:
    changed = copy.deepcopy(args) | {name: other}
    same = json.dumps(changed, sort_keys=True) == json.dumps(args, sort_keys=True)
    assert (call_digest("pay", changed) == call_digest("pay", args)) is same
    assert (call_digest(tool, args) == call_digest("pay", args)) is (tool == "pay")
    if name in args:
        assert call_digest("pay", {key: item for key, item in args.items() if key != name}) != call_digest("pay", args)


def test_a_question_expires_only_where_silence_can_be_a_no() -> None:
    def asked(value: dict[str, Any]) -> Any:
        return recognise("i", value | {"expires_in_s": 60}, None)

    assert asked({"type": "control.approval"}).expires_in == timedelta(minutes=1)
    assert asked({"type": "control.question"}).expires_in is None and asked(BATCH).expires_in is None
