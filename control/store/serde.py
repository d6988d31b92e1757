"""Strict serialisation of checkpoints.

LangGraph's default serialiser imports and calls whatever the database's bytes name, and lets an unknown type come back
as the plain data it was made of. This one reads back only types that were allowed, and refuses, with the type's name
and its place, to write a value that would come back as something else (`store.packing`). Secrets are blanked before
anything is stored (`store.redaction`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, Final

import ormsgpack
from langgraph.checkpoint.serde import jsonplus
from langgraph.checkpoint.serde._msgpack import SAFE_MSGPACK_TYPES
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from control.store.packing import READABLE, Packing
from control.store.redaction import Redaction

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
_TUPLE: Final = ormsgpack.packb(["builtins", "tuple", 0])[:-1]  # what a packed tuple opens with


class StrictSerializer(JsonPlusSerializer):
    """Writes LangGraph's own format (`msgpack`), reads and writes only allowed types.

    allowed: (module, name) pairs beyond LangGraph's safe list. secrets: values to blank wherever they appear.
    patterns: regular expressions whose matches are blanked, each looked for in one text at a time. With patterns every
    value is unpacked and packed again when it is written; without, only one that holds a secret.
    """

    def __init__(
        self, allowed: Iterable[tuple[str, ...]] = (), secrets: Iterable[str] = (), patterns: Iterable[str] = ()
    ) -> None:
        self._types: set[tuple[str, ...]] = {*SAFE_MSGPACK_TYPES, *READABLE}
        self._redaction = Redaction(secrets, patterns)
        self.allow(allowed)

    def allow(self, types: Iterable[tuple[str, ...]]) -> None:
        """Allow further types, as (module, name). Their classes are imported when such a value is read."""
        self._types.update(types)
        self._packing = Packing(self._types)
        super().__init__(allowed_msgpack_modules=self._types)
        self._unpack_ext_hook = _tuples_first(self._unpack_ext_hook)

    def dumps_typed(self, obj: Any, *, channel: str = "") -> tuple[str, bytes]:
        """The value as (format, bytes), redacted. Raises `state-not-serialisable` and `type-not-allowed`, which name
        the channel if it is given.
        """
        if obj is None or type(obj) in (bytes, bytearray):
            kind, data = super().dumps_typed(obj)
            return kind, self._redaction.data(data)
        packed = self._packing.pack(obj, channel)
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


def _restored(blanked: Any, given: Any, identity: str | int | None) -> Any:
    """Blanked arguments with their identity as it was given."""
    if isinstance(identity, str) and isinstance(given, dict) and identity in given:
        return {**blanked, identity: given[identity]}
    if isinstance(identity, int) and isinstance(given, list):
        return [*blanked[:identity], given[identity], *blanked[identity + 1 :]]
    return blanked


def _tuples_first(build: Callable[[int, bytes], Any]) -> Callable[[int, bytes], Any]:
    """LangGraph's reading, but a tuple is built without being looked up, which takes longer than building it."""

    def hook(code: int, data: bytes) -> Any:
        if code == jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG and data.startswith(_TUPLE):
            return tuple(ormsgpack.unpackb(data, ext_hook=hook, option=_UNPACK)[2])
        return build(code, data)

    return hook
