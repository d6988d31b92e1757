"""Everything a principal may be permitted to do: the lifecycle's verbs, and what is not done to a run as such.

The words are those of the policy's schema, by test. What a graph's own API could do behind the commands' back (a state
update, a jump, a superstep, a new input, a copy, a deletion of a thread) is an action of its own, so that permission
to order a run about never means permission to change what it is.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from control.core.lifecycle import Verb


class Action(StrEnum):
    READ = "read"
    ERASE = "erase"
    EXPORT = "export"
    UPDATE_STATE = "update_state"
    GOTO = "goto"
    SUPERSTEPS = "supersteps"
    NEW_INPUT = "new_input"
    COPY_THREAD = "copy_thread"
    DELETE_THREAD = "delete_thread"
    CALL_TOOL = "call_tool"
    PLAN_TASK = "plan_task"
    PROPOSE_PLAN = "propose_plan"
    APPLY_POLICY = "apply_policy"
    MANAGE_KEYS = "manage_keys"
    MANAGE_ASSIGNEES = "manage_assignees"
    MANAGE_SINKS = "manage_sinks"
    DELEGATE = "delegate"
    SET_FACTS = "set_facts"
    READ_FACTS = "read_facts"
    SET_LIMITS = "set_limits"
    READ_LIMITS = "read_limits"


BACK_DOORS: Final = frozenset({
    Action.UPDATE_STATE, Action.GOTO, Action.SUPERSTEPS, Action.NEW_INPUT, Action.COPY_THREAD, Action.DELETE_THREAD,
})  # fmt: skip
ACTIONS: Final = frozenset({*Action, *Verb})
"""Every word that policy decides about."""
