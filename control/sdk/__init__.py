"""What the author of a graph imports.

Nodes stay plain functions and graphs stay plain LangGraph: everything here also works without a control plane, where a
question is an interrupt and an effect is a call. Under one, questions become approvals whose decision binds, waits hold
no worker, and effects and model answers outlive the worker that made them.

- `approval`, `ask`: hold the run until somebody answers; a `Rung` says who is asked when nobody does.
- `wait_until`, `wait_for`, `wait_for_signal`: suspend the run.
- `effect`, `aeffect`: change something outside, once; `recorded`, `arecorded`: ask a model, once.
- `govern_tools`, `Declared`: an agent's tool calls under the rules, in a plain `ToolNode`; `ask_policy`, `aask_policy`:
  what the rules say of anything else that an agent is about to do.
- `fact`, `afact`: read what a decision rests on.
- `spend`, `aspend`: say what something cost.
- `Problem`, `Refusal`: say in three lines why a node cannot go on; a refusal is not retried.
"""

from control.core.intent import Declared
from control.core.problem import Problem, Refusal
from control.core.verdict import Ask, Deny, Permit
from control.sdk.approval import Decision, Rung, approval, ask
from control.sdk.effect import InDoubt, aeffect, arecorded, effect, recorded
from control.sdk.fact import afact, fact
from control.sdk.policy import aask_policy, ask_policy
from control.sdk.ports import Begun, EffectPort
from control.sdk.spend import aspend, spend
from control.sdk.tools import govern_tools
from control.sdk.wait import wait_for, wait_for_signal, wait_until

__all__ = [
    "Ask",
    "Begun",
    "Decision",
    "Declared",
    "Deny",
    "EffectPort",
    "InDoubt",
    "Permit",
    "Problem",
    "Refusal",
    "Rung",
    "aask_policy",
    "aeffect",
    "afact",
    "approval",
    "arecorded",
    "ask",
    "ask_policy",
    "aspend",
    "effect",
    "fact",
    "govern_tools",
    "recorded",
    "spend",
    "wait_for",
    "wait_for_signal",
    "wait_until",
]
