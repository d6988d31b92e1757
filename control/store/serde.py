"""Strict serialisation of checkpoints.

LangGraph's default serialiser imports and calls whatever the database's bytes name, and lets an unknown type come back
as the plain data it was made of. This one reads back only types that were allowed, and refuses, with the type's name,
to write one that would come back as something else. As in LangGraph itself, a tuple comes back as a list and a subclass
of a builtin (a defaultdict, say) as that builtin. Values named secret are blanked before they are stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import ormsgpack
from langgraph.checkpoint.serde import jsonplus
from langgraph.checkpoint.serde._msgpack import SAFE_MSGPACK_METHODS, SAFE_MSGPACK_TYPES
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from control.core.problem import Problem, Refusal

NOT_SERIALISABLE: Final = Problem(
    code="state-not-serialisable", status=422, title="A value in the graph's state cannot be stored",
    next_step="Keep it out of the state (an UntrackedValue channel, or the runtime context), or turn it into plain data.",
)
TYPE_NOT_ALLOWED: Final = Problem(
    code="type-not-allowed", status=422, title="A value in the graph's state would come back as another type",
    next_step="Name its class in the state's schema, or turn it into plain data (dict, list, str, number) in the node.",
)

_NAMED: Final = {  # the extension codes whose payload opens with (module, name)
    jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG, jsonplus.EXT_CONSTRUCTOR_POS_ARGS, jsonplus.EXT_CONSTRUCTOR_KW_ARGS,
    jsonplus.EXT_METHOD_SINGLE_ARG, jsonplus.EXT_PYDANTIC_V1, jsonplus.EXT_PYDANTIC_V2,
}
_SHORTEST_SECRET: Final = 6  # characters; blanking every "1" would ruin the state


class StrictSerializer(JsonPlusSerializer):
    """Writes LangGraph's own format (`msgpack`), reads and writes only allowed types.

    allowed: (module, name) pairs beyond LangGraph's safe list. secrets: values to blank wherever they appear.
    """

    def __init__(self, allowed: Iterable[tuple[str, ...]] = (), secrets: Iterable[str] = ()) -> None:
        self._types: set[tuple[str, ...]] = {*SAFE_MSGPACK_TYPES, *allowed}
        self._secrets = sorted({s.encode() for s in secrets if len(s) >= _SHORTEST_SECRET}, key=len, reverse=True)
        super().__init__(allowed_msgpack_modules=self._types)

    def allow(self, types: Iterable[tuple[str, ...]]) -> None:
        """Allow further types, as (module, name). Their classes are imported when such a value is read."""
        self._types.update(types)
        super().__init__(allowed_msgpack_modules=self._types)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """The value as (format, bytes). Raises `state-not-serialisable` and `type-not-allowed`."""
        if obj is None or isinstance(obj, bytes | bytearray):
            kind, data = super().dumps_typed(obj)
            return kind, self.redact(data)
        return "msgpack", self.redact(self._pack(obj))

    def redact(self, data: bytes) -> bytes:
        """The same bytes with every secret blanked; the length stays, and with it the encoding."""
        for secret in self._secrets:
            data = data.replace(secret, b"*" * len(secret))
        return data

    def redact_text(self, text: str) -> str:
        return self.redact(text.encode()).decode() if self._secrets else text

    def _pack(self, obj: Any) -> bytes:
        foreign = False

        def encode(value: Any) -> Any:
            nonlocal foreign
            foreign = True
            return jsonplus._msgpack_default(value)

        try:
            data = ormsgpack.packb(obj, default=encode, option=jsonplus._option)
        except ormsgpack.MsgpackEncodeError as error:
            raise NOT_SERIALISABLE.because(f"{error}.", type=type(obj).__name__) from error
        if foreign:
            self._check(data)
        return data

    def _check(self, data: bytes) -> None:
        """Refuse packed data that names a type which `loads_typed` would not build."""
        refused: list[str] = []

        def visit(code: int, payload: bytes) -> None:
            if code in _NAMED:
                parts = ormsgpack.unpackb(payload, ext_hook=visit, option=ormsgpack.OPT_NON_STR_KEYS)
                if not self._readable(code, parts):
                    refused.append(f"{parts[0]}.{parts[1]}")
            elif code == jsonplus.EXT_DELTA_SNAPSHOT:
                ormsgpack.unpackb(payload, ext_hook=visit, option=ormsgpack.OPT_NON_STR_KEYS)

        ormsgpack.unpackb(data, ext_hook=visit, option=ormsgpack.OPT_NON_STR_KEYS)
        if refused:
            raise _not_allowed(refused[0])

    def _readable(self, code: int, parts: list[Any]) -> bool:
        if code == jsonplus.EXT_METHOD_SINGLE_ARG:
            return (parts[0], parts[1], parts[3]) in SAFE_MSGPACK_METHODS
        return (parts[0], parts[1]) in self._types


def _not_allowed(name: str) -> Refusal:
    return TYPE_NOT_ALLOWED.because(f"{name} is not among the types that may be read back.", type=name)
