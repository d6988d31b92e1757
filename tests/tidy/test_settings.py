"""Settings are documented by themselves, frozen, named with their unit, and refuse a bad value in three lines."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from pydantic import ValidationError

from control.core.problem import Refusal
from control.settings import Settings, env_name, example, read
from tests.tidy import ROOT, Source, assert_clean, faults, python

UNITS: Final = ("_s", "_mb", "_days", "_limit", "_slots", "_threads", "_usd")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting comes from the environment of whoever runs the tests."""
    for field in Settings.model_fields:
        monkeypatch.delenv(env_name(field), raising=False)


def test_the_example_file_is_equal_to_the_settings() -> None:
    assert (ROOT / ".env.example").read_text(encoding="utf-8") == example()


def test_the_example_is_a_valid_file_of_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting taken out of its comment: the file still says what the defaults say."""
    defaults = read(None)
    text = "\n".join(line[1:] if line.startswith("#") and line[1:2] != " " else line for line in example().splitlines())
    names = {line.partition("=")[0] for line in text.splitlines() if line and not line.startswith("#")}
    assert names == {env_name(field) for field in Settings.model_fields}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            monkeypatch.setenv(*line.split("=", 1))
    assert read(tmp_path / "absent") == defaults


def test_every_setting_is_described_and_a_number_names_its_unit() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description and field.description.endswith("."), name
        if isinstance(field.default, int | float):
            assert name.endswith(UNITS), f"{name}: the unit goes last, one of {UNITS}"


def test_a_file_fills_what_the_environment_leaves_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTROL_WORKER_SLOTS", "3")
    monkeypatch.setenv("CONTROL_POLL_S", "9")  # so that the test takes back what the file brings
    monkeypatch.delenv("CONTROL_POLL_S")
    file = tmp_path / ".env"
    file.write_text("CONTROL_WORKER_SLOTS=4\nCONTROL_POLL_S=0.5\nCONTROL_LEASE_S=\n")
    settings = read(file)
    assert (settings.worker_slots, settings.poll_s, settings.lease_s) == (3, 0.5, 30)


def test_patterns_to_redact_are_a_comma_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTROL_REDACT", r"OPENAI_API_KEY, \b\d{16}\b,")
    assert read(None).redact == ("OPENAI_API_KEY", r"\b\d{16}\b")


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        read(None).tenant = "other"


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("CONTROL_WORKER_SLOTS", "0", "CONTROL_WORKER_SLOTS: Input should be greater than or equal to 1."),
        ("CONTROL_LEASE_S", "-1", "CONTROL_LEASE_S: Input should be greater than 0."),
        ("CONTROL_LEASE_S", "inf", "CONTROL_LEASE_S: Input should be a finite number."),
        ("CONTROL_TENANT", "a b", r"CONTROL_TENANT: String should match pattern '^[a-zA-Z0-9][a-zA-Z0-9_.:-]{0,99}$'."),
        (
            "CONTROL_REDACT", "fine,a(b",
            "CONTROL_REDACT: 'a(b' is neither a name nor a regular expression:"
            " missing ), unterminated subpattern at position 1.",
        ),
        (
            "DATABASE_URL", "mysql://me:hunter2@host/db",
            "DATABASE_URL: This is no address of a PostgreSQL database, such as postgresql://user@host:5432/name.",
        ),
    ],
)  # fmt: skip
def test_a_bad_value_is_a_problem_in_three_lines(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, why: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(Refusal) as refused:
        read(None)
    assert refused.value.lines() == (
        "A setting cannot be used",
        why,
        "Correct it in the environment or in .env; .env.example explains every setting.",
    )
    assert refused.value.facts == {"settings": [name]}


def test_a_secret_shows_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hunter2@host/db")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hunter2")
    settings = read(None)
    assert "hunter2" not in f"{settings!r} {settings.model_dump_json()}"
    monkeypatch.setenv("DATABASE_URL", "hunter2")
    with pytest.raises(Refusal) as refused:
        read(None)
    assert "hunter2" not in f"{refused.value} {refused.value.as_json()}"


def reads_a_setting(source: Source) -> Iterator[str]:
    """Names a setting's variable in code, which can only be to look it up behind the back of the settings."""
    names = {env_name(field) for field in Settings.model_fields}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and node.value in names:
            yield source.fault(node, f"only control/settings.py reads {node.value}")


def test_only_the_settings_read_settings() -> None:
    sources = [source for source in python("control") if not source.inside("control.settings", "control.testing")]
    assert_clean(reads_a_setting, sources)


def test_reading_a_setting_elsewhere_is_found() -> None:
    assert faults(reads_a_setting, [Source("control/store/pool.py", 'url = os.environ.get("DATABASE_URL")')])
