"""Every setting, in one frozen value. This is the only module that reads the environment.

Addresses and credentials that other tools read too go by their usual names (`DATABASE_URL`, `OPENAI_API_KEY`); all
others begin with `CONTROL_`. A field's description is its documentation: `.env.example` is `example()`, by test.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any, Final

from dotenv import load_dotenv
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from control.core.principal import TENANT
from control.core.problem import Problem, Refusal

SETTING_INVALID: Final = Problem(
    code="setting-invalid", status=500, title="A setting cannot be used",
    next_step="Correct it in the environment or in .env; .env.example explains every setting.",
)  # fmt: skip

_PREFIX: Final = "CONTROL_"
_ADDRESS: Final = re.compile(r"postgres(ql)?://.|\w+ *=")
_MAIL_SERVER: Final = re.compile(r"smtps?://([^/@\s]+@)?[^/@:\s]+(:\d{1,5})?/?")
_Limit = Annotated[int, Field(ge=1)]
_Tenant = Annotated[str, Field(pattern=f"^{TENANT.pattern}$")]
_Span = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _ours(default: Any, description: str) -> Any:
    return Field(default=default, description=description)


def _shared(name: str, description: str, *, default: str | None = None) -> Any:
    """A field that goes by `name`, without our prefix."""
    return Field(default=default, validation_alias=name, description=description)


class Settings(BaseSettings):
    """Spans are in seconds (`_s`), sizes carry their unit, a limit is the most that is allowed."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=_PREFIX, env_ignore_empty=True, hide_input_in_errors=True,
        validate_by_name=True, validate_by_alias=True, validate_default=True,
    )  # fmt: skip

    database_url: SecretStr | None = _shared(
        "DATABASE_URL",
        "The PostgreSQL database, 15 or later, as postgresql://user:password@host:port/name."
        " Without it a PostgreSQL of our own is started in CONTROL_DATA_DIR.",
    )
    database_direct_url: SecretStr | None = _shared(
        "DATABASE_DIRECT_URL",
        "The same database without a transaction pooler, for advisory locks and LISTEN."
        " Needed only where DATABASE_URL leads through a pooler such as PgBouncer.",
    )
    openai_api_key: SecretStr | None = _shared(
        "OPENAI_API_KEY", "The key of a real chat model. Without it the examples use a scripted model, offline."
    )
    openai_base_url: str | None = _shared(
        "OPENAI_BASE_URL", "The address of a service with OpenAI's interface, where it is not OpenAI's own."
    )
    openai_model: str = _shared("OPENAI_MODEL", "The chat model that the examples ask for.", default="gpt-4.1-mini")

    data_dir: Path = _ours(".control", "The folder of the embedded PostgreSQL and of its log.")
    tenant: _Tenant = _ours("default", "The tenant that a command acts for unless it names another.")
    local_roles: Annotated[tuple[str, ...], NoDecode] = _ours(
        "admin",
        "The roles of whoever gives orders on the database itself, as this command line does, comma-separated. With"
        " admin, also of the installation: its signing keys. No protection: whoever holds the database's address can"
        " set it.",
    )
    token: SecretStr | None = _ours(
        None,
        "An API key or a token (JWT): commands act as whoever it stands for, in that tenant. Without it they act as"
        " whoever runs them.",
    )
    issuers: Path | None = _ours(
        None, "The TOML file that names the issuers whose tokens (JWTs) are accepted. Without it none are."
    )
    config: Path = _ours("langgraph.json", "The file that names the workflows, in LangGraph's own format.")
    redact: Annotated[tuple[str, ...], NoDecode] = _ours(
        (),
        "What must never be stored, comma-separated: names of environment variables whose values are secret,"
        r" and regular expressions, such as OPENAI_API_KEY,\b\d{16}\b. A match is replaced before anything is written.",
    )

    audit_dir: Path | None = _ours(
        None,
        "The folder of the private signing keys and of what was seen of the database, which shows a restored backup."
        " Without it, the folder audit in CONTROL_DATA_DIR. Keep it out of the database's backups.",
    )
    audit_key: SecretStr | None = _ours(
        None, "The Ed25519 private key that signs the ledger, as PEM, where it is not a file in CONTROL_AUDIT_DIR."
    )
    attest_s: _Span = _ours(
        60.0, "How often a worker gathers the heads of changed runs into a tree, signed where there is a key."
    )
    retention_days: Annotated[int, Field(ge=180)] = _ours(
        365, "After how many days `control audit prune` erases what an ended run carried; at least 180."
    )

    worker_slots: _Limit = _ours(20, "How many runs one worker drives at once.")
    sync_node_threads: _Limit = _ours(32, "How many synchronous nodes one worker executes at once.")
    poll_s: _Span = _ours(1.0, "How often an idle worker looks for work that no notification told it of.")
    takeover_poll_s: _Span = _ours(0.25, "How often a worker looks for runs whose worker has died.")
    failover_wait_s: _Span = _ours(
        2.0, "How long workers may take to come back after the database restarted, before others take their runs."
    )
    lease_s: _Span = _ours(
        30.0, "After how long without a sign a worker counts as lost although its database session lives."
    )
    stall_after_s: _Span = _ours(120.0, "After how long without progress a running run counts as stalled.")
    block_after_s: _Span = _ours(1.0, "After how long a node that blocks the event loop is reported by name.")
    cancel_grace_s: _Span = _ours(5.0, "How long a cancelled run may go on to the end of its step.")
    drain_grace_s: _Span = _ours(
        30.0, "How long a worker that is told to stop lets its runs go on to the end of their step."
    )
    crash_limit: _Limit = _ours(5, "How many workers a run may take down before it is abandoned.")
    input_limit_mb: _Limit = _ours(8, "The largest input of a run, or answer to a question, as JSON.")

    smtp_url: SecretStr | None = _ours(
        None,
        "The mail server of notifications: smtps://user:password@host:465, or smtp://host:587, which is encrypted where"
        " the server offers it and wherever there is a user. Without it no mail is sent.",
    )
    smtp_sender: Annotated[str, Field(pattern=r"^[^\s@<>]+@[^\s@<>]+$")] = _ours(
        "control@localhost", "The address that mails of notifications come from."
    )
    notify_networks: Annotated[tuple[str, ...], NoDecode] = _ours(
        (),
        "Networks that webhooks may lead to although they are not public, and without encryption, comma-separated, such"
        " as 10.1.0.0/16. Every tenant may then have requests sent there.",
    )
    notify_link: str | None = _ours(
        None,
        "Where a notification leads a person, such as https://desk.example/runs/{run_id}; also {tenant}, {thread_id}"
        " and {interrupt_id}.",
    )
    notify_tries_limit: _Limit = _ours(
        12,
        "How often a notification is tried. With the waits between, twelve tries take about two and a half hours, and"
        " longer where hundreds wait for one sink that does not answer: it has four of a worker's tries at a time.",
    )
    notify_kept_days: _Limit = _ours(
        90,
        "For how many days after it was made it is known what became of a notification. Older ones go as others of"
        " their tenant are delivered or given up.",
    )
    notify_timeout_s: _Span = _ours(10.0, "How long one try of a notification may take.")

    pool_limit: _Limit = _ours(10, "How many database connections a process opens for its commands.")
    flush_queue_limit: _Limit = _ours(
        1000, "How many checkpoint writes may wait to be committed before the runs behind them wait too."
    )
    flush_queue_limit_mb: _Limit = _ours(
        64,
        "How many megabytes the writes in the queue may have in all. Each writer held back keeps its own besides.",
    )
    flush_batch_limit: _Limit = _ours(200, "How many checkpoint writes one transaction commits at most.")

    @field_validator("database_url", "database_direct_url")
    @classmethod
    def _is_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _ADDRESS.match(value.get_secret_value()):
            raise ValueError("This is no address of a PostgreSQL database, such as postgresql://user@host:5432/name")
        return value

    @field_validator("smtp_url")
    @classmethod
    def _is_mail_server(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _MAIL_SERVER.fullmatch(value.get_secret_value()):
            raise ValueError("This is no address of a mail server, such as smtp://mail.example:587")
        return value

    @field_validator("notify_networks")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for part in value:
            ip_network(part)  # its ValueError says what is wrong
        return value

    @field_validator("redact", "local_roles", "notify_networks", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @property
    def audit_folder(self) -> Path:
        """Where private keys and what was seen of the database are."""
        return self.audit_dir or self.data_dir / "audit"

    @field_validator("redact")
    @classmethod
    def _compiles(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for part in value:
            try:
                re.compile(part)
            except re.error as error:
                raise ValueError(f"{part!r} is neither a name nor a regular expression: {error}") from None
        return value


def read(env_file: Path | None = Path(".env")) -> Settings:
    """The settings of this process: its environment, and `env_file` for what is not set there.

    The file is taken into the environment, since graphs and their libraries look there and not here. Raises
    `setting-invalid`, which names every bad setting but repeats no secret.
    """
    if env_file is not None:
        load_dotenv(env_file, override=False)
    try:
        return Settings()
    except ValidationError as error:
        raise _refusal(error) from None


def env_name(field: str) -> str:
    """The environment variable of a field of `Settings`."""
    alias = Settings.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else _PREFIX + field.upper()


def example() -> str:
    """The text of `.env.example`: each setting with its description, commented out at its default."""
    return "".join(_paragraphs())


def _paragraphs() -> Iterator[str]:
    yield "# Copy this file to .env and remove the # before what you change. The environment wins over .env.\n"
    for name, field in Settings.model_fields.items():
        described = "\n".join(wrap(field.description or "", 116, initial_indent="# ", subsequent_indent="# "))
        default = "" if field.default in (None, ()) else field.default
        yield f"\n{described}\n#{env_name(name)}={default}\n"


def _refusal(error: ValidationError) -> Refusal:
    faults = {_culprit(fault["loc"]): fault["msg"] for fault in error.errors(include_url=False, include_input=False)}
    why = " ".join(f"{name}: {message.removeprefix('Value error, ')}." for name, message in faults.items())
    return SETTING_INVALID.because(why, settings=sorted(faults))


def _culprit(loc: tuple[int | str, ...]) -> str:
    """A location names a field, or the variable itself where that is the field's alias."""
    first = str(loc[0]) if loc else ""
    return env_name(first) if first in Settings.model_fields else first
