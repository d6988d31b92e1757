"""Hot queries use their indexes: explained among 60,000 runs of 20 tenants, as the role that runs them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest

from control.core.predicate import ALWAYS
from control.core.run_status import Status
from control.policy.cedar import CedarPolicy
from control.store.erasure import FIRST
from control.store.inbox import BY_DEADLINE, OLDEST
from control.store.listing import page_query
from control.store.sql import read
from control.testing.database import Databases, as_role
from tests.policy.asking import person

RUNS: Final = 60_000
LAST: Final = UUID(int=2**128 - 1)
MAKE: Final = """
insert into control.thread (tenant, thread_id) select 'tenant-' || i %% 20, 'thread-' || i
from generate_series(1, %(n)s) i;
insert into control.run (tenant, run_id, thread_id, workflow, created_at, created_by, since, status, due_at, closed_at,
                         worker_id, claimed_at, progress_at, fit)
select 'tenant-' || i %% 20, gen_random_uuid(), 'thread-' || i,
       case when word = 'blocked' then 'flow' else 'flow-' || i %% 3 end, at,
       case i / 20 %% 2 when 0 then 'ana' else 'ben' end, at, word,
       case word when 'waiting' then now() + interval '1 day' * (1 + random()) end,
       case when word in ('succeeded', 'failed') then at end,
       case word when 'running' then gen_random_uuid() end, case word when 'running' then at end,
       case word when 'running' then now() end, case when word = 'blocked' then 'changed' else 'fits' end
from (select i, now() - interval '1 second' * i as at,
             case when i %% 5000 = 0 then 'running' when i %% 4999 = 0 then 'blocked' when i %% 500 = 0 then 'queued'
                  when i %% 3 = 0 then 'waiting' when i %% 7 = 0 then 'failed' else 'succeeded' end as word
      from generate_series(1, %(n)s) i) drawn;
insert into control.approval (tenant, run_id, interrupt_id, checkpoint_id, node, kind, title, packet, packet_digest,
                              opened_at, decision)
select tenant, run_id, 'i', 'c', 'n', 'approval', 't', '{}', '', created_at,
       case when status not in ('queued', 'waiting') then 'approved' end from control.run;
insert into control.ledger (tenant, run_id, seq, at, kind, actor, epoch, body, digest, hash)
select tenant, run_id, 1, created_at, 'accepted', 'ana', 0, repeat('x', 300), '', ''
from control.run order by created_at;
update control.approval set assignee = 'ana-' || left(run_id::text, 1), expires_at = opened_at + interval '1 day'
where decision is null;
insert into control.assignee (tenant, name, capacity, set_by, set_at)
select 'tenant-' || t, 'ana-' || i, 5, 'ana', now() from generate_series(0, 19) t, generate_series(0, 9) i;
insert into control.delegation (tenant, delegation_id, giver, taker, starts_at, ends_at, made_by, made_at)
select 'tenant-' || i %% 20, gen_random_uuid(), 'ben-' || i, 'ana-' || i, now() - interval '1 day',
       now() + interval '1 day', 'ben', now() from generate_series(1, %(n)s) i;
insert into control.sink (tenant, sink_id, kind, target, events, made_by, made_at)
select 'tenant-' || t, '0badcafe', 'mail', 'desk@example.org', '{asked}', 'ana', now() from generate_series(0, 19) t;
alter table control.notice disable trigger notice_is_enqueued;
insert into control.notice (tenant, sink_id, event, run_id, seq, made_at, delivered_at)
select tenant, '0badcafe', 'asked', run_id, 1, created_at, created_at from control.run;
insert into control.worker (worker_id, kind, host, pid, lease_until, ended_at)
select gen_random_uuid(), 'worker', 'h', i, now() - interval '1 day', now() from generate_series(1, 5000) i;
"""

Plan = dict[str, Any]
PAGE: Final = {
    "tenant": "tenant-7",
    "before_at": datetime.now(UTC),
    "before_id": LAST,
    "limit": 50,
    "stall_after": timedelta(minutes=2),
}
KEPT: Final = (Status.FAILED, Status.WAITING, Status.QUEUED, Status.RUNNING, Status.STALLED, Status.SUCCEEDED)
RULES: Final = {
    "whatever there is": '@id("all") permit (principal in Role::"viewer", action == Action::"read", resource);',
    "what she started": """@id("own") permit (principal, action == Action::"read", resource is Run)
        when { resource.created_by == principal.actor };""",
    "some workflows, and nothing urgent": """
        @id("some") permit (principal, action == Action::"read", resource is Run)
        when { resource has workflow && resource.workflow like "flow-*" };
        @id("calm") forbid (principal, action == Action::"read", resource is Run) when { resource.priority > 5 };""",
    "what is not cancelled": f"""@id("kept") permit (principal, action == Action::"read", resource is Run)
        when {{ {" || ".join(f'resource.status == "{word}"' for word in KEPT)} }};""",
}
ONE: Final = {"tenant": "tenant-7", "run_id": uuid4()}


@pytest.fixture(scope="module")
def crowded(databases: Databases) -> Iterator[str]:
    with databases.cloned() as conninfo:
        with psycopg.connect(conninfo, autocommit=True) as conn:
            for statement in MAKE.split(";\n"):
                given = {"n": RUNS} if "%(n)s" in statement else None
                conn.execute(psycopg.sql.SQL(statement), given)  # type: ignore[arg-type]  # it is the text above
            conn.execute("vacuum analyze")
        yield conninfo


def explained(conninfo: str, role: str, query: str, params: dict[str, Any]) -> Plan:
    """The plan as it ran, with its buffers."""
    with psycopg.connect(as_role(conninfo, role), autocommit=True) as conn:
        conn.execute("set plan_cache_mode = force_generic_plan; set jit = off")
        conn.execute(
            "select set_config('control.tenant', 'tenant-7', false), set_config('control.tenants', 'tenant-7', false)"
        )
        found = conn.execute(
            psycopg.sql.SQL("explain (analyze, buffers, format json) {}").format(psycopg.sql.SQL(query)),
            params,  # type: ignore[arg-type]  # it is a query of the store
        ).fetchone()
    assert found is not None
    plan: Plan = found[0][0]["Plan"] if not isinstance(found[0], str) else json.loads(found[0])[0]["Plan"]
    return plan


def nodes(plan: Plan) -> Iterator[Plan]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def indexes(plan: Plan) -> set[str]:
    return {node["Index Name"] for node in nodes(plan) if "Index Name" in node}


def scanned(plan: Plan) -> set[str]:
    """The tables read from end to end."""
    return {node["Relation Name"] for node in nodes(plan) if node["Node Type"] == "Seq Scan"}


CASES: Final[dict[str, tuple[str, str, str, dict[str, Any], str]]] = {
    "what lies with whom": (
        "control_flush",
        "assignees",
        "candidates",
        {"tenant": "tenant-7", "before": datetime.now(UTC)},
        "approval_assigned",
    ),
    "in whose place somebody may vote": (
        "control_command",
        "delegations",
        "lent",
        {"tenant": "tenant-7", "taker": "ana-7", "at": datetime.now(UTC)},
        "delegation_to",
    ),
    "what was told long ago": (
        "control_command",
        "notices",
        "prune",
        {"tenant": "tenant-7", "kept": timedelta(days=1), "limit": 50},
        "notice_listed",
    ),
    "what was told lately": (
        "control_command",
        "notices",
        "list",
        {"tenant": "tenant-7", "failed": False, "limit": 50},
        "notice_listed",
    ),
    "one run": ("control_command", "runs", "read", ONE, "run_pkey"),
    "a run by its thread": (
        "control_command",
        "runs",
        "find",
        {"tenant": "tenant-7", "name": "thread-7", "first": UUID(int=0), "last": UUID(int=0)},
        "run_on_thread",
    ),
    "the open run of a thread": (
        "control_command",
        "runs",
        "open_on_thread",
        {"tenant": "tenant-7", "thread_id": "thread-27"},
        "run_open_on_thread",
    ),
    "what is due": ("control_claim", "claims", "due", {"limit": 200}, "run_due"),
    "my claims": ("control_claim", "claims", "mine", {"worker_id": uuid4()}, "run_claimed"),
    "claims of the dead": (
        "control_claim",
        "claims",
        "lost",
        {"grace": timedelta(seconds=2), "limit": 200, "worker_id": uuid4()},
        "run_claimed",
    ),
    "what has aged": (
        "control_flush",
        "erasure",
        "aged",
        {
            "tenant": "tenant-7",
            "before": datetime.now(UTC) - timedelta(hours=16),
            "after_at": FIRST[0],
            "after_id": FIRST[1],
            "limit": 100,
        },
        "run_closed",
    ),
    "heads that moved lately": (
        "control_flush",
        "trees",
        "moved_since",
        {"tenant": "tenant-7", "since": datetime.now(UTC) - timedelta(minutes=2), "limit": 10_000},
        "ledger_at",
    ),
    "what was said of an intent": ("control_flush", "verdicts", "judged", ONE | {"key": "k"}, "ledger_pkey"),
    "who started a run": ("control_flush", "verdicts", "starter", ONE, "ledger_pkey"),
    "blocked runs": (
        "control_claim",
        "claims",
        "readopt",
        {"workflows": ["flow"], "known": [], "limit": 200},
        "run_unfit",
    ),
    "a claim": (
        "control_claim",
        "claims",
        "claim",
        {
            "worker_id": uuid4(),
            "workflows": ["none"],
            "digests": ["none:1"],
            "free": 20,
            "served": ["tenant-1"],
            "behind": [16.0],
            "actor": "worker:x",
            "grace": timedelta(seconds=2),
        },
        "run_claimable",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_hot_query_uses_its_index(crowded: str, case: str) -> None:
    role, noun, name, params, index = CASES[case]
    plan = explained(crowded, role, read(noun)[name], params)
    assert index in indexes(plan), f"{indexes(plan)}"
    assert not scanned(plan) & {"run", "approval", "ledger", "thread"}


@pytest.mark.parametrize(("query", "index"), [(OLDEST, "approval_open"), (BY_DEADLINE, "approval_by_deadline")])
def test_the_inbox_uses_the_index_of_its_order(crowded: str, query: LiteralString, index: str) -> None:
    plan = explained(crowded, "control_command", query, PAGE)
    assert index in indexes(plan), f"{indexes(plan)}"
    assert not scanned(plan) & {"run", "approval"}


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("status", [None, *KEPT])
def test_a_page_reads_few_buffers(crowded: str, status: Status | None, rules: str) -> None:
    """50 rows of 3,000, as `control runs` asks for them: a page that sorts a tenant's runs, or looks through all of
    them for those that its reader may see, reads thousands of buffers.
    """
    where = CedarPolicy(RULES[rules]).visible(person("viewer", id="ana", tenant="tenant-7")).where
    query, params = page_query("tenant-7", limit=50, stall_after=timedelta(minutes=2), status=status, where=where)
    assert (where == ALWAYS) is (rules == "whatever there is")
    plan = explained(crowded, "control_command", query, params)
    assert ("run_listed_by_status" if status else "run_listed") in indexes(plan), f"{indexes(plan)}"
    assert not scanned(plan)
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] <= 250


def test_living_workers_are_found_among_many_dead(crowded: str) -> None:
    with psycopg.connect(as_role(crowded, "control_claim"), autocommit=True) as conn:
        rows = conn.execute(
            "explain select digests from control.worker where ended_at is null and lease_until > clock_timestamp()"
        ).fetchall()
    assert any("worker_living" in line for (line,) in rows)
