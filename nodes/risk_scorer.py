"""Score a risk with a service, and have a chat model write down for people what the score rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import httpx
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage

from control.sdk import arecorded
from nodes.address import address
from nodes.node import AsyncNode

ANALYST = (
    "You are a credit analyst. Write a memo of at most six sentences for the person who decides. Use only the facts "
    "given, name the figures, say what speaks for and against, and do not recommend a decision."
)


def risk_scorer(
    features: Callable[[Any], dict[str, float]],
    *,
    target: str,
    variable: str = "LOAN_RISK_URL",
    timeout_s: float = 10.0,
) -> AsyncNode:
    """A node that sends `features(state)` to the risk service and puts its score, and the features, into `target`.

    Scoring changes nothing outside, so it is simply repeated. A 5xx answer is an `httpx.HTTPStatusError`, which may be
    retried.
    """

    async def score(state: Any) -> dict[str, Any]:
        sent = features(state)
        async with httpx.AsyncClient(timeout=timeout_s) as client:
            answer = await client.post(f"{address(variable)}/score", json=sent)
        return {target: {**answer.raise_for_status().json(), **sent}}

    return score


def memo_writer(
    facts: Callable[[Any], Mapping[str, Any]],
    *,
    model: Callable[[], BaseChatModel],
    target: str,
    instruction: str = ANALYST,
) -> AsyncNode:
    """A node that has `model()` write a memo over `facts(state)`; `target` gets its text and who wrote it.

    The answer is recorded, so nobody pays for it again when a later node fails or the worker dies.
    """

    async def write(state: Any) -> dict[str, Any]:
        listed = "\n".join(f"- {name}: {value}" for name, value in facts(state).items())

        async def complete(_: str) -> dict[str, str]:
            answer = await model().ainvoke([SystemMessage(instruction), HumanMessage(f"Facts:\n{listed}")])
            return {"text": answer.text, "model": answer.response_metadata.get("model_name", "unnamed model")}

        return {target: await arecorded("risk memo", complete)}

    return write


def annuity_eur(amount_eur: float, *, rate_percent: float, months: int) -> float:
    """The monthly instalment that pays back `amount_eur` in `months` at a nominal yearly rate."""
    monthly = rate_percent / 1200
    factor = monthly / (1 - (1 + monthly) ** -months) if monthly else 1 / months
    return round(amount_eur * factor, 2)
