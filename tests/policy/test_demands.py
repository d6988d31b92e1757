"""The annotations by which a rule that asks says who has to agree."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from control.core.gate import Gate, OnTimeout, Rung
from control.core.problem import Refusal
from control.core.verdict import Ask
from control.policy.cedar import CedarPolicy, default_text
from control.policy.port import Resource
from control.runtime.commands.policy import apply, history
from control.testing.stage import staged
from tests.policy.asking import agent, to

FORBID = 'forbid (principal, action == Action::"call_tool", resource);'
TOOL = Resource("Tool", "pay", "t", {"name": "pay"})


def text(annotations: str, rule: str = FORBID) -> str:
    return f'{default_text()}\n@id("large") {annotations}\n{rule}'


def asked(annotations: str) -> Ask:
    verdict = CedarPolicy(text(annotations)).decide(to("call_tool", agent("agent"), TOOL))
    assert isinstance(verdict, Ask)
    return verdict


def test_a_rule_says_who_has_to_agree_and_what_silence_comes_to() -> None:
    said = asked(
        '@ask("treasurer") @quorum("4") @seats("risk, legal: 2") @four_eyes("true") @expires("P1DT2H30M")'
        ' @ladder("PT1H: manager; P2D: director, owner") @on_timeout("escalate")'
    )
    assert said.of == ("treasurer",) and said.demanded.expires_in == timedelta(days=1, hours=2, minutes=30)
    assert said.demanded.gate == Gate(
        quorum=4,
        roles=("treasurer",),
        seats=(("legal", 2), ("risk", 1)),
        four_eyes=True,
        on_timeout=OnTimeout.ESCALATE,
        ladder=(Rung(timedelta(hours=1), ("manager",)), Rung(timedelta(days=2), ("director", "owner"))),
    )


def test_seats_alone_make_the_quorum() -> None:
    assert asked('@ask("treasurer") @seats("risk, legal")').demanded.gate.quorum == 2
    assert asked('@ask("treasurer")').demanded.gate == Gate(roles=("treasurer",))


def test_rules_that_ask_together_all_have_their_say() -> None:
    both = text('@ask("treasurer") @quorum("2")') + f'\n@id("deletions") @ask("legal")\n{FORBID}'
    verdict = CedarPolicy(both).decide(to("call_tool", agent("agent"), TOOL))
    assert isinstance(verdict, Ask) and verdict.rules == ("deletions", "large")
    assert verdict.demanded.gate == Gate(quorum=3, seats=(("legal", 1), ("treasurer", 2)))


INVALID = [
    ('@ask("a") @quorum("two")', 'large: a quorum is a number: write @quorum("2")'),
    ('@ask("a") @quorum("0")', "large: quorum counts persons, from 1 to 1000"),
    ('@ask("a") @quorum("1") @seats("b, c")', "large: more seats are kept for roles than the quorum has"),
    ('@ask("a") @seats("b: many")', "large: seats are roles, each once"),
    ('@ask("a") @seats("")', "large: seats are roles, each once"),
    ('@ask("a") @seats("b, b")', "large: seats are roles, each once"),
    ('@ask("a") @four_eyes("perhaps")', "large: four eyes are wanted or not"),
    ('@ask("a") @expires("4 hours")', "large: '4 hours' is no time: write it like \"PT4H\""),
    ('@ask("a") @expires("PT")', "large: 'PT' is no time"),
    ('@ask("a") @expires("P99999999999D")', "longer than anybody waits"),
    ('@ask("a") @ladder("soon: manager")', "large: 'soon' is no time"),
    ('@ask("a") @ladder("PT1H:")', "large: a rung of its ladder changes nothing"),
    ('@ask("a") @ladder("PT2H: b; PT1H: c")', "large: the rungs of its ladder are not in the order of their times"),
    ('@ask("a") @expires("PT1H") @ladder("PT2H: b")', "large: a rung of its ladder comes when its time is over"),
    ('@ask("a") @on_timeout("shrug")', "large: silence is a no, or calls in the rest of the ladder"),
    ('@ask("a") @on_timeout("escalate")', "large: it says what silence comes to, but its time never ends"),
    ('@ask("a") @quorom("2")', "large: nobody reads @quorom; there are @ask, @expires"),
    ('@quorum("2")', "large: @quorum says who has to agree, but the rule asks nobody: write @ask too"),
]


@pytest.mark.parametrize(("annotations", "complaint"), INVALID, ids=[each for each, _ in INVALID])
def test_what_makes_no_sense_is_a_fault_with_its_line(annotations: str, complaint: str) -> None:
    with pytest.raises(Refusal) as refused:
        CedarPolicy(text(annotations))
    assert refused.value.code == "policy-invalid" and complaint in refused.value.why
    faults: Any = refused.value.facts["faults"]
    assert [fault["line"] for fault in faults] == [default_text().count("\n") + 3]


async def test_a_text_with_a_fault_is_refused_whole_and_nothing_is_stored(database: str) -> None:
    async with staged(database, {}, work=False) as stage:
        for annotations, _ in INVALID[::6]:
            with pytest.raises(Refusal, match="nothing was stored"):
                await apply(stage.control, text(annotations))
        assert await history(stage.control, limit=9) == []
        await apply(stage.control, text('@ask("treasurer") @quorum("2")'))
        assert len(await history(stage.control, limit=9)) == 1
