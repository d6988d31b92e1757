"""No run is lost, doubled or misreported, whatever is killed and whenever.

Each test prints its seed, which `CONTROL_CHAOS_SEED` repeats, and what was done and counted.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

import pytest

from control.store.embedded import ensure
from control.testing.chaos import Campaign, Toll, rage, seed, witnessed
from control.testing.database import Databases
from control.testing.server import restart
from tests.chaos.auditor import Findings, books, examine
from tests.chaos.graphs import mixed

pytestmark = pytest.mark.alone
GRAPHS: Final = "tests.chaos.graphs:graphs"
IDLE_AT_MOST: Final = 0.02
BLAMELESS: Final = {"crash_limit": 1000}
"""Whoever is killed at random says nothing of the runs it held; how often in a row one is hit is left to chance."""
PROVE: Final = (pytest.mark.prove, pytest.mark.timeout(7200))


@pytest.mark.parametrize("runs", [2_000, pytest.param(40_000, marks=PROVE)])
async def test_no_run_is_lost_or_doubled_while_workers_are_killed(runs: int, database: str, tmp_path: Path) -> None:
    """A core that is busy answers late, and lateness must not look like death: no core has any rest."""
    campaign = Campaign(
        chosen := seed(), mixed(chosen, runs), GRAPHS, limit_s=runs / 10, burners=None, settings=BLAMELESS
    )
    toll = await rage(campaign, database, tmp_path)
    findings = assert_right(campaign, toll, database, tmp_path)
    assert findings.takeovers_s, "no run was taken from a killed worker, so nothing was shown"
    assert toll.idle.share is None or toll.idle.share <= IDLE_AT_MOST


@pytest.mark.parametrize(
    ("runs", "per_s", "every_s"),
    [(200, 6, (1.0, 3.0)), pytest.param(2_000, 12, (0.5, 1.5), marks=PROVE)],
    ids=["sample", "proof"],
)
async def test_no_run_is_lost_or_doubled_while_postgres_restarts(
    runs: int, per_s: float, every_s: tuple[float, float], own_server: Path, tmp_path: Path
) -> None:
    """No core has any rest here either: whoever is slow to come back to a new server is not dead. Nothing moves while
    restarts come faster than the time that is given for coming back, which the proof has time to sit out.
    """
    databases = Databases(partial(ensure, own_server))
    with databases.cloned() as database:
        campaign = Campaign(
            chosen := seed(), mixed(chosen, runs), GRAPHS, every_s=every_s, restart_share=0.6, per_s=per_s,
            limit_s=100 + runs / 2, burners=None, settings=BLAMELESS,
        )  # fmt: skip
        toll = await rage(campaign, database, tmp_path, restart=lambda mode: restart(own_server, mode=mode))
        assert_right(campaign, toll, database, tmp_path)
        assert toll.restarts > 0
        assert toll.idle.share is None or toll.idle.share <= IDLE_AT_MOST
    databases.close()


def assert_right(campaign: Campaign, toll: Toll, database: str, folder: Path) -> Findings:
    findings = examine(books(database), campaign.work, witnessed(folder / "witness"), toll)
    print(findings.summary(toll, len(campaign.work)))
    findings.faults += [line for line in (folder / "log").read_text().splitlines() if " ERROR " in line]
    assert not findings.faults, f"{len(findings.faults)} faults:\n" + "\n".join(findings.faults[:20])
    return findings
