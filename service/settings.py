"""The service's settings: each has a default, an environment variable and, secrets aside, a command-line option.

This is the one place that reads the environment. `state_url` is `RECURVE_STATE_URL` there and `--state-url` on
the command line; the options are made from the fields below, so the two can't drift apart.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

PREFIX = "RECURVE_"
METRICS_DIR = "PROMETHEUS_MULTIPROC_DIR"
MIB = 1024 * 1024
SECRETS = ("admin_token",)  # read from the environment alone: everybody on a machine sees its command lines
_TOKEN = re.compile(r"[\x21-\x7e]{16,256}")


class SettingsInvalid(Exception):
    """A setting that can't be used; the message names its variable and says why."""


class Settings(BaseModel):
    """Everything an operator can set. Frozen: a change means a restart."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(8000, ge=1, le=65535, description="Port to listen on.")
    workers: int = Field(2, ge=1, le=256, description="Worker processes.")
    threads: int = Field(8, ge=1, le=256, description="Threads of each worker for what takes time, bulk aside.")
    server: Literal["gunicorn", "granian"] = Field(
        "gunicorn", description="What serves: gunicorn, or granian where it is installed: one request at a time."
    )
    models_dir: Path = Field(Path("models/published"), description="The model repository to serve from.")
    state_url: str = Field(
        "sqlite:///var/state",
        min_length=1,
        description="Where client records live: sqlite:///FOLDER, redis://HOST, or memory:// with one worker.",
    )
    engine: Literal["auto", "litert", "tensorflow"] = Field(
        "auto", description="What runs the models; auto takes LiteRT where a bundle has a step.tflite."
    )
    poll_s: float = Field(1.0, gt=0, le=3600, description="Seconds between looks for newly published models.")
    max_body_bytes: int = Field(MIB, ge=1, description="Largest request body, except of a history or a state.")
    max_history_bytes: int = Field(16 * MIB, ge=1, description="Largest body of PUT history and PUT state.")
    max_observations: int = Field(1000, ge=1, description="Most observations of one predict.")
    max_history: int = Field(100_000, ge=1, description="Most observations of one PUT history.")
    max_items: int = Field(1024, ge=1, description="Most items of one bulk predict; in lines there may be any number.")
    max_horizon: int = Field(1000, ge=1, description="Farthest look-ahead, in steps.")
    max_gap: int = Field(24, ge=0, description="Most missing steps that are filled; a longer gap restarts.")
    max_clients: int = Field(
        1_000_000,
        ge=1,
        description="Clients kept of each model, about: workers count every 10 s, a rush may overshoot.",
    )
    idle_ttl_s: float | None = Field(
        None, gt=0, description="Seconds until an idle client's state expires; none: max(7 days, 30 intervals)."
    )
    adaptive_intervals: bool = Field(
        True, description="Widen and narrow each client's intervals with its own errors, so that they keep their level."
    )
    sweep_s: float = Field(
        300.0, gt=0, le=86400, description="Seconds between sweeps, which delete the records of expired clients."
    )
    tombstone_s: float = Field(
        30 * 86400.0, gt=0, description="Seconds for which a swept client's last step is remembered."
    )
    log_observations: str | None = Field(
        None, description="Models whose observations are logged for retraining, separated by commas; * for all."
    )
    observations_dir: Path = Field(Path("var/observations"), description="Where observations are logged.")
    journal_s: float = Field(
        300.0, gt=0, le=86400, description="Seconds until logged observations are handed over to be compacted."
    )
    minute_s: float = Field(
        60.0,
        ge=0.1,
        le=3600,
        description="Seconds that a minute of live sums lasts: one observation of a candidate's judge. The same in all "
        "replicas; longer where errors of neighbouring minutes are alike.",
    )
    promote: bool = Field(
        True, description="Promote a candidate that live traffic proves better, drop one that is not; off: judge only."
    )
    promote_level: float = Field(
        0.05, gt=0, lt=1, description="Chance at which an equal candidate may be promoted, where its job names none."
    )
    promote_deadline_h: float = Field(
        168.0,
        gt=0,
        lt=1e6,
        description="Hours after which an undecided candidate is dropped, where its job names none.",
    )
    admin_token: SecretStr | None = Field(
        None, description="The administrator's secret, 16 visible ASCII characters or more; none: labels stay."
    )
    drift_every_s: float = Field(
        300.0, gt=0, le=86400, description="Seconds between looks at whether a model's live errors have grown."
    )
    access_log: bool = Field(False, description="Log one line for every request; errors and slow ones always are.")
    slow_request_s: float = Field(1.0, gt=0, description="A request that takes longer is logged.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe to log.")
    keepalive_s: int = Field(75, ge=0, description="Seconds an idle connection is kept open.")
    read_timeout_s: float = Field(
        10.0, gt=0, le=3600, description="Seconds a request has to arrive in; large ones longer, at 16 KiB a second."
    )
    graceful_timeout_s: int = Field(30, ge=1, description="Seconds that requests under way have to end at a stop.")

    @field_validator("admin_token")
    @classmethod
    def _token_is_one(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and _TOKEN.fullmatch(token.get_secret_value()) is None:
            raise ValueError("must be 16 to 256 visible ASCII characters without spaces")
        return token

    @model_validator(mode="after")
    def _memory_is_for_one_worker(self) -> Self:
        if self.state_url.startswith("memory:") and self.workers > 1:
            raise ValueError(
                f"memory:// lives inside one process: with {self.workers} workers a client's state would be lost "
                "between them. Use --workers 1, or a sqlite:/// or redis:// URL"
            )
        return self

    @field_validator("log_observations")
    @classmethod
    def _names_models(cls, value: str | None) -> str | None:
        for name in _names(value):
            if re.fullmatch(r"\*|[a-z0-9][a-z0-9_-]{0,63}", name) is None:
                raise ValueError(f"{name!r} is no model's name: give names separated by commas, or * for all")
        return value

    def logged_models(self) -> frozenset[str]:
        """The names of `log_observations`."""
        return _names(self.log_observations)

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, those that are none left out."""
        values = self.model_dump(mode="json")
        if self.admin_token is not None:
            values["admin_token"] = self.admin_token.get_secret_value()  # the dump has asterisks
        return {variable(name): _text(value) for name, value in values.items() if value is not None}


def metrics_dir(environ: Mapping[str, str] | None = None) -> str | None:
    """Where the workers of one service put their metrics together, None for a process on its own.

    The master sets it; the name is prometheus_client's, which reads it as well.
    """
    return (os.environ if environ is None else environ).get(METRICS_DIR)


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def read_settings(environ: Mapping[str, str] | None = None, **overrides: object) -> Settings:
    """The settings of `environ` (None: this process's), each of `overrides` that is not None taking precedence.

    An empty variable counts as unset. SettingsInvalid if a value can't be used.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, object] = {}
    for name in Settings.model_fields:
        text = environ.get(variable(name), "")
        if text != "":
            values[name] = text
    values.update((name, value) for name, value in overrides.items() if value is not None)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsInvalid(_readable(error)) from error


def _names(value: str | None) -> frozenset[str]:
    return frozenset(name.strip() for name in (value or "").split(",")) - {""}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _readable(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        what = problem["msg"].removeprefix("Value error, ")
        if problem["loc"]:
            name = str(problem["loc"][0])
            if name in SECRETS:
                what = f"{variable(name)}: {what}"
            else:
                what = f"{variable(name)} (--{name.replace('_', '-')}): {what}, got {problem['input']!r}"
        lines.append(what)
    return "\n".join(lines)
