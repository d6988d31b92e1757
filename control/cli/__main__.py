"""`python -m control.cli` is `control`."""

from __future__ import annotations

from control.cli import main

main()
