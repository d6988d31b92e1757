"""Ask a credit bureau about a person. Each report is charged for, so it is bought once per key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx

from control.sdk import aeffect
from nodes.address import address
from nodes.node import AsyncNode


def eligibility(
    person: Callable[[Any], dict[str, str]],
    *,
    key: Callable[[Any], str],
    target: str,
    variable: str = "LOAN_BUREAU_URL",
    timeout_s: float = 10.0,
) -> AsyncNode:
    """A node that buys the bureau's report on `person(state)` and puts it into `target`.

    The bureau honours the `Idempotency-Key`, so a purchase that was cut off is repeated and charged once. A 5xx answer
    or a lost connection is an `httpx` error and may be retried; a 4xx is final.
    """

    async def check(state: Any) -> dict[str, Any]:
        url = address(variable)

        async def buy(idempotency_key: str) -> Any:
            async with httpx.AsyncClient(timeout=timeout_s) as client:
                answer = await client.post(
                    f"{url}/reports", json=person(state), headers={"Idempotency-Key": idempotency_key}
                )
            return answer.raise_for_status().json()

        return {target: await aeffect("credit report", buy, key=key(state), repeatable=True)}

    return check
