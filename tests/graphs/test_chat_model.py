"""The real client speaks to an OpenAI-compatible endpoint; the script says that it is one."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import START, StateGraph

from nodes.chat_model import SCRIPTED, ScriptedModel, chat_model
from nodes.risk_scorer import memo_writer

PROMPT = [HumanMessage("Facts:\n- bureau score: 702\n- loan: EUR 5 over 2 months")]


class Endpoint(ThreadingHTTPServer):
    """`POST /v1/chat/completions` as OpenAI documents it; `seen` keeps what was asked, and under which authority."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Completions)
        self.seen: list[tuple[str, str, dict[str, Any]]] = []


class Completions(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, self.headers["Authorization"], asked))
        message = {"role": "assistant", "content": "A sound case.", "refusal": None}
        answer = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": asked["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13},
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with Endpoint() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OPENAI_API_KEY", "sk-local")
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
        monkeypatch.setenv("OPENAI_MODEL", "local-model")
        yield server
        server.shutdown()


def test_with_a_key_the_real_client_asks_the_configured_endpoint(endpoint: Endpoint) -> None:
    model = chat_model()
    assert isinstance(model, ChatOpenAI)
    assert model.invoke(PROMPT).text == "A sound case."
    ((path, authority, asked),) = endpoint.seen
    assert (path, authority) == ("/v1/chat/completions", "Bearer sk-local")
    assert (asked["model"], asked["temperature"]) == ("local-model", 0)
    assert asked["messages"] == [{"role": "user", "content": PROMPT[0].text}]


async def test_the_memo_node_keeps_the_answer_and_who_gave_it(endpoint: Endpoint) -> None:
    node = memo_writer(lambda state: {"score": state["score"]}, model=chat_model, target="memo")
    graph = StateGraph(dict).add_node("memo", node).add_edge(START, "memo").compile()
    assert await graph.ainvoke({"score": 702}) == {"memo": {"text": "A sound case.", "model": "local-model"}}
    (_, _, asked) = endpoint.seen[0]
    assert asked["messages"][1] == {"role": "user", "content": "Facts:\n- score: 702"}


def test_without_a_key_the_script_answers_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("SCRIPTED_MODEL_LOG", str(tmp_path / "calls.jsonl"))
    answer = chat_model().invoke(PROMPT)
    assert answer.text == (
        "Scripted memo; no model was asked. It restates 2 facts: bureau score is 702; loan is EUR 5 over 2 months."
    )
    assert answer.response_metadata["model_name"] == SCRIPTED
    (line,) = (tmp_path / "calls.jsonl").read_text().splitlines()
    assert json.loads(line)["facts"] == ["bureau score is 702", "loan is EUR 5 over 2 months"]


async def test_the_script_notes_a_call_before_it_answers(tmp_path: Path) -> None:
    log = tmp_path / "calls.jsonl"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ScriptedModel(log=log, delay_s=60).ainvoke(PROMPT), timeout=1)
    assert len(log.read_text().splitlines()) == 1
