"""Saying what something cost, for the tenant's budget and for whoever looks at the run.

What models that are asked through `recorded` say of their tokens is counted by itself. Everything else says so here.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Final

from control.core.problem import Problem
from control.sdk.call_site import default_key, effect_port, running_config
from control.sdk.drive import Ask, Script, drive, drive_async

SPEND_NOT_VALID: Final = Problem(
    code="spend-not-valid",
    status=422,
    title="This is no amount that can be spent",
    next_step="Give a number of dollars of at least 0 and a whole number of tokens of at least 0.",
)
_MOST: Final = Decimal(10) ** 9  # what fits the column


def spend(*, usd: Decimal | float | str = 0, tokens: int = 0, name: str = "spend", key: str | None = None) -> None:
    """Record from a synchronous node that something was spent, once: a step executed again does not count twice.

    `key` names it within the run, as an effect's key does; the default is the place of the call. Without a control
    plane nothing is recorded. Problems: `spend-not-valid`, `outside-a-run`, `effect-needs-await`.
    """
    drive(_script(usd, tokens, name=name, key=key))


async def aspend(
    *, usd: Decimal | float | str = 0, tokens: int = 0, name: str = "spend", key: str | None = None
) -> None:
    """`spend` for an asynchronous node."""
    await drive_async(_script(usd, tokens, name=name, key=key))


def _script(usd: Decimal | float | str, tokens: int, *, name: str, key: str | None) -> Script:
    amount = _amount(usd)
    if not isinstance(tokens, int) or not 0 <= tokens < 2**63:
        raise SPEND_NOT_VALID.because(f"{tokens!r} tokens.")
    config = running_config()
    place = default_key(config, name) if key is None else key
    if port := effect_port(config):
        yield Ask(port.loop, lambda: port.spend(config, key=place, name=name, usd=amount, tokens=tokens))


def _amount(usd: Decimal | float | str) -> Decimal:
    try:
        amount = Decimal(str(usd))
    except InvalidOperation:
        raise SPEND_NOT_VALID.because(f"{usd!r} dollars.") from None
    if not (amount.is_finite() and 0 <= amount < _MOST):
        raise SPEND_NOT_VALID.because(f"{usd!r} dollars.")
    return amount
