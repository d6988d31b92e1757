"""A database restored from an earlier copy is known for one, and nothing goes on before somebody accepts it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from control.core.problem import Refusal
from control.core.story import tell
from control.runtime.commands.pause import pause
from control.runtime.commands.start import start
from control.runtime.doctor import examine
from control.store.cluster import Account, reachable
from control.store.database import Address
from control.store.doctor import cases
from control.store.embedded import Folder, binaries, ensure
from control.testing.database import Databases
from control.testing.server import programs, stop
from control.testing.stage import Stage, staged
from tests.cli import troupe
from tests.runtime.proving import attestor, bundle, create_key, verdict

IDLE_S: Final = 60
GRAPHS = {"count": troupe.count, "pay": troupe.pay}


@dataclass
class Place:
    """A database that can be put back to a copy, as a restore does it, and what is remembered of it outside."""

    conninfo: str
    server: str
    audit_dir: Path
    dumps: bool = False

    @property
    def name(self) -> str:
        return str(conninfo_to_dict(self.conninfo)["dbname"])

    @property
    def seen(self) -> int:
        """The number of the newest tree that is remembered outside."""
        file = next(self.audit_dir.glob("*.seen.json"))
        return int(json.loads(file.read_text())["default"]["number"])

    @property
    def dump(self) -> Path:
        return self.audit_dir.parent / "dump"

    def copy(self) -> None:
        """Of its files, or as `pg_dump` writes it."""
        if self.dumps:
            _run("pg_dump", "--format=custom", "--file", str(self.dump), self.conninfo)
        else:
            self._make(f"{self.name}_copy", template=self.name)

    def restore(self) -> None:
        with psycopg.connect(self.server, autocommit=True) as conn:
            conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(self.name)))
        self._make(self.name, template="template0" if self.dumps else f"{self.name}_copy")
        if self.dumps:
            _run("pg_restore", "--exit-on-error", "--dbname", self.conninfo, str(self.dump))

    def _make(self, name: str, *, template: str) -> None:
        with psycopg.connect(self.server, autocommit=True) as conn:
            query = sql.SQL("create database {} template {} strategy wal_log")
            conn.execute(query.format(sql.Identifier(name), sql.Identifier(template)))

    @asynccontextmanager
    async def staged(self, **settings: Any) -> AsyncIterator[Stage]:
        async with staged(self.conninfo, GRAPHS, audit_dir=self.audit_dir, **settings) as stage:
            yield stage


@dataclass
class Cluster(Place):
    """All of a server of its own, as `pg_basebackup` copies it while it runs. home: its data folder."""

    home: Path = Path()

    def copy(self) -> None:
        account = Account.chosen(self._files)
        program = reachable(binaries(), account=account) / "pg_basebackup"
        done = account.run(program, "--dbname", self.server, "--pgdata", self._files / "backup", "--checkpoint=fast")
        assert done.returncode == 0, done.stderr

    def restore(self) -> None:
        stop(self.home)
        (self._files / "data").rename(self._files / "lost")
        (self._files / "backup").rename(self._files / "data")
        assert ensure(self.home, idle_s=IDLE_S) == self.server

    @property
    def _files(self) -> Path:
        return Folder(self.home).cluster.resolve()


def _run(program: str, *args: str) -> None:
    subprocess.run([programs() / program, *args], check=True)


@pytest.fixture
def place(database: str, postgres: str, tmp_path: Path) -> Iterator[Place]:
    place = Place(database, postgres, tmp_path / "audit")
    yield place
    with psycopg.connect(postgres, autocommit=True) as conn:
        query = sql.SQL("drop database if exists {} with (force)")
        conn.execute(query.format(sql.Identifier(f"{place.name}_copy")))


@pytest.fixture
def cluster(own_server: Path, tmp_path: Path) -> Iterator[Cluster]:
    if not (binaries() / "pg_basebackup").exists():
        pytest.skip(f"there is no pg_basebackup in {binaries()}")
    server = ensure(own_server, idle_s=IDLE_S)
    databases = Databases(lambda: server)
    with closing(databases), databases.cloned() as conninfo:
        yield Cluster(conninfo, server, tmp_path / "audit", home=own_server)


async def lived(place: Place) -> Any:
    """A run that waits, a copy taken, and more that happens after. Returns the waiting run's id."""
    async with place.staged() as stage:
        waiting = await start(stage.control, "pay", {"amount": 1})
        await stage.until(waiting.run_id, "awaiting_approval")
    place.copy()
    copied = place.seen
    async with place.staged() as stage:
        done = await start(stage.control, "count", {"amount": 1})
        await stage.until(done.run_id, "succeeded")
    assert place.seen > copied
    return waiting.run_id


@pytest.mark.parametrize("dumps", [False, True])
async def test_a_worker_refuses_a_restored_database_until_it_is_accepted(dumps: bool, place: Place) -> None:
    place.dumps = dumps
    await refused_until_accepted(place)


async def test_a_worker_refuses_a_restored_cluster_until_it_is_accepted(cluster: Cluster) -> None:
    await refused_until_accepted(cluster)


async def refused_until_accepted(place: Place) -> None:
    waiting = await lived(place)
    async with place.staged():
        pass  # what is here is what was seen: a worker starts and ends as ever
    seen = place.seen
    place.restore()
    with pytest.raises(Refusal, match="The database is an earlier copy of itself") as refused:
        async with place.staged() as stage:
            await stage.worker_stops()
    assert refused.value.why.startswith(f"Tree {seen} of tenant default was seen at 2")
    assert re.search(r"and the newest here is tree \d\.$", refused.value.why)

    async with place.staged(work=False) as stage:
        assert [str(found) for found in await attestor(stage).behind()] == [refused.value.why]
        with pytest.raises(Refusal, match="an earlier copy of itself"):
            await attestor(stage).attest("default")
        made = await attestor(stage).accept_restore("default", by="ana", reason="the disk died")
        assert (made.number, made.restored) == (seen + 1, True)
        assert json.loads(made.text)["restored"]["reason"] == "the disk died"
        with pytest.raises(Refusal, match="Nothing shows that the database was restored"):
            await attestor(stage).accept_restore("default", by="ana", reason="once more")
        assert stage.kinds(waiting)[-1] == "restored"
        said = tell(stage.ledger(waiting))[-1].text
        assert said.startswith("The database was an earlier copy of itself") and "Ana let it go on: the disk" in said
    async with place.staged() as stage:
        await stage.until((await start(stage.control, "count", {"amount": 2})).run_id, "succeeded")
    for case in cases(Address.of(place.conninfo, login=True), "default"):
        assert examine(case, crash_limit=5).findings == []


async def test_a_copy_that_went_on_unseen_is_known_by_its_other_tree(place: Place, tmp_path: Path) -> None:
    """The same number, another tree: somebody let a worker run on the copy where nothing was remembered."""
    await lived(place)
    place.restore()
    async with staged(place.conninfo, GRAPHS, audit_dir=tmp_path / "elsewhere", work=False) as stage:
        for amount in range(place.seen):
            await start(stage.control, "count", {"amount": amount})
            await attestor(stage).attest("default", wait=True)
    async with place.staged(work=False) as stage:
        found = await attestor(stage).behind()
        assert [behind.seen.number for behind in found] == [place.seen]
        assert str(found[0]).endswith(f"and the tree {place.seen} that is here is another one.")
        await attestor(stage).accept_restore("default", by="ana", reason="known")
        assert await attestor(stage).behind() == []


async def test_another_host_that_saw_less_or_more_asks_again_only_for_what_was_not_given_up(
    place: Place, tmp_path: Path
) -> None:
    await lived(place)
    seen = next(place.audit_dir.glob("*.seen.json"))
    other = tmp_path / "other"
    other.mkdir()
    (other / seen.name).write_text(seen.read_text())
    place.restore()
    async with place.staged(work=False) as stage:
        await attestor(stage).accept_restore("default", by="ana", reason="known")
    async with staged(place.conninfo, GRAPHS, audit_dir=other):
        pass  # it saw the tree that was given up by name
    mark = json.loads(seen.read_text())
    mark["default"] |= {"number": mark["default"]["number"] + 9, "digest": "00" * 32}
    (other / seen.name).write_text(json.dumps(mark))
    with pytest.raises(Refusal, match="an earlier copy of itself"):
        async with staged(place.conninfo, GRAPHS, audit_dir=other) as stage:
            await stage.worker_stops()


async def test_trees_go_on_across_a_restore_and_the_bundle_says_so(place: Place) -> None:
    async with place.staged(work=False) as stage:
        key = await create_key(stage)
    await lived(place)
    place.restore()
    async with place.staged(work=False) as stage:
        await attestor(stage).accept_restore("default", by="ana", reason="known")
        data = await bundle(stage)
        assert verdict(data, key.public).fault is None
        assert b'\\"restored\\":{\\"by\\":\\"ana\\"' in data


async def test_what_cannot_be_read_is_refused_and_not_taken_for_nothing(place: Place) -> None:
    async with place.staged() as stage:
        await stage.until((await start(stage.control, "count", {"amount": 1})).run_id, "succeeded")
    seen = next(place.audit_dir.glob("*.seen.json"))
    for broken in ("", "[]", '{"default": {"number": 1}}'):
        seen.write_text(broken)
        async with place.staged(work=False) as stage:
            with pytest.raises(Refusal, match="What was seen of the database cannot be read"):
                await attestor(stage).require_newest()


async def test_what_is_seen_never_sinks(place: Place) -> None:
    async with place.staged() as stage:
        run = await start(stage.control, "pay", {"amount": 1})
        await stage.until(run.run_id, "awaiting_approval")
        late = attestor(stage)
        await late.attest("default", wait=True)
        await pause(stage.control, run.run_id)
        await attestor(stage).attest("default", wait=True)
        seen = place.seen
        assert await late.attest("default") == 0, "what another process gathered is not gathered twice"
        assert place.seen == seen >= 2
