"""States made by hand, breakpoints, caches, other channels and other serialisers."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

from langgraph.cache.memory import InMemoryCache
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import RunControl
from langgraph.types import CachePolicy, Command, Send, interrupt

from tests.store.zoo import INPUT, State, Thread, case, chain, line, wire
from tests.store.zoo_faults import error
from tests.store.zoo_questions import one_question
from tests.store.zoo_steps import (
    deferred_fires,
    deferred_waits_its_turn,
    join_complete,
    join_half_arrived,
    sending,
    sends_all_ask,
    sends_done,
)


@case("runnable", ("c",))
def updated_as_the_asking_node(t: Thread) -> None:
    line(t, "a", "b", "c", b=t.asks("b"))
    t.go(INPUT)
    t.update({"log": ["by hand"]}, as_node="b")


@case("runnable", ("b",))
def updated_while_asking(t: Thread) -> None:
    line(t, "a", "b", "c", b=t.asks("b"))
    t.go(INPUT)
    t.update({"log": ["by hand"]}, as_node="a")


@case("runnable", ("b",))
def reopened(t: Thread) -> None:
    line(t, "a", "b")
    t.go(INPUT)
    t.update({"log": ["again"]}, as_node="a")


@case("finished", ())
def closed_with_end(t: Thread) -> None:
    line(t, "a", "b", "c", b=t.asks("b"))
    t.go(INPUT)
    t.update(None, as_node=END)


@case("runnable", ("b",))
def copied(t: Thread) -> None:
    line(t, "a", "b", "c", b=t.asks("b"))
    t.go(INPUT)
    t.update(None, as_node="__copy__")


@case("waiting", ("b",), 1)
def copied_and_asked_again(t: Thread) -> None:
    line(t, "a", "b", "c", b=t.breaks("b", after="go?"))
    t.go(INPUT)
    t.go(Command(resume="yes"))
    t.update(None, as_node="__copy__")
    t.go(None)


@case("runnable", ("w", "w"))
def updated_into_sends(t: Thread) -> None:
    sending(t, 2, t.step("w"))
    t.go(INPUT)
    t.update({"log": ["again"]}, as_node="plan")


@case("finished", ())
def updated_half_of_a_join(t: Thread) -> None:
    wire(t, {n: t.step(n) for n in ("a", "b", "z")}, [(START, "a"), (START, "b"), (["a", "b"], "z")])
    t.go(INPUT)
    t.update({"log": ["half"]}, as_node="a")


@case("runnable", ("z",))
def updated_both_halves_of_a_join(t: Thread) -> None:
    updated_half_of_a_join(t)
    t.update({"log": ["half"]}, as_node="b")


@case("runnable", ("b",))
def updated_before_any_input(t: Thread) -> None:
    line(t, "a", "b")
    t.update({"log": ["a"]}, as_node="a")


@case("runnable", ("__start__",))
def updated_as_input(t: Thread) -> None:
    line(t, "a")
    t.update({"log": []}, as_node="__input__")


@case("runnable", ("b",))
def forked_from_the_past(t: Thread) -> None:
    line(t, "a", "b", "c")
    t.go(INPUT)
    before_b = next(state for state in t.history() if state.next == ("b",))
    t.update({"log": ["other past"]}, as_node="a", config=before_b.config)


@case("waiting", ("b",), 1)
def replayed_from_the_past(t: Thread) -> None:
    line(t, "a", "b", "c", b=t.asks("b"))
    t.go(INPUT)
    t.go(Command(resume="yes"))
    before_b = next(state for state in t.history() if state.next == ("b",))
    t.go(None, config=before_b.config)


@case("runnable", ("b",))
def breakpoint_before(t: Thread) -> None:
    wire(t, {n: t.step(n) for n in "abc"}, chain("a", "b", "c"), interrupt_before=["b"])
    t.go(INPUT)


@case("runnable", ("c",))
def breakpoint_after(t: Thread) -> None:
    wire(t, {n: t.step(n) for n in "abc"}, chain("a", "b", "c"), interrupt_after=["b"])
    t.go(INPUT)


@case("finished", ())
def breakpoint_after_the_last(t: Thread) -> None:
    wire(t, {n: t.step(n) for n in "abc"}, chain("a", "b", "c"), interrupt_after=["c"])
    t.go(INPUT)


@case("runnable", ("b",))
def drained(t: Thread) -> None:
    control = RunControl()

    def node(_: Any) -> Any:
        t.ran.append("a")
        control.request_drain("maintenance")
        return {"log": ["a"]}

    line(t, "a", "b", a=node)
    t.go(INPUT, control=control)


@case("waiting", ("b",), 1)
def cached_sibling_of_a_question(t: Thread) -> None:
    nodes = {"a": (t.step("a"), {"cache_policy": CachePolicy(key_func=lambda _: "k")}), "b": t.asks("b")}
    wire(t, nodes, [(START, "a"), (START, "b")], cache=InMemoryCache())
    t.go(INPUT)
    t.go(Command(resume="yes"))
    t.go(INPUT)


def appended(old: list[str], writes: list[list[str]]) -> list[str]:
    return [*old, *(item for write in writes for item in write)]


class Delta(TypedDict):
    log: Annotated[list[str], DeltaChannel(appended)]


@case("waiting", ("b",), 1)
def delta_channel(t: Thread) -> None:
    wire(t, {"a": t.step("a"), "b": t.asks("b")}, chain("a", "b"), state=Delta)
    t.go(INPUT)


@case("finished", ())
def delta_channel_second_input(t: Thread) -> None:
    wire(t, {"a": t.step("a")}, chain("a"), state=Delta)
    t.go(INPUT)
    t.go({"log": ["more"]})


@case("waiting", ("b",), 1)
def delta_channel_on_exit(t: Thread) -> None:
    wire(t, {"a": t.step("a"), "b": t.asks("b")}, chain("a", "b"), state=Delta)
    t.go({"log": ["one"]}, durability="exit")


@case("waiting", ("b",), 1)
def single_value_state(t: Thread) -> None:
    graph = StateGraph(Annotated[str, operator.add])
    graph.add_node("b", lambda _: interrupt("b"))
    graph.add_edge(START, "b")
    t.graph = graph.compile(checkpointer=t.saver)
    t.go("in")


class _Xor:
    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return "xor", bytes(byte ^ 0x5A for byte in plaintext)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        assert ciphername == "xor"
        return bytes(byte ^ 0x5A for byte in ciphertext)


def lock(t: Thread, *, aes: bool = False) -> None:
    key = EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef") if aes else EncryptedSerializer(_Xor())
    t.saver.serde = key


@case("waiting", ("b",), 1, locked=True)
def encrypted_question(t: Thread) -> None:
    lock(t)
    one_question(t)


@case("failed", ("b",), locked=True)
def encrypted_error(t: Thread) -> None:
    lock(t, aes=True)
    error(t)


@case("runnable", ("z",), locked=True)
def encrypted_join(t: Thread) -> None:
    lock(t)
    join_complete(t)


@case("runnable", ("b2",), locked=True)
def encrypted_half_join(t: Thread) -> None:
    lock(t)
    join_half_arrived(t)


@case("runnable", ("late",), locked=True)
def encrypted_deferred_fires(t: Thread) -> None:
    lock(t, aes=True)
    deferred_fires(t)


@case("runnable", ("b2",), locked=True)
def encrypted_deferred_waits(t: Thread) -> None:
    lock(t, aes=True)
    deferred_waits_its_turn(t)


@case("waiting", None, 4, locked=True)
def encrypted_sends_ask(t: Thread) -> None:
    lock(t, aes=True)
    sends_all_ask(t)


@case("finished", (), locked=True)
def encrypted_sends_done(t: Thread) -> None:
    lock(t, aes=True)
    sends_done(t)


@case("runnable", ("b",), locked=True)
def encrypted_updated_after_sends(t: Thread) -> None:
    lock(t, aes=True)
    graph = StateGraph(State)
    for name in ("a", "b", "w"):
        graph.add_node(name, t.step(name))
    graph.add_conditional_edges(START, lambda _: [Send("w", {})], ["w"])
    graph.add_edge("a", "b")
    t.graph = graph.compile(checkpointer=t.saver)
    t.go(INPUT)
    t.update({"log": ["a"]}, as_node="a")
