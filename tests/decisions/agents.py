"""Agents as people write them for plain LangGraph: they know nothing of a control plane.

`batched` and `per_call` review tool calls in the shapes and at the places of LangChain's agent middleware: after the
model, one interrupt for all gated calls; or as the call starts, one for each. `gated` is a node that asks, and a node
that acts. `when` is the condition under which they ask, which they look at again when they are resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.tools import BaseTool, tool
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Send, interrupt
from typing_extensions import TypedDict

Call = dict[str, Any]


class Approve(TypedDict):
    type: Literal["approve"]


class Reject(TypedDict, total=False):
    type: Literal["reject"]
    message: str


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]


@dataclass
class Agent:
    """calls: what its model wants, as (tool, arguments). when: whether a call is gated. ran: what was done."""

    calls: Sequence[tuple[str, dict[str, Any]]]
    when: Callable[[Call], bool] = lambda _: True
    allowed: Sequence[str] = ("approve", "edit", "reject", "respond")
    ran: list[tuple[str, Any]] = field(default_factory=list)

    def tools(self) -> list[BaseTool]:
        @tool
        def pay(to: str, amount: int) -> str:
            """Pay somebody."""
            self.ran.append(("pay", (to, amount)))
            return "paid"

        @tool
        def wipe(customer: str) -> str:
            """Delete a customer."""
            self.ran.append(("wipe", customer))
            return "deleted"

        return [pay, wipe]

    def model(self, _: State) -> dict[str, Any]:
        calls = [{"name": name, "args": args, "id": f"call-{at}"} for at, (name, args) in enumerate(self.calls)]
        return {"messages": [AIMessage("", tool_calls=calls)]}

    def review(self, state: State) -> dict[str, Any]:
        """All gated calls of the model's turn, in one interrupt."""
        said = state["messages"][-1]
        assert isinstance(said, AIMessage)
        gated: list[Any] = [call for call in said.tool_calls if self.when(dict(call))]
        if not gated:
            return {}
        requests = [{"name": call["name"], "args": call["args"], "description": "Review it."} for call in gated]
        configs = [{"action_name": call["name"], "allowed_decisions": list(self.allowed)} for call in gated]
        decisions = interrupt({"action_requests": requests, "review_configs": configs})["decisions"]
        if len(decisions) != len(gated):
            raise ValueError(f"{len(decisions)} decisions for {len(gated)} calls")
        calls, told = {call["id"]: call for call in said.tool_calls}, []
        for call, decision in zip(gated, decisions, strict=True):
            if decision["type"] not in self.allowed:
                raise ValueError(f"{decision['type']} is not allowed")
            match decision["type"]:
                case "edit":
                    calls[call["id"]] = {**call, **decision["edited_action"]}
                case "reject" | "respond":
                    told.append(_told(call, decision.get("message", "rejected")))
        return {"messages": [AIMessage("", id=said.id, tool_calls=list(calls.values())), *told]}

    def one(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """One gated call, as it starts."""
        call = request.tool_call
        if not self.when(call):
            return handler(request)
        value = {
            "type": "tool_approval",
            "tool_call_id": call["id"],
            "name": call["name"],
            "args": call["args"],
            "description": "Review it.",
        }
        decision: Any = interrupt(value, response_schema=Approve | Reject)  # type: ignore[call-overload]  # a union is a schema too
        return handler(request) if decision["type"] == "approve" else _told(call, decision.get("message", "rejected"))


def batched(agent: Agent) -> Any:
    def pending(state: State) -> list[Send] | str:
        """A task of its own for each call that nobody has answered yet."""
        said = next(message for message in reversed(state["messages"]) if isinstance(message, AIMessage))
        answered = {message.tool_call_id for message in state["messages"] if isinstance(message, ToolMessage)}
        return [Send("tools", [call]) for call in said.tool_calls if call["id"] not in answered] or END

    graph = StateGraph(State).add_node("model", agent.model).add_node("review", agent.review)
    graph.add_node("tools", ToolNode(agent.tools())).add_edge(START, "model").add_edge("model", "review")
    return graph.add_conditional_edges("review", pending, ["tools", END]).add_edge("tools", END)


def per_call(agent: Agent) -> Any:
    def each(state: State) -> list[Send]:
        said = state["messages"][-1]
        assert isinstance(said, AIMessage)
        return [Send("tools", [call]) for call in said.tool_calls]

    graph = StateGraph(State).add_node("model", agent.model).add_edge(START, "model")
    graph.add_node("tools", ToolNode(agent.tools(), wrap_tool_call=agent.one))
    return graph.add_conditional_edges("model", each, ["tools"]).add_edge("tools", END)


def gated(agent: Agent) -> Any:
    """A node that asks in the older shape, and for each call a node that does it."""
    graph = StateGraph(State)
    names = [f"{name}-{at}" for at, (name, _) in enumerate(agent.calls)]
    for at, (name, args) in enumerate(agent.calls):
        after = names[at + 1] if at + 1 < len(names) else END
        graph.add_node(names[at], _asking(agent, {"name": name, "args": args}, f"do-{at}", after))
        graph.add_node(f"do-{at}", _acting(agent, name, args))
        graph.add_edge(f"do-{at}", after)
    return graph.add_edge(START, names[0])


def _asking(agent: Agent, call: Call, act: str, otherwise: str) -> Callable[[State], Command[Any]]:
    def ask(_: State) -> Command[Any]:
        if not agent.when(call):
            return Command(goto=act)
        config = {"allow_accept": True, "allow_ignore": True, "allow_edit": False, "allow_respond": False}
        request = {"action_request": {"action": call["name"], "args": call["args"]}, "config": config}
        return Command(goto=act if interrupt([request])[0]["type"] == "accept" else otherwise)

    return ask


def _acting(agent: Agent, name: str, args: dict[str, Any]) -> Callable[[State], State]:
    def act(_: State) -> State:
        agent.ran.append((name, tuple(args.values())))
        return {}

    return act


def _told(call: Any, text: str) -> ToolMessage:
    return ToolMessage(text, name=call["name"], tool_call_id=call["id"], status="error")
