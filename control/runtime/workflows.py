"""The workflows of this process: the graphs that `langgraph.json` names, loaded and described.

A graph is an object of a module (`./graphs/loan.py:graph`): a compiled graph, a builder, or a function without
arguments that returns either. Its digest stands for its shape (nodes, triggers, channels, breakpoints), so that a run
is continued by a version that it fits; code inside a node may change without a new digest.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final, Literal, NotRequired, Required, get_args, get_origin, get_type_hints

from langgraph._internal._serde import build_serde_allowlist
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph, StateGraph
from langgraph.pregel import Pregel
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from control.core.problem import Problem

CONFIG_UNREADABLE: Final = Problem(
    code="config-unreadable",
    status=500,
    title="The file that names the workflows cannot be used",
    next_step="Correct it, or name another with CONTROL_CONFIG; its format is that of langgraph.json.",
)
GRAPH_UNLOADABLE: Final = Problem(
    code="graph-unloadable",
    status=500,
    title="A workflow cannot be loaded",
    next_step="Correct the module or its entry in langgraph.json (path/to/file.py:name).",
)
UNKNOWN_WORKFLOW: Final = Problem(
    code="unknown-workflow",
    status=404,
    title="There is no such workflow",
    next_step="Name one of those in langgraph.json, or add it there.",
)
INVALID_INPUT: Final = Problem(
    code="invalid-input",
    status=422,
    title="The input does not fit the workflow",
    next_step="Send an input that matches the workflow's input schema.",
)

CHEAP: Final = "control.cheap"
"""A node's metadata key: its step may be lost in a crash and done again, so its checkpoint is not waited for."""


@dataclass(frozen=True, slots=True)
class Workflow:
    """A graph ready to be driven. parts_total: how many nodes it has. cheap: those whose step may be redone. routes:
    whether its next step is decided while it runs, so that a node may be started many times at once.
    """

    name: str
    graph: Pregel[Any, Any, Any, Any]
    digest: str
    parts_total: int
    cheap: frozenset[str]
    routes: bool
    allowed: frozenset[tuple[str, ...]]

    def check_input(self, value: Any) -> Any:
        """The input if it fits the graph's input schema. Raises `invalid-input`."""
        schema = self.graph.builder.input_schema if isinstance(self.graph, CompiledStateGraph) else None
        if schema is None:
            return value
        if not isinstance(value, Mapping):
            raise INVALID_INPUT.because(f"{self.name} takes an object, not {type(value).__name__}.")
        fields = {name: _type(hint) for name, hint in get_type_hints(schema, include_extras=True).items()}
        if unknown := sorted(set(value) - set(fields)):
            raise INVALID_INPUT.because(f"{self.name} has no input called {', '.join(unknown)}.", known=sorted(fields))
        try:
            _check(schema, fields, value)
        except ValidationError as error:
            errors = error.errors(include_url=False, include_context=False, include_input=False)
            raise INVALID_INPUT.because(f"{fault_of(error)}.", errors=errors) from error
        return value

    def under(self, saver: BaseCheckpointSaver[str]) -> Pregel[Any, Any, Any, Any]:
        """The same graph, writing through this saver."""
        return self.graph.copy(update={"checkpointer": saver})


def load_workflows(config: Path) -> dict[str, Workflow]:
    """Every workflow that the file names. Raises `config-unreadable`, `graph-unloadable`."""
    graphs = _named_graphs(config)
    root = config.resolve().parent
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return {name: describe(name, _load(name, target, root)) for name, target in graphs.items()}


def describe(name: str, graph: Pregel[Any, Any, Any, Any]) -> Workflow:
    """A compiled graph as a workflow."""
    nodes = {node: spec for node, spec in graph.nodes.items() if not node.startswith("__")}
    cheap = frozenset(node for node, spec in nodes.items() if (spec.metadata or {}).get(CHEAP))
    return Workflow(
        name, graph, f"{name}:{_digest(graph)}", len(nodes), cheap, _routes(graph), frozenset(_allowed(graph))
    )


def _routes(graph: Pregel[Any, Any, Any, Any]) -> bool:
    if not isinstance(graph, CompiledStateGraph):
        return True
    return any(graph.builder.branches.values()) or any(node.ends for node in graph.builder.nodes.values())


def pick(workflows: Mapping[str, Workflow], name: str) -> Workflow:
    """The workflow of that name. Raises `unknown-workflow`."""
    if name not in workflows:
        raise UNKNOWN_WORKFLOW.because(f"Nothing is called {name!r}; known: {', '.join(sorted(workflows)) or 'none'}.")
    return workflows[name]


def _named_graphs(config: Path) -> dict[str, str]:
    try:
        graphs = json.loads(config.read_text(encoding="utf-8"))["graphs"]
        return {name: target if isinstance(target, str) else target["path"] for name, target in graphs.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CONFIG_UNREADABLE.because(f"{config}: {type(error).__name__}: {error}.") from error


def _load(name: str, target: str, root: Path) -> Pregel[Any, Any, Any, Any]:
    path, _, attribute = target.rpartition(":")
    try:
        found = getattr(_module(path, root), attribute)
        made = found() if callable(found) and not isinstance(found, Pregel | StateGraph) else found
    except (Exception, SystemExit) as error:
        raise GRAPH_UNLOADABLE.because(f"{name} ({target}): {type(error).__name__}: {error}.") from error
    compiled = made.compile() if isinstance(made, StateGraph) else made
    if not isinstance(compiled, Pregel):
        raise GRAPH_UNLOADABLE.because(f"{name} ({target}) is a {type(compiled).__name__}, not a graph.")
    return compiled


def _module(path: str, root: Path) -> ModuleType:
    """A file of a package below the root is imported under its dotted name, so that it exists once."""
    if not path.endswith(".py"):
        return importlib.import_module(path)
    file = (root / path).resolve()
    relative = file.relative_to(root) if file.is_relative_to(root) else Path(file.name)
    if (file.parent / "__init__.py").exists() and file.is_relative_to(root):
        return importlib.import_module(".".join(relative.with_suffix("").parts))
    spec = importlib.util.spec_from_file_location(f"workflow_{file.stem}", file)
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _digest(graph: Pregel[Any, Any, Any, Any]) -> str:
    shape = {
        "nodes": {name: sorted(node.triggers) for name, node in graph.nodes.items()},
        "channels": {name: type(channel).__name__ for name, channel in graph.channels.items()},
        "breakpoints": [_names(graph.interrupt_before_nodes), _names(graph.interrupt_after_nodes)],
        "subgraphs": {name: _digest(child) for name, child in graph.get_subgraphs() if isinstance(child, Pregel)},
    }
    return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]


def _names(nodes: str | Iterable[str]) -> list[str]:
    return [nodes] if isinstance(nodes, str) else sorted(nodes)


def _allowed(graph: Pregel[Any, Any, Any, Any]) -> set[tuple[str, ...]]:
    """The types that the graph's own schemas name, and so may be stored and read back."""
    graphs = [graph, *(child for _, child in graph.get_subgraphs(recurse=True))]
    schemas = [schema for g in graphs if isinstance(g, CompiledStateGraph) for schema in g.builder.schemas]
    channels = {
        f"{i}.{name}": c for i, g in enumerate(graphs) if isinstance(g, Pregel) for name, c in g.channels.items()
    }
    return build_serde_allowlist(schemas=schemas, channels=channels)


def _type(hint: Any) -> Any:
    """A field's type without what says whether it must be there."""
    return get_args(hint)[0] if get_origin(hint) in (Required, NotRequired) else hint


def _check(schema: Any, fields: Mapping[str, Any], value: Mapping[str, Any]) -> None:
    """A model wants all that it requires; of a TypedDict's keys an input may give some, each of the right type.

    A field with a reducer of its own takes whatever that takes, which its type does not say.
    """
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        schema.model_validate(dict(value))
        return
    for name, given in value.items():
        if any(isinstance(extra, FunctionType) for extra in getattr(fields[name], "__metadata__", ())):
            continue
        try:
            field = TypeAdapter(dict[Literal[name], fields[name]])  # type: ignore[valid-type]  # names the field in errors
        except PydanticSchemaGenerationError:
            continue  # a type pydantic knows nothing of is the graph's own business
        field.validate_python({name: given})


def fault_of(error: ValidationError) -> str:
    """The first thing that is wrong with a value, without the value."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'input'}: {first['msg']}"
