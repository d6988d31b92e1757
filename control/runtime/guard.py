"""Stops a refused call where it would start: at the tool itself.

LangChain announces each tool to its callbacks before it runs, and a callback may object. `ToolNode` turns the objection
into the tool's message, so the model learns of the "no" and the graph goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tools import ToolException
from langgraph.prebuilt.tool_node import ToolInvocationError

from control.core.veto import Veto, Vetoes


class CallRefused(ToolInvocationError):
    """A person refused this call. Of all that a tool raises, `ToolNode` shows the model this kind by default."""

    def __init__(self, name: str, args: Mapping[str, Any], veto: Veto) -> None:
        reason = f" with reason: {veto.reason}" if veto.reason else ""
        self.message = (
            f"{veto.by} refused the call of `{name}`{reason}. It was not executed. Do not retry it unless the user "
            "explicitly requests it."
        )
        self.tool_name, self.tool_kwargs = name, dict(args)
        ToolException.__init__(self, self.message)


class Guard(BaseCallbackHandler):
    """redact: blanks secrets as they were blanked in what was shown. enforced: told the interrupt whose "no" held."""

    raise_error = True
    run_inline = True

    def __init__(self, vetoes: Vetoes, *, redact: Callable[[Any], Any], enforced: Callable[[str], None]) -> None:
        self._vetoes, self._redact, self._enforced = vetoes, redact, enforced

    def on_tool_start(self, serialized: dict[str, Any], input_str: str, **told: Any) -> None:
        name, args = serialized.get("name") or "", told.get("inputs") or {}
        veto = self._vetoes.against(name, self._redact(args), call_id=told.get("tool_call_id"))
        if veto is not None:
            self._enforced(veto.interrupt_id)
            raise CallRefused(name, args, veto)
