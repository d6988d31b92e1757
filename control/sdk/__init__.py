"""What the author of a graph imports.

Nodes stay plain functions and graphs stay plain LangGraph: everything here also works without a control plane, where a
question is an interrupt and an effect is a call. Under one, questions become approvals whose decision binds, waits hold
no worker, and effects and model answers outlive the worker that made them.

- `approval`, `ask`: hold the run until somebody answers; a `Rung` says who is asked when nobody does.
- `wait_until`, `wait_for`, `wait_for_signal`: suspend the run.
- `effect`, `aeffect`: change something outside, once; `recorded`, `arecorded`: ask a model, once.
- `fact`, `afact`: read what a decision rests on.
- `Problem`, `Refusal`: say in three lines why a node cannot go on; a refusal is not retried.
"""

from control.core.problem import Problem, Refusal
from control.sdk.approval import Decision, Rung, approval, ask
from control.sdk.effect import InDoubt, aeffect, arecorded, effect, recorded
from control.sdk.fact import afact, fact
from control.sdk.ports import Begun, EffectPort
from control.sdk.wait import wait_for, wait_for_signal, wait_until

__all__ = [
    "Begun",
    "Decision",
    "EffectPort",
    "InDoubt",
    "Problem",
    "Refusal",
    "Rung",
    "aeffect",
    "afact",
    "approval",
    "arecorded",
    "ask",
    "effect",
    "fact",
    "recorded",
    "wait_for",
    "wait_for_signal",
    "wait_until",
]
