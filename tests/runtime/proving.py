"""What the tests of proof share: keys, trees made now, and bundles as bytes."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

from control import audit_verifier
from control.app import signing_keys
from control.core.bundle import Report, check
from control.runtime import signing
from control.runtime.attestation import Attestor
from control.runtime.commands import Control
from control.runtime.commands.signing_keys import create_signing_key, rotate_signing_key
from control.runtime.export import exporting
from control.store.trees import PublicKey
from control.testing.stage import Stage


def attestor(stage: Stage) -> Attestor:
    """What makes trees, as a process that has just started has it."""
    return Attestor(stage.app.database, signing_keys(stage.app.settings))


def operating(stage: Stage) -> Control:
    """The commands, as whoever operates the installation gives them."""
    return replace(stage.control, principal=replace(stage.control.principal, operates=True))


async def create_key(stage: Stage) -> PublicKey:
    return await create_signing_key(operating(stage), signing_keys(stage.app.settings))


async def rotate_key(stage: Stage) -> PublicKey:
    return await rotate_signing_key(operating(stage), signing_keys(stage.app.settings))


async def bundle(stage: Stage, run_id: UUID | None = None, *, by: str = "admin", **chosen: Any) -> bytes:
    """An export by somebody with this role, as the file would be."""
    keys = signing_keys(stage.app.settings)
    async with exporting(stage.acting(by), keys, run_id=run_id, **chosen) as export:
        return b"".join([line async for line in export.lines()])


def verdict(data: bytes, *trusted: bytes) -> Report:
    """Ours, after making sure that the single-file verifier agrees."""
    lines = list(io.BytesIO(data))  # at line feeds alone, as a file opened for bytes gives them
    report = check(lines, trusted=trusted, verifies=signing.verifies)
    verifier = audit_verifier.Verifier(lines, trusted)
    try:
        verifier.verify()
    except audit_verifier.Changed as changed:
        assert report.fault, f"ours finds nothing, the other: line {verifier.number}: {changed}"
    else:
        assert not report.fault, f"the other finds nothing, ours: {report.fault}"
        assert (report.entries, report.erased) == (verifier.entries, verifier.erased)
    return report


def folder(stage: Stage) -> Path:
    return stage.app.settings.audit_folder
