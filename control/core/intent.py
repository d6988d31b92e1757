"""What an agent is about to do by itself, as policy is asked about it: call a tool, take up a task, propose a plan.

Arguments reach a rule by their name, those inside others by their path (`items.0.price`). A rule compares whole numbers
alone, so that fractions are rounded away from zero: a limit can be overstated by that, never understated. What is
neither number nor object is given as a text, `true` and `false` among them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from control.core.action import Action
from control.core.decision import Decision
from control.core.packet import Choice, Packet, Shape, digest, plain

_LARGEST: Final = 2**63 - 1
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What the author of a graph says of a tool. effect: it changes something outside, and so is called once, through
    `effect`; repeatable: calling it again with the same arguments is harmless. ask: somebody has to agree to each call,
    whatever policy says. reversible: whether what it does can be undone.
    """

    risk: str | None = None
    reversible: bool | None = None
    cost_usd: float | None = None
    effect: bool = False
    repeatable: bool = False
    ask: bool = False


UNDECLARED: Final = Declared()


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """action: `call_tool`, `plan_task` or `propose_plan`. name: of the tool, or of the plan. tasks, budget_usd and
    depth are a plan's: how many tasks it has, what it may spend, and how many plans it stands in.
    """

    action: Action
    name: str
    args: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    declared: Declared = UNDECLARED
    tasks: int = 0
    budget_usd: float | None = None
    depth: int | None = None

    @property
    def kind(self) -> str:
        """What policy calls the thing that is acted on."""
        return "Plan" if self.action is Action.PROPOSE_PLAN else "Tool"

    @property
    def attributes(self) -> dict[str, Any]:
        """What policy is told of the thing."""
        if self.kind == "Plan":
            return {}
        return {"name": self.name, "risk": self.declared.risk, "reversible": self.declared.reversible}

    @property
    def context(self) -> dict[str, Any]:
        """What policy is told of the occasion."""
        if self.kind == "Plan":
            return _present({"tasks": self.tasks, "budget_cents": _cents(self.budget_usd), "depth": self.depth})
        numbers, texts = arguments(self.args)
        return _present({"numbers": numbers, "texts": texts, "cost_cents": _cents(self.declared.cost_usd)})

    @property
    def digest(self) -> str:
        """Of all that policy is asked about it."""
        return digest(asdict(replace(self, args=dict(self.args))))

    def terms(self) -> dict[str, Any]:
        """What `intents_of` reads back from a packet, besides the call that it shows."""
        return {"action": self.action.value, "declared": asdict(self.declared)}


def intents_of(packet: Packet) -> tuple[Intent, ...]:
    """The tool calls that a packet asks leave for; none where it asks for something else."""
    if packet.shape in (Shape.BATCH, Shape.CALL, Shape.INBOX):
        return tuple(Intent(action=Action.CALL_TOOL, name=each.name, args=each.args) for each in packet.actions)
    if packet.shape is not Shape.APPROVAL or "intent" not in packet.value:
        return ()
    try:
        shown, terms = packet.value["action"], packet.value["intent"]
        declared, action = Declared(**terms["declared"]), Action(terms["action"])
        return (Intent(action=action, name=shown["name"], args=shown["args"], declared=declared),)
    except (KeyError, TypeError, ValueError):  # a node of its own that happens to use the word
        return ()


def edited(packet: Packet, decisions: Sequence[Decision]) -> tuple[Intent, ...]:
    """The calls of a packet that somebody has changed, as they are to be now."""
    pairs = zip(packet.actions, decisions, strict=False)
    changed = (
        (action.name, said.args) for action, said in pairs if said.choice is Choice.EDIT and said.args is not None
    )
    return tuple(Intent(action=Action.CALL_TOOL, name=name, args=args) for name, args in changed)


def arguments(args: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, str]]:
    """The numbers and the texts among arguments, by path."""
    numbers: dict[str, int] = {}
    texts: dict[str, str] = {}
    for path, value in _leaves(args, ""):
        if isinstance(value, bool):
            texts[path] = "true" if value else "false"
        elif isinstance(value, int | float):
            numbers[path] = _whole(value)
        else:
            texts[path] = str(plain(value))
    return numbers, texts


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    match value:
        case Mapping():
            for name, inner in value.items():
                yield from _leaves(inner, f"{path}.{name}" if path else str(name))
        case list() | tuple():
            for at, inner in enumerate(value):
                yield from _leaves(inner, f"{path}.{at}")
        case None:
            return
        case _:
            yield path, value


def _whole(value: float) -> int:
    """Rounded away from zero, and no further from it than a rule can count; what is no number counts as the most."""
    size = min(math.ceil(abs(value)), _LARGEST) if math.isfinite(value) else _LARGEST
    return -size if value < 0 else size


def _cents(usd: float | None) -> int | None:
    return None if usd is None else _whole(usd * 100)


def _present(context: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in context.items() if value is not None}
