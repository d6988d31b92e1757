"""Calls that a person has refused, so that a "no" holds even where the graph no longer asks.

LangChain's middleware looks again at its condition when the graph is resumed. If that has turned meanwhile, it passes
over the answer and runs the call, and the arguments, that somebody refused. So a worker holds the refusals itself, and
nothing that was refused starts:

- a call that was asked about by its id (`tool_approval`) is known by that id;
- one of a batch, of which the graph tells no id, is known by its name and exact arguments. The last word on it stands:
  if it is asked about again and approved, it runs.

An edit and a response refuse the call as it was. A `HumanInterrupt` is raised from within the tool it asks about, which
must start to learn of the answer, so it makes no veto.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from control.core.answer import read_back
from control.core.decision import Decision
from control.core.packet import Action, Choice, Packet, Shape, call_digest


@dataclass(frozen=True, slots=True)
class Given:
    """A decision that was made. value: what the graph is resumed with."""

    interrupt_id: str
    packet: Packet
    value: Any
    by: str
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Veto:
    """Who refused a call, and in answer to what. instead: the digest of the one call that may run in its place."""

    interrupt_id: str
    by: str
    reason: str | None = None
    instead: str | None = None


@dataclass(frozen=True, slots=True)
class Vetoes:
    """by_id: of single calls. by_digest: of calls as they are, whatever their id."""

    by_id: Mapping[str, Veto] = field(default_factory=dict)
    by_digest: Mapping[str, Veto] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.by_id or self.by_digest)

    def against(self, name: str, args: Any, *, call_id: str | None) -> Veto | None:
        """Who refused this call, if anybody did."""
        exact = call_digest(name, args)
        refused = self.by_id.get(call_id) if call_id else None
        if refused is not None and refused.instead != exact:
            return refused
        return None if refused else self.by_digest.get(exact)


def vetoes(given: Iterable[Given]) -> Vetoes:
    """What the decisions refuse that were made, oldest first."""
    by_id: dict[str, Veto] = {}
    by_digest: dict[str, Veto] = {}
    for decided in given:
        if decided.packet.shape not in (Shape.BATCH, Shape.CALL):
            continue
        for action, decision in zip(decided.packet.actions, read_back(decided.packet, decided.value), strict=False):
            by_digest.pop(_lets(action, decision), None)
            if decision.choice is Choice.APPROVE:
                continue
            veto = Veto(decided.interrupt_id, decided.by, _reason(decision, decided), _instead(action, decision))
            if action.call_id:
                by_id[action.call_id] = veto
            elif veto.instead != action.digest:
                by_digest[action.digest] = veto
    return Vetoes(by_id, by_digest)


def _lets(action: Action, decision: Decision) -> str:
    """The digest of the call that is let through, if one is."""
    if decision.choice is Choice.APPROVE:
        return action.digest
    return _instead(action, decision) or ""


def _instead(action: Action, decision: Decision) -> str | None:
    return call_digest(action.name, decision.args) if decision.choice is Choice.EDIT else None


def _reason(decision: Decision, decided: Given) -> str | None:
    return (decision.message if decision.choice is Choice.REJECT else None) or decided.note
