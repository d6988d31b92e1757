"""One run for people: what `control show` draws. An open question is shown whole, since somebody decides on it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from control.cli.follow import parts
from control.cli.output import moment, span, table, text, visible, word
from control.cli.standing import Standing
from control.core.lifecycle import Verb
from control.core.packet import Action, Choice, Shape
from control.core.translation import WORDS

if TYPE_CHECKING:
    from control.store.questions import Approval

_LINES: Final = (
    ("rules", "asked by rule"),
    ("risk", "risk"),
    ("confidence", "confidence"),
    ("cost_usd", "cost so far, USD"),
    ("reversible", "can be undone"),
    ("on_yes", "on yes"),
    ("on_no", "on no"),
    ("on_silence", "on silence"),
    ("waits", "waits on it"),
    ("fresh", "fresh while"),
    ("gate", "needs"),
)
_BETWEEN: Final = " · "
_HOW: Final = {"called": "called", "probed": "found done", "told": "a person said so", None: ""}


def portrait(standing: Standing) -> RenderableType:
    """Everything, in the order in which a person asks."""
    return Group(*_sections(standing))


def _sections(standing: Standing) -> Iterator[RenderableType]:
    yield _header(standing)
    for question in standing.questions:
        yield asking(question, standing)
    if standing.effects:
        yield table(("effect", "state", "calls", "how", "began"), map(_effect, standing.effects))
    yield _next(standing)
    words = WORDS[standing.status.word]
    langgraph = f"LangGraph run {words.run}, thread {words.thread}"
    yield text(f"Elsewhere: {langgraph}; A2A {words.a2a}; AG-UI {words.agui or 'none yet'}.", "dim")


def _header(standing: Standing) -> Table:
    run, status = standing.run, standing.status
    grid = _grid()
    grid.add_row(text(run.workflow or "a script"), text(str(run.run_id)))
    grid.add_row(word(status.word), text(f"for {span(standing.at - status.since)}, since {moment(status.since)}"))
    for sentence in status.because:
        grid.add_row("", text(sentence))
    if status.until:
        grid.add_row(text("until"), text(moment(status.until)))
    named = f": {', '.join(status.progress.parts)}" if status.progress.parts else ""
    grid.add_row(text("done"), text(f"{parts(standing)} parts{named}"))
    if standing.nodes:
        grid.add_row(text("now" if run.worker_id else "next"), text(", ".join(standing.nodes)))
    if status.facets:
        grid.add_row(text("also"), text(", ".join(sorted(facet.replace("_", " ") for facet in status.facets))))
    grid.add_row(text("thread"), text(run.thread_id))
    grid.add_row(text("started"), text(f"{moment(run.created_at)} by {run.created_by}"))
    return grid


def asking(question: Approval, standing: Standing) -> Panel:
    """An open question, with everything that its asker gave to decide it on."""
    return Panel(_question(question, standing), title=text(question.title, "bold"), title_align="left", expand=False)


def _question(question: Approval, standing: Standing) -> Table:
    """The packet, readably; whatever has no line of its own is shown as it is."""
    packet = question.asks
    grid = _grid()
    asker = f"{question.node} for {packet.asked_by}" if packet.asked_by else question.node
    grid.add_row(text("question"), text(f"{question.interrupt_id} ({question.kind}), asked by {asker}"))
    if packet.shape is Shape.OPEN:
        grid.add_row(text("shown"), text(_told(packet.value)))
    elif packet.shape is Shape.APPROVAL:
        grid.add_row(text("action"), _pairs(packet.actions[0].args)) if packet.actions[0].args else None
    for number, action in enumerate(() if packet.shape is Shape.APPROVAL else packet.actions, start=1):
        grid.add_row(text(f"action {number}" if len(packet.actions) > 1 else "action"), _action(action))
    for item in packet.evidence:
        grid.add_row(text("evidence"), _piece(item))
    for key, label in _LINES:
        if (value := getattr(packet, key)) not in (None, (), {}):
            grid.add_row(text(label), text(_told(value)))
    if question.returned:
        grid.add_row(text("not taken before"), text(question.returned))
    if question.expires_at:
        grid.add_row(text("decide by"), text(moment(question.expires_at)))
    if answers := _answers(question):
        grid.add_row(text("takes"), text(answers))
    grid.add_row(text("settle it"), text(_command(question, standing), "bold"))
    return grid


def _action(action: Action) -> RenderableType:
    """One call: its name, each of its arguments, and what may be said of it."""
    grid = _grid()
    grid.add_row(text(action.name, "bold"), text(action.description or ""))
    for key, value in action.args.items():
        grid.add_row(text(key, "dim"), text(_told(value)))
    grid.add_row(text("takes", "dim"), text(", ".join(c.value for c in Choice if c in action.allowed) or "nothing"))
    return grid


def _pairs(item: Any) -> RenderableType:
    """An action: one line for each of its values."""
    if not isinstance(item, Mapping):
        return text(_told(item))
    grid = _grid()
    for key, value in item.items():
        grid.add_row(text(key.replace("_", " "), "dim"), text(_told(value)))
    return grid


def _piece(item: Any) -> RenderableType:
    """A piece of evidence, running on from its name; a text that could pass for the next value is shown in quotes."""
    if not isinstance(item, Mapping):
        return text(_told(item))
    named = next((key for key in ("kind", "title", "label") if isinstance(item.get(key), str)), None)
    shown = text(item[named], "bold") if named else Text()
    for key, value in item.items():
        if key == named:
            continue
        told = visible(_told(value))
        shown.append(_BETWEEN if shown else "").append(f"{visible(key).replace('_', ' ')} ", "dim")
        shown.append(json.dumps(told, ensure_ascii=False) if _BETWEEN.strip() in told else told)
    return shown


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _answers(question: Approval) -> str:
    """The fields of the typed answer, with their types."""
    schema = question.schema or {}
    found = _resolved(schema.get("properties", {}).get("answer", {}), schema)
    required = found.get("required", ())
    return ", ".join(
        f"{name} ({field.get('type', 'value')}{'' if name in required else ', optional'})"
        for name, field in found.get("properties", {}).items()
    )


def _resolved(field: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object schema behind a reference or a union with null."""
    for choice in (field, *field.get("anyOf", ())):
        name = str(choice.get("$ref", "")).rpartition("/")[2]
        target: Mapping[str, Any] = schema.get("$defs", {}).get(name, {}) if name else choice
        if "properties" in target:
            return target
    return {}


def _command(question: Approval, standing: Standing) -> str:
    run = str(standing.run.run_id)[:8]
    which = f" --question {question.interrupt_id}" if standing.named or len(standing.questions) > 1 else ""
    if question.kind != "approval":
        return f"control answer {run} JSON{which}"
    packet = question.asks
    edits = any(Choice.EDIT in action.allowed for action in packet.actions)
    more = "--decisions JSON" if len(packet.actions) > 1 else "--edit JSON" if edits else ""
    or_more = f", also with {more}" if more else ""
    return f"control approve {run}{which}   or   control reject {run}{which}{or_more}"


def _effect(row: dict[str, Any]) -> tuple[Any, ...]:
    how = row["error"] or _HOW.get(row["how"], row["how"])
    return row["name"], row["state"], row["calls"], how, moment(row["began_at"])


def _next(standing: Standing) -> Table:
    grid = _grid()
    for verdict in standing.verdicts:
        mark, style = ("✓", "green") if verdict.allowed else ("·", "dim")
        why = text(verdict.why, "" if verdict.allowed else "dim")
        grid.add_row(text(f"{mark} {Verb(verdict.verb).value}", style), why)
    return grid


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    return grid
