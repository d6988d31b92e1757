"""Whoever made a key may be who uses it: what takes two persons is not done by one with keys in others' names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from uuid import UUID

import pytest

from control.app import authentication
from control.core.answer import Word
from control.core.api_key import Wanted
from control.core.principal import PrincipalKind
from control.core.story import tell
from control.runtime.commands import Control
from control.runtime.commands.decide import decide
from control.runtime.commands.delegate import voters
from control.runtime.commands.keys import create_key
from control.runtime.commands.start import start
from control.settings import Settings
from control.testing.stage import Stage, staged
from tests.runtime.test_votes import HOUR, assert_books_balance, gated, of_kind, refused

KeyOf = Callable[..., Awaitable[Control]]
PERSON = PrincipalKind.PERSON


async def keyring(stage: Stage, stack: AsyncExitStack) -> KeyOf:
    """Makes a key in somebody's name, and gives the commands as whoever sends it gives them."""
    authenticated = await stack.enter_async_context(authentication(Settings(), stage.app.database))

    async def key_of(maker: Control, name: str, kind: PrincipalKind = PERSON, *roles: str) -> Control:
        wanted = Wanted(name=name, kind=kind, roles=frozenset(roles or {"admin"}), lifetime=HOUR)
        _, text = await create_key(maker, wanted)
        return replace(stage.control, principal=await authenticated.principal(text))

    return key_of


async def asked_by(control: Control, stage: Stage) -> UUID:
    """A run of theirs, waiting at its gate."""
    run = await start(control, "pay", {})
    await stage.until(run.run_id, "awaiting_approval")
    return run.run_id


@pytest.mark.parametrize(("name", "kind"), [("bob", PERSON), ("ci", PrincipalKind.SERVICE)])
async def test_four_eyes_are_not_one_persons_two_keys(name: str, kind: PrincipalKind, database: str) -> None:
    async with staged(database, {"pay": gated(four_eyes=True)}) as stage, AsyncExitStack() as stack:
        key_of, alice = await keyring(stage, stack), stage.acting("admin", id="alice")
        other = await key_of(alice, name, kind)
        other_by_other = await key_of(other, "carol")
        run_id = await asked_by(alice, stage)
        for puppet in (other, other_by_other):
            with refused("not-entitled", "alice has had the key in hand with which"):
                await decide(puppet, run_id, Word.APPROVED)
        await decide(stage.acting("admin", id="bob"), run_id, Word.APPROVED)

        theirs = await asked_by(other_by_other, stage)
        for starter in (alice, other, other_by_other, await key_of(alice, "dave")):
            with refused("not-entitled", "Four eyes are wanted here"):
                await decide(starter, theirs, Word.APPROVED)
        await decide(await key_of(stage.acting("admin", id="erin"), "frank"), theirs, Word.APPROVED)
        for done in (run_id, theirs):
            await stage.until(done, "succeeded")
    assert_books_balance(database)


async def test_a_quorum_is_of_persons_and_not_of_keys(database: str) -> None:
    async with staged(database, {"pay": gated(quorum=2)}) as stage, AsyncExitStack() as stack:
        key_of, alice = await keyring(stage, stack), stage.acting("admin", id="alice")
        bob, carol = await key_of(alice, "bob"), await key_of(alice, "carol")
        run_id = await asked_by(stage.control, stage)
        await decide(bob, run_id, Word.APPROVED)
        for puppet in (alice, carol, bob):
            with refused("voted-already", "said yes at .* counts once"):
                await decide(puppet, run_id, Word.APPROVED)
        (vote,) = of_kind(stage, run_id, "voted")
        assert (vote.actor, vote.body["via"], vote.body["request"]["principal"]["makers"]) == (
            "bob",
            ["alice"],
            ["alice"],
        )
        told = [sentence.text for sentence in tell(stage.ledger(run_id))]
        assert any("Bob voted yes" in text and "with a key that was made by Alice" in text for text in told), told
        await decide(stage.acting("admin", id="carol"), run_id, Word.APPROVED)
        await stage.until(run_id, "succeeded")
    assert_books_balance(database)


async def test_a_key_of_ones_own_is_nobody_elses(database: str) -> None:
    async with staged(database, {"pay": gated(four_eyes=True)}, work=False) as stage, AsyncExitStack() as stack:
        own = await (await keyring(stage, stack))(stage.acting("admin", id="alice"), "alice")
        assert own.principal.makers == frozenset()
        async with own.transaction() as conn:
            (speaker,) = await voters(own, conn)
        assert speaker.persons == {"alice"}
