"""The chat model that nodes ask: an OpenAI-compatible one when a key is set, else a script that says it is one."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any, Final

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

SCRIPTED: Final = "scripted (no model was asked)"
_DEFAULT_MODEL: Final = "gpt-4.1-mini"


def chat_model() -> BaseChatModel:
    """A `ChatOpenAI` if OPENAI_API_KEY is set (with OPENAI_BASE_URL and OPENAI_MODEL), else a `ScriptedModel`."""
    if os.environ.get("OPENAI_API_KEY"):
        from langchain_openai import ChatOpenAI  # here, because loading its client takes most of a second

        return ChatOpenAI(
            model=os.environ.get("OPENAI_MODEL") or _DEFAULT_MODEL,
            base_url=os.environ.get("OPENAI_BASE_URL") or None,
            temperature=0,
            timeout=60,
            max_retries=2,
        )
    log = os.environ.get("SCRIPTED_MODEL_LOG")
    return ScriptedModel(log=Path(log) if log else None, delay_s=float(os.environ.get("SCRIPTED_MODEL_DELAY_S") or 0))


class ScriptedModel(BaseChatModel):
    """Restates the `- name: value` lines of its prompt, always in the same words, and says that it is scripted.

    With `log`, each call appends a line to that file and syncs it before answering, so that calls are counted even
    across killed processes. `delay_s` is how long it thinks.
    """

    log: Path | None = None
    delay_s: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self._note(messages)
        time.sleep(self.delay_s)
        return _reply(messages)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self._note(messages)
        await asyncio.sleep(self.delay_s)
        return _reply(messages)

    def _note(self, messages: list[BaseMessage]) -> None:
        if self.log is None:
            return
        line = json.dumps({"pid": os.getpid(), "asked_at_s": time.time(), "facts": _facts(messages)})
        with self.log.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())


def _reply(messages: list[BaseMessage]) -> ChatResult:
    facts = _facts(messages)
    text = f"Scripted memo; no model was asked. It restates {len(facts)} facts: " + "; ".join(facts) + "."
    message = AIMessage(text, response_metadata={"model_name": SCRIPTED})
    return ChatResult(generations=[ChatGeneration(message=message)])


def _facts(messages: list[BaseMessage]) -> list[str]:
    lines = (line.strip() for message in messages for line in message.text.splitlines())
    return [line.removeprefix("- ").replace(": ", " is ", 1) for line in lines if line.startswith("- ")]
