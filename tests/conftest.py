"""The fixtures come from the plugin that we ship; a checkout that is not installed names it here.

Hypothesis tries the same examples in each `make test`, however slow the machine; `make prove` draws new ones.
"""

from __future__ import annotations

from importlib.metadata import entry_points

from hypothesis import HealthCheck, settings

settings.register_profile("proof", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("sample", settings.get_profile("proof"), derandomize=True)
settings.load_profile("sample")

if not any(point.value == "control.testing.plugin" for point in entry_points(group="pytest11")):
    pytest_plugins = ["control.testing.plugin"]
