"""Send a named signal to a run: it wakes the step that waits for it, or is kept for the next that does."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from uuid import UUID

from control.core.lifecycle import Verb
from control.runtime.commands import Control
from control.store import questions
from control.store.runs import Run


async def signal(control: Control, run_id: UUID, name: str, *, payload: Any = None) -> Run:
    """Deliver a signal; `payload` is JSON. Raises `no-such-run`, `verb-not-legal`."""
    async with control.changing(run_id, Verb.SIGNAL) as change:
        text = control.serde.redact_json(json.dumps(payload, ensure_ascii=False))
        await questions.add_signal(change.conn, change.run, name, payload=text, by=control.by, at=change.at)
        fired = await questions.fire(change.conn, change.run, at=change.at)
        run = replace(change.run, woken_at=change.at) if fired else change.run
        return await change.save(run, [change.entry("signalled", {"name": name}), *fired])
