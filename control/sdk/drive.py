"""Two drivers for one order of steps: in a synchronous node's thread, and on the event loop.

A script is a generator that yields what it wants done (`Ask` the port, `Call` the author's function) and receives the
result, or the exception. It never awaits, so the rules of an effect are written, and tested, once.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from control.core.problem import Problem

BLOCKED_LOOP: Final = Problem(
    code="effect-needs-await",
    status=500,
    title="A synchronous effect cannot be recorded from here",
    next_step="In an asynchronous node, await aeffect(...) or arecorded(...).",
)


@dataclass(frozen=True, slots=True)
class Ask:
    """Await what `coroutine()` makes, on the port's `loop`."""

    loop: asyncio.AbstractEventLoop
    coroutine: Callable[[], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True)
class Call:
    """Run the author's `function(key)`."""

    function: Callable[[str], Any]
    key: str


Script = Generator[Ask | Call, Any, Any]


class _Steps:
    """What a script wants done, step by step. The block that does a step leaves `result` here; an exception that ends
    the block is raised in the script, which may go on.
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        self._error: Exception | None = None
        self.result: Any = None
        self.returned: Any = None

    def __iter__(self) -> _Steps:
        return self

    def __next__(self) -> Ask | Call:
        result, error, self.result, self._error = self.result, self._error, None, None
        try:
            return self._script.send(result) if error is None else self._script.throw(error)
        except StopIteration as finished:
            self.returned = finished.value
            raise

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        self._error = error if isinstance(error, Exception) else None
        return self._error is not None


def drive(script: Script) -> Any:
    """Run the script in this thread. Problem: `effect-needs-await` where waiting would stop the port's own loop."""
    steps = _Steps(script)
    for step in steps:
        with steps:
            steps.result = _ask(step) if isinstance(step, Ask) else step.function(step.key)
    return steps.returned


async def drive_async(script: Script) -> Any:
    """Run the script on the running loop, which need not be the port's."""
    steps = _Steps(script)
    for step in steps:
        with steps:
            steps.result = await (_aask(step) if isinstance(step, Ask) else _acall(step))
    return steps.returned


def _ask(step: Ask) -> Any:
    if step.loop is _running_loop():
        raise BLOCKED_LOOP.because("This code runs on the event loop that would do the recording, and would stop it.")
    if not step.loop.is_running():
        raise BLOCKED_LOOP.because("The event loop that would do the recording is not running.")
    return asyncio.run_coroutine_threadsafe(step.coroutine(), step.loop).result()


async def _aask(step: Ask) -> Any:
    if step.loop is _running_loop():
        return await step.coroutine()
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(step.coroutine(), step.loop))


async def _acall(step: Call) -> Any:
    result = step.function(step.key)
    return await result if inspect.isawaitable(result) else result


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
