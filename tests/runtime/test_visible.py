"""A list shows what a full decision on each run lets be read: never more, and no less where the filter is exact."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from control.core.predicate import holds
from control.core.principal import Principal, PrincipalKind
from control.core.verdict import Permit
from control.policy.cedar import CedarPolicy
from control.policy.port import Request, Resource
from control.store.listing import NEWEST
from control.store.sql import read
from control.store.visibility import narrowed
from control.testing.database import Databases
from tests.policy.asking import person
from tests.policy.expressions import WORDS, any_rules, exact_rules

MAKE = """
insert into control.thread (tenant, thread_id) values ('t', %(thread)s);
insert into control.run (tenant, run_id, thread_id, workflow, created_at, created_by, since, status, priority, due_at,
                         progress_at, closed_at)
values ('t', %(id)s, %(thread)s, %(workflow)s, now(), %(by)s, now(), %(status)s, %(priority)s, %(due)s, now(), now())
"""
NOW = datetime.now(UTC)
principals = st.builds(
    Principal,
    tenant=st.just("t"),
    kind=st.sampled_from([PrincipalKind.PERSON, PrincipalKind.PERSON, PrincipalKind.SERVICE, PrincipalKind.AGENT]),
    roles=st.frozensets(st.sampled_from(["viewer", "nobody", "x"])),
    id=st.sampled_from(["ada", "bob", "eve", 'q"q', "new\nline"]),
    makers=st.frozensets(st.sampled_from(["bob", "loan", 'q"q'])),
)
Row = dict[str, Any]


@pytest.fixture(scope="module")
def runs(databases: Databases) -> Iterator[psycopg.Connection[Row]]:
    """Thirty runs with odd names: absent workflows, clocks that have moved, priorities that overflow."""
    with databases.cloned() as conninfo, psycopg.connect(conninfo, row_factory=dict_row, autocommit=True) as conn:
        for n in range(30):
            status = ("queued", "waiting", "running", "succeeded")[n % 4]
            due = NOW + timedelta(days=1 if n % 8 == 1 else -1) if status == "waiting" else None
            thread = WORDS[n % len(WORDS)] or "empty"
            about = {
                "id": UUID(int=n),
                "thread": thread if n < len(WORDS) else f"{thread}{n}",
                "workflow": None if n % 5 == 0 else WORDS[n * 3 % len(WORDS)],
                "by": WORDS[n * 7 % len(WORDS)],
                "status": status,
                "priority": n % 7 - 3,
                "due": due,
            }
            for statement in MAKE.split(";\n"):
                conn.execute(statement, about)
        yield conn


def listed(conn: psycopg.Connection[Row], policy: CedarPolicy, who: Principal) -> set[UUID]:
    """The runs that the filter shows."""
    return {row["run_id"] for row in page(conn, policy, who)}


def page(conn: psycopg.Connection[Row], policy: CedarPolicy | None, who: Principal) -> list[Row]:
    query: Any = read("runs")["page"]
    values: dict[str, Any] = {}
    if policy is not None:
        query, values = narrowed(query, policy.visible(who).where, who.tenant)
    given = {
        "tenant": "t",
        "limit": 100,
        "stall_after": timedelta(days=1),
        "before_at": NEWEST[0],
        "before_id": NEWEST[1],
    }
    return conn.execute(query, given | values).fetchall()


def permitted(conn: psycopg.Connection[Row], policy: CedarPolicy, who: Principal) -> set[UUID]:
    """The runs that a full decision on each lets be read."""
    verdicts = {row["run_id"]: policy.decide(Request(who, "read", resource(row))) for row in page(conn, None, who)}
    return {run_id for run_id, verdict in verdicts.items() if isinstance(verdict, Permit)}


def resource(row: Row) -> Resource:
    names = ("thread_id", "workflow", "status", "created_by", "priority")
    return Resource(
        "Run", str(row["run_id"]), "t", {name: row[name] for name in names}, of=(("Thread", row["thread_id"]),)
    )


def check(conn: psycopg.Connection[Row], text: str, who: Principal) -> bool:
    """Whether the filter is exact, after holding it to its promise."""
    policy = CedarPolicy(text)
    found, shown, may = policy.visible(who), listed(conn, policy, who), permitted(conn, policy, who)
    assert shown <= may
    assert shown == may or not found.exact
    rows = page(conn, None, who)
    assert shown == {row["run_id"] for row in rows if holds(found.where, row | {"id": str(row["run_id"])})}
    return found.exact


FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
MANY = settings(FEW, max_examples=5000)


@FEW
@given(text=any_rules, who=principals)
def test_a_list_shows_no_run_that_may_not_be_read(runs: psycopg.Connection[Row], text: str, who: Principal) -> None:
    check(runs, text, who)


@FEW
@given(text=exact_rules, who=principals.filter(lambda who: "\n" not in who.id))
def test_a_list_shows_every_run_where_all_has_a_condition(
    runs: psycopg.Connection[Row], text: str, who: Principal
) -> None:
    assert check(runs, text, who)


@pytest.mark.prove
@pytest.mark.timeout(3600)
@MANY
@given(text=any_rules, who=principals)
def test_a_list_shows_no_run_that_may_not_be_read_at_length(
    runs: psycopg.Connection[Row], text: str, who: Principal
) -> None:
    check(runs, text, who)


@pytest.mark.prove
@pytest.mark.timeout(3600)
@MANY
@given(text=exact_rules, who=principals.filter(lambda who: "\n" not in who.id))
def test_a_list_shows_every_run_where_all_has_a_condition_at_length(
    runs: psycopg.Connection[Row], text: str, who: Principal
) -> None:
    assert check(runs, text, who)


def test_a_filter_is_no_trivial_one(runs: psycopg.Connection[Row]) -> None:
    """What the properties hold would also hold of a list that shows nothing."""
    text = """@id("own") permit (principal, action, resource is Run) when { resource.created_by == principal.actor };
    @id("late") permit (principal, action, resource is Run) when { resource.status == "stalled" };
    @id("flow") forbid (principal, action, resource is Run) unless { resource has workflow };"""
    policy, who = CedarPolicy(text), person(id="ada")
    shown = listed(runs, policy, who)
    own = {row["run_id"] for row in page(runs, None, who) if row["created_by"] == "ada" and row["workflow"] is not None}
    assert shown == own and shown


def test_one_part_without_a_condition_hides_no_other_rule(runs: psycopg.Connection[Row]) -> None:
    text = """@id("odd") permit (principal, action, resource is Run) when { resource.priority + 1 > 2 };
    @id("all") permit (principal, action, resource is Run) when { resource.status == "queued" };"""
    policy = CedarPolicy(text)
    assert not policy.visible(person()).exact
    assert listed(runs, policy, person()) == {
        r["run_id"] for r in page(runs, None, person()) if r["status"] == "queued"
    }


def test_a_forbid_without_a_condition_hides_everything(runs: psycopg.Connection[Row]) -> None:
    text = """@id("all") permit (principal, action, resource);
    @id("odd") forbid (principal, action, resource is Run) when { resource.priority + 1 > 2 };"""
    assert listed(runs, CedarPolicy(text), person()) == set()
