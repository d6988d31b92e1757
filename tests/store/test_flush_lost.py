"""What a flush does when its connection is lost: nothing is written twice, and nothing is left out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from control.app import App
from control.core.ledger import verify
from control.core.problem import Refusal
from control.store import arrays
from control.store.commit import _FATES, _rows
from control.store.database import Address
from control.store.flush import Flusher
from control.store.item import Fence
from control.store.tenure import Tenure
from tests.store.holding import claimed, execute, head_of, installation, ledger, put, under, until_blocked
from tests.store.wire import Wire, wired

KILL = """
select pg_terminate_backend(pid) from pg_stat_activity
where usename = 'control_flush' and datname = current_database() and pid <> pg_backend_pid()
"""
# The nap is never slept out: in it the server notices that it has been told to end.
KILLER = """
create sequence kills;
create function die() returns trigger language plpgsql security definer as $$ begin
    if {when} then
        {before}
        perform pg_terminate_backend(pg_backend_pid());
        perform pg_sleep(10);
    end if;
    return new;
end $$;
create trigger die before insert on {on} execute function die();
"""
POISON = "new.channel = 'poison' and nextval('kills') > 0"
# What a server tells all its clients where it ends them because one of its processes crashed: no error, but a warning.
CRASH = "raise warning 'terminating connection because of crash of another server process' using errcode = '57P02';"
TAKE = """
insert into checkpoint_writes (thread_id, checkpoint_id, task_id, idx, channel, blob)
values (%s, 'c', 'task', 0, 'a', '')
"""


def killer(when: str, *, on: str, before: str = "") -> str:
    """What makes the backend die of a write."""
    return KILLER.format(when=when, on=on, before=before)


@asynccontextmanager
async def over(wire: Wire, app: App, *, patience_s: float = 20) -> AsyncIterator[Flusher]:
    """The installation's saver, writing through a flusher of its own at the end of a wire."""
    address = Address.of(wire.conninfo, login=True)

    async def connect() -> psycopg.AsyncConnection[Any]:
        conn = await psycopg.AsyncConnection.connect(
            address.session("control_flush"), autocommit=True, prepare_threshold=0, connect_timeout=2
        )
        arrays.register(conn)
        return conn

    flusher = Flusher(connect, patience_s=patience_s)
    await flusher.start()
    kept, app.saver._flusher = app.saver._flusher, flusher
    try:
        yield flusher
    finally:
        wire.swallowing, wire.open, app.saver._flusher = False, True, kept
        await flusher.stop()


def written_once(conninfo: str, fence: Fence, steps: int) -> None:
    entries = ledger(conninfo, fence.run_id)
    assert [entry.body["step"] for entry in entries if entry.kind == "stepped"] == list(range(steps))
    assert verify(entries, head=head_of(conninfo, fence.run_id)) is None


async def test_a_backend_killed_again_and_again_loses_and_doubles_nothing(database: str) -> None:
    fences = [claimed(database) for _ in range(5)]
    async with installation(database) as app:

        async def write(fence: Fence) -> None:
            for step in range(40):
                await put(app, under(fence), step=step)

        killing = asyncio.ensure_future(poll_and_kill(app.flusher, database))
        await asyncio.gather(*(write(fence) for fence in fences))
        killing.cancel()
    for fence in fences:
        written_once(database, fence, 40)


async def poll_and_kill(flusher: Flusher, conninfo: str) -> None:
    """Kill the flush's backends each time a few flushes more have been committed."""
    while True:
        seen = flusher.flushes
        while flusher.flushes < seen + 3:  # noqa: ASYNC110  # nothing announces a flush
            await asyncio.sleep(0)
        await asyncio.to_thread(execute, conninfo, KILL)


async def test_a_commit_whose_answer_was_lost_is_not_repeated(database: str, tmp_path: Path) -> None:
    fences = [claimed(database) for _ in range(3)]
    async with installation(database) as app, wired(database, tmp_path) as wire, over(wire, app):
        await asyncio.gather(*(put(app, under(fence), step=0) for fence in fences))
        for step in (1, 2):
            wire.swallowing = True
            wire.answered.clear()
            writing = [asyncio.ensure_future(put(app, under(fence), step=step)) for fence in fences]
            await asyncio.wait_for(wire.answered.wait(), 10)
            committed = execute(database, "select count(*) from control.ledger")
            assert committed == [(3 * step + 3,)], "the server has committed, and the program does not know"
            assert not any(one.done() for one in writing)
            wire.swallowing = False
            wire.cut()
            await asyncio.gather(*writing)
    for fence in fences:
        written_once(database, fence, 3)


async def test_a_try_that_still_works_behind_a_lost_connection_is_waited_for(database: str, tmp_path: Path) -> None:
    """The lost try holds its run's lock. Taken for a busy run and written as a new item, it would be written twice."""
    fence, free = claimed(database), claimed(database)
    async with installation(database) as app, wired(database, tmp_path) as wire, over(wire, app):
        config = under(fence)
        with psycopg.connect(database) as rival:  # holds the row that the flush inserts after it has locked its run
            rival.execute(TAKE, (fence.thread_id,))
            at = {"configurable": config["configurable"] | {"checkpoint_id": "c"}}
            writing = asyncio.ensure_future(app.saver.aput_writes(at, [("a", [1])], "task", "~p, node"))
            stepping = asyncio.ensure_future(put(app, config, step=0))
            both = asyncio.ensure_future(put(app, under(free), step=0))
            await until_blocked(database)
            wire.cut()
            await until_retried(database)
            rival.rollback()
        await asyncio.gather(writing, stepping, both)
    written_once(database, fence, 1)
    written_once(database, free, 1)


async def until_retried(conninfo: str) -> None:
    """Wait until a second connection of the flush has asked for the same runs, and why it did not write one."""
    query = """
        select count(*) from pg_stat_activity
        where usename = 'control_flush' and datname = current_database() and state = 'idle' and query like '%fate%'
    """
    async with asyncio.timeout(20):
        while execute(conninfo, query) == [(0,)]:  # noqa: ASYNC110  # the database tells nobody
            await asyncio.sleep(0.01)


async def test_a_database_that_stays_away_is_said_to_be_away(database: str, tmp_path: Path) -> None:
    fence = claimed(database)
    async with installation(database) as app, wired(database, tmp_path) as wire, over(wire, app, patience_s=0.3):
        await put(app, under(fence), step=0)
        wire.open = False
        wire.cut()
        with pytest.raises(Refusal, match=r"It has been away for 0\.3 s") as refusal:
            await put(app, under(fence), step=1)
        assert refusal.value.problem.code == "database-away"
        wire.open = True
        await put(app, under(fence), step=1)
    written_once(database, fence, 2)


async def test_a_run_whose_write_is_of_unknown_fate_is_not_said_to_be_busy(database: str, tmp_path: Path) -> None:
    """Where the lost try outlasts all patience, its writers are told so; later writes of others go on."""
    stuck, free = claimed(database), claimed(database)
    async with installation(database) as app, wired(database, tmp_path) as wire, over(wire, app, patience_s=0.3):
        with psycopg.connect(database) as rival:
            rival.execute(TAKE, (stuck.thread_id,))
            at = under(stuck, checkpoint_id="c")
            writing = asyncio.ensure_future(app.saver.aput_writes(at, [("a", [1])], "task"))
            await until_blocked(database)
            beside = asyncio.ensure_future(put(app, under(free)))
            wire.cut()
            with pytest.raises(Refusal, match="does not say what became of it") as refusal:
                await writing
            assert refusal.value.problem.code == "database-away"
            await beside
        await put(app, under(stuck))
    written_once(database, free, 1)
    assert verify(ledger(database, stuck.run_id), head=head_of(database, stuck.run_id)) is None


async def test_a_write_that_kills_every_backend_fails_alone_and_soon(database: str, tmp_path: Path) -> None:
    """Its neighbours do not wait for it, and those who come after it do not wait until the patience ends."""
    execute(database, killer(POISON, on="checkpoint_blobs for each row"))
    fences, poisons = [claimed(database) for _ in range(4)], [claimed(database) for _ in range(2)]
    async with installation(database) as app, wired(database, tmp_path) as wire, over(wire, app, patience_s=60):
        wire.mute = True
        dying = [asyncio.ensure_future(put(app, under(fence), poison=[1])) for fence in poisons]
        await asyncio.gather(*(put(app, under(fence), fine=[1]) for fence in fences))
        assert not any(one.done() for one in dying)
        later = asyncio.ensure_future(put(app, under(fences[0]), step=1))
        told = await asyncio.gather(*dying, return_exceptions=True)
        await later
    assert [error.problem.code for error in told if isinstance(error, Refusal)] == ["write-deadly"] * 2
    for error in told:
        assert "cost 5 connections that had just answered: " in str(error)
        assert "server closed the connection unexpectedly" in str(error)
    for n, fence in enumerate(fences):
        written_once(database, fence, 1 if n else 2)
    for fence in poisons:
        assert ledger(database, fence.run_id) == []


async def test_a_kept_connection_that_answers_nothing_more_is_blamed_on_no_write(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been dead before: only those count that answered in the same try."""
    monkeypatch.setattr("control.store.flush._RETRY_S", (0.01,))
    execute(database, killer(POISON, on="checkpoint_blobs for each row"))
    fence = claimed(database)
    async with installation(database) as app, wired(database, tmp_path) as wire, over(wire, app, patience_s=60):
        await put(app, under(fence))
        wire.mute = True
        with pytest.raises(Refusal, match="cost 5 connections") as refusal:
            await put(app, under(fence), step=1, poison=[1])
        assert refusal.value.problem.code == "write-deadly"
    assert execute(database, "select last_value from kills") == [(6,)]
    written_once(database, fence, 1)


@pytest.mark.parametrize("before", ["", CRASH], ids=["57P01", "57P02"])
async def test_a_connection_that_the_server_ends_with_a_reason_is_blamed_on_no_write(
    before: str, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is restarted again and again, or crashes over a write of another worker: this one recovers."""
    monkeypatch.setattr("control.store.flush._RETRY_S", (0.01,))
    execute(database, killer("nextval('kills') <= 6", on="checkpoints for each statement", before=before))
    fence = claimed(database)
    async with installation(database) as app, wired(database, tmp_path) as wire, over(wire, app):
        wire.mute = bool(before)
        await put(app, under(fence))
    assert execute(database, "select last_value from kills") == [(7,)]
    written_once(database, fence, 1)


async def test_a_server_that_answers_nothing_is_blamed_on_no_write(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections are opened and lost, again and again: as long as none has answered it is the database's fault."""
    fence = claimed(database)
    async with installation(database) as app, wired(database, tmp_path) as wire, over(wire, app) as flusher:
        speak, lost = flusher._speak_for, iter(range(8))

        async def speechless(conn: Any, tenants: list[str]) -> bool:
            if next(lost, None) is not None:
                wire.cut()
            return await speak(conn, tenants)

        monkeypatch.setattr(flusher, "_speak_for", speechless)
        await put(app, under(fence))
        assert next(lost, None) is None, "all eight were lost"
    written_once(database, fence, 1)


@pytest.mark.parametrize("kills", [1, 3])
async def test_backends_killed_in_the_middle_and_a_refused_value_fail_one_run(kills: int, database: str) -> None:
    """Killed once, the batch is tried whole again; killed more often, run by run, and some of those are killed too."""
    fences, broken = [claimed(database) for _ in range(4)], claimed(database)
    async with installation(database) as app:
        await asyncio.gather(*(put(app, under(fence)) for fence in (*fences, broken)))
        execute(database, killer(f"nextval('kills') <= {kills}", on="checkpoints for each statement"))
        flushes = app.flusher.flushes
        told = await asyncio.gather(
            *(put(app, under(fence), step=step) for step in (1, 2) for fence in fences),
            *(put(app, under(broken), step=step, text="nul \0" if step == 2 else "") for step in (1, 2)),
            return_exceptions=True,
        )
        assert app.flusher.flushes - flushes == 4, "each run's two writes have been one transaction"
    assert [isinstance(one, Refusal) for one in told] == [False] * 8 + [True] * 2
    assert {one.problem.code for one in told if isinstance(one, Refusal)} == {"value-not-storable"}
    for fence in fences:
        written_once(database, fence, 3)
    written_once(database, broken, 1)


async def test_runs_tried_one_by_one_are_not_written_again_where_a_lost_try_was_committed(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fences = [claimed(database) for _ in range(3)]
    async with installation(database) as app:
        commit, batches = app.flusher._commit, list[int]()

        async def commit_and_die(conn: Any, batch: Any, flush: int) -> Any:
            batches.append(len(batch.groups))
            verdicts = await commit(conn, batch, flush)
            if len(batches) <= 2:
                await asyncio.to_thread(execute, database, KILL)
                await conn.execute("select")  # raises what the driver says of a backend that was killed
            return verdicts

        monkeypatch.setattr(app.flusher, "_commit", commit_and_die)
        await asyncio.gather(*(put(app, under(fence)) for fence in fences))
    assert batches == [3, 3, 1, 1, 1]
    for fence in fences:
        written_once(database, fence, 1)


async def test_a_flush_that_does_not_learn_of_its_busy_runs_writes_the_others_once(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is committed, though its last question failed and the connection lives."""
    fence, busy, failing = claimed(database), claimed(database), iter(range(3))

    async def refused(conn: Any, query: Any, params: Any) -> Any:
        if query is _FATES and next(failing, None) is not None:
            await conn.execute("select 1 / 0")
        return await _rows(conn, query, params)

    monkeypatch.setattr("control.store.commit._rows", refused)
    async with installation(database) as app:
        with psycopg.connect(database) as rival:
            rival.execute("select from control.run where run_id = %s for update", (busy.run_id,))
            late = asyncio.ensure_future(put(app, under(busy)))
            await asyncio.gather(*(put(app, under(fence), step=step) for step in range(2)))
            assert next(failing, None) is None, "all three have failed"
        await late
    for each, steps in ((fence, 2), (busy, 1)):
        written_once(database, each, steps)


async def test_a_database_that_takes_no_writes_for_a_while_is_waited_for(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it refuses: its connections answer, and live, and no write is to blame."""
    fence, tries, enough = claimed(database), iter(range(8)), asyncio.Event()
    mode = f"alter role control_flush in database {name(database)} {{}} default_transaction_read_only"
    execute(database, mode.format("set") + " = on")
    async with installation(database) as app:
        commit = app.flusher._commit

        async def counted(*given: Any) -> Any:
            if next(tries, None) is None:
                enough.set()
            return await commit(*given)

        monkeypatch.setattr(app.flusher, "_commit", counted)
        writing = asyncio.ensure_future(put(app, under(fence)))
        await asyncio.wait_for(enough.wait(), 20)
        assert not writing.done()
        execute(database, mode.format("reset"))
        execute(database, KILL)
        await writing
    written_once(database, fence, 1)


async def test_a_fault_of_our_own_is_told_and_the_flusher_goes_on(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fence, other = claimed(database), claimed(database)
    async with installation(database) as app:

        async def forgetful(*given: Any) -> Any:
            monkeypatch.undo()
            return {}

        monkeypatch.setattr(app.flusher, "_commit", forgetful)
        with pytest.raises(KeyError):
            await put(app, under(fence))
        await put(app, under(other))
    written_once(database, other, 1)


def name(conninfo: str) -> str:
    [(found,)] = execute(conninfo, "select quote_ident(current_database())")
    return str(found)


async def test_what_rests_on_a_refused_write_is_refused_too(database: str) -> None:
    """Even if it is queued only when the refusal is known: an ending must not stand without its last checkpoint."""
    fence = claimed(database)
    async with installation(database, flush_queue_limit=1) as app:
        tenure = Tenure(fence, actor="worker:test")
        first, last = tenure.item(), tenure.item()
        first.entries.append(("handled", "\ud800", {}))  # no UTF-8: it cannot be stored
        last.entries.append(("handled", "worker:test", {"node": "b"}))
        last.rests_on = (first.written,)
        writes = [asyncio.ensure_future(app.flusher.write(item)) for item in (first, last)]  # room for one at a time
        refused = await asyncio.gather(*writes, return_exceptions=True)
    assert [error.problem.code for error in refused if isinstance(error, Refusal)] == ["value-not-storable"] * 2
    assert ledger(database, fence.run_id) == []
