"""A refused call stays refused until it is asked about again and approved."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from control.core.answer import Said, Word, settle
from control.core.packet import packet_of
from control.core.veto import Given, Vetoes, vetoes
from tests.core.test_answer import AT

PAY = {"to": "ACME", "amount": 40}


def batch(*args: dict[str, Any]) -> Any:
    every = {"action_name": "pay", "allowed_decisions": ["approve", "edit", "reject", "respond"]}
    requests = [{"name": "pay", "args": each} for each in args]
    return packet_of({"action_requests": requests, "review_configs": [every] * len(requests)})


def single(call_id: str, args: dict[str, Any]) -> Any:
    return packet_of({"type": "tool_approval", "tool_call_id": call_id, "name": "pay", "args": args})


def decided(packet: Any, *decisions: Any, by: str = "ada") -> Given:
    value = settle(packet, Said(Word.APPROVED, decisions=decisions), by=by, at=AT).value
    return Given("i", packet, value, by)


def refuses(found: Vetoes, args: dict[str, Any], call_id: str | None = None) -> bool:
    return found.against("pay", args, call_id=call_id) is not None


def test_a_rejected_call_of_a_batch_is_known_by_its_exact_arguments() -> None:
    found = vetoes([decided(batch(PAY), {"type": "reject", "message": "no"}, by="eve")])
    assert refuses(found, PAY, "any") and refuses(found, PAY)
    assert not refuses(found, PAY | {"amount": 41}) and found.against("wipe", PAY, call_id=None) is None
    veto = found.against("pay", PAY, call_id=None)
    assert veto and (veto.by, veto.reason, veto.interrupt_id) == ("eve", "no", "i")


def test_a_rejected_single_call_is_known_by_its_id_whatever_its_arguments() -> None:
    found = vetoes([decided(single("c1", PAY), "reject")])
    assert refuses(found, PAY, "c1") and refuses(found, {}, "c1")
    assert not refuses(found, PAY, "c2") and not refuses(found, PAY)


def test_an_edited_call_runs_as_edited_and_not_as_it_was() -> None:
    edit = {"type": "edit", "args": {"amount": 5}}
    for packet, call_id in ((batch(PAY), None), (single("c1", PAY), "c1")):
        found = vetoes([decided(packet, edit)])
        assert refuses(found, PAY, call_id) and not refuses(found, {"amount": 5}, call_id)


def test_a_call_that_a_person_answered_for_does_not_run() -> None:
    assert refuses(vetoes([decided(batch(PAY), {"type": "respond", "message": "done"})]), PAY)


def test_the_last_word_on_a_call_stands() -> None:
    no, yes = decided(batch(PAY), "reject"), decided(batch(PAY), "approve")
    assert refuses(vetoes([yes, no]), PAY) and not refuses(vetoes([no, yes]), PAY)
    assert not refuses(vetoes([no, decided(batch({"amount": 1}), {"type": "edit", "args": PAY})]), PAY)


def test_the_older_shape_makes_no_veto() -> None:
    """It is raised within the tool, which must start again to hear of the answer."""
    value = [{"action_request": {"action": "pay", "args": PAY}, "config": {"allow_ignore": True}}]
    assert not vetoes([Given("i", packet_of(value), [{"type": "ignore", "args": None}], "ada")])


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=8))
def test_of_any_history_exactly_the_calls_last_refused_are_refused(history: list[tuple[int, bool]]) -> None:
    last = dict(history)
    found = vetoes(decided(batch({"n": number}), "approve" if yes else "reject") for number, yes in history)
    for number in range(3):
        assert refuses(found, {"n": number}) is (last.get(number) is False)
