"""Graphs that do what a folder tells them, so that a test directs nodes in any process, and nodes leave a witness.

A node of these graphs enters its name in the folder's witness file, synced to disk, then follows its cue if it has one:
wait until the cue is taken away, raise, or kill its process. The folder is part of the state.
"""

from __future__ import annotations

import asyncio
import operator
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, NotRequired, TypedDict

from langgraph.errors import NodeError
from langgraph.graph import END, START, StateGraph
from langgraph.pregel import Pregel
from langgraph.types import interrupt
from pydantic import BaseModel

from control.sdk import aeffect, approval, arecorded, ask, wait_for, wait_for_signal

Graph = Pregel[Any, Any, Any, Any]

TURN_S: Final = 0.01


class State(TypedDict):
    folder: str
    log: NotRequired[Annotated[list[Any], operator.add]]
    one: NotRequired[str]


class Amount(BaseModel):
    amount: int


class Unavailable(ConnectionError):
    """A failure of the surroundings."""


async def until(check: Callable[[], Awaitable[bool]], what: str, *, timeout_s: float = 15) -> None:
    """Ask again and again; fails with what did not come about."""
    deadline = time.monotonic() + timeout_s
    while not await check():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(TURN_S)


@dataclass(frozen=True)
class Cues:
    """The folder, as a test and as the nodes see it."""

    folder: Path

    @property
    def input(self) -> dict[str, Any]:
        return {"folder": str(self.folder)}

    def give(self, node: str, cue: str) -> None:
        """From now on the node does this: `hold`, `transient`, `permanent`, or `die`."""
        (self.folder / f"{node}.cue").write_text(cue)

    def take(self, node: str) -> None:
        (self.folder / f"{node}.cue").unlink()

    def seen(self, *nodes: str) -> list[str]:
        """The names of the nodes that were entered, in order; of these nodes alone, if any are named."""
        names = [line.split()[0] for line in self._lines()]
        return [name for name in names if not nodes or name in nodes]

    def pids(self, node: str) -> list[int]:
        return [int(line.split()[1]) for line in self._lines() if line.split()[0] == node]

    async def until_seen(self, node: str, times: int = 1, timeout_s: float = 15) -> None:
        async def seen() -> bool:
            return len(self.seen(node)) >= times

        await until(seen, f"{node} is entered {times} times", timeout_s=timeout_s)

    def enter(self, node: str) -> str | None:
        """Leave the witness line; returns the cue."""
        with (self.folder / "witness").open("a") as file:
            file.write(f"{node} {os.getpid()}\n")
            file.flush()
            os.fsync(file.fileno())
        return self.cue(node)

    def cue(self, node: str) -> str | None:
        try:
            return (self.folder / f"{node}.cue").read_text()
        except FileNotFoundError:
            return None

    def obey(self, cue: str | None) -> None:
        match cue:
            case "transient":
                raise Unavailable("nobody answers")
            case "permanent":
                raise ValueError("it can never work")
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)

    def _lines(self) -> list[str]:
        witness = self.folder / "witness"
        return witness.read_text().splitlines() if witness.exists() else []


async def play(node: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """A node's whole part, awaited."""
    cues = Cues(Path(state["folder"]))
    cue = cues.enter(node)
    while cue == "hold":
        # The node is as slow as its cue says.
        await asyncio.sleep(TURN_S)
        cue = cues.cue(node)
    cues.obey(cue)
    return {"log": [node]}


def block(node: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """A node's whole part, without awaiting anything."""
    cues = Cues(Path(state["folder"]))
    cue = cues.enter(node)
    while cue == "hold":
        # The node blocks its thread as long as its cue says.
        time.sleep(TURN_S)
        cue = cues.cue(node)
    cues.obey(cue)
    return {"log": [node]}


def playing(name: str) -> Callable[[State], Any]:
    async def node(state: State) -> dict[str, Any]:
        return await play(name, state)

    return node


def line(*names: str) -> Graph:
    """One node after the other."""
    graph = StateGraph(State)
    graph.add_sequence([(name, playing(name)) for name in names])
    graph.add_edge(START, names[0])
    return graph.compile()


def fan(*names: str, then: str = "z") -> Graph:
    """All at once, then one more."""
    graph = StateGraph(State)
    for name in names:
        graph.add_node(name, PARTS.get(name) or playing(name))
        graph.add_edge(START, name)
    graph.add_node(then, playing(then))
    graph.add_edge(list(names), then)
    return graph.compile()


def between(part: Callable[[State], Any], *, blocking: bool = False) -> Graph:
    """a, the part, z."""
    graph = StateGraph(State)
    graph.add_sequence([("a", playing("a")), ("part", part), ("z", playing("z"))])
    graph.add_edge(START, "a")
    return graph.compile()


def signing(title: str) -> Callable[[State], Any]:
    """Asks whether to act, and logs what was said and by whom."""

    async def node(_: State) -> dict[str, Any]:
        said = approval(title, action={"pay": title}, on_yes="It is paid.", on_no="It is not.", risk="low")
        return {"log": [f"{title}: {said.approved} by {said.by}"]}

    return node


async def measure(_: State) -> dict[str, Any]:
    return {"log": [f"amount {ask('How much?', answer=Amount).amount}"]}


async def twice(state: State) -> dict[str, Any]:
    """Two questions of one node, one after the other."""
    first = ask("First?", answer=Amount).amount
    await play("twice", state)
    return {"log": [("first", first), ("second", ask("Second?", answer=Amount).amount)]}


async def plain(_: State) -> dict[str, Any]:
    """An interrupt of somebody who knows nothing of a control plane."""
    return {"log": [interrupt("anything")]}


async def ten_days(_: State) -> dict[str, Any]:
    wait_for(timedelta(days=10))
    return {"log": ["waited"]}


async def ten_days_then(state: State) -> dict[str, Any]:
    """Follows its cue once it has waited."""
    wait_for(timedelta(days=10))
    return await play("after", state)


async def word(_: State) -> dict[str, Any]:
    return {"log": [wait_for_signal("go")]}


async def split(state: State) -> dict[str, Any]:
    """Writes what another node of its step writes too."""
    await play("split", state)
    return {"one": "split"}


async def clash(_: State) -> dict[str, Any]:
    return {"one": "clash"}


PARTS: Final[Mapping[str, Callable[[State], Any]]] = {
    "sign": signing("sign"),
    "countersign": signing("countersign"),
    "split": split,
    "clash": clash,
    "word": word,
    "ten_days": ten_days,
    "measure": measure,
}


def handled() -> Graph:
    """Its one node fails for good, and an error handler stands in."""

    async def stand_in(_: State, error: NodeError) -> dict[str, Any]:
        return {"log": [f"stood in for {error.node}"]}

    async def broken(state: State) -> dict[str, Any]:
        await play("broken", state)
        raise ValueError("it can never work")

    graph = StateGraph(State)
    graph.add_node("broken", broken, error_handler=stand_in)
    graph.add_node("z", playing("z"))
    graph.add_edge(START, "broken")
    graph.add_edge("broken", "z")
    return graph.compile()


def routed() -> Graph:
    """The way on from `a` is chosen by a function that may fail."""

    def way(state: State) -> str:
        cues = Cues(Path(state["folder"]))
        cues.obey(cues.cue("way"))
        return "z"

    graph = StateGraph(State)
    graph.add_node("a", playing("a"))
    graph.add_node("z", playing("z"))
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", way, ["z"])
    return graph.compile()


def endless() -> Graph:
    graph = StateGraph(State)
    graph.add_node("turn", playing("turn"))
    graph.add_edge(START, "turn")
    graph.add_conditional_edges("turn", lambda _: "turn", ["turn", END])
    return graph.compile()


def blocking(name: str = "slow") -> Graph:
    """A synchronous node, which blocks its thread."""

    def node(state: State) -> dict[str, Any]:
        return block(name, state)

    graph = StateGraph(State)
    graph.add_node(name, node)
    graph.add_node("z", playing("z"))
    graph.add_edge(START, name)
    graph.add_edge(name, "z")
    return graph.compile()


def hogging() -> Graph:
    """An asynchronous node that blocks the loop."""

    async def hog(state: State) -> dict[str, Any]:
        return block("hog", state)

    graph = StateGraph(State)
    graph.add_node("hog", hog)
    graph.add_edge(START, "hog")
    return graph.compile()


def paying(**how: Any) -> Graph:
    """An effect on the outside, which is the folder: each call is a line of the file `outside`."""

    async def pay(state: State) -> dict[str, Any]:
        cues = Cues(Path(state["folder"]))
        outside = cues.folder / "outside"

        def paid(key: str) -> str | None:
            cues.enter("probe")
            return key if outside.exists() and key in outside.read_text().splitlines() else None

        async def call(key: str) -> str:
            if cues.enter("before") == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            with outside.open("a") as file:
                file.write(f"{key}\n")
                file.flush()
                os.fsync(file.fileno())
            await play("after", state)
            return key

        given = {"probe": paid} if how.get("probe") else {"repeatable": bool(how.get("repeatable"))}
        return {"log": [await aeffect("pay", call, key="bill", **given)]}

    return between(pay)


def thinking() -> Graph:
    """A model's answer, then something that may kill."""

    async def think(state: State) -> dict[str, Any]:
        async def answer(_: str) -> str:
            await play("model", state)
            return "42"

        said = await arecorded("think", answer)
        await play("thought", state)
        return {"log": [said]}

    return between(think)


GRAPHS: Final[Mapping[str, Callable[[], Graph]]] = {
    "line": lambda: line("a", "b", "c"),
    "other line": lambda: line("a", "bb", "c"),
    "approve": lambda: between(signing("sign")),
    "ask": lambda: between(measure),
    "twice": lambda: between(twice),
    "plain": lambda: between(plain),
    "wait": lambda: between(ten_days),
    "wait then": lambda: between(ten_days_then),
    "wait beside": lambda: fan("ten_days", "beside"),
    "signal": lambda: between(word),
    "both": lambda: fan("sign", "countersign"),
    "sign beside": lambda: fan("sign", "beside"),
    "signal beside": lambda: fan("word", "beside"),
    "clash": lambda: fan("split", "clash"),
    "handled": handled,
    "routed": routed,
    "endless": endless,
    "blocking": blocking,
    "hogging": hogging,
    "probed": lambda: paying(probe=True),
    "repeatable": lambda: paying(repeatable=True),
    "doubtful": paying,
    "thinking": thinking,
}


def graphs(*names: str, **renamed: str) -> dict[str, Graph]:
    """Compiled graphs by their names here; `name=other` offers `other` under `name`."""
    return {name: GRAPHS[name]() for name in names} | {name: GRAPHS[of]() for name, of in renamed.items()}
