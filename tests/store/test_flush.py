"""Group commit: what runs share, what they do not, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import randbytes
from typing import Any

import psycopg
import pytest

from control.app import App
from control.core.ledger import verify
from control.core.problem import Refusal
from control.store import runs
from control.store.flush import Flusher
from control.store.item import Batch, Ending, Fence, Item
from tests.store.holding import claimed, contents, execute, head_of, installation, ledger, put, under

pytestmark = pytest.mark.installed


def steps(conninfo: str, fence: Fence) -> list[int]:
    """The steps in the run's ledger, in order."""
    return [entry.body["step"] for entry in ledger(conninfo, fence.run_id)]


async def test_concurrent_writes_share_flushes(database: str) -> None:
    fences = [claimed(database) for _ in range(50)]
    async with installation(database) as app:
        before = app.flusher.flushes
        await asyncio.gather(*(put(app, under(fence), value=[n]) for n, fence in enumerate(fences)))
        assert app.flusher.flushes - before <= 2
    assert execute(database, "select count(*) from checkpoints") == [(50,)]


@pytest.mark.parametrize(("runs", "flushes"), [(6, 1), (20, 2)])
async def test_a_flush_takes_half_of_the_runs_that_write_unless_they_are_few(
    runs: int, flushes: int, database: str
) -> None:
    """One half computes while the other commits."""
    fences = [claimed(database) for _ in range(runs)]
    async with installation(database) as app:
        for number in (1, 2):
            await asyncio.gather(*(put(app, under(fence)) for fence in fences))
            assert app.flusher.flushes == number * flushes


# What a head resets, or leaves where there is none.
_TRIED = (
    "update control.run set crashes = 2, retries = 1, blocked_in = 'a', execution = 'interrupted' where run_id = %s"
)


def row_of(conninfo: str, fence: Fence) -> dict[str, Any]:
    """The run's row without what differs from run to run; instead, whether head and time are those of its last rows."""
    query = """
        select to_jsonb(r) - array['run_id', 'thread_id', 'worker_id', 'created_at', 'since', 'claimed_at',
                                   'progress_at', 'head_checkpoint_id', 'last_flush', 'ledger_hash']
               || jsonb_build_object(
                   'last_head', r.head_checkpoint_id is not distinct from (
                       select max(checkpoint_id) from checkpoints c where c.thread_id = r.thread_id),
                   'last_time', r.progress_at = (select max(at) from control.ledger e where e.run_id = r.run_id))
        from control.run r where run_id = %s"""
    [(row,)] = execute(conninfo, query, (fence.run_id,))
    return dict(row)


async def test_the_short_form_of_a_flush_writes_what_the_long_one_does(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, long = claimed(database), claimed(database)
    forms: dict[Fence, list[bool]] = {short: [], long: []}
    will_do = Batch.short

    def form(batch: Batch) -> bool:
        [fence] = batch.groups
        forms[fence].append(fence == short and will_do(batch))
        return forms[fence][-1]

    monkeypatch.setattr(Batch, "short", form)
    rows: dict[Fence, list[dict[str, Any]]] = {short: [], long: []}
    async with installation(database) as app:
        for fence in (short, long):
            execute(database, _TRIED, (fence.run_id,))
            await written(await linger(app, fence))
            rows[fence].append(row_of(database, fence))
            config = await put(app, under(fence), state=[1])
            await app.saver.aput_writes(config, [("a", [1])], "task", "~p, node")
            await put(app, config, step=1, text="more")
            rows[fence].append(row_of(database, fence))
    assert forms == {short: [True] * 4, long: [False] * 4}
    assert rows[short] == rows[long]
    told = [tuple(row[name] for name in ("crashes", "retries", "execution", "blocked_in")) for row in rows[short]]
    assert told == [(2, 1, "interrupted", None), (0, 0, "runnable", None)]
    assert all(row["last_head"] and row["last_time"] for row in rows[short])
    for fence in (short, long):
        entries = ledger(database, fence.run_id)
        assert [entry.body.get("step") for entry in entries] == [None, 0, 1]
        assert verify(entries, head=head_of(database, fence.run_id)) is None


async def linger(app: App, fence: Fence) -> Item:
    """Queue an entry of this run that is in no hurry."""
    item = Item(fence, asyncio.get_running_loop().create_future(), entries=[("handled", "worker", {"node": "a"})])
    await app.flusher.enqueue(item, linger=True)
    return item


async def written(*items: Item) -> None:
    """Wait until all of these are written. Fails if nothing calls for their flush."""
    async with asyncio.timeout(5):
        await asyncio.gather(*(item.written for item in items))


async def test_a_write_in_a_hurry_takes_along_what_lingers(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control.store.flush._LINGER_S", 60)
    slow, hurried = claimed(database), claimed(database)
    async with installation(database) as app:
        item = await linger(app, slow)
        for _ in range(10):  # turns in which a flush of its own would have begun
            await asyncio.sleep(0)
        await put(app, under(hurried))
        await written(item)
        assert app.flusher.flushes == 1
    assert [entry.kind for entry in ledger(database, slow.run_id)] == ["handled"]


@pytest.mark.parametrize(("runs", "flushes"), [(1, 1), (13, 2)])
async def test_what_lingers_is_written_though_nothing_else_calls_for_a_flush(
    runs: int, flushes: int, database: str
) -> None:
    """Thirteen are more than one flush takes."""
    fences = [claimed(database) for _ in range(runs)]
    async with installation(database) as app:
        await written(*[await linger(app, fence) for fence in fences])
        assert app.flusher.flushes == flushes
    assert [len(ledger(database, fence.run_id)) for fence in fences] == [1] * runs


async def test_what_lingers_while_its_run_is_locked_is_written_after_the_release(database: str) -> None:
    fence = claimed(database)
    async with installation(database) as app:
        with psycopg.connect(database) as command:
            command.execute("select from control.run where run_id = %s for no key update", (fence.run_id,))
            item = await linger(app, fence)
            await until(lambda: app.flusher.flushes >= 2)
            assert not item.written.done()
        await written(item)
    assert [entry.kind for entry in ledger(database, fence.run_id)] == ["handled"]


async def test_no_flush_takes_more_than_its_limit(database: str) -> None:
    fences = [claimed(database) for _ in range(10)]
    async with installation(database, flush_batch_limit=3) as app:
        before = app.flusher.flushes
        await asyncio.gather(*(put(app, under(fence)) for fence in fences))
        assert app.flusher.flushes - before == 4


async def test_heavy_writes_queued_together_are_flushed_in_bounded_batches_and_none_is_lost(database: str) -> None:
    """Two states of 20 MB, one to a flush, and twelve of 1 MB, of which no flush takes more than 4 MB."""
    heavy, lighter = [claimed(database) for _ in range(2)], [claimed(database) for _ in range(12)]
    states = {fence: randbytes(20_000_000 if fence in heavy else 1_000_000) for fence in (*heavy, *lighter)}
    async with installation(database) as app:
        configs = await asyncio.gather(*(put(app, under(fence), state=state) for fence, state in states.items()))
        committed_together = "select count(*), sum(length(blob)) from checkpoint_blobs group by xmin::text"
        flushed = execute(database, committed_together)
        assert [count for count, size in flushed if size >= 20_000_000] == [1, 1]
        assert all(count <= 4 and size < 4_100_000 for count, size in flushed if size < 20_000_000)
        assert sum(count for count, _ in flushed) == 14
        for fence, config in zip(states, configs, strict=True):
            stored = await app.saver.aget_tuple(config)
            assert stored is not None and stored.checkpoint["channel_values"] == {"state": states[fence]}


async def test_no_light_write_overtakes_a_heavy_one_of_its_run(database: str) -> None:
    fence = claimed(database)
    async with installation(database) as app:
        sizes = [10, 3_000_000, 3_000_000, 10, 1_500_000, 3_000_000, 10]
        await asyncio.gather(
            *(put(app, under(fence), step=step, state=randbytes(size)) for step, size in enumerate(sizes))
        )
        assert app.flusher.flushes == 4
    assert steps(database, fence) == list(range(7))


async def test_a_runs_writes_commit_in_the_order_they_were_made(database: str) -> None:
    fence = claimed(database)
    async with installation(database, flush_batch_limit=2) as app:
        await asyncio.gather(*(put(app, under(fence), step=n) for n in range(9)))
    assert steps(database, fence) == list(range(9))
    assert verify(ledger(database, fence.run_id), head=head_of(database, fence.run_id)) is None


async def test_no_checkpoint_commits_before_the_writes_queued_ahead_of_it(database: str) -> None:
    """A sibling's writes are not awaited before the next checkpoint is put; a reader must never see it without them."""
    fence = claimed(database)
    async with installation(database, flush_batch_limit=1) as app:
        config = await put(app, under(fence))
        writes = [app.saver.aput_writes(config, [("a", [n])], f"task-{n}") for n in range(5)]
        queued = [asyncio.ensure_future(each) for each in (*writes, put(app, config, step=1))]
        seen: list[tuple[int, int]] = []
        while not queued[-1].done():
            await asyncio.sleep(0)
            [(checkpoints, rows)] = await asyncio.to_thread(
                execute, database,
                "select (select count(*) from checkpoints), (select count(*) from checkpoint_writes)",
            )  # fmt: skip
            seen.append((checkpoints, rows))
        await asyncio.gather(*queued)
    assert all(rows == 5 for checkpoints, rows in seen if checkpoints == 2)


async def test_a_value_the_database_refuses_fails_its_run_alone(database: str) -> None:
    fences = [claimed(database) for _ in range(5)]
    async with installation(database) as app:
        before = contents(database)
        told = await asyncio.gather(
            *(put(app, under(fence), text="nul \0" if n == 2 else "fine") for n, fence in enumerate(fences)),
            return_exceptions=True,
        )
        [bad] = [error for error in told if isinstance(error, Refusal)]
        assert bad.problem.code == "value-not-storable"
        assert "\\u0000 cannot be converted to text" in str(bad) or "unsupported Unicode" in str(bad)
        after = contents(database)
        for table in ("control.run", "control.ledger"):
            was, now = ([row for row in seen[table] if str(fences[2].run_id) in row] for seen in (before, after))
            assert was == now
        assert len(after["checkpoints"]) == 4
        await put(app, under(fences[2]), text="fine now")


@pytest.mark.parametrize("bad", ["\ud800", float("nan"), object()], ids=["surrogate", "nan", "object"])
async def test_what_cannot_be_sent_at_all_fails_its_run_alone_and_ends_no_flusher(database: str, bad: Any) -> None:
    """Such a value fails in this process, before the database sees it."""
    broken, fine = claimed(database), claimed(database)
    async with installation(database) as app:
        entry = ("task_failed", bad, {}) if isinstance(bad, str) else ("task_failed", "worker", {"error": bad})
        item = Item(broken, asyncio.get_running_loop().create_future(), entries=[entry])
        told = await asyncio.gather(app.flusher.write(item), put(app, under(fine)), return_exceptions=True)
        assert isinstance(told[0], Refusal)
        assert told[0].problem.code == "value-not-storable"
        assert not isinstance(told[1], BaseException)
        await put(app, under(broken))


async def test_what_a_run_wrote_before_a_refused_value_stands_and_what_follows_it_does_not(database: str) -> None:
    fence = claimed(database)
    async with installation(database) as app:
        config = await put(app, under(fence))
        told = await asyncio.gather(
            app.saver.aput_writes(config, [("a", [1])], "before"),
            put(app, config, step=1, text="nul \0"),
            put(app, config, step=2, text="after"),
            return_exceptions=True,
        )
    assert [isinstance(one, Refusal) for one in told] == [False, True, True]
    assert execute(database, "select task_id from checkpoint_writes") == [("before",)]
    assert steps(database, fence) == [0]


async def test_a_full_queue_holds_writers_back_until_there_is_room(database: str) -> None:
    fence = claimed(database)
    async with installation(database, flush_queue_limit=3, flush_batch_limit=1) as app:
        with psycopg.connect(database) as command:
            command.execute("select from control.run where run_id = %s for update", (fence.run_id,))
            puts = [asyncio.ensure_future(put(app, under(fence), step=n)) for n in range(6)]
            waiting = await held_back(app.flusher, puts)
            assert waiting == 3, "three are queued, and three wait for room"
        await asyncio.gather(*puts)
    assert steps(database, fence) == list(range(6))


async def until(true: Callable[[], bool]) -> None:
    """Let the event loop turn until something of this process is true."""
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110  # nothing announces it
            await asyncio.sleep(0)


async def held_back(flusher: Flusher, puts: list[asyncio.Future[Any]]) -> int:
    """How many writers wait for room, once every one of them had its turn and the queue is full."""
    await until(lambda: flusher._room.waiting > 0)
    for _ in puts:
        await asyncio.sleep(0)
    return flusher._room.waiting


async def test_writes_that_are_heavy_together_hold_writers_back(database: str) -> None:
    """A worker whose database is slow keeps megabytes of states, not as many as its queue has places."""
    fence, heavy = claimed(database), 400_000
    async with installation(database, flush_queue_limit_mb=1) as app:
        with psycopg.connect(database) as command:
            command.execute("select from control.run where run_id = %s for update", (fence.run_id,))
            puts = [asyncio.ensure_future(put(app, under(fence), step=n, state=randbytes(heavy))) for n in range(5)]
            assert await held_back(app.flusher, puts) == 3, "two are queued, and no error is raised"
        await asyncio.gather(*puts)
    assert steps(database, fence) == list(range(5))


async def test_a_busy_run_waits_keeps_its_order_and_holds_nobody_up(database: str) -> None:
    busy, free = claimed(database), claimed(database)
    async with installation(database) as app:
        with psycopg.connect(database) as command:
            command.execute("select from control.run where run_id = %s for no key update", (busy.run_id,))
            late = [asyncio.ensure_future(put(app, under(busy), step=n)) for n in range(3)]
            for step in range(3):
                await put(app, under(free), step=step)
            late.append(asyncio.ensure_future(put(app, under(busy), step=3)))
            await put(app, under(free), step=3)
            assert not any(one.done() for one in late)
            assert steps(database, busy) == []
        await asyncio.gather(*late)
    assert steps(database, busy) == steps(database, free) == [0, 1, 2, 3]


async def test_a_command_and_a_flush_chain_one_ledger(database: str) -> None:
    """Commands append between flushes, from other connections and at the same moments."""
    fences = [claimed(database) for _ in range(4)]
    async with installation(database) as app:

        async def command(fence: Fence, n: int) -> None:
            async with app.database.scope("control_command", fence.tenant) as conn:
                run = await runs.lock_run(conn, fence.tenant, fence.run_id)
                entry = ("signalled", "tester", {"name": f"s{n}"})
                await runs.save_run(conn, run, [entry, entry], at=await runs.now(conn), crash_limit=5)

        await asyncio.gather(
            *(put(app, under(fence), step=n) for fence in fences for n in range(20)),
            *(command(fence, n) for fence in fences for n in range(20)),
        )
    for fence in fences:
        entries = ledger(database, fence.run_id)
        assert len(entries) == 60
        assert [e.body["step"] for e in entries if e.kind == "stepped"] == list(range(20))
        assert verify(entries, head=head_of(database, fence.run_id)) is None
        assert len({entry.at for entry in entries if entry.kind == "signalled"}) == 20


async def test_an_ending_is_refused_where_a_command_came_between(database: str) -> None:
    fence = claimed(database)
    async with installation(database) as app:

        async def end(version: int) -> int:
            ending = Ending(version, "completed", "finished", "succeeded", None, True, 0)
            return await app.flusher.write(Item(fence, asyncio.get_running_loop().create_future(), ending=ending))

        execute(database, "update control.run set version = 7, pause_at = now()")
        before = contents(database)
        with pytest.raises(Refusal, match="A command came between") as refusal:
            await end(6)
        assert refusal.value.problem.code == "run-moved"
        assert contents(database) == before
        assert await end(7) == 8
        with pytest.raises(Refusal) as refusal:
            await put(app, under(fence))
        assert refusal.value.problem.code == "claim-lost", "an ended attempt writes no more"


async def test_stopping_writes_what_is_queued(database: str) -> None:
    fences = [claimed(database) for _ in range(20)]
    async with installation(database, flush_batch_limit=3) as app:
        puts = [asyncio.ensure_future(put(app, under(fence))) for fence in fences]
        await until(lambda: len(app.flusher._queue) == 20)
    assert all(one.done() and not one.exception() for one in puts)
    assert execute(database, "select count(*) from checkpoints") == [(20,)]


async def test_a_writer_that_gives_up_does_not_take_its_write_back(database: str) -> None:
    """A cancelled node's write is in the queue already, and what is behind it may rest on it."""
    fence = claimed(database)
    async with installation(database) as app:
        with psycopg.connect(database) as command:
            command.execute("select from control.run for update")
            writing = asyncio.ensure_future(put(app, under(fence), step=1))
            following = asyncio.ensure_future(put(app, under(fence), step=2))
            await until(lambda: len(app.flusher._queue) == 2)
            writing.cancel()
        await following
    assert steps(database, fence) == [1, 2]
