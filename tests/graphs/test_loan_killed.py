"""The loan's worker is killed around each commit: same decision, one charge, one mail, no recorded memo asked again."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from control.core.answer import Word
from control.core.problem import Refusal
from control.runtime.commands.decide import decide
from control.runtime.commands.start import start
from control.testing.stage import Stage, staged
from graphs.loan_approval import graph

ROOT = Path(__file__).parents[2]
Files = Callable[[str], dict[str, Any]]
Point = tuple[int, str]


async def doomed() -> asyncio.subprocess.Process:
    """A worker process that waits to be told what to do; started early, since loading takes seconds."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("doomed.py")),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def approve_when_asked(stage: Stage, run_id: Any) -> None:
    """Sit by the run, answer its question once, and leave when it has ended."""
    deadline = asyncio.get_running_loop().time() + 120
    while (status := await stage.status(run_id)).word != "succeeded":
        late = asyncio.get_running_loop().time() > deadline
        assert not late and status.word not in ("failed", "abandoned", "blocked"), status
        if status.word == "awaiting_approval":
            with suppress(Refusal):  # answered already, and not yet delivered
                await decide(stage.control, run_id, Word.APPROVED)
        await asyncio.sleep(0.02)  # a status is derived when asked for: nothing announces it


@dataclass(frozen=True)
class Outside:
    """What has happened outside so far: how many charges, letters and calls of the model."""

    charges: int
    letters: int
    memos: int

    @classmethod
    def of(cls, outside: Any) -> Outside:
        return cls(len(outside.bill()["charges"]), len(outside.mail()), outside.model_calls())


async def run_killed(stage: Stage, worker: asyncio.subprocess.Process, point: Point, *, files: Any) -> tuple[Any, int]:
    """One loan whose worker dies at the point; a second worker finishes it. Also returns the commits counted, or 0."""
    assert worker.stdin is not None and worker.stdout is not None
    await worker.stdout.readline()
    run = await start(stage.control, "loan_approval", files)
    task = {"conninfo": stage.conninfo, "at": point[0], "moment": point[1]}
    worker.stdin.write(json.dumps(task).encode() + b"\n")
    ended = asyncio.create_task(approve_when_asked(stage, run.run_id))
    died = asyncio.create_task(worker.wait())
    await asyncio.wait({ended, died}, return_when=asyncio.FIRST_COMPLETED)
    if died.done():
        assert worker.returncode == -signal.SIGKILL
        async with stage.working():
            await ended
        return run.run_id, 0
    await ended
    worker.terminate()
    await died
    return run.run_id, int(await worker.stdout.readline())


async def assert_made_once(stage: Stage, outside: Any, run_id: Any, *, before: Outside) -> None:
    """Whatever died: what is outside happened once, and the ledger says so."""
    after = Outside.of(outside)
    assert (after.charges - before.charges, after.letters - before.letters) == (1, 1), "whatever key or id they bear"
    saved = stage.app.workflows["loan_approval"].under(stage.app.saver)
    config = {"configurable": {"thread_id": (await stage.run(run_id)).thread_id}}
    values = (await saved.aget_state(config)).values
    assert values["decision"]["granted"] and values["decision"]["instalment_eur"] == 558.27
    assert [c["key"] for c in outside.bill()["charges"]].count(f"{run_id}/report/CL7-2026-004182") == 1
    assert [m["message_id"] for m in outside.mail()].count(values["letter"]["message_id"]) == 1
    story = effects(stage.conninfo, run_id)
    memos = after.memos - before.memos
    begun = [call for name, kind, call in story if (name, kind) == ("risk memo", "effect_began")]
    assert len(begun) in (memos, memos + 1), "each call is recorded before it is made"
    for name in ("credit report", "risk memo", "decision letter"):
        kinds = [kind for each, kind, _ in story if each == name]
        assert kinds == ["effect_began"] * (len(kinds) - 1) + ["effect_ended"], f"{name}: nothing after its outcome"


def effects(conninfo: str, run_id: Any) -> list[tuple[str, str, int]]:
    with psycopg.connect(conninfo) as conn:
        entries = conn.execute(
            "select kind, body from control.ledger where run_id = %s and kind like 'effect_%%' order by seq", (run_id,)
        )
        return [(body["name"], kind, body.get("call", 0)) for kind, text in entries for body in [json.loads(text)]]


async def kill_at(points: Iterable[Point], *, database: str, outside: Any, files: Any) -> tuple[int, int, int]:
    """Try each point on a run of its own, until one lies past the end.

    Returns how many workers died, how often a memo was asked for again, and the commits of an undisturbed run (or 0).
    """
    died = again = 0
    async with staged(database, {"loan_approval": graph}, work=False) as stage:
        spare = await doomed()
        for point in points:
            worker, spare = spare, await doomed()
            before = Outside.of(outside)
            run_id, commits = await run_killed(stage, worker, point, files=files)
            await assert_made_once(stage, outside, run_id, before=before)
            again += outside.model_calls() - before.memos - 1
            if commits:
                break
            died += 1
        spare.kill()
        await spare.wait()
    return died, again, commits


async def test_a_sample_of_kills_changes_nothing(*, database: str, outside: Any, files_of: Files) -> None:
    files = files_of("lindqvist")
    _, _, commits = await kill_at([(0, "never")], database=database, outside=outside, files=files)
    every = [(at, moment) for at in range(1, commits - 1) for moment in ("before", "after")]
    chance, part = random.Random(20261120), len(every) / 5
    chosen = [
        chance.choice(every[int(n * part) : int((n + 1) * part)]) for n in range(5)
    ]  # from its beginning to its end
    died, _, _ = await kill_at(chosen, database=database, outside=outside, files=files)
    assert died == len(chosen)


@pytest.mark.prove
@pytest.mark.timeout(1800)
async def test_no_kill_changes_anything(*, database: str, outside: Any, files_of: Files) -> None:
    every = ((at, moment) for at in range(1, 1000) for moment in ("before", "after"))
    died, again, commits = await kill_at(every, database=database, outside=outside, files=files_of("lindqvist"))
    print(f"{died} workers killed around {commits} commits; memos in flight at a kill and asked for again: {again}")
    assert died >= 2 * (commits - 2)
