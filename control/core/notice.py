"""A notice: one telling of one event to one sink, what it says, and when it is tried again.

It says what happened to which run and which question, never what the run works on: no state, no packet, no answer, no
error's text. Whoever is told looks at the rest as themselves. The title of a question is the exception.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from control.core.sink import Event

TEST: Final = "test"
"""The event of a notice that somebody sent to try a sink out."""

_FIRST: Final = timedelta(seconds=5)
LONGEST: Final = timedelta(hours=1)
"""The longest wait for a try, give or take a quarter."""
_TITLE: Final = 200  # characters, in a mail's subject
_SAYS: Final = {
    Event.ASKED: "A question is open",
    Event.ESCALATED: "A question was escalated",
    Event.REASSIGNED: "A question was given to somebody",
    Event.EXPIRED: "A question's time is over",
    Event.DECIDED: "A question was decided",
    Event.FAILED: "A run has failed",
    Event.BLOCKED: "A run is blocked",
    TEST: "This is a test",
}
_ENTRY: Final = ("decision", "rung", "to", "notify", "assignee", "outcome", "due_at")
"""What of a ledger entry's body is told, under the same names. None of it is a payload."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The question that an entry is about. `open` as the notice is sent, not as it happened."""

    interrupt_id: str
    kind: str
    title: str
    node: str
    digest: str
    expires_at: datetime | None
    open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What is told. Those after `tenant` are None in a test; `status` is the run's word as the notice is sent."""

    notice_id: str
    event: str
    at: datetime
    tenant: str
    run_id: str | None = None
    thread_id: str | None = None
    workflow: str | None = None
    status: str | None = None
    seq: int | None = None
    by: str | None = None
    entry: dict[str, Any] | None = None
    question: Asked | None = None

    def link(self, template: str | None) -> str | None:
        """Where a person goes on: the template with what it names in braces. None without a template or a run."""
        if template is None or self.run_id is None:
            return None
        names = {"tenant": self.tenant, "run_id": self.run_id, "thread_id": self.thread_id or ""}
        names["interrupt_id"] = self.question.interrupt_id if self.question else ""
        for name, value in names.items():
            template = template.replace(f"{{{name}}}", _quoted(value))
        return template

    def as_json(self, template: str | None) -> dict[str, Any]:
        """The body of a webhook."""
        entry: dict[str, Any] = self.entry or {}
        about: dict[str, Any] = {name: entry[name] for name in _ENTRY if name in entry}
        data: dict[str, Any] = {"tenant": self.tenant}
        if self.run_id is not None:
            data |= {"run_id": self.run_id, "thread_id": self.thread_id, "workflow": self.workflow}
            data |= {"status": self.status, "seq": self.seq, "by": self.by, **about}
        if self.question is not None:
            data["question"] = _plain(self.question)
        if (link := self.link(template)) is not None:
            data["link"] = link
        return {"id": self.notice_id, "type": str(self.event), "timestamp": self.at.isoformat(), "data": data}

    def body(self, template: str | None) -> bytes:
        """The bytes that are sent and signed."""
        return json.dumps(self.as_json(template), ensure_ascii=False, separators=(",", ":")).encode()

    @property
    def subject(self) -> str:
        """A mail's subject: one line, whatever the title holds."""
        what = self.question.title if self.question else self.workflow or self.run_id or self.tenant
        line = " ".join(f"[control] {_SAYS[self.event]}: {what}".split())
        return "".join(char if char.isprintable() else "?" for char in line)[:_TITLE]

    def text(self, template: str | None) -> str:
        """A mail's text: what is known, a line each."""
        asked = self.question
        until = asked.expires_at.isoformat(timespec="seconds") if asked and asked.expires_at else None
        lines = {
            "Question": asked and asked.title, "Node": asked and asked.node, "Expires": until,
            "Run": self.run_id, "Thread": self.thread_id, "Workflow": self.workflow, "Status": self.status,
            "By": self.by, "At": self.at.isoformat(timespec="seconds"), "Tenant": self.tenant,
            "Open it": self.link(template),
        }  # fmt: skip
        known = "\n".join(f"{name}: {' '.join(value.split())}" for name, value in lines.items() if value)
        return f"{_SAYS[self.event]}.\n\n{known}\n"


def next_try(tries: int, *, limit: int, luck: float) -> timedelta | None:
    """How long after so many tries the next one comes; None where there is none. luck: from 0 to 1, so that what failed
    together is not tried together.

    Each wait is twice the one before, up to an hour, give or take a quarter.
    """
    if tries >= limit:
        return None
    return min(_FIRST * (1 << min(tries - 1, 30)), LONGEST) * (0.75 + luck / 2)


def _quoted(value: str) -> str:
    """As part of a web address."""
    kept = "-._~abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    return "".join(chr(byte) if chr(byte) in kept else f"%{byte:02X}" for byte in value.encode())


def _plain(asked: Asked) -> dict[str, Any]:
    return {
        "interrupt_id": asked.interrupt_id,
        "kind": asked.kind,
        "title": asked.title,
        "node": asked.node,
        "digest": asked.digest,
        "expires_at": asked.expires_at.isoformat() if asked.expires_at else None,
        "open": asked.open,
    }
