"""Packing a value as LangGraph does, and refusing one that would come back as something else.

The format is LangGraph's MessagePack, and what it cannot tell apart is handled here: a tuple, an OrderedDict, a Counter
and numpy's float64 are written as types to be built again (stock LangGraph reads them so too, or as the plain data
within where it is strict), any other subclass of a builtin is refused, and so are classes that may not be read back,
exceptions, half characters, dictionary keys of other types than plain ones, arrays of more than numbers, and models and
dataclasses that would not be built again whole (`store.rebuilding`). The packer itself meets them all, so that a value
which is only plain data costs nothing more; where a dictionary has keys that are no texts, its keys are looked at once
more. Only what the packer takes as bytes without asking is not seen: a bytearray or a memoryview within another value
comes back as bytes.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Iterator
from datetime import date, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import ormsgpack
from langchain_core.messages.base import TextAccessor
from langchain_core.runnables.utils import AddableDict
from langgraph.checkpoint.serde import jsonplus
from langgraph.checkpoint.serde._msgpack import SAFE_MSGPACK_TYPES
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.store.base import Item
from langgraph.types import Send
from pydantic import RootModel

from control.core.problem import Problem, Refusal
from control.store.rebuilding import dumping, lost

NOT_SERIALISABLE: Final = Problem(
    code="state-not-serialisable",
    status=422,
    title="A value in the graph's state cannot be stored",
    next_step="Keep it out of the state (an UntrackedValue channel, the runtime context) or turn it into plain data.",
)
TYPE_NOT_ALLOWED: Final = Problem(
    code="type-not-allowed",
    status=422,
    title="A value in the graph's state would come back as another type",
    next_step="Turn it into plain data (dict, list, str, number) in the node, or name its model, dataclass or enum in "
    "the state's schema.",
)
REBUILT: Final = {tuple: list, OrderedDict: dict, Counter: dict}  # type: what it is built from again
READABLE: Final = frozenset({(kind.__module__, kind.__name__) for kind in REBUILT} | {("numpy", "float64")})

Way = Callable[[Any], Any]
_STRICT: Final = (jsonplus._option | ormsgpack.OPT_PASSTHROUGH_SUBCLASS | ormsgpack.OPT_PASSTHROUGH_TUPLE) & ~(
    ormsgpack.OPT_NON_STR_KEYS | ormsgpack.OPT_REPLACE_SURROGATES
)
_ANY_KEY: Final = _STRICT | ormsgpack.OPT_NON_STR_KEYS
_NOT_A_TEXT: Final = "Dict key must be str"  # what the packer says of such a key, if it is not told to take it
_KEYS: Final = frozenset({str, int, float, bool, bytes, type(None), TextAccessor})
_BUILTINS: Final = (str, int, float, bytes, bytearray, tuple, list, dict)
_AS_PLAIN: Final[dict[type, Way]] = {TextAccessor: str, AddableDict: dict}  # LangChain's own, meant to be just that
_DICTS: Final = {dict, *(kind for kind, way in _AS_PLAIN.items() if way is dict)}
_LEAVES: Final = (
    Path, UUID, Decimal, IPv4Address, IPv4Network, IPv6Address, IPv6Network, date, time, timedelta, timezone, ZoneInfo,
)  # fmt: skip
_ARRAY: Final = ("numpy", "ndarray")
_DEEPEST: Final = 40  # steps of a path that is shown


class Packing:
    """types: the (module, name) of what may be read back."""

    def __init__(self, types: Collection[tuple[str, ...]]) -> None:
        self._types = types
        self._ways: dict[type, Way] = {}
        self._refused: dict[type, str] = {}

    def pack(self, value: Any, channel: str = "") -> bytes:
        """Raises `state-not-serialisable` and `type-not-allowed`, with the place of what is refused."""
        try:
            return self._packed(value)
        except (ormsgpack.MsgpackEncodeError, RecursionError, _OddKey) as error:
            raise self._refusal(value, channel) from error

    def _packed(self, value: Any) -> bytes:
        try:
            return ormsgpack.packb(value, default=self._encode, option=_STRICT)
        except ormsgpack.MsgpackEncodeError as error:
            if str(error) != _NOT_A_TEXT:
                raise
        packed = ormsgpack.packb(value, default=self._encode, option=_ANY_KEY)
        _check_keys(value)
        return packed

    def _encode(self, value: Any) -> Any:
        kind = type(value)
        way = self._ways.get(kind)
        if way is None:
            way = self._ways[kind] = self._way(kind)
        return way(value)

    def _way(self, kind: type) -> Way:
        """How values of a class are written. Found out once, by the order in which LangGraph asks."""
        named = (kind.__module__, kind.__name__)
        if kind is _DeltaSnapshot:
            return lambda value: ormsgpack.Ext(jsonplus.EXT_DELTA_SNAPSHOT, self._packed(value.value))
        if kind in _AS_PLAIN:
            return _AS_PLAIN[kind]
        if kind in REBUILT:
            return self._built(named, jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG, REBUILT[kind])
        if named == ("numpy", "float64"):
            return self._built(named, jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG, float)
        if issubclass(kind, BaseException):
            return self._refuse(kind, "would come back as a text")
        if issubclass(kind, _BUILTINS) and not (issubclass(kind, Enum) or hasattr(kind, "_asdict")):
            plain = next(builtin for builtin in _BUILTINS if issubclass(kind, builtin))
            return self._refuse(kind, f"would come back as {plain.__name__}")
        code, parts, *method = _parts(kind)
        if code is None:
            way = _array if named == _ARRAY else jsonplus._msgpack_default
            return way if self._leaf(kind) else self._refuse(kind)
        if not self._readable(kind):
            return self._refuse(kind)
        if named not in SAFE_MSGPACK_TYPES and (why := lost(kind)):
            return self._refuse(kind, why)
        return self._built(named, code, parts, *method)

    def _built(self, named: tuple[str, str], code: int, parts: Way, *method: str) -> Way:
        return lambda value: ormsgpack.Ext(code, self._packed([*named, parts(value), *method]))

    def _refuse(self, kind: type, why: str = "is not among the types that may be read back") -> Way:
        self._refused[kind] = why

        def refuse(value: Any) -> Any:
            raise TypeError(why)

        return refuse

    def _leaf(self, kind: type) -> bool:
        """Whether LangGraph's own code may write it: a class of its list, or one that it will say no to."""
        if issubclass(kind, _LEAVES):
            return (kind.__module__, kind.__name__) in self._types
        numpy = sys.modules.get("numpy")
        return numpy is None or not issubclass(kind, numpy.ndarray) or kind is numpy.ndarray

    def _readable(self, kind: type) -> bool:
        """A class made inside a function or another class cannot be found by its module and name."""
        named = (kind.__module__, kind.__name__)
        module = sys.modules.get(kind.__module__)
        return named in self._types and (module is None or getattr(module, kind.__name__, None) is kind)

    def _why(self, value: Any) -> str | None:
        """Why a value may not be written: because of its class or, of an array, its parts."""
        kind = type(value)
        array = (kind.__module__, kind.__name__) == _ARRAY
        return self._refused.get(kind) or (_lost_of_array(value) if array else None)

    def _refusal(self, value: Any, channel: str) -> Refusal:
        place, culprit = self._culprit(value)
        kind = type(culprit)
        name = f"{kind.__module__}.{kind.__qualname__}" if kind.__module__ != "builtins" else kind.__name__
        parts = [f"channel {channel!r}"] * bool(channel) + [f"at {place}"] * bool(place)
        where = f" ({', '.join(parts)})" if parts else ""
        facts = {"type": f"{kind.__module__}.{kind.__name__}", "channel": channel or None, "place": place}
        if why := self._why(culprit):
            return TYPE_NOT_ALLOWED.because(f"{name} {why}{where}.", **facts)
        try:
            self._packed(culprit)
        except _OddKey as error:
            return TYPE_NOT_ALLOWED.because(f"{error}{where}.", **facts)
        except (ormsgpack.MsgpackEncodeError, RecursionError) as error:
            return NOT_SERIALISABLE.because(f"{name}: {error}{where}.", **facts)
        return NOT_SERIALISABLE.because(f"{name} is nested too deep{where}.", **facts)

    def _culprit(self, value: Any) -> tuple[str, Any]:
        """The innermost value that cannot be packed, and the way to it."""
        place: list[str] = []
        while len(place) < _DEEPEST:
            found = next(((step, part) for step, part in _within(value) if not self._packs(part)), None)
            if found is None:
                break
            place.append(found[0])
            value = found[1]
        return "".join(place), value

    def _packs(self, value: Any) -> bool:
        try:
            self._packed(value)
        except (ormsgpack.MsgpackEncodeError, RecursionError, _OddKey):
            return False
        return True


class _OddKey(TypeError):
    """A dictionary's key would come back as another type."""


def _check_keys(value: Any) -> None:
    """Look at the keys of what the packer takes without asking. It has packed them, so that nothing holds itself."""
    if type(value) in _DICTS:
        for key in value:
            if (odd := _odd(key)) is not None:
                kind = type(odd)
                raise _OddKey(f"a dictionary's key of type {kind.__module__}.{kind.__qualname__} would change")
        value = list(value.values())
    if type(value) is list and not _only_texts(value):
        for part in value:
            _check_keys(part)


def _only_texts(parts: list[Any]) -> bool:
    """Whether every key within is a text, which the packer tells sooner than a look at each would."""
    try:
        ormsgpack.packb(parts, default=_plain, option=_STRICT)
    except ormsgpack.MsgpackEncodeError:
        return False
    return True


def _plain(value: Any) -> Any:
    """What counts of a value here: nothing, if it packs what is within by itself and has been looked at there."""
    way = _AS_PLAIN.get(type(value))
    return way(value) if way else None


def _odd(key: Any) -> Any:
    """The part of a key that would come back as another type, or None."""
    if type(key) is tuple:
        return next((odd for part in key if (odd := _odd(part)) is not None), None)
    return None if type(key) in _KEYS else key


def _parts(kind: Any) -> tuple[Any, ...]:
    """The extension's code, what a value's arguments are, and a method's name if there is one; (None, None) for a leaf.

    In LangGraph's order, which counts for a class that answers to several of these.
    """
    if isinstance(kind, type) and issubclass(kind, RootModel):
        return jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG, dumping(kind)  # its dump may be no dict
    if callable(getattr(kind, "model_dump", None)):
        return jsonplus.EXT_PYDANTIC_V2, dumping(kind), "model_validate_json"
    if callable(getattr(kind, "get_secret_value", None)):
        return jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG, lambda value: value.get_secret_value()
    if callable(getattr(kind, "dict", None)):
        return jsonplus.EXT_PYDANTIC_V1, lambda value: value.dict()
    if callable(getattr(kind, "_asdict", None)):
        return jsonplus.EXT_CONSTRUCTOR_KW_ARGS, lambda value: value._asdict()
    if issubclass(kind, set | frozenset):
        return jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG, list
    if issubclass(kind, deque):
        return jsonplus.EXT_CONSTRUCTOR_POS_ARGS, lambda value: [list(value), value.maxlen]
    if issubclass(kind, Enum):
        return jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG, lambda value: value.value
    if issubclass(kind, Send):
        return jsonplus.EXT_CONSTRUCTOR_POS_ARGS, _sent
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
        return jsonplus.EXT_CONSTRUCTOR_KW_ARGS, lambda value: {name: getattr(value, name) for name in names}
    if issubclass(kind, Item):
        return jsonplus.EXT_CONSTRUCTOR_KW_ARGS, lambda value: {name: getattr(value, name) for name in value.__slots__}
    return None, None


def _sent(value: Send) -> list[Any]:
    timeout = getattr(value, "timeout", None)
    return [value.node, value.arg] if timeout is None else [value.node, value.arg, timeout]


def _array(value: Any) -> Any:
    if why := _lost_of_array(value):
        raise TypeError(why)
    return jsonplus._msgpack_default(value)


def _lost_of_array(value: Any) -> str | None:
    """LangGraph writes an array's memory, and of the type of its parts a short name."""
    if value.dtype.hasobject:
        return "holds objects, and would come back as None"
    return "has named fields, and would come back without their names" if value.dtype.names else None


def _within(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value holds, each with the step that leads to it."""
    match value:
        case dict():
            yield from ((f"[{key!r:.60}]", part) for key, part in value.items())
        case tuple() if hasattr(value, "_asdict"):
            yield from ((f".{name}", part) for name, part in value._asdict().items())
        case list() | tuple() | set() | frozenset() | deque():
            yield from ((f"[{position}]", part) for position, part in enumerate(value))
        case Enum():
            yield ".value", value.value
        case Send():
            yield ".arg", value.arg
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from ((f".{field.name}", getattr(value, field.name)) for field in dataclasses.fields(value))
        case _ if callable(getattr(value, "model_dump", None)):
            dump = value.model_dump()
            fields = dump if isinstance(dump, dict) and not isinstance(value, RootModel) else {}
            yield from ((f".{name}", part) for name, part in fields.items()) if fields else _within(dump)
