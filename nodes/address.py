"""Where the services are: read from the environment when a node runs, never when a graph is imported."""

from __future__ import annotations

import os
from typing import Final

from control.sdk import Problem

ADDRESS_UNSET: Final = Problem(
    code="address-unset",
    status=503,
    title="A service that this node needs has no address",
    next_step="Set it in the worker's environment and retry the run; graphs/services/launch.py starts local services.",
)


def address(variable: str) -> str:
    """The value of an environment variable, without a closing slash. Problem: `address-unset`."""
    value = os.environ.get(variable, "").rstrip("/")
    if not value:
        raise ADDRESS_UNSET.because(f"{variable} is not set.", variable=variable)
    return value
