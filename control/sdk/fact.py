"""Facts that decisions rest on: what the world outside has said of itself, by name."""

from __future__ import annotations

from typing import Any

from control.sdk.call_site import effect_port, running_config
from control.sdk.drive import Ask, Script, drive, drive_async


def fact(name: str, default: Any = None) -> Any:
    """What a fact is now (`control facts set`), from a synchronous node. `default` where nobody has said, and in plain
    LangGraph. Give it to `approval(fresh={name: value})` so that the decision rests on it.
    """
    return drive(_read(name, default))


async def afact(name: str, default: Any = None) -> Any:
    """`fact` for an asynchronous node."""
    return await drive_async(_read(name, default))


def _read(name: str, default: Any) -> Script:
    config = running_config()
    port = effect_port(config)
    if port is None:
        return default
    found = yield Ask(port.loop, lambda: port.fact(config, name))
    return default if found is None else found
