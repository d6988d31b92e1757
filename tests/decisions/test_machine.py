"""Decisions under everything at once: nothing is done that was not decided by those who may, on what holds, once.

Each example drives a batch of real runs on a real database, with two worker processes that are killed; what each
attempt must come to, and what may be paid, says `tests.decisions.world`. Printed: how many attempts of each kind, what
became of them, and what the ledger says of everything else.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import tempfile
from collections import Counter
from contextlib import ExitStack
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, ClassVar, Final
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from control.core import answer
from control.core.problem import Refusal
from control.policy.cedar import default_text
from control.runtime.commands.decide import decide
from control.runtime.commands.delegate import delegate, delegations, revoke
from control.runtime.commands.facts import set_fact
from control.runtime.commands.pause import pause, resume
from control.runtime.commands.policy import apply
from control.runtime.commands.start import start
from control.store.questions import open_approvals
from control.testing.clock import advance
from control.testing.database import Databases
from tests.decisions import crew
from tests.decisions.outside import Trouble
from tests.decisions.site import Site, raised
from tests.decisions.world import EXPIRY, PEOPLE, STARTER, STEP, Asked, Attempt, Case, Word, World

BATCH: Final = 8
WORDS: Final = {
    "approve": answer.Word.APPROVED, "edit": answer.Word.APPROVED, "reject": answer.Word.REJECTED,
}  # fmt: skip
TROUBLES: Final[tuple[Trouble, ...]] = ("killed before", "", "deposed", "", "fact moved", "", "killed after", "", "")
EDITED: Final = {"amount": 2}
RULES: Final = (
    default_text() + '@id("bosses") permit (principal in Role::"boss", action == Action::"approve", resource);'
)
NOT_BEN: Final = RULES + '@id("not-ben") forbid (principal == Person::"ben", action == Action::"approve", resource);'
attempts: Final = st.lists(
    st.builds(
        Attempt,
        st.sampled_from([*PEOPLE, "ana", "cyd", "dan"]),
        st.sampled_from(["approve", "approve", "approve", "edit", "reject"]),
        st.sampled_from(["current", "current", "current", "current", "earlier", "unknown", "other packet"]),
        st.sampled_from([None, None, None, "ana", "ben", "sam"]),
    ),
    min_size=4,
    max_size=12,
)

SAID: Final[tuple[Word, ...]] = ("edit", "approve", "reject")
EVERYTHING: Final = [
    Attempt(*said)  # type: ignore[arg-type]  # a product loses its literals
    for said in itertools.chain(
        itertools.product(PEOPLE, SAID, ["current"]),
        itertools.product(["ana", "dan"], SAID, ["unknown", "other packet", "earlier"]),
        itertools.product(["cyd", "dan"], SAID, ["current"], ["ana", "ben"]),
    )
]


class Decisions(RuleBasedStateMachine):
    site: ClassVar[Site]

    def __init__(self) -> None:
        super().__init__()
        self.world, self.cases = self.site.world, list[Case]()
        self.together = self.site.together

    @initialize()
    def begin(self) -> None:
        self.site.do(self._policy(strict=False))
        self.lend("ana", "dan", 2.5)
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
        self.vote([Attempt(who, "approve") for who in two[:2]])

    @rule(who=st.sampled_from(list(PEOPLE)), word=st.sampled_from(SAID))
    def race(self, who: str, word: Word) -> None:
        """The same attempt three times at once: the others come second."""
        self.together(*(self._race(case, Attempt(who, word)) for case in self.cases))

    @rule(giver=st.sampled_from(list(PEOPLE)), taker=st.sampled_from(list(PEOPLE)), steps=st.sampled_from([0.5, 2.5]))
    def lend(self, giver: str, taker: str, steps: float) -> None:
        """From now on, and as long as this, somebody may vote in another's place."""
        self.site.do(self._lend(giver, taker, steps))

    @rule()
    def take_back(self) -> None:
        self.site.do(self._take_back())

    @rule(steps=st.sampled_from([1, 1, 2, 4, 6, 9]))
    def time_goes_by(self, steps: int) -> None:
        self.world.now += steps
        self.site.do(advance(self.site.conninfo, STEP * steps))
        self.world.counts["world", "time goes by"] += 1
        self.together(*(self._catch_up(case) for case in self.cases))

    @rule(every=st.integers(1, 3))
    def prices_move(self, every: int) -> None:
        self.together(*(self._price(case) for case in self.cases[::every]))

    @rule(strict=st.booleans())
    def the_policy_changes(self, *, strict: bool) -> None:
        self.site.do(self._policy(strict=strict))

    @rule(order=st.permutations(["killed before", "killed after", "fact moved", "deposed", "", ""]))
    def trouble_is_near(self, order: list[Trouble]) -> None:
        """It comes between the yes and what follows from it."""
        for n, case in enumerate(case for case in self.cases if case.kind == "guarded"):
            self.world.plan(case.run_id, order[n % len(order)])

    @rule(victim=st.integers(0, crew.WORKERS - 1))
    def a_worker_is_killed(self, victim: int) -> None:
        """Whatever it does at the moment: runs have just been woken."""
        self.site.workers.members[victim].kill()
        self.world.counts["world", "worker killed at random"] += 1
        crew.refill(self.site.workers)

    @rule()
    def all_pause(self) -> None:
        self.together(*(self._pause(case) for case in self.cases))

    @rule()
    def all_go_on(self) -> None:
        self.together(*(self._resume(case) for case in self.cases))

    @invariant()
    def nothing_is_done_that_was_not_decided(self) -> None:
        for case in self.cases:
            paid = self.world.outside.paid(case.run_id)
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
            self.world.plan(run.run_id, TROUBLES[number % len(TROUBLES)])
        self.cases.append(case)
        await self._asked(case)

    async def _asked(self, case: Case) -> None:
        """The question that the run has come to."""
        await self.site.until(case.run_id, "awaiting_approval")
        if self.world.planned.get(case.run_id) == "fact moved":
            self.world.prices[case.fact] = await self.site.price(case.fact)
            self.world.planned[case.run_id] = self.world.outside.planned(case.run_id)
        async with self.site.stage.control.transaction() as conn:
            (found,) = await open_approvals(conn, await self.site.stage.run(case.run_id))
        assert case.asked is None or found.interrupt_id != case.asked.id, "an id is of one question"
        if case.asked:
            case.earlier.append(case.asked.id)
        now = self.world.prices[case.fact]
        shown = found.asks.fresh[case.fact] if case.kind == "guarded" else now
        assert shown in (now, case.asked and case.asked.price), "an effect asks again as its node had asked before"
        case.asked = Asked(found.interrupt_id, self.world.now, shown)
        case.state, case.due = "open", []
        self.world.counts["question", "asked"] += 1

    async def _attempts(self, case: Case, script: list[Attempt]) -> None:
        for tried in script:
            meant = tried._replace(which="current") if tried.which == "earlier" and not case.earlier else tried
            foreseen = self.world.foresee(case, meant)
            self._settle(case, meant, foreseen=foreseen, came=await self._attempt(case, meant))
        await self._catch_up(case)

    async def _race(self, case: Case, made: Attempt) -> None:
        foreseen = self.world.foresee(case, made)
        came = await asyncio.gather(*(self._attempt(case, made) for _ in range(3)))
        assert came.count("taken") == (foreseen == "taken"), (case, made, came)
        first = min(came, key=["taken", "answer-stale", *came].index)
        self._settle(case, made, foreseen=foreseen, came=first)
        await self._catch_up(case)

    def _settle(self, case: Case, made: Attempt, *, foreseen: str, came: str) -> None:
        assert (came == "taken") is (foreseen == "taken"), (foreseen, came, made, case, self.world.now)
        if foreseen == "taken":
            self.world.take(case, made)
        elif foreseen == "stale":
            assert came == "answer-stale", came
            case.state = "stale"

    async def _attempt(self, case: Case, made: Attempt) -> str:
        """What it came to: `taken`, or the code of the refusal."""
        assert case.asked is not None
        target = {"earlier": case.earlier[-1:], "unknown": [uuid4().hex]}.get(made.which, [case.asked.id])[0]
        given: dict[str, Any] = {"interrupt_id": target, "on_behalf_of": made.of}
        if made.word == "edit":
            given["edit"] = EDITED
        if made.which == "other packet":
            given["digest"] = "0" * 64
        came = "taken"
        try:
            await decide(self.site.acting(made.who), case.run_id, WORDS[made.word], **given)
        except Refusal as refusal:
            assert 400 <= refusal.problem.status < 500, refusal
            came = refusal.code
        about = made.which if made.of in (None, made.who) else f"{made.which}, for another"
        self.world.counts[f"{made.word} ({about})", came] += 1
        self.world.attempts += 1
        return came

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
            await self._asked(case)
            return
        await self.site.until(case.run_id, "succeeded")
        paid = self.world.outside.paid(case.run_id)
        assert paid == case.due, (case, paid)
        self.world.counts["run", "paid" if case.due else "not paid"] += 1
        case.state = "over"

    async def _price(self, case: Case) -> None:
        self.world.prices[case.fact] += 1
        await set_fact(self.site.stage.control, case.fact, self.world.prices[case.fact])
        self.world.counts["world", "price moves"] += 1

    async def _policy(self, *, strict: bool) -> None:
        await apply(self.site.stage.control, NOT_BEN if strict else RULES)
        self.world.counts["world", "policy changes"] += self.world.strict != strict
        self.world.strict = strict

    async def _lend(self, giver: str, taker: str, steps: float) -> None:
        """Whoever may decide may lend. Of several loans the one counts that ends last."""
        at = await self.site.clock()
        try:
            await delegate(self.site.acting(giver), taker, ends_at=at + STEP * steps)
        except Refusal as refusal:
            assert giver == taker or "approver" not in PEOPLE[giver], refusal
            self.world.counts["lend", refusal.code] += 1
        else:
            assert giver != taker and "approver" in PEOPLE[giver], (giver, taker)
            ends = self.world.now + steps
            self.world.lent[giver, taker] = max(ends, self.world.lent.get((giver, taker), 0))
            self.world.counts["lend", "lent"] += 1

    async def _take_back(self) -> None:
        for held in await delegations(self.site.stage.control):
            await revoke(self.site.acting(held.giver), held.delegation_id)
            self.world.counts["lend", "taken back"] += 1
        self.world.lent.clear()

    async def _pause(self, case: Case) -> None:
        if case.state == "open" and not case.paused:
            await pause(self.site.stage.control, case.run_id)
            case.paused = True
            self.world.counts["run", "paused"] += 1

    async def _resume(self, case: Case) -> None:
        if case.paused:
            await resume(self.site.stage.control, case.run_id)
            case.paused = False
            await self._catch_up(case)


QUICK: Final = settings(
    max_examples=6, stateful_step_count=25, deadline=None, database=None, print_blob=True,
    phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck),
)  # fmt: skip
FULL: Final = settings(QUICK, max_examples=20, stateful_step_count=50, derandomize=False)
MILLION: Final = 1_000_000
CORES: Final = os.cpu_count() or 1


def tried(site: Site, how: settings) -> Counter[tuple[str, str]]:
    """Some more examples. Returns what came of all of them so far."""
    run_state_machine_as_test(type("Machine", (Decisions,), {"site": site}), settings=how)
    return counted(site.world, site.conninfo)


def counted(world: World, conninfo: str) -> Counter[tuple[str, str]]:
    """All that was counted: by the test, outside, and by the ledger, which must agree on what was taken."""
    counts = Counter(world.counts) + Counter({("trouble", what): n for what, n in world.outside.troubles().items()})
    with psycopg.connect(conninfo) as conn:
        left = conn.execute("select count(*) from control.effect where state <> 'done'").fetchone()
        ledger = dict(conn.execute("select kind, count(*) from control.ledger group by kind").fetchall())
        (taken,) = conn.execute(_TAKEN).fetchone() or (0,)
    assert left == (0,), "an effect was begun and left"
    assert taken == sum(n for (_, came), n in counts.items() if came == "taken")
    return counts + Counter({("ledger", kind): n for kind, n in ledger.items()})


_TAKEN: Final = """
select count(*) from control.ledger taken where kind = 'voted' or kind = 'decided' and actor <> 'clock' and not exists (
    select from control.ledger vote
    where vote.run_id = taken.run_id and vote.seq = taken.seq - 1 and vote.kind = 'voted')
"""
"""The yeses and noes in the ledger: a decision that follows its last vote is one with it."""


def told(counts: Counter[tuple[str, str]]) -> str:
    return "\n".join(f"{n:>9,}  {kind:<36} {came}" for (kind, came), n in sorted(counts.items()))


def attempts_in(counts: Counter[tuple[str, str]]) -> int:
    return sum(n for (kind, _), n in counts.items() if kind.split()[0] in SAID)


LIKELY: Final = (
    ("approve (current)", "taken"), ("reject (current)", "taken"), ("approve (current)", "already-decided"),
    ("approve (current)", "not-permitted"), ("approve (current)", "not-entitled"), ("run", "paid"), ("run", "not paid"),
)  # fmt: skip
"""What thousands of attempts must have met, or they have shown nothing of it."""
CERTAIN: Final = (
    *LIKELY, ("edit (current)", "taken"), ("approve (current, for another)", "taken"), ("lend", "lent"),
    ("approve (current)", "answer-stale"), ("approve (current)", "answer-late"), ("approve (current)", "voted-already"),
    ("silence", "denied"), ("world", "policy changes"), ("world", "price moves"), ("run", "paused"),
    ("ledger", "worker_lost"),
    ("trouble", "killed before"), ("trouble", "killed after"), ("trouble", "deposed"), ("trouble", "fact moved"),
    ("ledger", "escalated"), ("ledger", "expired"), ("ledger", "stale"), ("ledger", "delegated"),
)  # fmt: skip
"""What a million must have met."""


def test_only_what_was_decided_is_done(database: str, tmp_path: Path) -> None:
    with raised(database, tmp_path) as site:
        counts = tried(site, QUICK)
    print(f"\n{told(counts)}")
    assert attempts_in(counts) > 1_000
    assert {kind for kind in LIKELY if not counts[kind]} == set()


def shard(conninfo: str, wanted: int, says: Connection) -> None:
    """The life of a process that tries so often; says now and then what came of it so far."""
    with tempfile.TemporaryDirectory(prefix="decisions") as folder, raised(conninfo, Path(folder)) as site:
        while site.world.attempts < wanted:
            says.send(tried(site, FULL))


@pytest.mark.prove
@pytest.mark.timeout(6 * 3600)
def test_a_million_attempts(databases: Databases) -> None:
    """As many processes as there are cores, each on a database of its own."""
    context, found = multiprocessing.get_context("spawn"), dict[Connection, Counter[tuple[str, str]]]()
    with ExitStack() as stack:
        for _ in range(CORES):
            hears, says = context.Pipe(duplex=False)
            conninfo = stack.enter_context(databases.cloned())
            context.Process(target=shard, args=(conninfo, MILLION // CORES, says)).start()
            says.close()
            found[hears] = Counter()
        open_ends = set(found)
        while open_ends:
            for hears in wait(list(open_ends)):
                assert isinstance(hears, Connection)
                try:
                    found[hears] = hears.recv()
                except EOFError:  # it has ended
                    open_ends.remove(hears)
                counts = sum(found.values(), Counter[tuple[str, str]]())
                print(f"\n{told(counts)}\n{attempts_in(counts):>9,} attempts", flush=True)
    assert attempts_in(counts) >= MILLION
    assert {kind for kind in CERTAIN if not counts[kind]} == set()
