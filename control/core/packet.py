"""What a person decides on: an interrupt's value, read into one form whatever shape it has.

An unchanged graph asks in the shape of whatever library it was written with. `packet_of` reads them all: the SDK's
own, LangChain's batched `HITLRequest` (several actions in one interrupt, each with the decisions it allows), its
`tool_approval` (one action, whose `response_schema` lists what is allowed) and the older `HumanInterrupt` of Agent
Inbox. Any other value is a question that takes whatever its schema allows.

What is stored is the value as it was asked, as one JSON text; the packet is read from it again wherever it is needed.
So the digest of the text is the digest of everything that was shown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final

_TITLE_LENGTH: Final = 200  # characters
_DEPTH: Final = 64  # levels of nesting; deeper is shown by its `repr`
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Shape(StrEnum):
    """How the graph asked, and so what it must be answered with."""

    APPROVAL = "approval"  # control.sdk.approval
    QUESTION = "question"  # control.sdk.ask
    DOUBT = "doubt"  # an effect of which nobody knows whether it happened
    BATCH = "batch"  # LangChain's HITLRequest
    CALL = "call"  # LangChain's tool_approval
    INBOX = "inbox"  # HumanInterrupt, alone or in a list
    OPEN = "open"  # anything else


class Choice(StrEnum):
    """What may be said of one action."""

    APPROVE = "approve"
    EDIT = "edit"
    REJECT = "reject"
    RESPOND = "respond"  # the person's text stands for the result, and the action does not run


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that will be done, exactly. allowed: what may be said of it. call_id: the tool call's, if told."""

    name: str
    args: Mapping[str, Any]
    allowed: frozenset[Choice]
    description: str | None = None
    call_id: str | None = None

    @property
    def digest(self) -> str:
        return call_digest(self.name, self.args)


@dataclass(frozen=True, slots=True)
class Packet:
    """evidence, risk, confidence (0..1), cost_usd, on_yes, on_no, on_silence, reversible, waits and fresh are what
    the asker said, and None or empty where it said nothing: `waits` is what else waits on the decision, `fresh` the
    facts that it rests on, by name, and `valid_for_s` for how many seconds it holds. asked_by and rules: on whose
    behalf, and the ids of the rules that made it ask. gate: who must agree and what happens on silence. value: what
    the graph asked, as JSON.
    """

    shape: Shape
    title: str
    value: Any
    schema: Mapping[str, Any] | None = None
    actions: tuple[Action, ...] = ()
    evidence: tuple[Any, ...] = ()
    risk: str | None = None
    confidence: float | None = None
    cost_usd: float | None = None
    on_yes: str | None = None
    on_no: str | None = None
    on_silence: str | None = None
    reversible: bool | None = None
    asked_by: str | None = None
    rules: tuple[str, ...] = ()
    waits: tuple[Any, ...] = ()
    fresh: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    valid_for_s: float | None = None
    gate: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)

    @property
    def is_approval(self) -> bool:
        """Whether it asks leave: for a yes or a no."""
        return self.shape in (Shape.APPROVAL, Shape.BATCH, Shape.CALL, Shape.INBOX)


def read_packet(text: str, schema: Mapping[str, Any] | None = None) -> Packet:
    """The packet of a question as it is stored."""
    return packet_of(json.loads(text), schema)


def packet_of(value: Any, schema: Mapping[str, Any] | None = None) -> Packet:
    """The packet of an interrupt's value. Never raises: what no shape fits is an open question."""
    told = plain(value)
    shape = _shape(told)
    actions = _READERS[shape](told, schema) if shape in _READERS else ()
    ours = told if shape in (Shape.APPROVAL, Shape.QUESTION, Shape.DOUBT) else terms_of(told)
    return Packet(
        shape=shape,
        title=_title(told, shape, actions),
        value=told,
        schema=schema,
        actions=actions,
        evidence=_many(ours.get("evidence")),
        risk=_text(ours.get("risk")),
        confidence=_number(ours.get("confidence")),
        cost_usd=_number(ours.get("cost_usd")),
        on_yes=_text(ours.get("on_yes")),
        on_no=_text(ours.get("on_no")),
        on_silence=_text(ours.get("on_silence")),
        reversible=ours["reversible"] if isinstance(ours.get("reversible"), bool) else None,
        asked_by=_text(ours.get("asked_by")),
        rules=tuple(rule for rule in _many(ours.get("rules")) if isinstance(rule, str)),
        waits=_many(ours.get("waits")),
        fresh=_mapping(ours.get("fresh")),
        valid_for_s=_number(ours.get("valid_for_s")),
        gate=_mapping(ours.get("gate")),
    )


_TERMS: Final = "control"


def with_terms(value: Any, terms: Mapping[str, Any]) -> Any:
    """A question of another library's shape, as JSON has it, with what the rules demand of it: `rules`, `asked_by`,
    `gate`, `expires_in_s` and `evidence`. Whatever the graph had put in their place is gone.
    """
    told = plain(value)
    first = told[0] if isinstance(told, list) else told
    added = {name: part for name, part in first.items() if name != _TERMS} | ({_TERMS: dict(terms)} if terms else {})
    return [added, *told[1:]] if isinstance(told, list) else added


def terms_of(value: Any) -> Mapping[str, Any]:
    """What the rules demand of a question of another library's shape."""
    first = value[0] if isinstance(value, list) and value else value
    return _mapping(_mapping(first).get(_TERMS))


def packet_text(value: Any) -> str:
    """One JSON text for one value, whatever the order of its keys; what JSON lacks is shown by its `repr`."""
    return json.dumps(plain(value), sort_keys=True, ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """The digest that a decision is bound to: of the packet's text, in hexadecimal."""
    return sha256(packet_text(value).encode()).hexdigest()


def call_digest(name: str, args: Any) -> str:
    """The digest of one exact call."""
    return digest({"name": name, "args": args})


def plain(value: Any, depth: int = _DEPTH) -> Any:
    """The value as JSON has it. Its shape stays, so that it can be answered, whatever lies in it."""
    match value:
        case None | bool() | int():
            return value
        case str():
            return value.encode("utf-8", "backslashreplace").decode()  # a lone surrogate has no UTF-8
        case float():
            return value if math.isfinite(value) else repr(value)
        case Mapping() if depth:
            return {plain(key) if isinstance(key, str) else repr(key): plain(item, depth - 1)
                    for key, item in value.items()}  # fmt: skip
        case list() | tuple() if depth:
            return [plain(item, depth - 1) for item in value]
    return plain(_shown(value))


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # a foreign class may do anything
        return f"<{type(value).__name__}>"


def _shape(value: Any) -> Shape:
    if isinstance(value, list):
        return Shape.INBOX if value and all(_is_inbox(item) for item in value) else Shape.OPEN
    if not isinstance(value, dict):
        return Shape.OPEN
    if found := _BY_TYPE.get(str(value.get("type"))):
        return found
    requests = value.get("action_requests")
    if isinstance(requests, list) and requests and all(isinstance(request, dict) for request in requests):
        return Shape.BATCH
    return Shape.INBOX if _is_inbox(value) else Shape.OPEN


_BY_TYPE: Final = {
    "control.approval": Shape.APPROVAL,
    "control.question": Shape.QUESTION,
    "control.doubt": Shape.DOUBT,
    "tool_approval": Shape.CALL,
}


def _is_inbox(value: Any) -> bool:
    parts = ("action_request", "config")
    return isinstance(value, dict) and all(isinstance(value.get(part), dict) for part in parts)


def _approved_thing(value: Mapping[str, Any], _: Any) -> tuple[Action, ...]:
    action = _mapping(value.get("action"))
    return (Action(_name(action.get("name")), action, frozenset({Choice.APPROVE, Choice.REJECT})),)


def _batched(value: Mapping[str, Any], _: Any) -> tuple[Action, ...]:
    reviews = [_mapping(config) for config in _many(value.get("review_configs"))]
    return tuple(
        Action(
            name := _name(request.get("name")),
            _args(request),
            _reviewed(name, at, reviews),
            _text(request.get("description")),
        )
        for at, request in enumerate(value["action_requests"])
    )


def _name(told: Any) -> str:
    return told if isinstance(told, str) and told else "an action"


def _args(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments; an early LangChain 1.0 called them otherwise."""
    return _mapping(request["args"] if "args" in request else request.get("arguments"))


def _reviewed(name: str, at: int, reviews: Sequence[Mapping[str, Any]]) -> frozenset[Choice]:
    """What the review configuration of an action allows: LangChain writes one for each action, in their order."""
    if at < len(reviews) and reviews[at].get("action_name") == name:
        return _choices(reviews[at].get("allowed_decisions"))
    named = (review for review in reviews if review.get("action_name") == name)
    return _choices(next(named, {"allowed_decisions": ["approve", "reject"]}).get("allowed_decisions"))


def _one_call(value: Mapping[str, Any], schema: Any) -> tuple[Action, ...]:
    allowed = _choices(_types_in(schema, schema)) or frozenset(Choice)
    described, call_id = _text(value.get("description")), _text(value.get("tool_call_id"))
    return (Action(_name(value.get("name")), _args(value), allowed, described, call_id),)


def _types_in(schema: Any, root: Any) -> list[Any]:
    """The values of `type` that a decision's schema admits: its own, or those of its alternatives."""
    found = _referred(schema, root)
    kind = _mapping(_mapping(found.get("properties")).get("type"))
    own = [kind["const"]] if "const" in kind else list(_many(kind.get("enum")))
    return own + [name for key in ("oneOf", "anyOf") for choice in _many(found.get(key))
                  for name in _types_in(choice, root)]  # fmt: skip


def _referred(schema: Any, root: Any) -> Mapping[str, Any]:
    found = _mapping(schema)
    if not isinstance(found.get("$ref"), str):
        return found
    target = _mapping(_mapping(_mapping(root).get("$defs")).get(found["$ref"].rpartition("/")[2]))
    return {} if "$ref" in target else target


_ALLOWS: Final = {
    "allow_accept": Choice.APPROVE,
    "allow_edit": Choice.EDIT,
    "allow_ignore": Choice.REJECT,
    "allow_respond": Choice.RESPOND,
}


def _inbox(value: Any, _: Any) -> tuple[Action, ...]:
    return tuple(
        Action(
            _name(item["action_request"].get("action")),
            _args(item["action_request"]),
            frozenset(choice for key, choice in _ALLOWS.items() if item["config"].get(key) is True),
            _text(item.get("description")),
        )
        for item in (value if isinstance(value, list) else [value])
    )


_READERS: Final[Mapping[Shape, Any]] = {
    Shape.APPROVAL: _approved_thing,
    Shape.BATCH: _batched,
    Shape.CALL: _one_call,
    Shape.INBOX: _inbox,
}


def _choices(names: Any) -> frozenset[Choice]:
    known = {choice.value: choice for choice in Choice}
    return frozenset(known[name] for name in _many(names) if isinstance(name, str) and name in known)


def _title(value: Any, shape: Shape, actions: Sequence[Action]) -> str:
    if shape in (Shape.BATCH, Shape.CALL, Shape.INBOX):
        return _line(f"Run {' and '.join(action.name for action in actions)}?")
    if isinstance(value, dict):
        for key in ("title", "question", "description", "name"):
            if isinstance(value.get(key), str):
                return _line(value[key])
    return _line(value if isinstance(value, str) else packet_text(value))


def _line(text: str) -> str:
    return text.replace("\0", "\\0")[:_TITLE_LENGTH]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _many(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else ()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else _NOTHING
