"""Reading heads: hostile bytes, foreign types, ciphers, a thousand threads, large states, and the plan behind it."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import ormsgpack
import psycopg
import pytest
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.func import entrypoint
from langgraph.graph import START, StateGraph
from langgraph.types import Interrupt, Send, interrupt
from psycopg.rows import dict_row
from pydantic import BaseModel, SecretStr

from control.core.execution import Execution, Head
from control.store import sql
from control.store.checkpoints import heads, heads_sync
from control.testing.database import as_role
from tests.store import zoo_edits, zoo_questions, zoo_steps
from tests.store.zoo import INPUT, State, Thread, line

HEADS: Final = sql.read("checkpoints")["heads"]
TABLES: Final = {
    "checkpoints": "checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata",
    "checkpoint_blobs": "checkpoint_ns, channel, version, type, blob",
    "checkpoint_writes": "checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path",
}


@pytest.fixture(scope="module")
def dsn(databases: Any) -> Iterator[str]:
    with databases.cloned() as conninfo:
        yield conninfo


@pytest.fixture(scope="module")
def conn(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture(scope="module")
def saver(dsn: str) -> Iterator[PostgresSaver]:
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=0, row_factory=dict_row) as conn:
        yield PostgresSaver(conn)


@pytest.fixture
def thread(saver: PostgresSaver, dsn: str, request: pytest.FixtureRequest) -> Thread:
    return Thread(PostgresSaver(saver.conn), request.node.name, dsn)


@pytest.fixture
def walled(conn: psycopg.Connection[Any], dsn: str, thread: Thread) -> Iterator[psycopg.Connection[Any]]:
    """A session that reads the thread under row security, as commands do."""
    conn.execute("insert into control.thread (tenant, thread_id) values ('acme', %s)", (thread.thread_id,))
    with psycopg.connect(as_role(dsn, "control_command"), autocommit=True) as session:
        session.execute("select set_config('control.tenant', 'acme', false)")
        yield session


def head_of(conn: psycopg.Connection[Any], thread: Thread) -> Head:
    return heads_sync(conn, [thread.thread_id])[thread.thread_id]


def asking(thread: Thread, value: Any, **options: Any) -> None:
    def node(_: Any) -> Any:
        return {"log": [str(interrupt(value, **options))]}

    line(thread, "a", a=node)
    thread.go(INPUT)


def rewrite(conn: psycopg.Connection[Any], thread: Thread, channel: str, blob: bytes, *, type: str = "msgpack") -> None:
    conn.execute(
        "update checkpoint_writes set blob = %s, type = %s where thread_id = %s and channel = %s",
        (blob, type, thread.thread_id, channel),
    )


# --- payloads -------------------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Loan:
    amount: Decimal
    colour: Colour


class Applicant(BaseModel):
    name: str
    loan: dict[str, Any]


def test_a_payload_of_any_type_comes_as_plain_data(conn: psycopg.Connection[Any], thread: Thread) -> None:
    known = uuid.UUID("12345678-1234-5678-1234-567812345678")
    asking(thread, {
        "loan": Loan(Decimal("10.50"), Colour.RED), "who": Applicant(name="Ann", loan={"n": 1}), "at": Point(1, 2),
        "id": known, "when": datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "tags": {"one"}, "raw": b"\x00\x01", "none": None,
        "path": Path("a/b"), 7: [1.5, True, ("t",)], "secret": SecretStr("s"),
    })  # fmt: skip
    value = head_of(conn, thread).open[0].value
    assert json.loads(json.dumps(value)) == value
    assert value == {
        "loan": {"amount": "10.50", "colour": "red"}, "who": {"name": "Ann", "loan": {"n": 1}}, "at": {"x": 1, "y": 2},
        "id": str(known), "when": "2026-01-02T03:04:00+00:00", "tags": ["one"],
        "raw": {"unreadable": "bytes", "size": 2}, "none": None, "path": ["a", "b"], "7": [1.5, True, ["t"]],
        "secret": "s",
    }  # fmt: skip


def test_the_schema_of_an_answer_comes_with_the_question(conn: psycopg.Connection[Any], thread: Thread) -> None:
    asking(thread, "who?", response_schema=Applicant)
    asked = head_of(conn, thread).open[0]
    assert asked.schema is not None and asked.schema["properties"].keys() == {"name", "loan"}
    assert (asked.value, asked.node, asked.ns) == ("who?", "a", f"a:{asked.task_id}")


def extension(code: int, *parts: Any) -> ormsgpack.Ext:
    return ormsgpack.Ext(code, ormsgpack.packb(parts))


def question(value: Any) -> bytes:
    fields = {"value": value, "id": "f" * 32, "response_schema": None}
    return ormsgpack.packb([extension_of_interrupt(fields)])


def extension_of_interrupt(fields: dict[str, Any]) -> ormsgpack.Ext:
    return ormsgpack.Ext(2, ormsgpack.packb(("langgraph.types", "Interrupt", fields)))


@pytest.mark.parametrize("code", range(9))
def test_bytes_that_name_a_class_import_and_call_nothing(
    code: int, conn: psycopg.Connection[Any], thread: Thread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "imported"
    (tmp_path / "bomb.py").write_text(f"open({str(mark)!r}, 'w').close()\ndef go(*a, **k): open({str(mark)!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    asking(thread, "ok?")
    rewrite(conn, thread, "__interrupt__", question(extension(code, "bomb", "go", ["x"], "go")))
    head = head_of(conn, thread)
    assert head.state is Execution.WAITING and head.open[0].id == "f" * 32
    assert not mark.exists() and "bomb" not in sys.modules
    json.dumps(head.open[0].value)


@pytest.mark.parametrize(
    ("blob", "type"),
    [
        (b"\xc1", "msgpack"),
        (b"", "msgpack"),
        (b"\x91", "msgpack"),
        (b"\xc7\xff\x02", "msgpack"),
        (b"\x91" * 5_000, "msgpack"),
        (b"{", "json"),
        (b"cposix\nsystem\n", "pickle"),
        (b"anything", "msgpack+aes"),
    ],
)
def test_bytes_that_cannot_be_read_are_said_to_be_so(
    blob: bytes, type: str, conn: psycopg.Connection[Any], thread: Thread
) -> None:
    asking(thread, "ok?")
    rewrite(conn, thread, "__interrupt__", blob, type=type)
    head = head_of(conn, thread)
    assert head.state is Execution.WAITING
    assert head.unreadable == (type,) and head.open[0].value == {"unreadable": type} and head.open[0].id == ""


@pytest.mark.parametrize("blob", [b"\x92\xc7", b"\x92\xc9\xff\xff\xff\xff\x01", b"\xdd" * 9, bytes(300)])
def test_broken_sends_break_nothing(blob: bytes, conn: psycopg.Connection[Any], thread: Thread) -> None:
    zoo_steps.sends_scheduled(thread)
    conn.execute(
        "update checkpoint_blobs set blob = %s where thread_id = %s and channel = '__pregel_tasks'",
        (blob, thread.thread_id),
    )
    head = head_of(conn, thread)
    assert (head.state, head.unreadable) == (Execution.RUNNABLE, ("msgpack",)), "an odd list is not an empty one"


@pytest.mark.parametrize("node", ["w", "w" * 31, "w" * 32, "w" * 300, "wö+, : w".replace(":", "")])
def test_a_send_is_read_by_its_first_bytes(node: str, conn: psycopg.Connection[Any], thread: Thread) -> None:
    graph = StateGraph(State)
    graph.add_node(node, thread.asks("w"))
    sizes = (0, 200, 60_000, 70_000)
    graph.add_conditional_edges(START, lambda _: [Send(node, {"log": ["x" * size]}) for size in sizes], [node])
    thread.graph = graph.compile(checkpointer=thread.saver)
    thread.go(INPUT)
    head = head_of(conn, thread)
    assert head.next == (node,) * 4 and len(head.open) == 4
    assert {q.id for q in head.open} == {q.id for q in thread.snapshot().interrupts}


def test_an_encrypted_thread_tells_its_state_and_not_its_payload(conn: psycopg.Connection[Any], thread: Thread) -> None:
    zoo_edits.encrypted_question(thread)
    head = head_of(conn, thread)
    assert (head.state, head.next, head.unreadable) == (Execution.WAITING, ("b",), ("msgpack+xor",))
    assert head.open[0].value == {"unreadable": "msgpack+xor"}


# --- many, large, old -----------------------------------------------------------------------------------------------


def copy(conn: psycopg.Connection[Any], thread_id: str, prefix: str, count: int) -> list[str]:
    """So many threads with the rows of one. Ids of tasks stay right, since thread ids are not part of them."""
    for table, columns in TABLES.items():
        conn.execute(
            f"insert into {table} (thread_id, {columns}) select %s || n, {columns} from {table}, "
            "generate_series(1, %s) n where thread_id = %s",
            (prefix, count, thread_id),
        )
    return [f"{prefix}{n}" for n in range(1, count + 1)]


@pytest.fixture(scope="module")
def crowd(conn: psycopg.Connection[Any], saver: PostgresSaver, dsn: str) -> dict[str, Execution]:
    """A thousand threads in five states."""
    expected: dict[str, Execution] = {}
    drives = (zoo_questions.one_question, zoo_steps.sends_all_ask, zoo_questions.nested_subgraph_asks, zoo_steps.linear)
    for drive in (*drives, zoo_steps.deferred_fires):
        thread = Thread(PostgresSaver(saver.conn), f"crowd {drive.__name__}", dsn)
        drive(thread)
        state = head_of(conn, thread).state
        expected.update(dict.fromkeys(copy(conn, thread.thread_id, f"{drive.__name__} ", 200), state))
    conn.execute("analyze checkpoints, checkpoint_blobs, checkpoint_writes")
    return expected


class Counting(psycopg.RawCursor[Any]):
    executed = 0

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        Counting.executed += 1
        return super().execute(*args, **kwargs)


def test_one_statement_serves_a_thousand_threads(
    crowd: dict[str, Execution], dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psycopg, "RawCursor", Counting)
    with psycopg.connect(dsn) as conn:
        Counting.executed = 0
        found = heads_sync(conn, [*crowd, "unknown"])
        assert Counting.executed == 1
    assert {thread: head.state for thread, head in found.items()} == {**crowd, "unknown": Execution.NONE}
    assert len(set(crowd.values())) == 3


async def test_an_asynchronous_connection_reads_the_same(crowd: dict[str, Execution], dsn: str) -> None:
    some = [*crowd][::50]
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        found = await heads(conn, some)
    assert found == await asyncio.to_thread(lambda: heads_sync(psycopg.connect(dsn), some))


def test_no_threads_are_no_heads(conn: psycopg.Connection[Any]) -> None:
    assert heads_sync(conn, []) == {}


@pytest.mark.parametrize("count", [1, 1_000])
@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_no_table_is_scanned(crowd: dict[str, Execution], dsn: str, mode: str, count: int) -> None:
    with psycopg.connect(dsn) as conn:
        plan = explained(conn, [*crowd][:count], mode=mode)
    scans = {node["Relation Name"]: node["Node Type"] for node in nodes(plan) if "Relation Name" in node}
    assert scans.keys() == TABLES.keys()
    assert all("Index" in scan for scan in scans.values()), scans


def test_the_plan_is_not_worth_compiling(crowd: dict[str, Execution], dsn: str) -> None:
    """Compiling takes a second; it begins at a cost that the number of threads must not reach."""
    with psycopg.connect(dsn) as conn:
        above = conn.execute("select current_setting('jit_above_cost')::float").fetchone()
        plan = explained(conn, [*crowd], mode="force_custom_plan")
    assert above is not None and plan["Total Cost"] < above[0]


def explained(conn: psycopg.Connection[Any], threads: list[str], *, mode: str) -> dict[str, Any]:
    conn.execute("select set_config('plan_cache_mode', %s, true)", (mode,))
    text = HEADS.replace("%(threads)s", "$1").replace("%%", "%")
    conn.execute(f"prepare heads (text[]) as {text}")
    row = conn.execute(f"explain (format json) execute heads ({literal(conn, threads)})").fetchone()
    assert row is not None
    return dict(row[0][0]["Plan"])


def literal(conn: psycopg.Connection[Any], threads: list[str]) -> str:
    return psycopg.sql.Literal(threads).as_string(conn)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def buffers(conn: psycopg.Connection[Any], thread_id: str) -> int:
    """Pages touched by one read, whatever the machine is doing."""
    row = conn.execute("explain (analyze, buffers, format json) " + HEADS, {"threads": [thread_id]}).fetchone()
    assert row is not None
    return int(row[0][0]["Plan"]["Shared Hit Blocks"] + row[0][0]["Plan"]["Shared Read Blocks"])


def took_ms(conn: psycopg.Connection[Any], thread_id: str) -> float:
    """The fastest third of many reads, since other work shares the machine."""
    spans = []
    for _ in range(60):
        began = time.perf_counter()
        heads_sync(conn, [thread_id])
        spans.append((time.perf_counter() - began) * 1e3)
    return median(sorted(spans)[:20])


def test_five_megabytes_of_state_cost_no_more_than_a_little(conn: psycopg.Connection[Any], thread: Thread) -> None:
    line(thread, "a", "b", b=thread.asks("b"))
    thread.go({"log": [uuid.uuid4().hex * 32 for _ in range(5_000)]})
    assert head_of(conn, thread).state is Execution.WAITING
    assert buffers(conn, thread.thread_id) < 60
    assert took_ms(conn, thread.thread_id) < 2


def test_ten_thousand_checkpoints_cost_no_more_than_one(
    conn: psycopg.Connection[Any], walled: psycopg.Connection[Any], thread: Thread
) -> None:
    """With as many subgraph calls behind it, of which each has a namespace of its own; under row security as well."""
    zoo_questions.subgraphs_sent_to_ask(thread)
    shallow = {session: buffers(session, thread.thread_id) for session in (conn, walled)}
    for table in ("checkpoints", "checkpoint_writes"):
        older = TABLES[table].replace("checkpoint_id,", "'0' || lpad(n::text, 7, '0') || substr(checkpoint_id, 9),", 1)
        conn.execute(
            f"insert into {table} (thread_id, {TABLES[table]}) select thread_id, {older} from {table}, "
            "generate_series(1, 10000) n where thread_id = %s and checkpoint_ns = ''",
            (thread.thread_id,),
        )
    called = TABLES["checkpoint_writes"].replace("checkpoint_ns,", "'s:' || gen_random_uuid(),", 1)
    conn.execute(
        f"insert into checkpoint_writes (thread_id, {TABLES['checkpoint_writes']}) select thread_id, {called} "
        "from checkpoint_writes, generate_series(1, 5000) n where thread_id = %s and checkpoint_ns <> ''",
        (thread.thread_id,),
    )
    conn.execute("vacuum analyze checkpoints, checkpoint_writes")
    for session, before in shallow.items():
        assert len(head_of(session, thread).open) == 2
        assert buffers(session, thread.thread_id) < before + 40
        assert took_ms(session, thread.thread_id) < 2


# --- what only rows can say -----------------------------------------------------------------------------------------


def test_a_plain_answer_left_on_the_head_is_seen(conn: psycopg.Connection[Any], thread: Thread) -> None:
    zoo_questions.second_question(thread)
    assert head_of(conn, thread).stale_resume
    thread.go(None)  # and would be delivered to the next question
    assert head_of(conn, thread).state is Execution.FINISHED
    assert thread.snapshot().values["log"][-2:] == ["b:one", "b:one"]


def test_writes_beyond_the_head_are_counted(conn: psycopg.Connection[Any], thread: Thread) -> None:
    zoo_steps.linear(thread)
    thread.lose_checkpoints_after(0)
    assert head_of(conn, thread).orphan_writes == 2
    thread.lose_checkpoints_after(-2)
    head = head_of(conn, thread)
    assert (head.state, head.orphan_writes) == (Execution.NONE, 4)


def test_a_question_outlives_the_node_that_asked_it(conn: psycopg.Connection[Any], thread: Thread) -> None:
    """After a deployment that renamed the node, get_state calls the thread finished; rows still show the question."""
    zoo_questions.one_question(thread)
    line(thread, "a", "renamed", "c")
    assert thread.snapshot().next == ()
    head = head_of(conn, thread)
    assert (head.state, head.next, len(head.open)) == (Execution.WAITING, ("b",), 1)


def test_a_renamed_entrypoint_has_read_its_input(conn: psycopg.Connection[Any], thread: Thread) -> None:
    """Two readers of one input channel are on record; the later one counts, whatever their names."""
    for name in ("zeta", "alpha", "zeta"):

        def flow(given: Any) -> Any:
            return given

        flow.__name__ = name
        thread.graph = entrypoint(checkpointer=thread.saver)(flow)
        thread.go({"n": 1})
        assert thread.error is None
        assert head_of(conn, thread).state is Execution.FINISHED


def test_metadata_of_the_head_comes_along(conn: psycopg.Connection[Any], thread: Thread) -> None:
    line(thread, "a")
    thread.go(INPUT, config={"metadata": {"run": "r1"}})
    head = head_of(conn, thread)
    assert (head.step, head.metadata["run"], head.metadata["source"]) == (1, "r1", "loop")


def test_another_collation_finds_the_subgraphs_as_well(databases: Any) -> None:
    """Namespaces are found by ranges, which must hold in linguistic orders too."""
    with databases.empty() as dsn, psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as conn:
        PostgresSaver(conn).setup()
        named = "select collname from pg_collation where collname in ('und-x-icu', 'en_US.utf8') order by 1 desc"
        if (collation := conn.execute(named).fetchone()) is None:
            pytest.skip("this PostgreSQL has no linguistic collation")
        for table in TABLES:
            conn.execute(f'alter table {table} alter checkpoint_ns type text collate "{collation["collname"]}"')
        for drive in (zoo_questions.nested_subgraph_asks, zoo_questions.subgraph_sent_to_answered_then_raised,
                      zoo_questions.stateful_subgraph_answered_then_raised):  # fmt: skip
            thread = Thread(PostgresSaver(conn), drive.__name__, dsn)
            drive(thread)
            head = head_of(conn, thread)
            asked = head.interrupts[0]
            assert asked.answered == (head.state is Execution.FAILED)
            assert asked.ns.count("|") >= 1, asked.ns


def test_an_interrupt_is_stored_as_the_reader_expects() -> None:
    """The shape that the reader relies on, in case a new LangGraph stores it otherwise."""
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

    kind, blob = JsonPlusSerializer().dumps_typed([Interrupt("v", "i" * 32)])
    assert kind == "msgpack"
    seen: list[tuple[int, Any]] = []
    ormsgpack.unpackb(blob, ext_hook=lambda code, data: seen.append((code, ormsgpack.unpackb(data))))
    assert seen == [(2, ["langgraph.types", "Interrupt", {"value": "v", "id": "i" * 32, "response_schema": None}])]
