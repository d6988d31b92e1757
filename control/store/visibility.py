"""A condition over runs as SQL: what a list is narrowed by.

The text has parameters for every value. A null makes a comparison unknown, and without negation unknown ends as "not
shown", which is what the condition means by an absent attribute. The status is the derived word, the clock applied.

Of patterns and of the derived word the planner knows nothing, and expects one run in 200 to match: of a tenant with few
runs it would read and sort them all. What stands in a `case` it expects of every other run, and reads in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, LiteralString, assert_never

from control.core.predicate import Attribute, Compared, Every, Known, Matching, Predicate, Present, Some

_PLACE: Final = "/* visible */ true"
_COLUMNS: Final[Mapping[Attribute, LiteralString]] = {
    Attribute.ID: "r.run_id::text",
    Attribute.TENANT: "r.tenant",
    Attribute.THREAD_ID: "r.thread_id",
    Attribute.WORKFLOW: "r.workflow",
    Attribute.STATUS: (
        "(case when r.status = 'running' and r.progress_at + %(stall_after)s <= (select control.clock()) then 'stalled'"
        " when r.status = 'waiting' and r.due_at <= (select control.clock()) then 'queued' else r.status end)"
    ),
    Attribute.CREATED_BY: "r.created_by",
    Attribute.PRIORITY: "r.priority",
}


def narrowed(query: LiteralString, where: Predicate, tenant: str) -> tuple[LiteralString, dict[str, Any]]:
    """The query, of runs `r`, for those of the tenant where the condition holds; and what it takes besides."""
    assert _PLACE in query, "the query has a place for a condition"
    values: dict[str, Any] = {}
    condition = _sql(where, tenant, values)
    return query.replace(_PLACE, condition), values


def _sql(predicate: Predicate, tenant: str, values: dict[str, Any]) -> LiteralString:
    match predicate:
        case Known(holds):
            return "true" if holds else "false"
        case Every(parts):
            return f"({' and '.join(_sql(part, tenant, values) for part in parts)})"
        case Some(parts):
            return f"({' or '.join(_sql(part, tenant, values) for part in parts)})"
        case Present(attribute, absent):
            return f"{_COLUMNS[attribute]} is {'null' if absent else 'not null'}"
        case Compared(Attribute.TENANT, order, value) if order in ("=", "<>"):
            return "true" if (value == tenant) is (order == "=") else "false"  # the query names the tenant already
        case Compared(attribute, order, value):
            condition = f"{_COLUMNS[attribute]} {order} {_value(value, values)}"
            return _likely(condition) if attribute is Attribute.STATUS and order == "=" else condition
        case Matching(attribute, pieces, differs):
            pattern = _value("".join("%" if piece is None else _literally(piece) for piece in pieces), values)
            column = _COLUMNS[attribute]
            return f"{column} not like {pattern}" if differs else _likely(f"{column} like {pattern}")
        case _:
            assert_never(predicate)


def _likely(condition: LiteralString) -> LiteralString:
    return f"case when {condition} then true else false end"


def _value(value: str | int, values: dict[str, Any]) -> LiteralString:
    name = f"visible_{len(values)}"
    values[name] = value
    return f"%({name})s{'::bigint' if isinstance(value, int) else ''}"


def _literally(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
