"""Where in a run a call stands: the port that records it, and a key that survives crash, retry and re-execution.

The key must be the same when the step is executed again, so it holds no task or checkpoint id (LangGraph makes new ones
when the checkpoint before the step was lost), and must differ between two visits of one node, so it holds the step of
every graph from the root down. A subgraph starts again at step 0 on each visit; the step of each ancestor is read from
its checkpoint id, a UUID whose clock sequence LangGraph sets to the step (14 bits: it wraps after 16,384 steps).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Final
from uuid import UUID
from weakref import WeakKeyDictionary

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import (
    CONFIG_KEY_CHECKPOINT_MAP,
    CONFIG_KEY_CHECKPOINT_NS,
    CONFIG_KEY_CHECKPOINTER,
    CONFIG_KEY_READ,
    CONFIG_KEY_RUNTIME,
    CONFIG_KEY_SCRATCHPAD,
    CONFIG_KEY_TASK_ID,
)
from langgraph.config import get_config

from control.core.problem import Problem
from control.sdk.ports import EffectPort

OUTSIDE_A_RUN: Final = Problem(
    code="outside-a-run",
    status=500,
    title="This call belongs inside a running node",
    next_step="Call it from a node's own thread or task, or copy the context (contextvars.copy_context) into yours.",
)

BRANCH: Final = "__control_branch"
"""The configurable key under which the control plane says how often the run was rewound. A default key holds it, since
steps taken again after a rewind are other steps; an explicit key does not: what it names was done already."""

_Ordinals = dict[tuple[int, str], Iterator[int]]
_ordinals: Final[WeakKeyDictionary[Any, _Ordinals]] = WeakKeyDictionary()


def running_config() -> RunnableConfig:
    """The configuration of the node that is executing. Problem: `outside-a-run`."""
    try:
        config = get_config()
    except RuntimeError:
        raise OUTSIDE_A_RUN.because("No LangGraph node is executing here.") from None
    if CONFIG_KEY_READ not in config.get("configurable", {}):
        raise OUTSIDE_A_RUN.because("A runnable is executing here, but it is not part of a graph.")
    return config


def effect_port(config: RunnableConfig) -> EffectPort | None:
    """The saver's effect ledger, or None under a saver that keeps none."""
    return getattr(config["configurable"].get(CONFIG_KEY_CHECKPOINTER), "effects", None)


def answers_so_far() -> Sequence[Any]:
    """What the running task has been resumed with, oldest first; None of it was checked."""
    scratchpad = running_config()["configurable"].get(CONFIG_KEY_SCRATCHPAD)
    return tuple(scratchpad.resume) if scratchpad is not None else ()


def default_key(config: RunnableConfig, name: str) -> str:
    """`<node>@<step>/.../<path>/<name>#<n>`: the nth call of this name in this visit of this node.

    Each use takes the next ordinal; a retry of the node in the same process starts again at 0, as a new process does.
    """
    site = "/".join((*_branch(config), *_ancestors(config), _path(config["metadata"]["langgraph_path"][:3])))
    return f"{site}/{name}#{next(_ordinal(config, name))}"


def unrecorded_key(config: RunnableConfig, key: str) -> str:
    """The key that the other side sees where no port makes one: unique to the run, thread or (without either) task."""
    configurable, metadata = config["configurable"], config.get("metadata", {})
    owner = metadata.get("run_id") or configurable.get("thread_id") or configurable[CONFIG_KEY_TASK_ID]
    return f"{owner}/{key}"


def _branch(config: RunnableConfig) -> Iterator[str]:
    if rewound := config["configurable"].get(BRANCH):
        yield f"branch-{rewound}"


def _ancestors(config: RunnableConfig) -> Iterator[str]:
    namespace: str = config["configurable"][CONFIG_KEY_CHECKPOINT_NS]
    parents: dict[str, str] = config["configurable"].get(CONFIG_KEY_CHECKPOINT_MAP) or {}
    for parent in sorted((ns for ns in parents if namespace.startswith(ns)), key=len):
        node = namespace[len(parent) :].lstrip("|").partition(":")[0]
        yield f"{node}@{UUID(parents[parent]).clock_seq}"


def _path(path: tuple[Any, ...]) -> str:
    return ".".join(_path(part) if isinstance(part, tuple) else str(part) for part in path)


def _ordinal(config: RunnableConfig, name: str) -> Iterator[int]:
    # The reader is made anew for each preparation of a task and dies with it: counts cannot leak or be mixed up.
    configurable = config["configurable"]
    counts = _ordinals.setdefault(configurable[CONFIG_KEY_READ], {})
    info = configurable[CONFIG_KEY_RUNTIME].execution_info
    return counts.setdefault((info.node_attempt if info else 1, name), itertools.count())
