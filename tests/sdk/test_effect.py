"""An effect is made once, whatever dies, and says so when it cannot know."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, RetryPolicy, Send, interrupt
from pydantic import ValidationError

from control.core.problem import Refusal
from control.sdk import InDoubt, aeffect, arecorded, effect, recorded

RUN = {"configurable": {"thread_id": "t1"}}


class State(TypedDict, total=False):
    out: Annotated[list[Any], operator.add]


@dataclass
class Outside:
    """The other system: it keeps every key it was called with, and can die around the call."""

    killed: type[BaseException] = BaseException
    keys: list[str] = field(default_factory=list)
    die: str | None = None
    error: Exception | None = None

    def call(self, key: str) -> dict[str, Any]:
        if self.die == "before":
            self.die = None
            raise self.killed
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.keys.append(key)
        if self.die == "after":
            self.die = None
            raise self.killed
        return {"receipt": len(self.keys)}

    def probe(self, key: str) -> dict[str, Any] | None:
        return {"receipt": self.keys.index(key) + 1} if key in self.keys else None


@pytest.fixture
def outside(killed: type[BaseException]) -> Outside:
    return Outside(killed)


def one_node(node: Callable[..., Any], saver: Any, **options: Any) -> Any:
    builder = StateGraph(State).add_node("node", node, **options).add_edge(START, "node").add_edge("node", END)
    return builder.compile(checkpointer=saver)


def pays(outside: Outside, **options: Any) -> Callable[[State], State]:
    return lambda state: {"out": [effect("pay", outside.call, **options)]}


def words(saver: Any) -> list[tuple[Any, ...]]:
    """The story without keys."""
    return [(word, *rest) for word, _key, *rest in saver.effects.story]


def test_intent_is_recorded_before_the_call_and_outcome_after(saver: Any, outside: Outside) -> None:
    assert one_node(pays(outside), saver).invoke({"out": []}, RUN) == {"out": [{"receipt": 1}]}
    assert words(saver) == [("began", "effect", 1), ("ended", "done", "called", None)]
    assert outside.keys == ["t1/node@0/__pregel_pull.node/pay#0"]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_death_around_the_call_is_settled_by_the_probe(
    saver: Any, outside: Outside, killed: Any, *, moment: str
) -> None:
    graph = one_node(pays(outside, key="invoice/1", probe=outside.probe), saver)
    outside.die = moment
    with pytest.raises(killed):
        graph.invoke({"out": []}, RUN)
    assert graph.invoke(None, RUN) == {"out": [{"receipt": 1}]}
    assert outside.keys == ["t1/invoice/1"]
    how = "called" if moment == "before" else "probed"
    assert words(saver)[-1] == ("ended", "done", how, None)


@pytest.mark.parametrize("write", [1, 2])
def test_a_death_at_either_record_calls_once_with_a_probe(
    saver: Any, outside: Outside, killed: Any, *, write: int
) -> None:
    graph = one_node(pays(outside, probe=outside.probe), saver)
    saver.effects.die_at = write
    with pytest.raises(killed):
        graph.invoke({"out": []}, RUN)
    assert graph.invoke(None, RUN) == {"out": [{"receipt": 1}]}
    assert len(outside.keys) == 1


def test_a_repeatable_effect_is_repeated_with_its_first_key(saver: Any, outside: Outside, killed: Any) -> None:
    graph = one_node(pays(outside, repeatable=True), saver)
    outside.die = "after"
    with pytest.raises(killed):
        graph.invoke({"out": []}, RUN)
    graph.invoke(None, RUN)
    assert len(outside.keys) == 2 and len(set(outside.keys)) == 1
    assert words(saver) == [("began", "effect", 1), ("began", "effect", 2), ("ended", "done", "called", None)]


def test_an_outcome_outlives_the_node_that_made_it(saver: Any, outside: Outside, killed: Any) -> None:
    deaths = [killed]

    def node(state: State) -> State:
        receipt = effect("pay", outside.call)
        if deaths:
            raise deaths.pop()
        return {"out": [receipt]}

    graph = one_node(node, saver)
    with pytest.raises(killed):
        graph.invoke({"out": []}, RUN)
    assert graph.invoke(None, RUN) == {"out": [{"receipt": 1}]}
    assert len(outside.keys) == 1


def test_a_failed_call_is_recorded_and_made_again(saver: Any, outside: Outside) -> None:
    graph = one_node(pays(outside), saver)
    outside.error = ConnectionRefusedError("nobody listens")
    with pytest.raises(ConnectionRefusedError):
        graph.invoke({"out": []}, RUN)
    graph.invoke(None, RUN)
    assert words(saver) == [
        ("began", "effect", 1),
        ("ended", "failed", "called", "ConnectionRefusedError: nobody listens"),
        ("began", "effect", 2),
        ("ended", "done", "called", None),
    ]


def test_a_probe_is_asked_before_a_second_call_even_if_the_first_said_it_failed(saver: Any, outside: Outside) -> None:
    def lies(key: str) -> dict[str, Any]:
        outside.call(key)
        raise ConnectionResetError("after the fact")

    graph = one_node(lambda state: {"out": [effect("pay", lies, probe=outside.probe)]}, saver)
    with pytest.raises(ConnectionResetError):
        graph.invoke({"out": []}, RUN)
    assert graph.invoke(None, RUN) == {"out": [{"receipt": 1}]}
    assert len(outside.keys) == 1


def asked(graph: Any) -> Any:
    (question,) = graph.get_state(RUN).interrupts
    return question


@pytest.fixture
def in_doubt(saver: Any, outside: Outside, killed: Any) -> Any:
    graph = one_node(pays(outside), saver)
    outside.die = "after"
    with pytest.raises(killed):
        graph.invoke({"out": []}, RUN)
    graph.invoke(None, RUN)
    return graph


def test_without_probe_or_key_a_person_is_asked(in_doubt: Any, outside: Outside) -> None:
    question = asked(in_doubt)
    assert question.value["type"] == "control.doubt"
    assert question.value["key"] == outside.keys[0]
    assert question.response_schema["required"] == ["happened"]


def test_told_that_it_happened_the_call_is_not_made(in_doubt: Any, saver: Any, outside: Outside) -> None:
    answer = {"happened": True, "outcome": {"receipt": 99}}
    assert in_doubt.invoke(Command(resume={asked(in_doubt).id: answer}), RUN) == {"out": [{"receipt": 99}]}
    assert len(outside.keys) == 1
    assert words(saver)[-1] == ("ended", "done", "told", None)


def test_told_that_it_did_not_happen_the_call_is_made(in_doubt: Any, saver: Any, outside: Outside) -> None:
    outside.keys.clear()
    in_doubt.invoke(Command(resume={asked(in_doubt).id: {"happened": False}}), RUN)
    assert len(outside.keys) == 1
    assert words(saver)[-2:] == [("began", "effect", 2), ("ended", "done", "called", None)]


def test_an_answer_to_an_earlier_doubt_does_not_settle_a_later_one(
    in_doubt: Any, outside: Outside, killed: Any
) -> None:
    first = asked(in_doubt)
    answer = {first.id: {"happened": False, "call": first.value["call"]}}
    outside.die = "after"
    with pytest.raises(killed):
        in_doubt.invoke(Command(resume=answer), RUN)
    in_doubt.invoke(Command(resume=answer), RUN)  # delivered once more by a recovery that knows only the answer
    assert len(outside.keys) == 2, "the second call is in doubt and must not become a third"
    assert (asked(in_doubt).id, asked(in_doubt).value["call"]) != (first.id, first.value["call"])


def test_a_shapeless_word_on_a_doubt_is_refused_and_can_be_given_again(in_doubt: Any) -> None:
    with pytest.raises(ValidationError, match="happened"):
        in_doubt.invoke(Command(resume={asked(in_doubt).id: {"yes": True}}), RUN)
    in_doubt.invoke(Command(resume={asked(in_doubt).id: {"happened": True}}), RUN)
    assert in_doubt.get_state(RUN).next == ()


def test_a_call_that_cannot_tell_is_left_in_flight(saver: Any, outside: Outside) -> None:
    graph = one_node(pays(outside), saver)
    outside.error = InDoubt("the answer never came")
    with pytest.raises(InDoubt):
        graph.invoke({"out": []}, RUN)
    assert words(saver) == [("began", "effect", 1)]
    graph.invoke(None, RUN)
    assert asked(graph).value["type"] == "control.doubt"


def test_a_question_inside_a_call_does_not_leave_a_doubt(saver: Any) -> None:
    graph = one_node(lambda state: {"out": [effect("odd", lambda key: interrupt("sure?"))]}, saver)
    graph.invoke({"out": []}, RUN)
    assert asked(graph).value == "sure?"
    assert graph.invoke(Command(resume={asked(graph).id: "yes"}), RUN) == {"out": ["yes"]}


def test_model_answers_are_recorded_and_a_call_in_flight_is_repeated(saver: Any, outside: Outside, killed: Any) -> None:
    graph = one_node(lambda state: {"out": [recorded("memo", outside.call)]}, saver)
    outside.die = "after"
    with pytest.raises(killed):
        graph.invoke({"out": []}, RUN)
    assert graph.invoke(None, RUN) == {"out": [{"receipt": 2}]}
    assert [line[:3] for line in words(saver)] == [
        ("began", "model", 1),
        ("began", "model", 2),
        ("ended", "done", "called"),
    ]


def test_calls_of_one_name_in_one_node_are_told_apart_on_every_attempt(saver: Any, outside: Outside) -> None:
    failures = [ConnectionError("once")]

    def node(state: State) -> State:
        receipts = [effect("pay", outside.call), effect("pay", outside.call), effect("tip", outside.call)]
        if failures:
            raise failures.pop()
        return {"out": receipts}

    graph = one_node(node, saver, retry_policy=RetryPolicy(initial_interval=0.001, jitter=False))
    assert graph.invoke({"out": []}, RUN) == {"out": [{"receipt": 1}, {"receipt": 2}, {"receipt": 3}]}
    site = "t1/node@0/__pregel_pull.node/"
    assert outside.keys == [f"{site}pay#0", f"{site}pay#1", f"{site}tip#0"]


def test_each_visit_of_a_node_and_each_send_has_its_own_key(saver: Any, outside: Outside) -> None:
    inner = one_node(pays(outside), None)
    builder = StateGraph(State).add_node("sub", inner).add_node("paid", pays(outside)).add_edge(START, "sub")
    sends = [Send("paid", {"out": []}), Send("paid", {"out": []})]
    builder.add_conditional_edges("sub", lambda s: "sub" if len(s["out"]) < 4 else sends, ["sub", "paid"])
    builder.compile(checkpointer=saver).invoke({"out": []}, RUN)
    assert len(outside.keys) == len(set(outside.keys)) == 5, outside.keys
    assert {key for key in outside.keys if key.startswith("t1/sub@")} == {
        f"t1/sub@{visit}/node@0/__pregel_pull.node/pay#0" for visit in (0, 1, 2)
    }


def test_default_keys_are_the_same_when_everything_before_them_was_lost(outside: Outside, elsewhere: Any) -> None:
    from_scratch: list[str] = []
    for _ in range(2):
        graph = one_node(pays(outside), InMemorySaver())
        graph.invoke({"out": []}, RUN)
        from_scratch.append(outside.keys[-1])
    assert from_scratch[0] == from_scratch[1]


def test_steps_taken_again_after_a_rewind_have_other_default_keys_but_the_same_explicit_ones(
    saver: Any, outside: Outside
) -> None:
    def node(state: State) -> State:
        return {"out": [effect("pay", outside.call), effect("pay", outside.call, key="invoice/1")]}

    for branch in (0, 1):
        config = {"configurable": {"thread_id": f"t{branch}", "__control_branch": branch}}
        one_node(node, saver).invoke({"out": []}, config)
    assert outside.keys == [
        "t0/node@0/__pregel_pull.node/pay#0",
        "t0/invoice/1",
        "t1/branch-1/node@0/__pregel_pull.node/pay#0",
    ]


def test_an_error_handler_does_not_share_keys_with_the_node_it_stands_in_for(saver: Any, outside: Outside) -> None:
    def fails(state: State) -> State:
        effect("pay", outside.call)
        raise ValueError("no")

    graph = one_node(fails, saver, error_handler=pays(outside))
    graph.invoke({"out": []}, RUN)
    assert len(set(outside.keys)) == 2


def test_tasks_of_the_functional_api_have_keys_of_their_own(saver: Any, outside: Outside) -> None:
    @task
    def pay(amount: int) -> Any:
        return effect("pay", outside.call)

    @entrypoint(checkpointer=saver)
    def flow(_: int) -> list[Any]:
        return [pay(1).result(), pay(2).result()]

    flow.invoke(1, RUN)
    assert len(set(outside.keys)) == 2


def test_without_a_port_the_call_is_made_and_nothing_is_asked(outside: Outside) -> None:
    graph = one_node(pays(outside, key="k"), InMemorySaver())
    assert graph.invoke({"out": []}, RUN) == {"out": [{"receipt": 1}]}
    one_node(pays(outside, key="k"), None).invoke({"out": []}, {"metadata": {"run_id": "r7"}})
    one_node(pays(outside, key="k"), None).invoke({"out": []})
    assert outside.keys[:2] == ["t1/k", "r7/k"]
    assert outside.keys[2].endswith("/k") and len(outside.keys[2]) > len("/k")


async def test_async_effects_run_on_the_ports_own_loop(outside: Outside, saver: Any) -> None:
    saver.effects.loop = asyncio.get_running_loop()
    await _pays_three_at_once(saver, outside)


async def test_async_effects_reach_a_port_on_another_loop(outside: Outside, saver: Any) -> None:
    await _pays_three_at_once(saver, outside)


async def _pays_three_at_once(saver: Any, outside: Outside) -> None:
    async def call(key: str) -> dict[str, Any]:
        await asyncio.sleep(0)
        return outside.call(key)

    async def node(state: State) -> State:
        return {"out": await asyncio.gather(aeffect("a", call), aeffect("a", call), arecorded("b", outside.call))}

    assert len((await one_node(node, saver).ainvoke({"out": []}, RUN))["out"]) == 3
    assert len(set(outside.keys)) == 3
    assert len(saver.effects.story) == 6


async def test_a_cancelled_call_is_in_doubt(saver: Any, outside: Outside) -> None:
    entered = asyncio.Event()

    async def hangs(key: str) -> None:
        entered.set()
        await asyncio.Event().wait()

    async def node(state: State) -> State:
        await aeffect("pay", hangs)
        return {"out": []}

    running = asyncio.create_task(one_node(node, saver).ainvoke({"out": []}, RUN))
    await entered.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert words(saver) == [("began", "effect", 1)]


async def test_a_sync_effect_on_the_ports_loop_is_refused_instead_of_hanging(saver: Any, outside: Outside) -> None:
    saver.effects.loop = asyncio.get_running_loop()

    async def node(state: State) -> State:
        return {"out": [effect("pay", outside.call)]}

    with pytest.raises(Refusal, match=r"await aeffect"):
        await one_node(node, saver).ainvoke({"out": []}, RUN)
    assert outside.keys == []


async def test_a_sync_node_of_an_async_run_reaches_the_loop_from_its_thread(saver: Any, outside: Outside) -> None:
    saver.effects.loop = asyncio.get_running_loop()
    graph = one_node(pays(outside), saver)
    assert await graph.ainvoke({"out": []}, RUN) == {"out": [{"receipt": 1}]}


def test_outside_a_node_the_refusal_says_where_it_belongs(outside: Outside) -> None:
    with pytest.raises(Refusal) as refused:
        effect("pay", outside.call)
    assert refused.value.lines() == (
        "This call belongs inside a running node",
        "No LangGraph node is executing here.",
        "Call it from a node's own thread or task, or copy the context (contextvars.copy_context) into yours.",
    )
