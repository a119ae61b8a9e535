"""States on their way from one place to another: what is in them, what is wrong with them, what becomes of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from service.core.errors import InvalidInput, RecordCorrupt
from service.core.gaps import HOUR_S
from service.core.record import ENTRY, NO_SUMS, RING, LastAnswer, LiveErrors, Record, Track, decode, encode
from service.core.registry import STABLE, ServedModel
from service.core.scoring import STRETCH_MOST
from service.core.shadow import kept
from service.core.types import ClientKey, FloatArray, ModelSpec

COUNT_MAX = 2**53  # the largest integer that every JSON client reads exactly
CONTEXT_MAX = 512  # rows: the longest context a version has unless it was exported with slow fading
_NOBODY = ""  # an exported record belongs to no tenant: it may be imported under any


@dataclass(frozen=True, slots=True)
class Exported:
    """A client's state outside any store, with the names that its numbers are meant under."""

    model: str
    client: str
    features: tuple[str, ...]
    targets: tuple[str, ...]
    record: Record

    @property
    def blob(self) -> bytes:
        """The record's bytes; they read only together with the model's and the client's name."""
        return encode(ClientKey(_NOBODY, self.model, self.client), self.record)

    @staticmethod
    def read(model: str, client: str, features: tuple[str, ...], targets: tuple[str, ...], blob: bytes) -> Exported:
        """What was exported under these names; InvalidInput("record") if it is not whole, or another's."""
        try:
            record = decode(ClientKey(_NOBODY, model, client), blob)
        except RecordCorrupt as error:
            raise InvalidInput("record", error.detail) from error
        return Exported(model, client, features, targets, record)


def names(spec: ModelSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the features and of the targets, in order."""
    return tuple(feature.name for feature in spec.features), tuple(target.name for target in spec.targets)


def check_names(exported: Exported, spec: ModelSpec) -> None:
    """InvalidInput naming what does not fit: the model's name, its features or its targets."""
    features, targets = names(spec)
    if exported.model != spec.name:
        raise InvalidInput("model", f"the state is one of model {exported.model[:64]!r}, not of {spec.name!r}")
    for field, here, ours in (("features", exported.features, features), ("targets", exported.targets, targets)):
        if here != ours:
            raise InvalidInput(field, f"the state's are not the model's, which are {', '.join(ours)}")


def check_record(record: Record, spec: ModelSpec, now: float) -> None:
    """InvalidInput("record") unless the service itself could have written `record`, for a model like `spec`'s.

    What passes, `check_sizes` as well, can be stepped, inspected and rebuilt.
    """
    _require(len(record.tracks) == 1, "it has more than one track")
    _check_header(record, now + max(HOUR_S, 2 * (spec.interval_s or 0.0)))
    _check_track(record.tracks[0], spec)
    _check_context(record.context, spec)
    _check_live(record.live)
    if record.last is not None:
        _check_answer(record.last, len(spec.targets))


def check_sizes(track: Track, model: ServedModel) -> None:
    """InvalidInput("record") if `model` serves the weights of the track, under any label, and they make other sizes."""
    made_by = model.by_fingerprint(track.fingerprint)
    if made_by is not None:
        sizes, ours = (track.state.size, track.y.shape[1]), (made_by.spec.initial_state.size, made_by.spec.columns)
        _require(sizes == ours, f"its state and prediction have sizes {sizes}, those of its weights {ours}")


def without_shadow(record: Record, spec: ModelSpec) -> Record:
    """`record` with the one track that `spec`'s version goes on from; the shadow's, if that was promoted since."""
    here = kept(record, spec)
    if here is None or not here.second:
        return replace(record, tracks=record.tracks[:1])
    return replace(record, tracks=(replace(here.track, sums=NO_SUMS),), behind=here.behind)


def imported(record: Record, model: ServedModel, now: float) -> Record:
    """`record` as it is kept here: heard of now, under this repository's labels.

    Another repository's generation counts other changes; a label that is unknown here becomes `stable`. What was
    asked and answered moves along, so that a retry is known again; what a shadow's comparison came to there does not.
    """
    label = record.label if record.label in model.labels else STABLE
    tracks = (replace(record.tracks[0], sums=NO_SUMS),)
    return replace(record, label=label, generation=model.generation, touched=now, tracks=tracks)


def forked(record: Record, now: float) -> Record:
    """A copy for another client: it goes on from the same step, and was asked nothing yet."""
    return replace(record, ring=b"", created=now, touched=now)


def is_same(there: Record, record: Record, key: ClientKey) -> bool:
    """Whether `record` was brought to `key` before, and the client has not moved on since."""
    as_it_was = replace(record, generation=there.generation, created=there.created, touched=there.touched)
    return encode(key, as_it_was) == encode(key, there)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise InvalidInput("record", what)


def _finite(*arrays: FloatArray) -> bool:
    return all(bool(np.isfinite(array).all()) for array in arrays)


def _check_header(record: Record, latest: float) -> None:
    _require(1 <= record.step <= COUNT_MAX, f"its step {record.step} is none")
    _require(record.behind <= record.step, "more observations stand behind its state than it has steps")
    _require(record.generation <= COUNT_MAX, "its label generation is none")
    times = (record.created, record.touched)
    _require(all(math.isfinite(time) and 0 <= time <= latest for time in times), "its times are none, or in the future")
    _require(math.isnan(record.last_time) or abs(record.last_time) <= latest, "its last time is none, or in the future")
    entries = list(ENTRY.iter_unpack(record.ring))
    _require(len(entries) <= RING, f"it remembers more than {RING} requests")
    _require(
        all(1 <= first <= last <= record.step for _, _, first, last in entries), "it remembers requests of other steps"
    )


def _check_track(track: Track, spec: ModelSpec) -> None:
    targets, width = track.y.shape
    _require(targets == len(spec.targets) and width >= 1, f"it predicts {targets} targets, not {len(spec.targets)}")
    if not _finite(track.state, track.y) or not all(map(math.isfinite, (*track.sums, *track.stretch))):
        raise InvalidInput("record", "its state or its prediction is not finite", code="not_finite")
    _require(all(abs(log) <= STRETCH_MOST for log in track.stretch), "its intervals are wider than any")


def _check_context(context: FloatArray, spec: ModelSpec) -> None:
    rows, features = context.shape
    most = max(CONTEXT_MAX, spec.context_length)
    _require(features == len(spec.features), f"its observations have {features} values, not {len(spec.features)}")
    _require(1 <= rows <= most, f"its context has {rows} observations, not 1 to {most}")
    filled = np.asarray(np.isnan(context).all(axis=1))
    if not _finite(context[~filled]):
        raise InvalidInput("record", "an observation of its context is not finite", code="not_finite")
    _require(not filled[-1], "its newest observation is missing")
    _require(spec.feedback is not None or not filled.any(), "it was filled in, which this model can't do")


def _check_live(live: LiveErrors) -> None:
    holds = math.isfinite(live.weight) and live.weight >= 0 and (live.scored == 0 or live.weight > 0)
    holds = holds and all(math.isfinite(total) and total >= 0 for total in live.sums) and live.scored <= COUNT_MAX
    _require(holds, "its live errors are none")


def _check_answer(last: LastAnswer, targets: int) -> None:
    _require(min(last.y.shape) >= 1 and last.y.shape[1] == targets, "its last answer is of another form")
    _require(max(last.filled, last.behind, last.version) <= COUNT_MAX, "the counts of its last answer are none")
    whole = _finite(last.y) and (last.interval is None or _finite(last.interval))
    whole = whole and not np.isinf(last.predicted).any()
    whole = whole and (last.anomaly is None or not np.isinf(last.anomaly).any())
    holds = whole and math.isfinite(last.last_seen) and 0 <= last.level <= 1
    if not holds:
        raise InvalidInput("record", "its last answer is not finite", code="not_finite")
