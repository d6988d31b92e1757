"""What happens in a run is told where a tenant wants it: signed, once or again, and never what was rolled back."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes
from typing import Any, Final
from uuid import UUID

import psycopg
import pytest
from langgraph.graph import START, StateGraph
from psycopg import sql

from control.core.assignment import Candidate
from control.core.failure import FailureClass
from control.core.problem import Refusal
from control.core.sink import Event, SinkKind, Wanted
from control.runtime.commands import Control
from control.runtime.commands.notify import add_sink, list_sinks, log, remove_sink, rotate_secret, try_sink
from control.runtime.commands.reassign import set_assignee
from control.runtime.commands.start import start
from control.runtime.courier import FAILING_AT_ONCE, Courier
from control.runtime.webhook import Undelivered
from control.sdk import Rung
from control.store import runs
from control.store.notices import Told, try_out
from control.testing import clock
from control.testing.stage import staged, tester
from tests.notify.receivers import MailServer, Received, WebServer, mail_server, web_server
from tests.runtime.scenes import until
from tests.runtime.test_votes import State, approve, asked, gated

HOUR: Final = timedelta(hours=1)
PATIENCE: Final = timedelta(seconds=15)
HERE: Final = {"notify_networks": ("127.0.0.0/8",)}


@pytest.fixture
def web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


@pytest.fixture
async def post() -> AsyncIterator[MailServer]:
    async with mail_server() as server:
        yield server


async def hooked(control: Control, url: str, *events: str, audience: tuple[str, ...] = ()) -> tuple[str, bytes]:
    """A webhook for these events; its id, and its secret as the specification has it decoded."""
    wanted = Wanted(SinkKind.WEBHOOK, url, frozenset(map(Event, events)), frozenset(audience))
    made, secret = await add_sink(control, wanted)
    assert secret is not None and secret.startswith("whsec_")
    return made.sink_id, base64.b64decode(secret.removeprefix("whsec_"))


async def told(control: Control, condition: str, *, times: int = 1, hurried: str | None = None) -> list[Told]:
    """The log, once so many notices are in this condition. hurried: the database in which no job waits meanwhile."""

    async def so() -> bool:
        if hurried:
            hurry(hurried)
        return sum(word(notice) == condition for notice in await log(control)) >= times

    await until(so, f"{times} notices are {condition}")
    return await log(control)


def word(notice: Told) -> str:
    """Its condition, and `again` for one whose last try has failed."""
    return "again" if notice.condition == "trying" and notice.error else notice.condition


def signatures(sent: Received) -> list[bytes]:
    return [base64.b64decode(part.removeprefix("v1,")) for part in sent.headers["webhook-signature"].split()]


def expected(sent: Received, secret: bytes) -> bytes:
    """The signature, as the specification says it, of what came over the wire."""
    text = sent.headers["webhook-id"].encode() + b"." + sent.headers["webhook-timestamp"].encode() + b"." + sent.body
    return hmac.new(secret, text, hashlib.sha256).digest()


def jobs(conninfo: str) -> int:
    with psycopg.connect(conninfo) as conn:
        (found,) = conn.execute("select count(*) from control_queue.procrastinate_jobs").fetchone() or (None,)
        assert found is not None
        return int(found)


def hurry(conninfo: str, *, by: timedelta | None = None) -> None:
    """Let what waits for its next try be tried now; `by`: so much sooner."""
    with psycopg.connect(conninfo) as conn:
        conn.execute("set search_path = control_queue")
        sooner = "coalesce(scheduled_at - %s::interval, now())"
        conn.execute(f"update procrastinate_jobs set scheduled_at = {sooner} where status = 'todo'", (by,))
        conn.execute('select pg_notify(\'procrastinate_any_queue_v1\', \'{"type": "job_inserted", "job_id": 0}\')')
        conn.execute('select pg_notify(\'procrastinate_queue_v1#notices\', \'{"type":"job_inserted","job_id":0}\')')


async def test_a_question_is_told_when_it_is_asked_and_when_it_is_decided(database: str, web: WebServer) -> None:
    async with staged(database, {"pay": gated("Pay 5?")}, notify_link="https://desk/{run_id}", **HERE) as stage:
        _, secret = await hooked(stage.control, web.url, "asked", "decided")
        run_id = await asked(stage)
        await approve(stage, run_id, "ana")
        await stage.until(run_id, "succeeded")
        await told(stage.control, "delivered", times=2)
    first, second = (json.loads(sent.body) for sent in web.received)
    assert (first["type"], second["type"]) == ("asked", "decided")
    assert first["id"] == web.received[0].headers["webhook-id"] != second["id"]
    about = first["data"]
    assert (about["tenant"], about["run_id"], about["workflow"]) == ("default", str(run_id), "pay")
    assert about["question"]["title"] == "Pay 5?" and len(about["question"]["digest"]) == 64
    assert about["link"] == f"https://desk/{run_id}"
    assert (second["data"]["decision"], second["data"]["by"]) == ("approved", "ana")
    assert second["data"]["question"]["open"] is False
    assert "evidence" not in str(first) and "action" not in str(first)
    for sent in web.received:
        assert signatures(sent) == [expected(sent, secret)]
        assert sent.path == "/hook?key=1" and sent.headers["host"] == f"127.0.0.1:{web.port}"
    assert jobs(database) == 0


async def test_a_mail_says_the_same_under_one_id(database: str, post: MailServer) -> None:
    post.answers = ["451 Later"]
    async with staged(database, {"pay": gated("Pay\r\nBcc: all@example.org")}, smtp_url=post.url) as stage:
        wanted = Wanted(SinkKind.MAIL, "desk@example.org", frozenset({Event.ASKED}))
        _, secret = await add_sink(stage.control, wanted)
        assert secret is None
        run_id = await asked(stage)
        (notice,) = await told(stage.control, "again")
        assert notice.error == "The mail server answered 451 Later."
        (notice,) = await told(stage.control, "delivered", hurried=database)
    (mail,) = post.mail
    message = message_from_bytes(mail.original_content or b"")
    assert mail.rcpt_tos == ["desk@example.org"] and message["To"] == "desk@example.org"
    assert message["Message-ID"] == f"<{notice.notice_id}@localhost>"
    assert message["Subject"].replace("\n", "").startswith("[control] A question is open: Pay Bcc: all")
    assert str(run_id) in str(message.get_payload())
    assert (notice.tries, notice.event) == (2, "asked")


async def test_what_is_refused_is_tried_again_under_the_same_id(database: str, web: WebServer) -> None:
    web.answers = [503, 500, 404, 302]
    async with staged(database, {"pay": gated()}, **HERE) as stage:
        _, secret = await hooked(stage.control, web.url, "asked")
        await asked(stage)
        (notice,) = await told(stage.control, "again")
        assert notice.error in ("It answered 503 Service Unavailable.", "It answered 500 Internal Server Error.")
        (notice,) = await told(stage.control, "delivered", hurried=database)
        assert (notice.tries, notice.error) == (5, None)
    assert len({sent.headers["webhook-id"] for sent in web.received}) == 1
    assert [sent.path for sent in web.received] == ["/hook?key=1"] * 5  # no redirect was followed
    assert all(signatures(sent) == [expected(sent, secret)] for sent in web.received)


async def test_a_sink_that_is_down_is_given_up_in_the_end_and_the_run_goes_on(database: str, web: WebServer) -> None:
    async with staged(database, {"pay": gated()}, notify_tries_limit=3, **HERE) as stage:
        await hooked(stage.control, "http://127.0.0.1:1/", "asked")
        await hooked(stage.control, web.url, "asked")
        run_id = await asked(stage)
        await told(stage.control, "failed", hurried=database)
        (down,) = await log(stage.control, failed=True)
        assert down.tries == 3 and down.error is not None and down.error.startswith("ConnectError")
        await approve(stage, run_id, "ana")
        await stage.until(run_id, "succeeded")
        assert len(web.received) == 1
    assert jobs(database) == 0


async def test_who_says_gone_is_told_no_more(database: str, web: WebServer) -> None:
    web.answers = [410]
    async with staged(database, {"pay": gated()}, **HERE) as stage:
        await hooked(stage.control, web.url, "asked")
        await asked(stage)
        (notice,) = await told(stage.control, "failed")
        assert (notice.tries, notice.error) == (1, "It answered 410 Gone.")


async def test_who_does_not_answer_is_not_waited_for(database: str, web: WebServer) -> None:
    web.go.clear()
    async with staged(database, {"pay": gated()}, notify_timeout_s=0.2, **HERE) as stage:
        await hooked(stage.control, web.url, "asked")
        await asked(stage)
        (notice,) = await told(stage.control, "again")
        assert notice.error == "It did not answer within 0.2 s."
        web.go.set()
        await told(stage.control, "delivered", hurried=database)


async def test_a_secret_is_rotated_under_way(database: str, web: WebServer) -> None:
    async with staged(database, {}, **HERE) as stage:
        sink_id, first = await hooked(stage.control, web.url, "asked")
        text, _ = await rotate_secret(stage.control, sink_id, overlap=HOUR)
        second = base64.b64decode(text.removeprefix("whsec_"))
        assert (await try_sink(stage.control, sink_id, patience=PATIENCE)).condition == "delivered"
        await clock.advance(database, HOUR)
        assert (await try_sink(stage.control, sink_id, patience=PATIENCE)).condition == "delivered"
    both, last = web.received
    assert signatures(both) == [expected(both, second), expected(both, first)]
    assert signatures(last) == [expected(last, second)]
    assert json.loads(last.body)["type"] == "test"


async def test_a_ladder_tells_whom_its_rung_calls_in(database: str, web: WebServer, post: MailServer) -> None:
    graph = gated(roles=["finance"], ladder=[Rung(HOUR, ["lead"], ["night desk"])], expires_in=3 * HOUR)
    async with staged(database, {"pay": graph}, smtp_url=post.url, **HERE) as stage:
        everything = tuple(Event)
        for address, name in (("finance@e.org", "finance"), ("lead@e.org", "lead"), ("desk@e.org", "night desk")):
            await add_sink(stage.control, Wanted(SinkKind.MAIL, address, frozenset(everything), frozenset({name})))
        await hooked(stage.control, web.url, *everything)
        run_id = await asked(stage)
        await told(stage.control, "delivered", times=2)
        assert [mail.rcpt_tos for mail in post.mail] == [["finance@e.org"]]
        await clock.advance(database, HOUR)
        await told(stage.control, "delivered", times=5)
        assert sorted(mail.rcpt_tos[0] for mail in post.mail[1:]) == ["desk@e.org", "lead@e.org"]
        await clock.advance(database, 2 * HOUR)
        await stage.until(run_id, "succeeded")
        await told(stage.control, "delivered", times=9)
    types = [json.loads(sent.body)["type"] for sent in web.received]
    assert sorted(types) == ["asked", "decided", "escalated", "expired"]
    (escalated,) = [json.loads(sent.body)["data"] for sent in web.received if b'"escalated"' in sent.body]
    assert (escalated["to"], escalated["notify"], escalated["rung"]) == (["lead"], ["night desk"], 1)


def broken() -> Any:
    def fail(_: Any) -> Any:
        raise TypeError("secret reason")

    return StateGraph(State).add_node("fail", fail).add_edge(START, "fail").compile()


def stuck() -> Any:
    """Fails for want of something that a person has to put right."""

    def fail(_: Any) -> Any:
        error = RuntimeError("secret reason")
        error.failure_class = FailureClass.HUMAN  # type: ignore[attr-defined]  # what `classify` looks for
        raise error

    return StateGraph(State).add_node("fail", fail).add_edge(START, "fail").compile()


async def test_a_run_that_fails_or_is_blocked_is_told_once(database: str, web: WebServer) -> None:
    async with staged(database, {"broken": broken(), "stuck": stuck()}, **HERE) as stage:
        await hooked(stage.control, web.url, "failed", "blocked")
        failed, blocked = [(await start(stage.control, name, {})).run_id for name in ("broken", "stuck")]
        await stage.until(failed, "failed")
        await stage.until(blocked, "blocked")
        await told(stage.control, "delivered", times=2)
        assert len(await log(stage.control)) == 2
    found = {data["data"]["run_id"]: data for data in (json.loads(sent.body) for sent in web.received)}
    assert found[str(failed)]["type"] == found[str(failed)]["data"]["status"] == "failed"
    assert found[str(blocked)]["type"] == found[str(blocked)]["data"]["status"] == "blocked"
    assert b"secret reason" not in b"".join(sent.body for sent in web.received)


async def test_what_is_rolled_back_is_never_told(database: str, web: WebServer) -> None:
    async with staged(database, {"pay": gated()}, work=False, **HERE) as stage:
        await hooked(stage.control, web.url, *Event)
        run = await start(stage.control, "pay", {})
        with pytest.raises(ZeroDivisionError):
            async with stage.control.transaction() as conn:
                locked = await runs.lock_run(conn, "default", run.run_id)
                entry = ("decided", "ana", {"interrupt_id": "i", "decision": "approved", "digest": ""})
                await runs.append(conn, locked, [entry], at=await runs.now(conn))
                raise ZeroDivisionError
        assert await log(stage.control) == [] and jobs(database) == 0
        async with stage.control.transaction() as conn:
            locked = await runs.lock_run(conn, "default", run.run_id)
            await runs.append(conn, locked, [entry], at=await runs.now(conn))
            assert jobs(database) == 0  # not before the commit, which is when a worker hears of it
        assert len(await log(stage.control)) == jobs(database) == 1


async def test_what_was_settled_long_ago_goes_as_others_are_told(database: str, web: WebServer) -> None:
    """Some at a time; what is still tried stays, however old it is."""
    async with staged(database, {}, notify_kept_days=30, **HERE) as stage:
        sink_id, _ = await hooked(stage.control, web.url, "asked")
        with psycopg.connect(database) as conn:
            conn.execute("set session_replication_role = replica")  # they come without jobs
            for days, settled, number in ((31, "failed_at", 30), (40, "delivered_at", 30), (29, "failed_at", 1)):
                conn.execute(sql.SQL(_OLD).format(sql.Identifier(settled)), (sink_id, days, number))
            conn.execute(sql.SQL(_OLD).format(sql.Identifier("tried_at")), (sink_id, 41, 1))
        left = []
        for _ in range(2):
            await try_sink(stage.control, sink_id, patience=PATIENCE)
            left.append(Counter(notice.condition for notice in await log(stage.control)))
        assert left == [
            {"delivered": 1, "failed": 11, "waiting": 1},
            {"delivered": 2, "failed": 1, "waiting": 1},
        ]


_OLD: Final = """
insert into control.notice (tenant, sink_id, event, made_at, {})
select 'default', %s, 'test', now() - make_interval(days => %s), now() from generate_series(1, %s)
"""


class Switchboard:
    """Webhooks without a network. fails: at once. Otherwise a send lasts until `answer`."""

    def __init__(self) -> None:
        self.fails, self.answer, self.sent = True, asyncio.Event(), list[str]()

    async def send(self, url: str, *_: Any) -> None:
        if self.fails:
            raise Undelivered("It did not answer within 0.2 s.")
        self.sent.append(url)
        await self.answer.wait()


async def test_a_sink_that_fails_leaves_room_to_the_others(database: str) -> None:
    """Until it is told something again, it has a few of a worker's tries, and what is put off is not counted as one."""
    async with staged(database, {}, work=False) as stage:
        switchboard: Any = Switchboard()
        courier = Courier(stage.app.database, switchboard, None, 12, None, timedelta(days=1), 10.0)
        dead, alive = [await hooked(stage.control, f"https://{name}.example/", "asked") for name in ("dead", "alive")]

        async def told_to(sink: str) -> UUID:
            async with stage.control.transaction() as conn:
                return await try_out(conn, "default", sink)

        assert await courier.deliver("default", await told_to(dead[0])) is not None, "it is tried again"
        switchboard.fails = False
        waiting = [await told_to(dead[0]) for _ in range(FAILING_AT_ONCE + 1)]
        tries = [asyncio.create_task(courier.deliver("default", one)) for one in waiting[:-1]]
        await until(lambda: _so(len(switchboard.sent) == FAILING_AT_ONCE), "each has begun")
        assert await courier.deliver("default", waiting[-1]) is not None
        tries.append(asyncio.create_task(courier.deliver("default", await told_to(alive[0]))))
        await until(lambda: _so("https://alive.example/" in switchboard.sent), "another sink is told")
        switchboard.answer.set()
        assert await asyncio.gather(*tries) == [None] * (FAILING_AT_ONCE + 1)
        assert len(switchboard.sent) == FAILING_AT_ONCE + 1 and not courier.busy and not courier.failing
        left = {notice.notice_id: notice.tries for notice in await log(stage.control)}
        assert left[waiting[-1]] == 0
        assert await courier.deliver("default", waiting[-1]) is None


async def test_a_backlog_for_a_sink_that_never_answers_comes_back_no_faster_than_it_is_tried(
    database: str, web: WebServer
) -> None:
    """Four tries of two seconds each at a time: within a quarter of a minute thirty come back, and not all of them."""
    backlog, quarter = 300, timedelta(seconds=15)
    web.go.clear()
    async with staged(database, {}, notify_timeout_s=2.0, **HERE) as stage:
        sink_id, _ = await hooked(stage.control, web.url, "asked")
        with psycopg.connect(database) as conn:
            conn.execute(_WAITING, (sink_id, backlog))
        await until(lambda: _so(idle(database)), "each of them was taken once", timeout_s=60)
        before = taken(database)
        assert before >= backlog
        hurry(database, by=quarter)
        await until(lambda: _so(idle(database)), "what came back was taken", timeout_s=60)
        again, tried = taken(database) - before, sum(notice.tries for notice in await log(stage.control, limit=backlog))
        assert 0 < again < backlog / 2, "each costs the database several transactions"
        assert 0 < tried < backlog / 2, "what is put off is not counted as a try"
        web.go.set()


_WAITING: Final = """
insert into control.notice (tenant, sink_id, event, made_at)
select 'default', %s, 'test', now() from generate_series(1, %s)
"""


def idle(conninfo: str) -> bool:
    """Whether no job is due."""
    with psycopg.connect(conninfo) as conn:
        waiting = "select from control_queue.procrastinate_jobs where status = 'todo'"
        return conn.execute(f"{waiting} and coalesce(scheduled_at, now()) <= now()").fetchone() is None


def taken(conninfo: str) -> int:
    """How often a job was taken; of those that are not done yet."""
    with psycopg.connect(conninfo) as conn:
        query = "select count(*) from control_queue.procrastinate_events where type = 'started'"
        (found,) = conn.execute(query).fetchone() or (0,)
        return int(found)


async def _so(holds: bool) -> bool:
    return holds


async def test_a_removed_sink_is_told_nothing_more(database: str, web: WebServer) -> None:
    web.answers = [503]
    async with staged(database, {"pay": gated()}, **HERE) as stage:
        sink_id, _ = await hooked(stage.control, web.url, "asked")
        await asked(stage)
        await told(stage.control, "again")
        await remove_sink(stage.control, sink_id)
        (notice,) = await told(stage.control, "failed", hurried=database)
        assert notice.error == "The sink was removed."
        await asked(stage)
        assert len(await log(stage.control)) == len(web.received) == 1
        assert await list_sinks(stage.control) == []
        assert [sink.sink_id for sink in await list_sinks(stage.control, removed=True)] == [sink_id]
        for act in (remove_sink, rotate_secret):
            with pytest.raises(Refusal, match="There is no such sink"):
                await act(stage.control, sink_id)


async def test_only_who_may_manage_sinks_sees_or_changes_them(database: str) -> None:
    async with staged(database, {}, work=False) as stage:
        sink_id, _ = await hooked(stage.control, "https://example.org/", "asked")
        approver = stage.acting("approver", "operator")
        acts = (
            hooked(approver, "https://example.org/", "asked"), list_sinks(approver), log(approver),
            remove_sink(approver, sink_id), rotate_secret(approver, sink_id),
            try_sink(approver, sink_id, patience=PATIENCE),
        )  # fmt: skip
        for act in acts:
            with pytest.raises(Refusal) as refused:
                await act
            assert refused.value.code == "not-permitted"
        assert len(await list_sinks(stage.control)) == 1


async def test_a_tenant_knows_nothing_of_anothers_sinks(database: str, web: WebServer) -> None:
    async with staged(database, {"pay": gated()}, **HERE) as stage:
        other = replace(stage.control, principal=tester("other"))
        sink_id, _ = await hooked(other, web.url, *Event)
        await asked(stage)
        assert await log(stage.control) == await log(other) == []
        for act in (remove_sink, rotate_secret):
            with pytest.raises(Refusal, match="There is no such sink"):
                await act(stage.control, sink_id)
        assert await list_sinks(stage.control) == []
        assert (await try_sink(other, sink_id, patience=PATIENCE)).condition == "delivered"


async def test_what_is_no_address_is_refused_and_not_stored(database: str) -> None:
    async with staged(database, {}, work=False) as stage:
        with pytest.raises(Refusal, match="Nobody can be told there"):
            await hooked(stage.control, "ftp://example.org/", "asked")
        assert await list_sinks(stage.control) == []


async def test_who_is_given_a_question_is_told(database: str, post: MailServer) -> None:
    graph = gated(skills=["tax"], expires_in=8 * HOUR)
    async with staged(database, {"pay": graph}, smtp_url=post.url, smtp_sender="us@control.example") as stage:
        for name in ("ana", "ben"):
            await set_assignee(stage.control, Candidate(name, frozenset(), frozenset({"tax"}), capacity=1))
            wanted = Wanted(SinkKind.MAIL, f"{name}@example.org", frozenset(Event), frozenset({name}))
            await add_sink(stage.control, wanted)
        await asked(stage)
        await asked(stage)
        found = await told(stage.control, "delivered", times=2)
    assert {notice.event for notice in found} == {"reassigned"}
    assert sorted(mail.rcpt_tos[0] for mail in post.mail) == ["ana@example.org", "ben@example.org"]
    assert {mail.mail_from for mail in post.mail} == {"us@control.example"}


async def test_the_courier_survives_its_connections(database: str, web: WebServer) -> None:
    async with staged(database, {"pay": gated()}, failover_wait_s=0.2, **HERE) as stage:
        await hooked(stage.control, web.url, "asked")
        await asked(stage)
        await told(stage.control, "delivered")
        with psycopg.connect(database) as conn:
            conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid() and usename = 'control_claim'"
            )
        await asked(stage)
        await told(stage.control, "delivered", times=2)
    assert len(web.received) == 2


async def test_a_mail_is_not_sent_without_a_mail_server(database: str) -> None:
    async with staged(database, {}) as stage:
        made, _ = await add_sink(stage.control, Wanted(SinkKind.MAIL, "a@example.org", frozenset({Event.ASKED})))
        notice = await try_sink(stage.control, made.sink_id, patience=PATIENCE)
        assert (notice.condition, notice.error) == ("failed", "No mail server is set: CONTROL_SMTP_URL.")


async def test_who_the_mail_server_does_not_know_is_given_up(database: str, post: MailServer) -> None:
    post.answers = ["550 No such user"]
    async with staged(database, {}, smtp_url=post.url) as stage:
        made, _ = await add_sink(stage.control, Wanted(SinkKind.MAIL, "a@example.org", frozenset({Event.ASKED})))
        notice = await try_sink(stage.control, made.sink_id, patience=PATIENCE)
        assert (notice.condition, notice.error) == ("failed", "The mail server answered 550 No such user.")


async def test_a_password_is_never_sent_in_the_clear(database: str, post: MailServer) -> None:
    async with staged(database, {}, smtp_url=post.url.replace("//", "//me:secret@")) as stage:
        made, _ = await add_sink(stage.control, Wanted(SinkKind.MAIL, "a@example.org", frozenset({Event.ASKED})))
        notice = await try_sink(stage.control, made.sink_id, patience=PATIENCE)
        assert notice.error == "SMTPNotSupportedError: STARTTLS extension not supported by server."
        assert notice.condition == "trying" and post.mail == []


async def test_what_kills_its_couriers_is_given_up(database: str, web: WebServer) -> None:
    async with staged(database, {"pay": gated()}, work=False, notify_tries_limit=3, **HERE) as stage:
        sink_id, _ = await hooked(stage.control, web.url, "asked")
        with psycopg.connect(database) as conn:
            conn.execute(
                "insert into control.notice (tenant, sink_id, event, made_at, tries)"
                " values ('default', %s, 'test', now(), 3)", (sink_id,)
            )  # fmt: skip
        async with stage.working():
            (notice,) = await told(stage.control, "failed")
        assert (notice.error, notice.tries) == ("Its couriers died, one after the other.", 4)
        assert web.received == []


async def test_a_worker_gives_its_sign_of_life_as_long_as_it_lives(database: str, web: WebServer) -> None:
    """Procrastinate's own ends with the first error that it meets."""

    def signs() -> list[Any]:
        with psycopg.connect(database) as conn:
            return conn.execute("select last_heartbeat from control_queue.procrastinate_workers").fetchall()

    async with staged(database, {"pay": gated()}, lease_s=1.5, **HERE) as stage:

        async def signed() -> bool:
            return len(signs()) == 1

        await until(signed, "there is a worker")
        web.go.clear()
        await hooked(stage.control, web.url, "asked")
        await asked(stage)
        for task in asyncio.all_tasks():
            if task.get_name() == "update_heartbeats":
                task.cancel()
        for _ in range(4):  # longer than it takes to count as lost
            before = signs()

            async def renewed(before: list[Any] = before) -> bool:
                return signs() > before

            await until(renewed, "it gives a sign of life")
        web.go.set()
        (notice,) = await told(stage.control, "delivered")
        assert notice.tries == len(web.received) == 1
