"""The ledger told as a story, for people who operate a business and not a computer.

`tell` says in plain sentences what happened, without ids or jargon. Every entry is linked by exactly one sentence: an
entry that has nothing to say by itself belongs to the sentence before it, so that a reader can open the evidence behind
each line and miss nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from control.core.because import lost
from control.core.ledger import Entry, Kind
from control.core.phrasing import duration, listed, moment, person, seen_evidence, spoken

ERASED: Final = "What happened here has been erased."


@dataclass(frozen=True, slots=True)
class Sentence:
    """One line of the story. `entries` are the ledger's sequence numbers behind it, in order."""

    at: datetime
    text: str
    entries: tuple[int, ...]


@dataclass(slots=True)
class _Told:
    """What the teller remembers: the questions by interrupt id, when and by which worker the run was just lost, and
    whether this attempt's failure has been told."""

    questions: dict[str, Entry] = field(default_factory=dict)
    lost_at: datetime | None = None
    lost_by: str | None = None
    failed: bool = False


def tell(entries: Iterable[Entry]) -> list[Sentence]:
    """The story of a run, in order. Runs of steps are told in one breath."""
    told, story, steps = _Told(), list[Sentence](), list[Entry]()
    for entry in entries:
        if entry.kind is Kind.STEPPED:
            steps.append(entry)
            continue
        text = ERASED if entry.erased else TELLERS[entry.kind](entry, told)
        if steps and text is None:  # an entry with nothing to say does not interrupt a run of steps
            steps.append(entry)
            continue
        _close(story, steps)
        _append(story, [entry], text)
    _close(story, steps)
    return story


def _close(story: list[Sentence], steps: list[Entry]) -> None:
    if steps:
        _append(story, steps, _journey(steps))
        steps.clear()


def _append(story: list[Sentence], entries: Sequence[Entry], text: str | None) -> None:
    numbers = tuple(entry.seq for entry in entries)
    if text is not None:
        story.append(Sentence(entries[0].at, text, numbers))
    elif story:
        story[-1] = Sentence(story[-1].at, story[-1].text, story[-1].entries + numbers)
    else:
        story.append(Sentence(entries[0].at, "The record begins here.", numbers))


def _journey(steps: Sequence[Entry]) -> str | None:
    """The nodes that ran, in the order they first ran, repeats counted."""
    ran = Counter(spoken(name) for step in steps for name in step.body.get("nodes", ()) if not name.startswith("__"))
    names = [name if times == 1 else f"{name} ({times} times)" for name, times in ran.items()]
    return f"It went through {listed(names)}." if names else None


def _accepted(entry: Entry, _: _Told) -> str:
    what = spoken(entry.body["workflow"]) if entry.body.get("workflow") else "a run"
    again = " again from its first input" if entry.body.get("restarted_from") else ""
    begin = entry.body.get("not_before")
    later = f", not to begin before {moment(datetime.fromisoformat(begin))}" if begin else ""
    return f"{person(entry.actor)} started {what}{again}{later}."


def _claimed(entry: Entry, told: _Told) -> str | None:
    told.failed = False
    if told.lost_at is None:
        return None
    pause, told.lost_at = entry.at - told.lost_at, None
    later = f"{duration(pause)} later" if pause >= _SECOND else "at once"
    if entry.body["worker"] == told.lost_by:
        return f"The same one took it up again {later}."
    return f"Another {'worker ' if pause >= _SECOND else ''}took it over {later}."


def _asked(entry: Entry, told: _Told) -> str:
    told.questions[entry.body["interrupt_id"]] = entry
    limit = entry.deadline("expires")
    until = f", to be decided by {moment(limit)}" if limit else ""
    match entry.body["kind"]:
        case "approval":
            return f"It asked for approval of {_quoted(entry)}{until}."
        case "doubt":
            return f"It could not tell whether {_quoted(entry)} had happened, and asked a person{until}."
        case _:
            return f"It asked {_quoted(entry)}{until}."


def _suspended(entry: Entry, _: _Told) -> str:
    where = spoken(entry.body["node"])
    if entry.body["kind"] == "timer":
        return f"{where.capitalize()} went to wait until {moment(entry.deadline('due') or entry.at)}."
    return f"{where.capitalize()} went to wait for the signal “{entry.body['signal']}”."


def _decided(entry: Entry, told: _Told) -> str:
    asked = told.questions.get(entry.body["interrupt_id"])
    what = _quoted(asked) if asked else "a question"
    if entry.actor == "clock":
        return f"Nobody decided {what} in time, so it was {entry.body['decision']}."
    waited = f" after {duration(entry.at - asked.at)}" if asked else ""
    seen = seen_evidence(asked.body.get("evidence", ())) if asked else ""
    note = f", and noted: “{entry.body['note']}”" if entry.body.get("note") else ""
    return f"{person(entry.actor)} {entry.body['decision']} {what}{waited}{seen}{note}."


def _delegated(entry: Entry, _: _Told) -> str:
    body = entry.body
    giver, taker = person(body["giver"]), person(body["taker"])
    until = moment(datetime.fromisoformat(body["until"]))
    by = "" if body["by"] == body["giver"] else f", as {person(body['by'])} had arranged"
    return f"{taker} stood in for {giver} until {until}{by}."


def _voted(entry: Entry, told: _Told) -> str:
    body = entry.body
    place = f" for {person(body['on_behalf_of'])}" if body.get("on_behalf_of") else ""
    key = f", with a key that was made by {' and '.join(map(person, body['via']))}" if body.get("via") else ""
    note = f", and noted: “{body['note']}”" if body.get("note") else ""
    return f"{person(entry.actor)} voted {body['vote']}{place} on {_asked_as(entry, told)}{key}{note}."


def _reassigned(entry: Entry, told: _Told) -> str:
    taker = entry.body.get("assignee")
    if taker is None:
        return f"Nobody could be found for {_asked_as(entry, told)}: {_clause(entry.body['why'])}."
    hand = f"{person(entry.actor)} gave" if entry.actor != "clock" else "The control plane gave"
    return f"{hand} {_asked_as(entry, told)} to {person(taker)}."


def _escalated(entry: Entry, told: _Told) -> str:
    to = listed([spoken(role) for role in entry.body["to"]]) if entry.body["to"] else "those to be told"
    what = _asked_as(entry, told)
    return f"Nobody had decided {what}, so it went up to {to}."


def _expired(entry: Entry, told: _Told) -> str | None:
    if entry.body["outcome"] != "escalate":
        return None  # the decision that silence comes to is told in the next sentence
    return f"The time to decide {_asked_as(entry, told)} was over."


def _asked_as(entry: Entry, told: _Told) -> str:
    asked = told.questions.get(entry.body["interrupt_id"])
    return _quoted(asked) if asked else "a question"


def _stale(entry: Entry, told: _Told) -> str:
    what = "The answer to" if entry.body["found"] == "answer" else "The decision of"
    names = listed([f"the {one['what']} “{one['name']}”" for one in entry.body["moved"]])
    return f"{what} {_asked_as(entry, told)} was not used, since {names} had moved."


def _returned(entry: Entry, told: _Told) -> str:
    said = f"The answer of {person(entry.body['by'])} to {_asked_as(entry, told)}"
    return f"{said} did not pass its step's own check: {_clause(entry.body['why'])}."


def _fired(entry: Entry, _: _Told) -> str:
    return "The time it waited for came." if entry.body["kind"] == "timer" else (
        f"The signal “{entry.body.get('signal')}” that it waited for came."
    )  # fmt: skip


def _woken(entry: Entry, _: _Told) -> str:
    return "The time to try again came." if entry.body["why"] == "retry" else "The time to begin came."


def _signalled(entry: Entry, _: _Told) -> str:
    return f"{person(entry.actor)} sent the signal “{entry.body['name']}”."


def _superseded(entry: Entry, told: _Told) -> str:
    asked = told.questions.get(entry.body["interrupt_id"])
    what = _quoted(asked) if asked else "a question"
    return f"{what[0].upper()}{what[1:]} was withdrawn: {_clause(entry.body['why'])}."


_ORDERS: Final = {
    "pause": "paused it",
    "resume": "let it go on",
    "cancel": "cancelled it",
    "retry": "had it tried again",
}


def _ordered(entry: Entry, _: _Told) -> str:
    reason = entry.body.get("reason")
    return f"{person(entry.actor)} {_ORDERS[entry.body['verb']]}{f': {_clause(reason)}' if reason else ''}."


def _rewound(entry: Entry, _: _Told) -> str:
    return f"{person(entry.actor)} took it back to an earlier point."


def _effect_began(entry: Entry, _: _Told) -> str | None:
    again = entry.body["call"] > 1 and entry.body["kind"] == "effect"
    return f"It called “{spoken(entry.body['name'])}” again, since the call before was cut off." if again else None


_HOW: Final = {
    "called": "It did “{}”.",
    "probed": "“{}” turned out to have been done already.",
    "told": "A person said that “{}” had been done.",
}


def _effect_ended(entry: Entry, _: _Told) -> str | None:
    name, error = spoken(entry.body["name"]), entry.body.get("error")
    if entry.body["state"] == "failed":
        return f"“{name}” failed{f': {_clause(error)}' if error else ''}."
    return _HOW[entry.body["how"]].format(name) if entry.body["kind"] == "effect" else None


def _spent(entry: Entry, _: _Told) -> str:
    usd, tokens = Decimal(entry.body["usd"]), entry.body["tokens"]
    amounts = [f"${usd:f}"] if usd or not tokens else []
    amounts += [f"{tokens:,} tokens"] if tokens else []
    return f"It spent {' and '.join(amounts)} on “{spoken(entry.body['name'])}”."


def _task_failed(entry: Entry, told: _Told) -> str:
    told.failed = True
    return f"{spoken(entry.body['node']).capitalize()} failed: {_clause(entry.body['error'])}."


def _handled(entry: Entry, _: _Told) -> str:
    return f"It went on without {spoken(entry.body['node'])}."


_ENDED: Final = {
    "completed": "It finished.",
    "cancelled": "It stopped for good.",
    "breakpoint": "It stopped at a breakpoint.",
}


def _ended(entry: Entry, told: _Told) -> str | None:
    outcome, error, retry_at = entry.body["outcome"], entry.body.get("error"), entry.deadline("retry")
    if outcome != "failed":
        return _ENDED.get(outcome)
    why = f"The attempt failed{f': {_clause(error)}' if error else ''}."
    again = f"It is to be tried again {_soon(retry_at, entry.at)}." if retry_at else None
    return again if again and told.failed else f"{why} {again}" if again else why


def _soon(at: datetime, now: datetime) -> str:
    return f"in {duration(at - now)}" if timedelta() <= at - now < timedelta(minutes=1) else f"at {moment(at)}"


def _worker_lost(entry: Entry, told: _Told) -> str:
    told.lost_at, told.lost_by = entry.at, entry.body["worker"]
    return lost(entry.body["why"])


def _adopted(_: Entry, __: _Told) -> str:
    return "It was moved to the workflow's current version."


def _unfit(entry: Entry, _: _Told) -> str:
    return f"The workflow had changed, and the run no longer fitted it: {_clause(entry.body['why'])}."


_DOORS: Final = {
    "update_state": "change its state by hand",
    "goto": "jump to another step",
    "new_input": "give its thread a new input",
    "copy_thread": "copy its thread",
    "delete_thread": "delete its thread",
}


def _refused(entry: Entry, _: _Told) -> str | None:
    if entry.body.get("verdict", "deny") != "deny":
        return None  # what was let through shows as what it did, and what had to be asked as a question
    action = entry.body.get("action", "")
    what = _DOORS.get(action) or f"{spoken(action)} it"
    if "name" in entry.body:
        what = f"use {spoken(entry.body['name'])}"
    return f"{person(entry.actor)} was not let {what}: {_clause(entry.body['why'])}."


def _deleted(entry: Entry, _: _Told) -> str:
    reason = f", and said why: “{_clause(entry.body['reason'])}”" if entry.body.get("reason") else ""
    return f"{person(entry.actor)} deleted its checkpoints and what it had been given{reason}. This record stays."


def _erased(entry: Entry, _: _Told) -> str:
    return f"{person(entry.actor)} erased what it had carried until then: {_clause(entry.body['why'])}."


def _restored(entry: Entry, _: _Told) -> str:
    seen = moment(datetime.fromisoformat(entry.body["seen_at"]))
    why = _clause(entry.body["why"])
    return (
        f"The database was an earlier copy of itself: what had happened since was forgotten, up to {seen} or later."
        f" {person(entry.actor)} let it go on: {why}."
    )


def _silent(_: Entry, __: _Told) -> None:
    return None


TELLERS: Final[Mapping[Kind, Callable[[Entry, _Told], str | None]]] = {
    Kind.ACCEPTED: _accepted,
    Kind.CLAIMED: _claimed,
    Kind.STEPPED: _silent,  # told by `_journey`
    Kind.ASKED: _asked,
    Kind.SUSPENDED: _suspended,
    Kind.DELEGATED: _delegated,
    Kind.VOTED: _voted,
    Kind.REASSIGNED: _reassigned,
    Kind.ESCALATED: _escalated,
    Kind.EXPIRED: _expired,
    Kind.DECIDED: _decided,
    Kind.STALE: _stale,
    Kind.RETURNED: _returned,
    Kind.FIRED: _fired,
    Kind.WOKEN: _woken,
    Kind.SIGNALLED: _signalled,
    Kind.SUPERSEDED: _superseded,
    Kind.ORDERED: _ordered,
    Kind.REWOUND: _rewound,
    Kind.EFFECT_BEGAN: _effect_began,
    Kind.EFFECT_ENDED: _effect_ended,
    Kind.SPENT: _spent,
    Kind.TASK_FAILED: _task_failed,
    Kind.HANDLED: _handled,
    Kind.ENDED: _ended,
    Kind.WORKER_LOST: _worker_lost,
    Kind.ADOPTED: _adopted,
    Kind.UNFIT: _unfit,
    Kind.REFUSED: _refused,
    Kind.DELETED: _deleted,
    Kind.JUDGED: _refused,
    Kind.ERASED: _erased,
    Kind.RESTORED: _restored,
}
"""How each kind of entry is told; None: it belongs to the sentence before it."""

_SECOND: Final = timedelta(seconds=1)
_LONGEST: Final = 200


def _quoted(asked: Entry) -> str:
    return f"“{asked.body['title']}”"


def _clause(text: Any) -> str:
    """The first line of a reason or an error, short and without its full stop. A `repr` spells out its line breaks."""
    first = str(text).strip().partition("\n")[0].partition("\\n")[0].rstrip(".")
    return first if len(first) <= _LONGEST else f"{first[:_LONGEST]}…"
