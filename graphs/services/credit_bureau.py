"""A credit bureau that charges for each report and honours idempotency keys.

`POST /reports` with a person and an `Idempotency-Key` answers with a report. The first request with a key is charged
and written to the ledger before it is answered; the same key gets the same report for nothing, also after a restart;
the same key with another person is a 422. Without a key each request is charged. `GET /bill` adds up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from graphs.services.serving import append_synced, arguments, read_entries, serve

FEE_CENTS: Final = 250
FILES: Final = Path(__file__).parents[1] / "data" / "bureau" / "credit_files.json"
PERSON: Final = ("national_id", "name", "born_on")


class Bureau:
    """Reports and the bill. One process, one event loop: a request is charged and answered in one go."""

    def __init__(self, ledger: Path, *, files: Mapping[str, Mapping[str, Any]]) -> None:
        self._ledger = ledger
        self._files = files
        self._charges: list[dict[str, Any]] = []
        self._by_key: dict[str, dict[str, Any]] = {}
        self._repeats = 0
        for entry in read_entries(ledger):
            self._remember(entry)

    async def report(self, request: Request) -> JSONResponse:
        person = await _person(request)
        if person is None:
            return JSONResponse({"error": f"send {', '.join(PERSON)} as strings"}, status_code=400)
        key = request.headers.get("Idempotency-Key")
        known = self._by_key.get(key) if key else None
        if known is None:
            return JSONResponse(self._sell(person, key))
        if known["person"] != person:
            return JSONResponse({"error": "this key was used for another person"}, status_code=422)
        self._note({"repeat": key})
        return JSONResponse(known["report"], headers={"Idempotent-Replay": "true"})

    async def bill(self, request: Request) -> JSONResponse:
        return JSONResponse(
            {
                "charges": [{"key": each["key"], "fee_cents": each["fee_cents"]} for each in self._charges],
                "total_cents": sum(each["fee_cents"] for each in self._charges),
                "repeats": self._repeats,
            }
        )

    def _sell(self, person: dict[str, str], key: str | None) -> dict[str, Any]:
        number = f"CB-{len(self._charges) + 1:06d}"
        known = self._files.get(person["national_id"]) or _thin_file(person["national_id"])
        report = {"report": number, **known}
        self._note({"key": key, "person": person, "fee_cents": FEE_CENTS, "report": report})
        return report

    def _note(self, entry: dict[str, Any]) -> None:
        append_synced(self._ledger, entry)
        self._remember(entry)

    def _remember(self, entry: dict[str, Any]) -> None:
        if "repeat" in entry:
            self._repeats += 1
            return
        self._charges.append(entry)
        if entry["key"]:
            self._by_key[entry["key"]] = entry


def _thin_file(national_id: str) -> dict[str, Any]:
    """Somebody the bureau hardly knows: a middling score that is always the same for the same person."""
    spread = int.from_bytes(sha256(national_id.encode()).digest()[:2], "big") % 120
    return {"score": 560 + spread, "open_loans": 0, "unpaid_defaults": 0, "inquiries_12_months": 0}


async def _person(request: Request) -> dict[str, str] | None:
    try:
        body = await request.json()
    except ValueError:
        return None
    if not isinstance(body, dict) or not all(isinstance(body.get(name), str) for name in PERSON):
        return None
    return {name: body[name] for name in PERSON}


def application(ledger: Path) -> Starlette:
    bureau = Bureau(ledger, files=json.loads(FILES.read_text(encoding="utf-8")))
    return Starlette(
        routes=[
            Route("/reports", bureau.report, methods=["POST"]),
            Route("/bill", bureau.bill, methods=["GET"]),
        ]
    )


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--ledger", type=Path, required=True, help="what was charged, one JSON line each")
    options = parser.parse_args()
    serve(application(options.ledger), options, service="credit bureau")


if __name__ == "__main__":
    main()
