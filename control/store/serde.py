"""Strict serialisation of checkpoints.

LangGraph's default serialiser imports and calls whatever the database's bytes name, and lets an unknown type come back
as the plain data it was made of. This one reads back only types that were allowed, and refuses, with the type's name,
to write one that would come back as something else. As in LangGraph itself, a tuple comes back as a list, a subclass
of a builtin (a defaultdict, say) as that builtin, and an exception as its `repr`. Secrets are blanked before anything
is stored (`store.redaction`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any, Final

import ormsgpack
from langgraph.checkpoint.serde import jsonplus
from langgraph.checkpoint.serde._msgpack import SAFE_MSGPACK_METHODS, SAFE_MSGPACK_TYPES
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from control.core.problem import Problem, Refusal
from control.store.redaction import Redaction

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
    next_step="Name its class in the state's schema, or turn it into plain data (dict, list, str, number) in the node.",
)

_NAMED: Final = {  # the extension codes whose payload opens with (module, name)
    jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG,
    jsonplus.EXT_CONSTRUCTOR_POS_ARGS,
    jsonplus.EXT_CONSTRUCTOR_KW_ARGS,
    jsonplus.EXT_METHOD_SINGLE_ARG,
    jsonplus.EXT_PYDANTIC_V1,
    jsonplus.EXT_PYDANTIC_V2,
}
_IDENTITY: Final[
    dict[tuple[str, str], str | int]
] = {  # what LangGraph finds things by, in the arguments of its own types: a key, or a place
    ("langgraph.types", "Interrupt"): "id",
    ("langgraph.types", "Send"): 0,
    ("langgraph.types", "Command"): "goto",
}
_UNPACK: Final = ormsgpack.OPT_NON_STR_KEYS


class StrictSerializer(JsonPlusSerializer):
    """Writes LangGraph's own format (`msgpack`), reads and writes only allowed types.

    allowed: (module, name) pairs beyond LangGraph's safe list. secrets: values to blank wherever they appear.
    patterns: regular expressions whose matches are blanked, each looked for in one text at a time. With patterns every
    value is unpacked and packed again when it is written; without, only one that holds a secret.
    """

    def __init__(
        self, allowed: Iterable[tuple[str, ...]] = (), secrets: Iterable[str] = (), patterns: Iterable[str] = ()
    ) -> None:
        self._types: set[tuple[str, ...]] = {*SAFE_MSGPACK_TYPES, *allowed}
        self._redaction = Redaction(secrets, patterns)
        super().__init__(allowed_msgpack_modules=self._types)

    def allow(self, types: Iterable[tuple[str, ...]]) -> None:
        """Allow further types, as (module, name). Their classes are imported when such a value is read."""
        self._types.update(types)
        super().__init__(allowed_msgpack_modules=self._types)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """The value as (format, bytes), redacted. Raises `state-not-serialisable` and `type-not-allowed`."""
        if obj is None or isinstance(obj, bytes | bytearray):
            kind, data = super().dumps_typed(obj)
            return kind, self._redaction.data(data)
        packed = self._pack(obj)
        return "msgpack", self._blanked(packed) if self._redaction.may_touch(packed) else packed

    def redact_text(self, text: str) -> str:
        """The text with every secret blanked."""
        return self._redaction.text(text)

    def redact(self, value: Any) -> Any:
        """Plain data (as of JSON) with every secret in its texts and keys blanked; anything else in it stays."""
        return self._redaction.value(value) if self._redaction else value

    def redact_json(self, text: str) -> str:
        """JSON text with every secret blanked in what it says, however it is escaped. Other text stays as it was."""
        if not self._redaction:
            return text
        said = json.loads(text)
        blanked = self._redaction.value(said)
        return text if blanked == said else json.dumps(blanked, sort_keys=True, ensure_ascii=False)

    def _blanked(self, data: bytes) -> bytes:
        """The same packed value with its texts redacted. Types' names stay, and what LangGraph finds things by."""

        def within(code: int, payload: bytes) -> ormsgpack.Ext:
            if code == jsonplus.EXT_DELTA_SNAPSHOT:
                return ormsgpack.Ext(code, self._blanked(payload))
            if code not in _NAMED:
                return ormsgpack.Ext(code, payload)  # an array's raw numbers, in which a match means nothing
            module, name, given, *method = ormsgpack.unpackb(payload, ext_hook=within, option=_UNPACK)
            blanked = _restored(self._redaction.value(given), given, _IDENTITY.get((module, name)))
            return ormsgpack.Ext(code, ormsgpack.packb([module, name, blanked, *method], option=jsonplus._option))

        value = ormsgpack.unpackb(data, ext_hook=within, option=_UNPACK)
        return ormsgpack.packb(self._redaction.value(value), option=jsonplus._option)

    def _pack(self, obj: Any) -> bytes:
        foreign = False

        def encode(value: Any) -> Any:
            nonlocal foreign
            foreign = True
            return jsonplus._msgpack_default(value)

        try:
            data = ormsgpack.packb(obj, default=encode, option=jsonplus._option)
        except (ormsgpack.MsgpackEncodeError, RecursionError) as error:
            raise NOT_SERIALISABLE.because(f"{error}.", type=type(obj).__name__) from error
        if foreign:
            self._check(data)
        return data

    def _check(self, data: bytes) -> None:
        """Refuse packed data that names a type which `loads_typed` would not build."""

        def visit(code: int, payload: bytes) -> None:
            if code in _NAMED:
                parts = ormsgpack.unpackb(payload, ext_hook=visit, option=_UNPACK)
                if not self._readable(code, parts):
                    refused.append(f"{parts[0]}.{parts[1]}")
            elif code == jsonplus.EXT_DELTA_SNAPSHOT:
                ormsgpack.unpackb(payload, ext_hook=visit, option=_UNPACK)

        refused: list[str] = []
        ormsgpack.unpackb(data, ext_hook=visit, option=_UNPACK)
        if refused:
            raise _not_allowed(refused[0])

    def _readable(self, code: int, parts: list[Any]) -> bool:
        if code == jsonplus.EXT_METHOD_SINGLE_ARG:
            return (parts[0], parts[1], parts[3]) in SAFE_MSGPACK_METHODS
        return (parts[0], parts[1]) in self._types and _importable(parts[0], parts[1])


def _importable(module: str, name: str) -> bool:
    """A class made inside a function or another class cannot be found by its module and name."""
    loaded = sys.modules.get(module)
    return loaded is None or hasattr(loaded, name)


def _restored(blanked: Any, given: Any, identity: str | int | None) -> Any:
    """Blanked arguments with their identity as it was given."""
    if isinstance(identity, str) and isinstance(given, dict) and identity in given:
        return {**blanked, identity: given[identity]}
    if isinstance(identity, int) and isinstance(given, list):
        return [*blanked[:identity], given[identity], *blanked[identity + 1 :]]
    return blanked


def _not_allowed(name: str) -> Refusal:
    return TYPE_NOT_ALLOWED.because(f"{name} is not among the types that may be read back.", type=name)
