"""What of a class LangGraph would not build again: found out once per class, before a value of it is written.

A dataclass is called with its fields, a pydantic model with its dump. Where that fails LangGraph says nothing and gives
back what it can: the model unchecked, or its bare dump. A model whose fields are taken by an alias alone is dumped by
its aliases. What depends on the value is not seen here, nor what a class does by itself as it is made.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from inspect import Parameter
from typing import Any, Final, get_args, get_type_hints

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

_NAMED: Final = {Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY}
_ANY_NUMBER: Final = {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}


def lost(kind: type) -> str | None:
    """What would be lost of a dataclass or model, to be said after the class's name; None if nothing is known."""
    if issubclass(kind, BaseModel):
        return _lost_by_dump(kind, by_alias=_by_alias(kind))
    return _lost_by_call(kind) if dataclasses.is_dataclass(kind) else None


def dumping(kind: Any) -> Callable[[Any], Any]:
    """How a model is dumped, so that it can be built from it: as it says itself wherever that does."""
    if isinstance(kind, type) and issubclass(kind, BaseModel) and (by_alias := _by_alias(kind)) != _itself(kind):
        return lambda value: value.model_dump(by_alias=by_alias)
    return lambda value: value.model_dump()


def _lost_by_call(kind: Any) -> str | None:
    """A constructor may be written by hand, or take an InitVar, which is no field."""
    fields = {field.name for field in dataclasses.fields(kind)}
    parameters = inspect.signature(kind).parameters.values()
    named = {each.name for each in parameters if each.kind in _NAMED}
    if not fields <= named and not any(each.kind is Parameter.VAR_KEYWORD for each in parameters):
        return "has fields that its constructor does not take, and would come back as dict"
    needed = {each.name for each in parameters if each.default is Parameter.empty and each.kind not in _ANY_NUMBER}
    return None if needed <= fields & named else "is made from more than its fields, and would come back as dict"


def _itself(kind: type[BaseModel]) -> bool:
    return bool(kind.model_config.get("serialize_by_alias"))


def _by_alias(kind: type[BaseModel]) -> bool:
    itself = _itself(kind)
    return next((way for way in (itself, not itself) if _lost_by_dump(kind, by_alias=way) is None), itself)


def _lost_by_dump(kind: type[BaseModel], *, by_alias: bool) -> str | None:
    """A dump is plain data all through, so that the models within count too."""
    return next((why for part in _named_in(kind) for why in _losses(part, by_alias)), None)


def _losses(kind: Any, by_alias: bool) -> Iterator[str]:
    if not issubclass(kind, BaseModel):
        if any(not field.init for field in dataclasses.fields(kind)):
            yield f"would lose fields of {kind.__name__} that its constructor does not take"
        return
    config = kind.model_config
    for name, field in kind.model_fields.items():
        if field.exclude:
            yield f"would come back without {kind.__name__}.{name}, which is excluded from its dump"
        elif (field.serialization_alias or name if by_alias else name) not in _names(name, field, config):
            yield f"would come back without {kind.__name__}.{name}, whose alias its dump does not know"
    if kind.model_computed_fields and config.get("extra") in ("allow", "forbid"):
        yield f"would be given {kind.__name__}.{next(iter(kind.model_computed_fields))}, which it computes"


def _names(name: str, field: FieldInfo, config: Any) -> set[str]:
    """What a field may be called by whoever makes the model."""
    alias = field.validation_alias
    names = {name} if alias is None or config.get("populate_by_name") or config.get("validate_by_name") else set()
    if config.get("validate_by_alias") is not False:
        names |= {each for each in (alias.choices if isinstance(alias, AliasChoices) else [alias]) if type(each) is str}
    return names


def _named_in(kind: type) -> Iterator[type]:
    """A model, and every model and dataclass that its fields' types name, however deep."""
    seen: dict[int, Any] = {}
    waiting: list[Any] = [kind]
    while waiting:
        hint = waiting.pop()
        if id(hint) in seen:
            continue
        seen[id(hint)] = hint
        if isinstance(hint, type) and issubclass(hint, BaseModel):
            waiting += [field.annotation for field in hint.model_fields.values()]
            yield hint
        elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
            waiting += _hints(hint)
            yield hint
        else:
            waiting += [*get_args(hint), getattr(hint, "__value__", None)]


def _hints(kind: Any) -> list[Any]:
    try:
        return list(get_type_hints(kind).values())
    except NameError:  # known to pydantic alone, from where the class was made
        return []
