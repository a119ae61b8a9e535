"""A training job: what to read, what to predict and how hard to try, as a validated TOML file."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from models.manifest import Name

JOBS = Path(__file__).parent / "jobs"

Architecture = Literal["lstm", "gru", "simple_rnn", "feed_forward"]
Level = Annotated[float, Field(gt=0, lt=1)]


class JobInvalid(ValueError):
    """A job file that cannot be used; the message names the file and every wrong field."""

    def __init__(self, path: Path | str, problems: list[str]) -> None:
        self.path, self.problems = str(path), problems
        super().__init__(f"{path}: " + "; ".join(problems))


class Table(BaseModel):
    """Settings shared by every table of a job: frozen, and no key beyond those named."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Query(Table):
    """A SQL query and the database it asks: `url` in SQLAlchemy's form, or in the environment variable `url_env`.

    A URL with a password is refused here: jobs are published with what they made. When only what is new is asked for,
    rows of the last `overlap_s` seconds are asked for again, as some may have come late.
    """

    query: str = Field(min_length=1)
    url: str | None = None
    url_env: str | None = Field(default=None, min_length=1)
    overlap_s: float = Field(default=86400.0, ge=0)

    @model_validator(mode="after")
    def _says_where(self) -> Self:
        if (self.url is None) == (self.url_env is None):
            raise ValueError("url: give either url or url_env, the environment variable that holds it")
        if self.url is not None and re.search(r"//[^/@]*:[^/]*@|[?&]password=", self.url):
            raise ValueError("url: holds a password; put it into an environment variable and name that in url_env")
        return self


class FromLog(Table):
    """The service's observation log, of the model called as the job: in `dir`, null for RECURVE_OBSERVATIONS_DIR or
    else var/observations. Each client is a series; those with fewer than `shortest` observations are left out, and
    those that are usually not observed every `interval_s`.
    """

    dir: str | None = None
    shortest: int = Field(default=100, ge=1)


class Source(Table):
    """Where the series are: a CSV (also .gz) or Parquet file, or a folder of Parquet files (`path`), in long form if
    it holds several series; a SQL query (`sql`); or the observation log (`observations`, also as `source =
    "observations"`).

    `time` holds ISO 8601 times (UTC unless they say otherwise) or epoch seconds. `series` names the column that tells
    the series apart (null: there is one); `only` keeps the named ones, in that order. `missing` says what happens to a
    row without one of the features: the job stops, or the row is dropped. The log has all of these by itself.
    """

    path: str | None = Field(default=None, min_length=1)
    sql: Query | None = None
    observations: FromLog | None = None
    format: Literal["csv", "parquet"] | None = None
    time: str = "time"
    series: str | None = None
    only: tuple[str, ...] | None = Field(default=None, min_length=1)
    missing: Literal["refuse", "drop"] = "refuse"
    credit: str = ""
    _folder: Path = PrivateAttr(default=Path())

    @property
    def file(self) -> Path:
        """The data file of a `path`; a relative one starts at the job file's folder."""
        return self._folder / (self.path or "")

    @property
    def kind(self) -> Literal["csv", "parquet"]:
        """What the file of a `path` is."""
        folder = self.format is None and self.file.is_dir()
        return self.format or ("parquet" if folder or self.file.suffix in (".parquet", ".pq") else "csv")

    @property
    def called(self) -> str:
        """What messages call it."""
        if self.sql is not None:
            return "source.sql"
        return "the observation log" if self.observations is not None else self.file.name

    @model_validator(mode="before")
    @classmethod
    def _in_short(cls, value: Any) -> Any:
        return {"observations": {}} if value == "observations" else value

    @model_validator(mode="after")
    def _is_one_of_three(self) -> Self:
        if sum(each is not None for each in (self.path, self.sql, self.observations)) != 1:
            raise ValueError('give one of source.path, source.sql and source = "observations"')
        if self.only is not None and self.series is None and self.observations is None:
            raise ValueError("only: needs `series`, the column it selects from")
        if self.observations is not None and self.series is not None:
            raise ValueError("series: the log has its own, the clients")
        return self


class FeatureColumn(Table):
    """One column of an observation: `column` of the file (default: its name), or computed from the columns of a day.

    `parkinson` names the columns of a period's high and low: the value is the range volatility in percent,
    100 sqrt(ln(high / low)^2 / (4 ln 2)) (Parkinson 1980). `minimum` and `maximum` are physical limits in `unit`, null
    for none: the service refuses what lies outside, so they are never the training data's extremes.
    With `log` the network sees the logarithm (taken inside the graph) of max(value, `floor`).
    """

    name: str = Field(min_length=1, max_length=64)
    unit: str = ""
    column: str | None = None
    parkinson: tuple[str, str] | None = None
    minimum: float | None = None
    maximum: float | None = None
    log: bool = False
    floor: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _means_one_thing(self) -> Self:
        if self.column is not None and self.parkinson is not None:
            raise ValueError("column: give either column or parkinson")
        if self.log and self.floor is None:
            raise ValueError("floor: log needs the smallest value to take a logarithm of")
        if self.floor is not None and not self.log:
            raise ValueError("floor: means nothing without log")
        if self.minimum is not None and self.maximum is not None and self.minimum >= self.maximum:
            raise ValueError("minimum: must be below maximum")
        return self


class TargetColumn(Table):
    """One predicted feature. `loss` trains the point forecast: `squared` error, or `qlike` on the squared value.

    `weight` is its share of the training loss.
    """

    name: str
    loss: Literal["squared", "qlike"] = "squared"
    weight: float = Field(default=1.0, gt=0)


class Gates(Table):
    """What the exported model must reach on the test part, one step ahead; null for no demand.

    A demand that can't be measured is missed. `rmse` by target, in its unit. `coverage` bounds the share of truths
    inside the interval of the outermost quantiles. `qlike_ratio` is the highest allowed QLIKE of each series over the
    log-HAR baseline's. With `skill` the model must beat the last value.
    """

    rmse: dict[str, float] = Field(default_factory=dict)
    coverage: tuple[Level, Level] | None = None
    qlike_ratio: float | None = Field(default=None, gt=0)
    skill: bool = True


class Network(Table):
    """The size of the network and the memory of its preprocessing.

    `averages` are the time constants (steps) of exponentially weighted means of each feature shown to the network
    beside its last change and, with `level`, its level; without, the network works the same at any level.
    `running_scale` is the time constant of the exponentially weighted size of changes by which changes are divided,
    null for the constant of the training data. `chrono_lag` starts the forget gates with memories of up to so many
    steps. `lags` is how many inputs a `feed_forward` network sees: it is memory-less, so its preprocessing is too, and
    only the level is shown to it.
    """

    units: int = Field(default=64, ge=1, le=1024)
    depth: int = Field(default=2, ge=1, le=8)
    chrono_lag: int | None = Field(default=None, ge=3)
    lags: int = Field(default=1, ge=1, le=512)
    level: bool = True
    averages: tuple[Annotated[float, Field(gt=1)], ...] = ()
    running_scale: float | None = Field(default=None, gt=1)


class Fit(Table):
    """How the network is trained: truncated BPTT over parallel streams, Adam, a one-cycle rate, averaged weights."""

    seed: int = Field(default=1, ge=0)
    validation: float = Field(default=0.1, gt=0, lt=0.5, description="share of the series, before the test part")
    streams: int = Field(default=32, ge=1, description="parallel pieces the training series are cut into")
    chunk: int = Field(default=48, ge=1, description="steps between two updates: how far gradients reach back")
    epochs: int = Field(default=40, ge=1)
    patience: int = Field(default=10, ge=1, description="epochs without a better validation loss before stopping")
    learning_rate: float = Field(default=8e-3, gt=0, description="the highest rate")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="share of a memory layer's outputs hidden in training")
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    averaging: float = Field(default=0.99, ge=0, lt=1, description="decay of the averaged weights, per update")


class Job(Table):
    """One training job. `season` (steps) is how far the seasonal naive baseline looks back, `horizon` how far ahead
    reports look, `test` the share of each series that is kept for judging.

    `quick` holds tables (`quick.fit`, `quick.network`, `quick.gates`) that replace keys for a quick training.
    """

    name: Name
    title: str = ""
    source: Source
    features: tuple[FeatureColumn, ...]
    targets: tuple[TargetColumn, ...]
    interval_s: float | None = Field(default=None, ge=1e-3)
    architecture: Architecture = "lstm"
    quantiles: tuple[Level, ...] = (0.05, 0.5, 0.95)
    horizon: int = Field(default=24, ge=1, le=512)
    season: int | None = Field(default=None, ge=2)
    test: float = Field(default=0.2, gt=0, lt=0.5)
    network: Network = Network()
    fit: Fit = Fit()
    gates: Gates = Gates()
    quick: dict[Literal["network", "fit", "gates"], dict[str, Any]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        # not by min_length, which pydantic also complains of where the only entry is itself wrong
        if not self.features or not self.targets:
            raise ValueError("features, targets: at least one of each")
        names = [feature.name for feature in self.features]
        if len(set(names)) != len(names):
            raise ValueError(f"features: a name is repeated: {names}")
        targets = [target.name for target in self.targets]
        if len(set(targets)) != len(targets):
            raise ValueError(f"targets: a name is repeated: {targets}")
        for target in self.targets:
            if target.name not in names:
                raise ValueError(f"targets: {target.name!r} is none of the features {names}")
            if target.loss == "qlike" and not self.features[names.index(target.name)].log:
                raise ValueError(f"targets: the loss qlike of {target.name!r} needs log = true for that feature")
        if unknown := sorted(set(self.gates.rmse) - set(targets)):
            raise ValueError(f"gates.rmse: {unknown} are none of the targets {targets}")
        if self.gates.qlike_ratio is not None and all(target.loss != "qlike" for target in self.targets):
            raise ValueError("gates.qlike_ratio: no target has loss = 'qlike'")
        if self.gates.coverage is not None and len(self.quantiles) < 2:
            raise ValueError("gates.coverage: needs at least two quantiles, the ends of an interval")
        if self.quantiles and list(self.quantiles) != sorted(set(self.quantiles)):
            raise ValueError(f"quantiles: must rise: {list(self.quantiles)}")
        return self

    @property
    def observed(self) -> tuple[int, ...]:
        """For each target, the index of the feature that observes it."""
        names = [feature.name for feature in self.features]
        return tuple(names.index(target.name) for target in self.targets)

    @property
    def ahead(self) -> int:
        """How far ahead its model can be judged: `horizon`, or 1 if some feature is not predicted."""
        return self.horizon if len(self.targets) == len(self.features) else 1

    @property
    def running_scale(self) -> float | None:
        """The network's, but none for `feed_forward`, which has no memory to keep a scale in."""
        return None if self.architecture == "feed_forward" else self.network.running_scale

    def quickened(self) -> Job:
        """This job with the tables of `quick` in place. ValidationError if they do not fit."""
        data = self.model_dump()
        for table, keys in data.pop("quick").items():
            data[table] = {**data[table], **keys}
        job = Job.model_validate(data)
        job.source._folder = self.source._folder
        return job


def load_job(name_or_path: str | Path) -> Job:
    """The job of that shipped name (`sensor`) or of that TOML file. Raises JobInvalid, naming every wrong field."""
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = JOBS / f"{name_or_path}.toml"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        shipped = ", ".join(sorted(each.stem for each in JOBS.glob("*.toml")))
        raise JobInvalid(path, [f"no such job; shipped are {shipped}, or give the path of a .toml file"]) from None
    except OSError as exc:
        raise JobInvalid(path, [exc.strerror or str(exc)]) from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise JobInvalid(path, [f"not TOML: {exc}"]) from exc
    try:
        job = Job.model_validate(data)
        job.source._folder = path.parent.resolve()
        job.quickened()
    except ValidationError as exc:
        raise JobInvalid(path, problems(exc)) from exc
    return job


def problems(error: ValidationError) -> list[str]:
    """One line per wrong field: its dotted name, then what is wrong with it."""
    lines = []
    for each in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in each["loc"])
        what = each["msg"].removeprefix("Value error, ")
        lines.append(f"{where}: {what}" if where else what)
    return lines
