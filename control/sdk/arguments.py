"""The arguments of a tool call as the tool takes them, so that what is judged and shown is what will be done.

A model may write a number as a text and leave out what has a default. A rule that looked at the call as it was written
would be got round by that; so it is read by the tool's own schema first, without what LangGraph injects.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from langchain_core.tools import BaseTool
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, WithJsonSchema, create_model

from control.core.packet import plain


class ArgumentsUnfit(ValueError):
    """They are not what the tool takes. The text says why, for the model."""


def as_taken(tool: BaseTool | None, args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with defaults filled in, each of the type that the tool gives it, as JSON. Those of an unknown tool
    stay as they are. Raises `ArgumentsUnfit`.
    """
    schema = tool.tool_call_schema if tool is not None else {}
    if isinstance(schema, dict):
        return _checked(schema, args)
    if not issubclass(schema, BaseModel):  # of the first pydantic
        return _checked(schema.schema(), args)
    try:
        taken = schema.model_validate(args).model_dump(mode="json", by_alias=True, fallback=repr)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise ArgumentsUnfit("; ".join(faults)) from error
    return dict(plain(taken))


def edited_as(tool: BaseTool | None) -> type[BaseModel]:
    """What an approver may set: other arguments of the same tool, all of them, and no other."""

    def fits(args: dict[str, Any]) -> dict[str, Any]:
        return _checked(schema, args)

    schema = _json_schema(tool)
    args = Annotated[dict[str, Any], AfterValidator(fits), WithJsonSchema(schema)]
    return create_model("Edited", __config__=ConfigDict(extra="forbid"), args=(args | None, None))


def _json_schema(tool: BaseTool | None) -> dict[str, Any]:
    """A schema that may stand inside another: it has an id, from which its own references go out."""
    if tool is None:
        return {"type": "object"}
    found = tool.tool_call_schema
    if isinstance(found, dict):
        schema = found
    else:
        schema = found.model_json_schema() if issubclass(found, BaseModel) else found.schema()
    return {"additionalProperties": False, **schema, "$id": f"urn:tool:{tool.name}"}


def _checked(schema: Mapping[str, Any], args: Mapping[str, Any]) -> dict[str, Any]:
    from jsonschema import Draft202012Validator  # most graphs have none of this, and need not wait for it
    from jsonschema.exceptions import best_match

    given: dict[str, Any] = dict(plain(args))
    if fault := best_match(Draft202012Validator(schema).iter_errors(given)):
        raise ArgumentsUnfit(f"{fault.json_path.removeprefix('$.').removeprefix('$') or 'arguments'}: {fault.message}")
    return given
