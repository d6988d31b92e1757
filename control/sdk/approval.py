"""Questions that hold a run until a person, or a policy, answers.

Both are LangGraph interrupts with a typed answer: LangGraph validates it before the node sees it and keeps nothing of
one that does not fit, so a wrong answer can be given again. The control plane turns `control.approval` into an approval
with a packet and delivers the binding decision; in plain LangGraph, `Command(resume=...)` delivers it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, TypeVar

from langgraph.types import interrupt
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, create_model, model_validator

from control.core.gate import read_gate

A = TypeVar("A", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Decision(Generic[A]):
    """What was decided. `answer` is there when the question had an answer type and was approved. `by` and `at` are the
    control plane's; in plain LangGraph they are what the caller said, or None."""

    approved: bool
    answer: A | None
    by: str | None
    at: datetime | None
    note: str | None


@dataclass(frozen=True, slots=True)
class Rung:
    """A rung of an escalation ladder: once `after` has gone by without a decision, holders of these roles may decide as
    well, and `notify` is told (addresses, as notifications know them)."""

    after: timedelta
    to: Sequence[str] = ()
    notify: Sequence[str] = ()


def approval(
    title: str,
    *,
    action: Mapping[str, Any],
    on_yes: str,
    on_no: str,
    evidence: Sequence[Mapping[str, Any]] = (),
    answer: type[A] | None = None,
    risk: str | None = None,
    confidence: float | None = None,
    on_silence: str | None = None,
    reversible: bool | None = None,
    expires_in: timedelta | None = None,
    quorum: int = 1,
    roles: Sequence[str] | Mapping[str, int] = (),
    voters: Sequence[str] = (),
    four_eyes: bool | Sequence[str] = False,
    on_timeout: Literal["deny", "escalate", "default"] = "deny",
    default: A | None = None,
    ladder: Sequence[Rung] = (),
    skills: Sequence[str] | None = None,
    reassign_before: timedelta | None = None,
) -> Decision[A]:
    """Ask whether `action` may happen, and return once a permitted person has decided.

    `action` and `evidence` are what the approver sees and what the decision is bound to by its digest: exact arguments,
    plain JSON values. `on_yes`, `on_no` and `on_silence` are sentences; `confidence` lies in 0..1. `answer` is a model
    for what an approver sets (an amount, a condition); if every field of it has a default, an approval without one
    takes the defaults. Whatever the node did before this line is done again when it is resumed, so put effects behind
    their own `effect(...)`.

    Who must agree, and what silence comes to, is fixed when the question is asked; raises `gate-invalid` where it
    contradicts itself. `quorum` persons must say yes, and one no settles it. `roles` and `voters` say who may vote:
    holders of a role, or persons by name; without either, whoever policy lets. A mapping keeps seats of the quorum for
    a role: `{"finance": 1, "risk": 1}`. `four_eyes`: the run's starter may not approve, nor may those it names. When
    `expires_in` is over, the answer is no (`deny`), or `default`, or the rest of the `ladder` is climbed and the
    question stays open (`escalate`). With `skills` it is given to somebody who has them, and `reassign_before` its end
    to somebody else.
    """
    value = {
        "type": "control.approval",
        "title": title,
        "action": dict(action),
        "evidence": [dict(item) for item in evidence],
        "risk": risk,
        "confidence": confidence,
        "on_yes": on_yes,
        "on_no": on_no,
        "on_silence": on_silence,
        "reversible": reversible,
        "expires_in_s": _seconds(expires_in),
    }
    value |= _gate(
        expires_in, quorum=quorum, roles=roles, voters=voters, four_eyes=four_eyes, on_timeout=on_timeout,
        default=default, ladder=ladder, skills=skills, reassign_before=reassign_before,
    )  # fmt: skip
    given: Any = interrupt(value, response_schema=_verdict(answer))
    approved = given.decision == "approve"
    typed = (given.answer or answer()) if approved and answer is not None else None
    return Decision(approved, typed, given.by, given.at, given.note)


def _rung(rung: Rung) -> dict[str, Any]:
    return {"after_s": rung.after.total_seconds(), "to": list(rung.to), "notify": list(rung.notify)}


def _gate(
    expires_in: timedelta | None,
    *,
    quorum: int,
    roles: Sequence[str] | Mapping[str, int],
    voters: Sequence[str],
    four_eyes: bool | Sequence[str],
    on_timeout: str,
    default: BaseModel | None,
    ladder: Sequence[Rung],
    skills: Sequence[str] | None,
    reassign_before: timedelta | None,
) -> dict[str, Any]:
    """The gate as the approver is shown it, without what goes without saying; nothing for the plainest."""
    named = {} if default is None else {"default": default.model_dump(mode="json")}
    gate = {
        "quorum": quorum,
        "seats": dict(roles) if isinstance(roles, Mapping) else {},
        "roles": [] if isinstance(roles, Mapping) else list(roles),
        "voters": list(voters),
        "four_eyes": bool(four_eyes),
        "not_by": [] if isinstance(four_eyes, bool) else list(four_eyes),
        "on_timeout": on_timeout,
        "ladder": [_rung(rung) for rung in ladder],
        "skills": None if skills is None else list(skills),
        "reassign_before_s": _seconds(reassign_before),
    }
    told = read_gate(gate | named, expires_in).as_json() | named
    return {"gate": told} if told else {}


def ask(
    question: str,
    *,
    answer: type[A],
    evidence: Sequence[Mapping[str, Any]] = (),
) -> A:
    """Ask a person for something the run needs (not for permission) and return it as an `answer`."""
    value = {
        "type": "control.question",
        "title": question,
        "evidence": [dict(item) for item in evidence],
    }
    given: Any = interrupt(value, response_schema=_reply(answer))
    typed: A = given.answer
    return typed


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid")

    note: str | None = Field(None, description="A sentence for the record")
    by: str | None = Field(None, description="Who answered")
    at: AwareDatetime | None = Field(None, description="When it was answered")


class _Verdict(_Given):
    decision: Literal["approve", "reject"]
    answer: BaseModel | None = None


class _VerdictWithAnswer(_Verdict):
    # The same rule twice: for those who validate by JSON Schema, and for LangGraph.
    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"decision": {"const": "approve"}}},
            "then": {"required": ["answer"], "properties": {"answer": {"not": {"type": "null"}}}},
        }
    )

    @model_validator(mode="after")
    def _approval_carries_its_answer(self) -> _VerdictWithAnswer:
        if self.decision == "approve" and self.answer is None:
            raise ValueError("an approval of this question needs an answer")
        return self


def _verdict(answer: type[BaseModel] | None) -> type[BaseModel]:
    if answer is None:
        return create_model("Verdict", __base__=_Verdict, answer=(None, None))
    needed = any(field.is_required() for field in answer.model_fields.values())
    fields: dict[str, Any] = {"answer": (answer | None, Field(None, description="What the approver sets"))}
    return create_model(f"{answer.__name__}Verdict", __base__=_VerdictWithAnswer if needed else _Verdict, **fields)


def _reply(answer: type[BaseModel]) -> type[BaseModel]:
    return create_model(f"{answer.__name__}Reply", __base__=_Given, answer=(answer, ...))


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()
