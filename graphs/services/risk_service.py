"""A risk service: a small scorecard behind HTTP that answers 503 on its first calls.

`POST /score` with features (numbers by name) answers with grade, default probability and rate. `GET /calls` counts.
"""

from __future__ import annotations

from math import exp
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from graphs.services.serving import arguments, serve

# Log-odds of default: the intercept, then a weight for each feature as (weight, what counts as none of it).
INTERCEPT: Final = -3.2
WEIGHTS: Final[dict[str, tuple[float, float]]] = {
    "bureau_score": (-0.011, 700),
    "debt_to_income_percent": (0.035, 20),
    "amount_to_income": (0.09, 5),
    "overdrawn_days": (0.02, 0),
    "returned_debits": (0.35, 0),
}
GRADES: Final = ((1.5, "A"), (3.5, "B"), (7.0, "C"), (15.0, "D"), (100.0, "E"))
BASE_RATE_PERCENT: Final = 4.9


class Scorecard:
    """Scores features; the first `failures` requests are turned away."""

    def __init__(self, failures: int) -> None:
        self._failures_left = failures
        self._calls = {"scored": 0, "unavailable": 0}

    async def score(self, request: Request) -> JSONResponse:
        if self._failures_left > 0:
            self._failures_left -= 1
            self._calls["unavailable"] += 1
            return JSONResponse({"error": "warming up"}, status_code=503, headers={"Retry-After": "1"})
        features = await request.json()
        unknown = [name for name in WEIGHTS if not isinstance(features.get(name), int | float)]
        if unknown:
            return JSONResponse({"error": f"send numbers for {', '.join(unknown)}"}, status_code=400)
        self._calls["scored"] += 1
        return JSONResponse(scored(features))

    async def calls(self, request: Request) -> JSONResponse:
        return JSONResponse(self._calls)


def scored(features: dict[str, float]) -> dict[str, Any]:
    """Grade, probability of default within a year, and the rate that pays for it."""
    odds = INTERCEPT + sum(weight * (features[name] - none) for name, (weight, none) in WEIGHTS.items())
    probability_percent = round(100 / (1 + exp(-odds)), 1)
    grade = next(grade for limit, grade in GRADES if probability_percent <= limit)
    rate_percent = round(BASE_RATE_PERCENT + 0.45 * min(probability_percent, 20), 2)
    return {"grade": grade, "default_probability_percent": probability_percent, "rate_percent": rate_percent}


def application(failures: int) -> Starlette:
    card = Scorecard(failures)
    return Starlette(
        routes=[Route("/score", card.score, methods=["POST"]), Route("/calls", card.calls, methods=["GET"])]
    )


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--failures", type=int, default=2, help="how many requests to turn away first")
    options = parser.parse_args()
    serve(application(options.failures), options, service="risk service")


if __name__ == "__main__":
    main()
