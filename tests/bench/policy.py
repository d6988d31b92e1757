"""What it costs to ask: one decision about a run never seen before, and all the verbs that are legal in its state.

The rules are those that ship. Nothing here touches the database.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID, uuid4

from control.core.execution import Execution
from control.core.facts import Ask, AskKind, Facts
from control.core.principal import Principal
from control.core.run_status import Status
from control.policy.cedar import default_text, parsed
from control.runtime.authority import Authority, resource
from control.store.listing import Listed
from tests.bench.row import Row, at_most
from tests.bench.site import Site

_TIMES: Final = 5000
_NOW: Final = datetime.now(UTC)
_ASKING: Final = Facts(
    created_at=_NOW, execution=Execution.WAITING, asks=(Ask("i", AskKind.APPROVAL, "Pay out?", "gate", _NOW),)
)
_VERBS: Final = 7


def measure(site: Site) -> list[Row]:
    """Percentiles over many calls, in this process alone."""
    times = site.some(_TIMES, least=20)
    authority = Authority(parsed(default_text()), Principal("ada", "acme", roles=frozenset({"operator", "approver"})))
    runs = [_run() for _ in range(times)]
    said = authority.next_verbs(runs[0], Status.AWAITING_APPROVAL, _ASKING)
    assert sum(verdict.allowed for verdict in said) == _VERBS
    word = Status.AWAITING_APPROVAL
    one = _timed(lambda n: authority.judge("cancel", resource(runs[n], word)), times)
    all_verbs = _timed(lambda n: authority.next_verbs(runs[n], word, _ASKING), times)
    filters = _timed(lambda _: authority.visible(), times)
    return [
        _row("a policy decision on a run never seen, p50", one, 0.5, 0.2),
        _row("a policy decision on a run never seen, p99", one, 0.99),
        _row(f"the {_VERBS} verbs legal in a run's state, p50", all_verbs, 0.5, 0.6),
        _row(f"the {_VERBS} verbs legal in a run's state, p99", all_verbs, 0.99),
        _row("which runs a list may show, p50", filters, 0.5),
    ]


def _timed(call: Callable[[int], object], times: int) -> list[float]:
    """Milliseconds of each call, sorted."""
    gc.collect()
    taken = []
    for n in range(times):
        begun = time.perf_counter()
        call(n)
        taken.append((time.perf_counter() - begun) * 1000)
    return sorted(taken)


def _row(what: str, taken: list[float], share: float, limit: float | None = None) -> Row:
    value = taken[min(len(taken) - 1, int(len(taken) * share))]
    return Row(what, "ms", value, goal=None if limit is None else at_most(limit))


def _run() -> Listed:
    run_id: UUID = uuid4()
    return Listed(
        tenant="acme",
        run_id=run_id,
        thread_id=str(run_id),
        workflow="loan",
        created_at=_NOW,
        created_by="bob",
        epoch=1,
        takeovers=0,
        parts=[],
        parts_total=None,
        head_step=1,
        worker_id=None,
        priority=0,
        status="awaiting_approval",
        since=_NOW,
        due_at=None,
    )
