"""What a tenant may use: how many runs at once, how often it may start one, and for how much.

Starts are counted in any minute, hour or day; a start beyond them is refused, and told when to come again. Dollars and
tokens are counted in hours, days or months of UTC. Where they are used up, starts are refused, and runs that have begun
stop at their next step boundary and stay queued until the next of these hours begins, or the budget is raised. What a
step spends before it ends is spent: a budget is overrun by what is in flight, never by a further step. Runs at once are
counted when a worker claims: what is beyond them stays queued.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Final

from control.core.phrasing import instant
from control.core.problem import Problem, Refusal

LIMIT_REACHED: Final = Problem(
    code="limit-reached",
    status=429,
    title="The tenant has reached a limit",
    next_step="Start it again at the time named, or have the limit raised with `control tenants set`.",
)
LIMIT_INVALID: Final = Problem(
    code="limit-invalid",
    status=422,
    title="That is no limit",
    next_step="Give runs at once as a number, the others as an amount per time, such as 600/minute, 50.00/day or"
    " 1000000/month; `none` takes a limit away. Nothing was changed.",
)
NONE: Final = "none"
_MOST: Final = {"runs_at_once": 10**6, "starts": 10**6, "usd": 10**9, "tokens": 10**15}
_PLACES: Final = {"runs_at_once": 0, "starts": 0, "usd": 6, "tokens": 0}


class Per(StrEnum):
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


_SPAN: Final = {Per.MINUTE: timedelta(minutes=1), Per.HOUR: timedelta(hours=1), Per.DAY: timedelta(days=1)}
_BUDGETED: Final = (Per.HOUR, Per.DAY, Per.MONTH)
_PERS: Final = {"starts": tuple(_SPAN), "usd": _BUDGETED, "tokens": _BUDGETED}
_FLOOR: Final[Mapping[Per, Mapping[str, Any]]] = {
    Per.MINUTE: {"second": 0, "microsecond": 0},
    Per.HOUR: {"minute": 0, "second": 0, "microsecond": 0},
    Per.DAY: {"hour": 0, "minute": 0, "second": 0, "microsecond": 0},
    Per.MONTH: {"day": 1, "hour": 0, "minute": 0, "second": 0, "microsecond": 0},
}


@dataclass(frozen=True, slots=True)
class Quota:
    """So much in so long. `str` is how it is typed."""

    most: Decimal
    per: Per

    def __str__(self) -> str:
        return f"{self.most.normalize():f}/{self.per}"

    @property
    def span(self) -> timedelta:
        """How long it is; not for months, which differ."""
        return _SPAN[self.per]

    def window(self, now: datetime) -> tuple[datetime, datetime]:
        """When the minute, hour, day or month of UTC began in which `now` lies, and when the next one begins."""
        first = now.astimezone(UTC).replace(**_FLOOR[self.per])
        after = (first + timedelta(days=32)).replace(day=1) if self.per is Per.MONTH else first + self.span
        return first, after


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a tenant is allowed; None is no limit."""

    runs_at_once: int | None = None
    starts: Quota | None = None
    usd: Quota | None = None
    tokens: Quota | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a tenant uses of its limits at this moment. usd, tokens: in the window of their limit.

    full_since: when the oldest start was made of the last `starts`, if all of these lie within their span.
    """

    at_work: int = 0
    full_since: datetime | None = None
    usd: Decimal = Decimal(0)
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a run that is ready is not taken. `until` is None where no time ends it."""

    why: str
    until: datetime | None = None


def limit(name: str, text: str) -> int | Quota | None:
    """A limit as it was typed; None for the word none. Raises `limit-invalid`."""
    if text == NONE:
        return None
    amount, slash, per = text.partition("/")
    most = _amount(name, amount, text)
    if name == "runs_at_once":
        if slash:
            raise _invalid(name, text, "it is a number, whatever the time.")
        return int(most)
    if per not in _PERS[name]:
        raise _invalid(name, text, f"it is per {', '.join(_PERS[name][:-1])} or {_PERS[name][-1]}.")
    return Quota(most, Per(per))


def _amount(name: str, amount: str, text: str) -> Decimal:
    try:
        most = Decimal(amount)
    except InvalidOperation:
        raise _invalid(name, text, "it begins with no number.") from None
    if not (most.is_finite() and 0 <= most <= _MOST[name]):
        raise _invalid(name, text, f"it is from 0 to {_MOST[name]:,}.")
    if most != round(most, places := _PLACES[name]):
        raise _invalid(name, text, f"it has at most {places} places." if places else "it is a whole number.")
    return most


def _invalid(name: str, text: str, why: str) -> Refusal:
    return LIMIT_INVALID.because(f"{text!r} is no limit of {name.replace('_', ' ')}: {why}", limit=name)


def admission(limits: Limits, use: Use, *, now: datetime) -> Refusal | None:
    """Why a start is refused, or None."""
    for reached in (*_starts(limits, use, now), *_used_up(limits, use, now)):
        facts: dict[str, Any] = {"limit": reached.name, "allowed": str(reached.quota)}
        if reached.until is None:
            return LIMIT_REACHED.because(f"{reached.why} No time ends this.", **facts)
        after_s = max(1, -(-(reached.until - now) // timedelta(seconds=1)))
        again = f"There is room again at {_clock(reached.until)}."
        facts |= {"retry_at": reached.until.isoformat(), "retry_after_s": after_s}
        return LIMIT_REACHED.because(f"{reached.why} {again}", **facts)
    return None


def hold(limits: Limits, use: Use, *, now: datetime) -> Hold | None:
    """Why no worker takes a run of the tenant that is ready, or None."""
    for reached in _used_up(limits, use, now):
        when = f"at {_clock(reached.until)}, or when the budget is raised" if reached.until else "when it has a budget"
        return Hold(f"It is ready, but held back. {reached.why} It goes on {when}.", reached.until)
    if limits.runs_at_once is not None and use.at_work >= limits.runs_at_once:
        why = f"Its tenant has {use.at_work} runs at work, of the {limits.runs_at_once} it may have (runs_at_once)."
        return Hold(f"It is ready, but held back. {why} It is taken when one of them ends or waits.")
    return None


@dataclass(frozen=True, slots=True)
class _Reached:
    """A limit that is reached, why in a sentence, and until when; None where no time ends it."""

    name: str
    quota: Quota
    why: str
    until: datetime | None


def _starts(limits: Limits, use: Use, now: datetime) -> Iterator[_Reached]:
    starts = limits.starts
    if starts is not None and starts.most == 0:
        yield _Reached("starts", starts, "The tenant may start nothing (starts).", None)
    elif starts is not None and use.full_since is not None and use.full_since + starts.span > now:
        why = f"The tenant has started {starts.most:,f} runs within a {starts.per}, and may start no more (starts)."
        yield _Reached("starts", starts, why, use.full_since + starts.span)


def _used_up(limits: Limits, use: Use, now: datetime) -> Iterator[_Reached]:
    if (usd := limits.usd) is not None and use.usd >= usd.most:
        why = f"The tenant has spent ${use.usd:,.2f} of ${usd.most:,.2f} in this {usd.per} (usd)."
        yield _Reached("usd", usd, why, usd.window(now)[1] if usd.most else None)
    if (tokens := limits.tokens) is not None and use.tokens >= tokens.most:
        why = f"The tenant has used {use.tokens:,} of {tokens.most:,f} tokens in this {tokens.per} (tokens)."
        yield _Reached("tokens", tokens, why, tokens.window(now)[1] if tokens.most else None)


def _clock(at: datetime) -> str:
    """An instant as people read it, never before it: rounded up to the second."""
    up = at if not at.microsecond else at.replace(microsecond=0) + timedelta(seconds=1)
    return instant(up.astimezone(UTC))


def tokens_of(outcome: object) -> int:
    """How many tokens a model's answer says it took, as LangChain's messages do; 0 where it does not say.

    A message, what has one (a structured answer's `raw`), or a list of them.
    """
    if isinstance(outcome, list | tuple):
        return sum(map(tokens_of, outcome))
    if isinstance(outcome, dict):
        if isinstance(used := outcome.get("usage_metadata"), dict):
            return _total(used)
        return tokens_of(outcome["raw"]) if "raw" in outcome else 0
    used = getattr(outcome, "usage_metadata", None)
    return _total(used) if isinstance(used, dict) else 0


def _total(used: dict[object, object]) -> int:
    total = used.get("total_tokens")
    return total if isinstance(total, int) and total > 0 else 0
