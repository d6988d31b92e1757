"""Decisions under everything at once: nothing is done that was not decided by those who may, on what holds, once.

Each example drives a batch of real runs on a real database, with two workers; `tests.decisions.world` says what each
attempt must come to, and what may reach the other side. Printed: how many attempts of each kind, and what refused them.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, cast
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from control.core import answer
from control.core.problem import Refusal
from control.runtime.commands import Control
from control.runtime.commands.decide import decide
from control.runtime.commands.facts import set_fact
from control.runtime.commands.pause import pause, resume
from control.runtime.commands.policy import apply
from control.runtime.commands.start import start
from control.store.questions import open_approvals
from control.testing.clock import advance
from control.testing.stage import Stage, staged
from tests.decisions.world import (
    EXPIRY,
    NOT_BEN,
    PEOPLE,
    RULES,
    STARTER,
    STEP,
    Asked,
    Case,
    Hook,
    Which,
    Word,
    World,
    principal,
)

BATCH: Final = 8
WORDS: Final = {
    "approve": answer.Word.APPROVED, "edit": answer.Word.APPROVED, "reject": answer.Word.REJECTED,
}  # fmt: skip
TROUBLES: Final[tuple[Hook, ...]] = ("kill", "", "killed after", "", "fact")
EDITED: Final = {"amount": 2}
Attempt = tuple[str, Word, Which]
attempts: Final = st.lists(
    st.tuples(
        st.sampled_from([*PEOPLE, "ana", "cyd", "dan"]),
        st.sampled_from(["approve", "approve", "approve", "edit", "reject"]),
        st.sampled_from(["current", "current", "current", "current", "earlier", "unknown", "other packet"]),
    ),
    min_size=4,
    max_size=12,
)

SAID: Final = ("edit", "approve", "reject")
EVERYTHING: Final = cast(
    list[Attempt],
    [
        *itertools.product(PEOPLE, SAID, ["current"]),
        *itertools.product(["ana", "dan"], SAID, ["unknown", "other packet", "earlier"]),
    ],
)


@dataclass
class Site:
    """An installation that all examples share, each with runs of its own."""

    conninfo: str
    loop: asyncio.AbstractEventLoop
    world: World = field(default_factory=World)
    open: AsyncExitStack = field(default_factory=AsyncExitStack)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def do(self, what: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(what)

    async def raise_(self) -> None:
        given = {"work": False, "takeover_poll_s": 0.05, "pool_limit": 16, "worker_slots": 16}
        self.world.stage = await self.open.enter_async_context(
            staged(self.conninfo, self.world.graphs(), **given)  # type: ignore[arg-type]  # settings of several types
        )
        await apply(self.stage.control, RULES)
        for _ in range(2):
            await self.open.enter_async_context(self.stage.working())

    @property
    def stage(self) -> Stage:
        assert self.world.stage is not None
        return self.world.stage

    def acting(self, who: str) -> Control:
        return replace(self.stage.control, principal=principal(who, self.stage.control.tenant))


class Decisions(RuleBasedStateMachine):
    site: ClassVar[Site]

    def __init__(self) -> None:
        super().__init__()
        self.world, self.cases = self.site.world, list[Case]()

    def together(self, *acts: Coroutine[Any, Any, Any]) -> None:
        async def all_of() -> None:
            await asyncio.gather(*acts)

        self.site.do(all_of())

    @initialize()
    def begin(self) -> None:
        self.site.do(self._policy(strict=False))
        self.ask()

    @rule()
    def ask(self) -> None:
        """New runs take the place of those that are over."""
        self.cases = [case for case in self.cases if case.state != "over"]
        fresh = [self._start("reviewed" if n % 4 == 3 else "guarded") for n in range(BATCH - len(self.cases))]
        self.together(*fresh)

    @rule(script=attempts)
    def vote(self, script: list[Attempt]) -> None:
        turns = (n * len(script) // BATCH for n in range(BATCH))
        self.together(
            *(self._attempts(case, script[n:] + script[:n]) for n, case in zip(turns, self.cases, strict=False))
        )

    @rule(script=attempts)
    def vote_once_more(self, script: list[Attempt]) -> None:
        self.vote(script)

    @rule(two=st.permutations(["ana", "ben", "cyd", "dan"]))
    def agree(self, two: list[str]) -> None:
        """Two voices: enough, if both count."""
        self.vote([(who, "approve", "current") for who in two[:2]])

    @rule(who=st.sampled_from(list(PEOPLE)), word=st.sampled_from(["approve", "edit", "reject"]))
    def race(self, who: str, word: Word) -> None:
        """The same attempt three times at once: the others come second."""
        self.together(*(self._race(case, who, word) for case in self.cases))

    @rule(steps=st.sampled_from([1, 1, 2, 4, 6, 9]))
    def time_goes_by(self, steps: int) -> None:
        self.world.now += steps
        self.site.do(advance(self.site.conninfo, STEP * steps))
        self.together(*(self._catch_up(case) for case in self.cases))

    @rule(every=st.integers(1, 3))
    def prices_move(self, every: int) -> None:
        self.together(*(self._price(case) for case in self.cases[::every]))

    @rule(strict=st.booleans())
    def the_policy_changes(self, *, strict: bool) -> None:
        self.site.do(self._policy(strict=strict))

    @rule(order=st.permutations(["kill", "killed after", "fact", ""]))
    def trouble_is_near(self, order: list[Hook]) -> None:
        """It comes between the yes and what follows from it."""
        guarded = [case for case in self.cases if case.kind == "guarded"]
        self.world.hooks |= {case.run_id: order[n % len(order)] for n, case in enumerate(guarded)}

    @rule()
    def all_pause(self) -> None:
        self.together(*(self._pause(case) for case in self.cases))

    @rule()
    def all_go_on(self) -> None:
        self.together(*(self._resume(case) for case in self.cases))

    @invariant()
    def nothing_is_done_that_was_not_decided(self) -> None:
        for case in self.cases:
            paid = self.world.paid.get(case.run_id, [])
            assert paid == [] or (case.state == "over" and paid == case.due), (case, paid)

    def teardown(self) -> None:
        """At last everybody tries everything on every run, each from another start."""
        self.vote(EVERYTHING)
        self.all_go_on()
        self.nothing_is_done_that_was_not_decided()

    async def _start(self, kind: str) -> None:
        number = next(self.site.numbers)
        name = f"price {number}"
        self.world.prices[name] = 1
        await set_fact(self.site.stage.control, name, 1)
        run = await start(self.site.acting(STARTER), kind, {"fact": name})
        case = Case(run.run_id, name, kind)
        if kind == "guarded":
            self.world.hooks[run.run_id] = TROUBLES[number % len(TROUBLES)]
        self.cases.append(case)
        await self._asked(case)

    async def _asked(self, case: Case) -> None:
        """The question that the run has come to."""
        word = (await self.site.stage.until(case.run_id, "awaiting_approval", "succeeded", "failed", timeout_s=60)).word
        assert word == "awaiting_approval", (case, word)
        async with self.site.stage.control.transaction() as conn:
            (found,) = await open_approvals(conn, await self.site.stage.run(case.run_id))
        assert case.asked is None or found.interrupt_id != case.asked.id, "an id is of one question"
        if case.asked:
            case.earlier.append(case.asked.id)
        case.asked = Asked(found.interrupt_id, self.world.now, found.asks.fresh.get(case.fact, 1))
        case.state, case.due = "open", []

    async def _attempts(self, case: Case, script: list[Attempt]) -> None:
        for who, word, meant in script:
            which = "current" if meant == "earlier" and not case.earlier else meant
            foreseen = self.world.foresee(case, who, word, which=which)
            came = await self._attempt(case, who, word, which=which)
            self._settle(case, who, word, foreseen=foreseen, came=came)
        await self._catch_up(case)

    async def _race(self, case: Case, who: str, word: Word) -> None:
        foreseen = self.world.foresee(case, who, word, which="current")
        came = await asyncio.gather(*(self._attempt(case, who, word, which="current") for _ in range(3)))
        assert came.count("taken") == (foreseen == "taken"), (case, who, word, came)
        first = min(came, key=["taken", "answer-stale", *came].index)
        self._settle(case, who, word, foreseen=foreseen, came=first)
        await self._catch_up(case)

    def _settle(self, case: Case, who: str, word: Word, *, foreseen: str, came: str) -> None:
        assert (came == "taken") is (foreseen == "taken"), (foreseen, came, who, word, case, self.world.now)
        if foreseen == "taken":
            self.world.take(case, who, word)
        elif foreseen == "stale":
            assert came == "answer-stale", came
            case.state = "stale"

    async def _attempt(self, case: Case, who: str, word: Word, *, which: Which) -> str:
        """What it came to: `taken`, or the code of the refusal."""
        assert case.asked is not None
        target = {"earlier": case.earlier[-1:], "unknown": [uuid4().hex]}.get(which, [case.asked.id])[0]
        given: dict[str, Any] = {"interrupt_id": target} | ({"edit": EDITED} if word == "edit" else {})
        if which == "other packet":
            given["digest"] = "0" * 64
        kind = f"{word} ({which})"
        try:
            await decide(self.site.acting(who), case.run_id, WORDS[word], **given)
        except Refusal as refusal:
            self.world.counts[kind, refusal.code] += 1
            assert 400 <= refusal.problem.status < 500, refusal
            return refusal.code
        self.world.counts[kind, "taken"] += 1
        return "taken"

    async def _catch_up(self, case: Case) -> None:
        """Wait for what follows, and see that it is what has to."""
        asked = case.asked
        assert asked is not None
        if case.state == "open" and case.kind == "guarded" and self.world.now - asked.at > EXPIRY:
            case.state = "no"
            self.world.counts["silence", "denied"] += 1
        if case.paused or case.state in ("open", "over"):
            return
        if case.state == "stale" or (case.state == "yes" and case.kind == "guarded" and self.world.stopped(case)):
            self.world.counts["question", "asked again"] += 1
            await self._asked(case)
            return
        word = (await self.site.stage.until(case.run_id, "succeeded", "failed", timeout_s=60)).word
        assert word == "succeeded", (case, word)
        assert self.world.paid.get(case.run_id, []) == case.due, (case, self.world.paid.get(case.run_id))
        self.world.counts["run", "paid" if case.due else "not paid"] += 1
        case.state = "over"

    async def _price(self, case: Case) -> None:
        self.world.prices[case.fact] += 1
        await set_fact(self.site.stage.control, case.fact, self.world.prices[case.fact])

    async def _policy(self, *, strict: bool) -> None:
        await apply(self.site.stage.control, NOT_BEN if strict else RULES)
        self.world.strict = strict

    async def _pause(self, case: Case) -> None:
        if case.state == "open" and not case.paused:
            await pause(self.site.stage.control, case.run_id)
            case.paused = True

    async def _resume(self, case: Case) -> None:
        if case.paused:
            await resume(self.site.stage.control, case.run_id)
            case.paused = False
            await self._catch_up(case)


QUICK: Final = settings(
    max_examples=12, stateful_step_count=25, deadline=None, database=None, print_blob=True,
    phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck),
)  # fmt: skip
FULL: Final = settings(QUICK, max_examples=400, stateful_step_count=60)


@pytest.fixture
def site(database: str) -> Iterator[Site]:
    with asyncio.Runner() as runner:
        found = Site(database, runner.get_loop())
        found.do(found.raise_())
        yield found
        found.do(found.open.aclose())


def tried(world: World, conninfo: str) -> int:
    """How many attempts there were. Prints what became of them, and holds the count to the ledger's."""
    decided = Counter({k: n for k, n in world.counts.items() if k[0].split()[0] in ("approve", "reject", "edit")})
    for (kind, came), n in sorted(world.counts.items()):
        print(f"{n:>8,}  {kind:<24} {came}")
    with psycopg.connect(conninfo) as conn:
        row = conn.execute("select count(*) from control.effect where state <> 'done'").fetchone()
    assert row == (0,), "an effect was begun and left"
    return decided.total()


def test_only_what_was_decided_is_done(site: Site) -> None:
    machine = type("Machine", (Decisions,), {"site": site})
    run_state_machine_as_test(machine, settings=QUICK)
    assert tried(site.world, site.conninfo) > 1_000


@pytest.mark.prove
def test_a_million_attempts(site: Site) -> None:
    machine = type("Machine", (Decisions,), {"site": site})
    while sum(n for (kind, _), n in site.world.counts.items() if "(" in kind) < 1_000_000:
        run_state_machine_as_test(machine, settings=FULL)
    assert tried(site.world, site.conninfo) >= 1_000_000
