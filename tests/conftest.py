"""The fixtures come from the plugin that we ship; a checkout that is not installed names it here."""

from __future__ import annotations

from importlib.metadata import entry_points

if not any(point.value == "control.testing.plugin" for point in entry_points(group="pytest11")):
    pytest_plugins = ["control.testing.plugin"]
