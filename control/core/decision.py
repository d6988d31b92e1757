"""What was said of one action, read from the form of any client, and spelled as the asker takes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from control.core.packet import Action, Choice, plain
from control.core.problem import Problem, Refusal

ANSWER_INVALID: Final = Problem(
    code="answer-invalid",
    status=422,
    title="The answer does not have the shape that was asked for",
    next_step="Correct it and send it again; the question is still open.",
)


@dataclass(frozen=True, slots=True)
class Decision:
    """What was said of one action. args: the edited arguments. message: the reason, or the text that stands in."""

    choice: Choice
    args: Mapping[str, Any] | None = None
    message: str | None = None


def invalid(why: str) -> Refusal:
    """The refusal of an answer, for this reason."""
    return ANSWER_INVALID.because(why)


_WORDS: Final[Mapping[str, Choice]] = {
    **{choice.value: choice for choice in Choice},
    "accept": Choice.APPROVE,  # the words of HumanResponse
    "ignore": Choice.REJECT,
    "response": Choice.RESPOND,
}
_TAKES: Final[Mapping[Choice, frozenset[str]]] = {
    Choice.APPROVE: frozenset({"type", "args"}),
    Choice.EDIT: frozenset({"type", "args", "edited_action", "editedAction"}),
    Choice.REJECT: frozenset({"type", "args", "message"}),
    Choice.RESPOND: frozenset({"type", "args", "message"}),
}


def read_decision(action: Action | None, value: Any, *, which: str) -> Decision:
    """What a client said of an action: a word, or an object with `type`. `which` names the action in a refusal.

    The words and keys are those of LangChain's decisions and of `HumanResponse`. Raises `answer-invalid`.
    """
    stated: Mapping[str, Any] = {"type": value} if isinstance(value, str) else value
    if not isinstance(stated, Mapping):
        raise invalid(f"{which}: a decision is a word or an object with `type`.")
    kind = stated.get("type")
    choice = _WORDS.get(kind) if isinstance(kind, str) else None
    if choice is None:
        raise invalid(f"{which}: there is no decision {json.dumps(plain(kind))}.")
    if unknown := sorted(str(key) for key in stated if key not in _TAKES[choice]):
        raise invalid(f"{which}: {choice} takes no {', '.join(unknown)}.")
    if choice is Choice.EDIT:
        return Decision(choice, args=_edited_args(action, stated, which=which))
    if choice is Choice.APPROVE and action is not None and not _as_asked(action, stated.get("args")):
        raise invalid(f"{which}: what is approved is not what was asked about; an edit changes arguments.")
    return Decision(choice, message=_message(choice, stated, which=which))


def _as_asked(action: Action, args: Any) -> bool:
    """Whether an approval is of this very action: clients of `HumanInterrupt` send it back along with it."""
    return args is None or args in (
        action.args,
        *({key: action.name, "args": action.args} for key in ("action", "name")),
    )


def _message(choice: Choice, stated: Mapping[str, Any], *, which: str) -> str | None:
    text = stated.get("message", stated.get("args"))
    if choice is Choice.APPROVE or (text is None and choice is Choice.REJECT):
        return None
    if not isinstance(text, str):
        raise invalid(f"{which}: {choice} takes a text as its message.")
    return text


def _edited_args(action: Action | None, stated: Mapping[str, Any], *, which: str) -> Mapping[str, Any]:
    """The arguments to run it with. The action stays the one that was asked about."""
    forms = [stated[key] for key in ("edited_action", "editedAction", "args") if stated.get(key) is not None]
    if not forms or not all(isinstance(form, Mapping) for form in forms) or any(form != forms[0] for form in forms):
        raise invalid(f"{which}: an edit has `edited_action`, with name and args.")
    form: Mapping[str, Any] = forms[0]
    if set(form) not in ({"name", "args"}, {"action", "args"}):
        if "args" in stated and "edited_action" not in stated and "editedAction" not in stated:
            return form  # the arguments alone
        raise invalid(f"{which}: an edited action has a name and args, and nothing else.")
    name = form.get("name", form.get("action"))
    if action is not None and name != action.name:
        raise invalid(f"{which}: an edit changes the arguments; it cannot make it {json.dumps(plain(name))}.")
    if not isinstance(form["args"], Mapping):
        raise invalid(f"{which}: the args of an edited action are an object.")
    edited: Mapping[str, Any] = form["args"]
    return edited


def langchain(action: Action, decision: Decision) -> dict[str, Any]:
    """The decision as LangChain's middleware takes it."""
    match decision.choice:
        case Choice.EDIT:
            return {"type": "edit", "edited_action": {"name": action.name, "args": decision.args}}
        case Choice.REJECT | Choice.RESPOND if decision.message is not None:
            return {"type": decision.choice.value, "message": decision.message}
    return {"type": decision.choice.value}


def inbox(action: Action, decision: Decision) -> dict[str, Any]:
    """The decision as a `HumanResponse`."""
    match decision.choice:
        case Choice.EDIT:
            return {"type": "edit", "args": {"action": action.name, "args": decision.args}}
        case Choice.RESPOND:
            return {"type": "response", "args": decision.message}
        case Choice.REJECT if Choice.REJECT not in action.allowed:
            return {"type": "response", "args": decision.message or "Rejected: do not do this."}
        case Choice.REJECT:
            return {"type": "ignore", "args": None}
    return {"type": "accept", "args": None}
