"""A real PgBouncer in front of the server: refused as the only address, used for commands beside a direct one."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypedDict
from uuid import UUID

import psycopg
import pytest
from langgraph.graph import START, StateGraph
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from control.app import address, opened
from control.core.answer import Word
from control.core.problem import Refusal
from control.runtime.commands import Control
from control.runtime.commands.decide import decide
from control.runtime.commands.start import start
from control.runtime.workflows import describe
from control.sdk import approval
from control.settings import Settings
from control.store.database import Address, Database
from control.testing.stage import Stage, tester
from tests.store.holding import claimed, execute

BINARY: Final = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
ROLES: Final = ("control_command", "control_flush", "control_claim")
SERVERS: Final = 2  # fewer than the clients of every test, so that they take turns

pytestmark = pytest.mark.skipif(BINARY is None, reason="pgbouncer is missing; on Debian: apt-get install pgbouncer")


@dataclass(frozen=True)
class Pooler:
    """`conninfo` leads to the test's database through it, `direct` past it."""

    conninfo: str
    direct: str
    process: subprocess.Popen[bytes]

    def transactions(self) -> int:
        """How many it has passed on to the test's database."""
        name = conninfo_to_dict(self.direct)["dbname"]
        with psycopg.connect(make_conninfo(self.conninfo, dbname="pgbouncer"), autocommit=True) as conn:
            cursor = conn.execute("show stats_totals")
            columns = [column.name for column in cursor.description or ()]
            rows = [dict(zip(columns, row, strict=True)) for row in cursor]
        return sum(int(row["xact_count"]) for row in rows if row["database"] == name)


def account(given: dict[str, Any]) -> dict[str, Any]:
    """Whom it runs as, since it refuses to be root: the owner of the server's socket, who alone may reach that."""
    if os.geteuid() != 0:
        return {}
    host = Path(str(given["host"]))
    owner = host.stat() if host.is_absolute() else None
    return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if owner else {"user": "nobody"}


def configured(folder: Path, given: dict[str, Any], user: str) -> Path:
    """The configuration of one that pools whole transactions, and trusts whoever reaches its socket."""
    users = folder / "users.txt"
    users.write_text("".join(f'"{name}" ""\n' for name in (user, *ROLES)))
    server = {"host": given["host"], "port": given.get("port", 5432), "dbname": given["dbname"]}
    server |= {"password": given["password"]} if "password" in given else {}
    file = folder / "pgbouncer.ini"
    file.write_text(
        f"""[databases]
{given["dbname"]} = {" ".join(f"{key}={value}" for key, value in server.items())}
[pgbouncer]
listen_port = 6432
unix_socket_dir = {folder}
pool_mode = transaction
default_pool_size = {SERVERS}
auth_type = trust
auth_file = {users}
admin_users = {user}
logfile = {folder / "log"}
"""
    )
    return file


@pytest.fixture
def pooler(database: str) -> Iterator[Pooler]:
    assert BINARY is not None
    given = conninfo_to_dict(database)
    user = str(given.get("user", "postgres"))
    folder = Path(tempfile.mkdtemp(prefix="control-pooler-"))  # a short path that another account may enter
    process = None
    try:
        file = configured(folder, given, user)
        whose = account(given)
        if whose:
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, user=whose["user"])
        process = subprocess.Popen([BINARY, "--quiet", str(file)], stderr=subprocess.DEVNULL, **whose)
        conninfo = make_conninfo(host=str(folder), port=6432, user=user, dbname=given["dbname"])
        until_serving(process, conninfo, folder)
        yield Pooler(conninfo, database, process)
    finally:
        if process is not None:
            process.kill()
            process.wait()
        shutil.rmtree(folder)


def until_serving(process: subprocess.Popen[bytes], conninfo: str, folder: Path) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            return psycopg.connect(conninfo).close()
        except psycopg.OperationalError as error:
            log = (folder / "log").read_text() if (folder / "log").exists() else ""
            assert process.poll() is None and time.monotonic() < deadline, f"{error}\n{log}"
            time.sleep(0.02)


class State(TypedDict):
    to: str


def asking() -> Any:
    def ask(state: State) -> State:
        decision = approval("Send it?", action={"to": state["to"]}, on_yes="It is sent.", on_no="Nobody gets it.")
        return {"to": state["to"] if decision.approved else "nobody"}

    graph = StateGraph(State)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    return graph.compile()


@asynccontextmanager
async def staged_behind(pooler: Pooler, *, login: bool) -> AsyncIterator[Stage]:
    """A worker and commands, the two addresses taken from the settings where the roles do not log in themselves."""
    given = Settings(database_url=pooler.conninfo, database_direct_url=pooler.direct, poll_s=0.1, takeover_poll_s=0.1)
    where = Address.of(pooler.conninfo, pooler.direct, login=True) if login else address(given)
    assert (where.main, where.direct) == (pooler.conninfo, pooler.direct)
    async with opened(given, where, {"asking": describe("asking", asking())}) as app:
        stage = Stage(app, app.control(principal=tester(), workflows=True), pooler.direct)
        async with stage.working():
            yield stage


@pytest.mark.parametrize("role", [None, *ROLES])
async def test_a_pooler_as_the_only_address_is_refused(pooler: Pooler, role: str | None) -> None:
    conninfo = pooler.conninfo if role is None else make_conninfo(pooler.conninfo, user=role)
    with pytest.raises(Refusal) as refused:
        await Database(Address.of(conninfo)).open()
    assert refused.value.code == "address-is-a-pooler"
    assert refused.value.lines() == (
        "The database address leads to a connection pooler",
        "The session is served by another process than the one that answered.",
        "Set DATABASE_DIRECT_URL to the server's own address; locks and notifications need a session there.",
    )


async def test_a_pooler_named_as_the_direct_address_is_refused_too(pooler: Pooler) -> None:
    with pytest.raises(Refusal) as refused:
        await Database(Address.of(pooler.direct, pooler.conninfo)).open()
    assert refused.value.code == "address-is-a-pooler"


@pytest.mark.parametrize("login", [False, True], ids=["one login", "a login for each role"])
async def test_runs_are_started_decided_and_finished_through_a_pooler(pooler: Pooler, login: bool) -> None:
    """More commands at once than the pooler has servers, so that each of their transactions may meet another one."""
    async with staged_behind(pooler, login=login) as stage:
        before = pooler.transactions()
        control = stage.control
        started = await asyncio.gather(*(start(control, "asking", {"to": f"person-{n}"}) for n in range(12)))
        assert pooler.transactions() >= before + 12, "the commands went through it"
        for run in started:
            await stage.until(run.run_id, "awaiting_approval")
        told = await asyncio.gather(*(both_words(control, run.run_id) for run in started))
        assert [sorted(map(str, one)) for one in told] == [["None", "refused"]] * 12, "of two words at once, one counts"
        for run in started:
            await stage.until(run.run_id, "succeeded")
            assert [kind for kind in stage.kinds(run.run_id) if kind in ("accepted", "asked", "decided", "ended")] == [
                "accepted", "asked", "ended", "decided", "ended"
            ]  # fmt: skip


async def both_words(control: Control, run_id: UUID) -> list[str | None]:
    async def say(word: Word) -> str | None:
        try:
            await decide(control, run_id, word)
        except Refusal as refusal:
            assert refusal.code in ("already-decided", "verb-not-legal")  # the latter where the run has gone on already
            return "refused"
        return None

    return await asyncio.gather(say(Word.APPROVED), say(Word.REJECTED))


@pytest.mark.parametrize("login", [False, True], ids=["one login", "a login for each role"])
async def test_tenants_that_share_a_poolers_sessions_do_not_see_each_other(pooler: Pooler, login: bool) -> None:
    tenants = [f"tenant-{n}" for n in range(8)]
    for tenant in tenants:
        claimed(pooler.direct, tenant=tenant)
    async with staged_behind(pooler, login=login) as stage:

        async def seen(tenant: str) -> set[str]:
            async with replace(stage.control, principal=tester(tenant)).transaction() as conn:
                rows = await (await conn.execute("select tenant from control.run")).fetchall()
                return {row["tenant"] for row in rows}

        for _ in range(5):
            assert await asyncio.gather(*map(seen, tenants)) == [{tenant} for tenant in tenants]
    with psycopg.connect(make_conninfo(pooler.conninfo, user="control_command")) as conn:
        assert conn.execute("select count(*) from control.run").fetchone() == (0,), "no tenant is left in a session"


async def test_without_its_pooler_a_command_is_refused_and_what_runs_goes_on_writing(pooler: Pooler) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def hold(state: State) -> State:
        entered.set()
        await leave.wait()
        return state

    graph = StateGraph(State)
    graph.add_node("hold", hold)
    graph.add_node("after", lambda state: state)
    graph.add_edge(START, "hold")
    graph.add_edge("hold", "after")
    where = Address.of(pooler.conninfo, pooler.direct)
    async with opened(
        Settings(poll_s=0.1),
        where,
        {"holding": describe("holding", graph.compile())},
    ) as app:
        stage = Stage(app, app.control(principal=tester(), workflows=True), pooler.direct)
        run = await start(stage.control, "holding", {"to": "x"})
        working = asyncio.create_task(app.worker().run())
        await asyncio.wait_for(entered.wait(), 15)
        pooler.process.kill()
        await asyncio.to_thread(pooler.process.wait)
        with pytest.raises(Refusal) as refused:
            await start(stage.control, "holding", {"to": "y"})
        assert refused.value.problem.status == 503
        leave.set()
        await until_stepped(pooler.direct, run.run_id, steps=2)
        working.cancel()
        await asyncio.wait([working])


async def until_stepped(conninfo: str, run_id: UUID, *, steps: int) -> None:
    query = "select count(*) from control.ledger where run_id = %s and kind = 'stepped'"
    deadline = time.monotonic() + 15
    while (await asyncio.to_thread(execute, conninfo, query, (run_id,)))[0][0] < steps:
        assert time.monotonic() < deadline, "the run does not go on"
        await asyncio.sleep(0.02)
