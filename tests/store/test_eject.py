"""Leaving: what is ejected is plain LangGraph's, goes on under its stock saver, and can come back."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.types import Command

from control.core.problem import Refusal
from control.runtime.commands.start import start
from control.store.database import Address, Database
from control.store.doctor import checks
from control.store.migrations import migrate
from control.store.upkeep import eject
from control.testing.database import as_role
from control.testing.stage import staged
from tests.store.holding import execute
from tests.store.test_tenants import asking

TABLES = ["checkpoints", "checkpoint_blobs", "checkpoint_writes"]


async def asked(conninfo: str) -> str:
    """A governed run that waits for an answer; its thread."""
    async with staged(conninfo, {"ask": asking().compile()}) as stage:
        run = await start(stage.control, "ask", {"log": ["governed"]})
        await stage.until(run.run_id, "awaiting_input")
    return run.thread_id


async def answered_by_plain_langgraph(conninfo: str, thread: str) -> Any:
    async with AsyncPostgresSaver.from_conn_string(conninfo) as saver:
        await saver.setup()
        config: Any = {"configurable": {"thread_id": thread}}
        return await asking().compile(checkpointer=saver).ainvoke(Command(resume="yes"), config)


@pytest.mark.parametrize("schema", [False, True])
async def test_a_stock_saver_goes_on_with_an_ejected_thread(database: str, schema: bool) -> None:
    """As an owner who is no superuser: what is in the way shows."""
    thread = await asked(database)
    assert eject(database, schema=schema) == TABLES
    execute(database, "drop role if exists control_test_leaver")
    execute(database, "create role control_test_leaver login")
    execute(database, "grant usage, create on schema public to control_test_leaver")
    try:
        for table in [*TABLES, "checkpoint_migrations"]:
            execute(database, f"alter table {table} owner to control_test_leaver")
        plain = as_role(database, "control_test_leaver")
        assert await answered_by_plain_langgraph(plain, thread) == {"log": ["governed", "yes"]}
    finally:
        execute(database, "reassign owned by control_test_leaver to current_user")
        execute(database, "drop owned by control_test_leaver")
        execute(database, "drop role control_test_leaver")


@pytest.mark.parametrize("schema", [False, True])
def test_nothing_of_ours_is_left_on_langgraphs_tables(database: str, schema: bool) -> None:
    public = "relnamespace = 'public'::regnamespace and relkind = 'r'"
    assert len(execute(database, f"select 1 from pg_class where {public} and relrowsecurity")) == len(TABLES)
    eject(database, schema=schema)
    ours = f"select relname from pg_class where {public} and (relrowsecurity or relacl::text like '%control%')"
    assert execute(database, ours) == []
    assert execute(database, "select 1 from pg_policies where schemaname = 'public'") == []
    assert bool(execute(database, "select 1 from pg_namespace where nspname = 'control'")) is not schema


async def test_an_ejected_database_is_not_worked_in_until_it_is_migrated_again(database: str) -> None:
    thread = await asked(database)
    eject(database, schema=False)
    address = Address.of(database, login=True)
    assert [check.says for check in checks(address) if not check.holds] == [
        "missing on checkpoint_blobs, checkpoint_writes, checkpoints"
    ]
    with pytest.raises(Refusal, match="ejected") as refused:
        await Database(address).open()
    assert refused.value.code == "schema-older"
    assert migrate(database) == []
    assert all(check.holds for check in checks(address))
    async with staged(database, {"ask": asking().compile()}) as stage:
        await stage.until(execute(database, "select run_id from control.run")[0][0], "awaiting_input")
        found = await stage.app.saver.aget_tuple({"configurable": {"thread_id": thread}})
        assert found is not None


async def test_nothing_is_ejected_under_a_living_worker(database: str) -> None:
    async with staged(database, {"ask": asking().compile()}) as stage:
        assert stage.worker is not None
        await stage.worker.swept.wait()
        with pytest.raises(Refusal, match="1 of them hold a sign of life") as refused:
            eject(database, schema=True)
    assert refused.value.code == "work-goes-on"
    assert execute(database, "select relrowsecurity from pg_class where relname = 'checkpoints'") == [(True,)]


def test_where_we_never_were_there_is_nothing_to_eject(empty_database: str) -> None:
    assert eject(empty_database, schema=True) == []
