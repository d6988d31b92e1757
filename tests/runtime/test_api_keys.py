"""API keys on a real database: made, used, expired, revoked, and never seen from another tenant."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from control.app import authentication
from control.core.api_key import ApiKey, Wanted, presented
from control.core.principal import PrincipalKind
from control.core.problem import Refusal
from control.policy.cedar import default_text
from control.runtime.authentication import Authentication
from control.runtime.commands import Control
from control.runtime.commands.keys import create_key, list_keys, revoke_key
from control.runtime.commands.policy import apply
from control.runtime.commands.start import start
from control.settings import Settings
from control.store.sql import read
from control.testing import clock
from control.testing.database import as_role
from control.testing.stage import Stage, staged
from tests.runtime.scenes import graphs

WANTED = Wanted(name="ci", kind=PrincipalKind.SERVICE, roles=frozenset({"service"}), scopes=frozenset({"start"}))


@asynccontextmanager
async def installation(database: str) -> AsyncIterator[tuple[Stage, Authentication]]:
    async with (
        staged(database, graphs("line"), work=False) as stage,
        authentication(Settings(), stage.app.database) as authenticated,
    ):
        yield stage, authenticated


def of(stage: Stage, tenant: str) -> Control:
    return replace(stage.control, principal=replace(stage.control.principal, tenant=tenant))


async def refused(authenticated: Authentication, key: str) -> Refusal:
    with pytest.raises(Refusal) as found:
        await authenticated.principal(key)
    assert found.value.problem.status == 401
    assert not key[21:] or key[21:] not in f"{found.value} {found.value.as_json()} {found.value!r}"
    return found.value


def rows(database: str) -> list[dict[str, Any]]:
    with psycopg.connect(database, row_factory=psycopg.rows.dict_row) as conn:
        return conn.execute("select * from control.api_key order by created_at").fetchall()


async def test_a_key_stands_for_its_principal_until_it_is_revoked(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with installation(database) as (stage, authenticated):
        key, text = await create_key(stage.control, WANTED)
        assert await authenticated.principal(text) == key.principal
        (stored,) = rows(database)
        assert (stored["created_by"], stored["used_on"]) == ("tester", key.created_at.date())
        assert text[21:] not in f"{stored} {key!r} {caplog.text}", "the secret is nowhere"

        gone = (await revoke_key(stage.control, key.key_id)).key
        assert (gone.revoked_by, gone.revoked_at is not None) == ("tester", True)
        refusal = await refused(authenticated, text)
        assert (refusal.code, refusal.why) == ("credential-expired", "The API key was revoked.")
        with pytest.raises(Refusal, match=r"tester revoked it at \d{4}-") as again:
            await revoke_key(stage.control, key.key_id)
        assert (again.value.code, again.value.problem.status) == ("key-revoked", 409)
        assert await list_keys(stage.control) == []
        assert [listed.key_id for listed, _ in await list_keys(stage.control, ended=True)] == [key.key_id]


async def test_a_key_expires(database: str) -> None:
    async with installation(database) as (stage, authenticated):
        _, text = await create_key(stage.control, replace(WANTED, lifetime=timedelta(hours=1)))
        await clock.advance(database, timedelta(minutes=59))
        assert (await authenticated.principal(text)).id == "ci"
        await clock.advance(database, timedelta(minutes=2))
        assert (await refused(authenticated, text)).why == "The API key has expired."


async def test_what_is_no_key_is_refused_alike(database: str) -> None:
    async with installation(database) as (stage, authenticated):
        _, text = await create_key(stage.control, WANTED)
        other = text[:-1] + ("A" if text[-1] != "A" else "B")
        stranger = text.replace(text[4:20], "0" * 16)
        said = {(await refused(authenticated, key)).why for key in (other, stranger, text + "x", "ctl_", "ctl_\0")}
        assert said == {"No API key has this id and this secret."}
        assert (await refused(authenticated, "Bearer")).why == "It is neither an API key nor a token (a JWT)."
        assert rows(database)[0]["used_on"] is None


async def test_scopes_are_narrower_than_roles(database: str) -> None:
    async with installation(database) as (stage, authenticated):
        wanted = replace(WANTED, roles=frozenset({"admin"}), scopes=frozenset({"start", "manage_keys"}))
        _, text = await create_key(stage.control, wanted)
        held = replace(stage.control, principal=await authenticated.principal(text))
        run = await start(held, "line", {})
        assert run.created_by == "service:ci"
        narrow = replace(WANTED, roles=frozenset({"admin"}), scopes=frozenset({"manage_keys"}))
        _, narrowed = await create_key(held, narrow)
        with pytest.raises(Refusal, match="does not stand for this") as found:
            await start(replace(held, principal=await authenticated.principal(narrowed)), "line", {})
        assert found.value.code == "not-permitted"
        for more in (None, frozenset({"start", "cancel"})):
            with pytest.raises(Refusal, match="Your own credential") as found:
                await create_key(held, replace(wanted, scopes=more))
            assert found.value.code == "api-key-unfit"
        assert len(rows(database)) == 2, "what was refused is not stored"


async def test_keys_are_managed_by_whoever_policy_permits(database: str) -> None:
    async with installation(database) as (stage, _):
        key, _ = await create_key(stage.control, WANTED)
        operator = stage.acting("operator")
        for attempt in (create_key(operator, WANTED), list_keys(operator), revoke_key(operator, key.key_id)):
            with pytest.raises(Refusal) as found:
                await attempt
            assert found.value.code == "not-permitted"
        (stored,) = rows(database)
        assert stored["revoked_at"] is None


async def test_a_key_is_revoked_with_what_was_made_with_it_and_nothing_else(database: str) -> None:
    wanted = replace(WANTED, roles=frozenset({"admin"}), scopes=None)
    async with installation(database) as (stage, authenticated):

        async def holding(text: str) -> Control:
            return replace(stage.control, principal=await authenticated.principal(text))

        first, one = await create_key(stage.control, replace(wanted, name="ana"))
        second, two = await create_key(await holding(one), wanted)
        third, three = await create_key(await holding(two), replace(wanted, name="cd"))
        beside, other = await create_key(stage.acting("admin", id="service:ana"), wanted)
        assert [key.made_with for key in (first, second, third, beside)] == [None, first.key_id, second.key_id, None]

        alone = await revoke_key(stage.control, second.key_id, only=True)
        assert (alone.besides, [key.key_id for key in alone.left]) == ([], [third.key_id])
        assert (await authenticated.principal(three)).id == "cd"
        held, whole = await holding(one), await revoke_key(stage.control, first.key_id)
        assert ([key.key_id for key in whole.besides], whole.left) == ([third.key_id], []), (
            "by way of a revoked one too"
        )
        assert whole.besides[0].revoked_by == "tester"
        for text in (one, two, three):
            assert (await refused(authenticated, text)).code == "credential-expired"
        assert (await authenticated.principal(other)).id == "ci", "it was made with none"
        with pytest.raises(Refusal, match=r"The API key was revoked\.") as late:
            await create_key(held, wanted)
        assert late.value.code == "credential-expired" and len(rows(database)) == 4, (
            "it was sent before, and is no more"
        )


async def test_what_the_rules_keep_from_being_revoked_is_left_and_named(database: str) -> None:
    wanted = replace(WANTED, roles=frozenset({"admin"}), scopes=None)
    async with installation(database) as (stage, authenticated):
        first, one = await create_key(stage.control, replace(wanted, name="ana"))
        held = replace(stage.control, principal=await authenticated.principal(one))
        kept, _ = await create_key(held, replace(wanted, name="pager"))
        gone, _ = await create_key(held, wanted)
        never = """
        @id("pager") forbid (principal, action == Action::"manage_keys", resource)
        when { resource.owner == "service:pager" };
        """
        await apply(stage.control, default_text() + never)
        done = await revoke_key(stage.control, first.key_id)
        assert ([key.key_id for key in done.besides], [key.key_id for key in done.left]) == (
            [gone.key_id],
            [kept.key_id],
        )
        with pytest.raises(Refusal, match="pager"):
            await revoke_key(stage.control, kept.key_id)
        still = await revoke_key(stage.control, first.key_id)
        assert (still.before, still.besides, [key.key_id for key in still.left]) == (True, [], [kept.key_id])
        await apply(stage.control, default_text())
        assert [key.key_id for key in (await revoke_key(stage.control, first.key_id)).besides] == [kept.key_id]
        with pytest.raises(Refusal) as told:
            await revoke_key(stage.control, first.key_id)
        assert told.value.code == "key-revoked", "nothing is left of it"


async def test_what_is_left_of_a_key_revoked_alone_goes_when_it_is_revoked_again(database: str) -> None:
    wanted = replace(WANTED, roles=frozenset({"admin"}), scopes=None)
    async with installation(database) as (stage, authenticated):

        async def made_with(text: str) -> tuple[ApiKey, str]:
            return await create_key(replace(stage.control, principal=await authenticated.principal(text)), wanted)

        first, one = await create_key(stage.control, wanted)
        second, two = await made_with(one)
        third, three = await made_with(two)
        alone = await revoke_key(stage.control, first.key_id, only=True)
        with pytest.raises(Refusal) as told:
            await revoke_key(stage.control, first.key_id, only=True)
        assert told.value.code == "key-revoked"
        assert (await authenticated.principal(three)).key == third.key_id, "each is still valid"
        await revoke_key(stage.control, second.key_id, only=True)
        rest = await revoke_key(stage.acting("admin", id="ben"), first.key_id)
        assert (rest.key.revoked_at, rest.before, rest.left) == (alone.key.revoked_at, True, [])
        assert [(key.key_id, key.revoked_by) for key in rest.besides] == [(third.key_id, "ben")]
        assert (await refused(authenticated, three)).code == "credential-expired"


async def test_a_key_of_another_tenant_is_not_there(database: str) -> None:
    async with installation(database) as (stage, authenticated):
        theirs, text = await create_key(of(stage, "theirs"), WANTED)
        assert await list_keys(of(stage, "ours")) == []
        with pytest.raises(Refusal) as found:
            await revoke_key(of(stage, "ours"), theirs.key_id)
        assert found.value.code == "no-such-key"
        assert (await authenticated.principal(text)).tenant == "theirs", "authentication finds it by the key itself"

        sent = presented(text)
        assert sent is not None
        with psycopg.connect(as_role(database, "control_command"), autocommit=True) as conn:
            conn.execute("select set_config('control.tenant', 'ours', false)")
            count = "select count(*) from control.api_key"
            assert conn.execute(count).fetchone() == (0,)
            conn.execute("select set_config('control.presented', %s, false)", ("00" * 32,))
            assert conn.execute(count).fetchone() == (0,), "the id is not enough, the digest has to fit"
            conn.execute("select set_config('control.presented', %s, false)", (sent.digest.hex(),))
            assert conn.execute(count).fetchone() == (1,), "whoever has the key may read what it stands for"
            change = conn.execute("update control.api_key set revoked_by = 'me', revoked_at = now()")
            assert change.rowcount == 0, "and no more than read"
            conn.execute("select set_config('control.tenant', 'theirs', false)")
            for column in ("digest", "roles", "scopes", "expires_at", "tenant"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    conn.execute(psycopg.sql.SQL("update control.api_key set {0} = {0}").format(_name(column)))
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute("delete from control.api_key")
            conn.execute("update control.api_key set revoked_by = 'me', revoked_at = now()")
            with pytest.raises(psycopg.Error, match="a revoked key stays revoked"):
                conn.execute("update control.api_key set revoked_by = null, revoked_at = null")
        for role in ("control_flush", "control_claim"):
            with psycopg.connect(as_role(database, role)) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute("select from control.api_key")


def test_a_key_is_found_by_its_index(database: str) -> None:
    """Among many tenants' keys; authentication happens at each request."""
    make = """
        insert into control.api_key (tenant, key_id, digest, name, kind, roles, created_by, created_at, expires_at)
        select 'tenant-' || i % 50, lpad(to_hex(i), 16, '0'), sha256(i::text::bytea), 'ci', 'service', '{service}',
               'ana', now(), now() + interval '1 day' from generate_series(1, 20000) i
    """
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(make)
        conn.execute("analyze control.api_key")
    with psycopg.connect(as_role(database, "control_command"), autocommit=True) as conn:
        conn.execute("set plan_cache_mode = force_generic_plan")
        conn.execute("select set_config('control.presented', %s, false)", ("00" * 32,))
        query = psycopg.sql.SQL("explain {}").format(psycopg.sql.SQL(read("api_keys")["presented"]))
        plan = "\n".join(line for (line,) in conn.execute(query, {"key_id": f"{77:016x}"}))  # type: ignore[arg-type]  # a query of the store
        assert "Index Scan using api_key_key_id_key" in plan, plan


def _name(column: str) -> psycopg.sql.Identifier:
    return psycopg.sql.Identifier(column)
