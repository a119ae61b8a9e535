"""Many clients' requests in one call: what is usual of them all at once, everything else one by one."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.core.blocks import Block
from service.core.errors import Contended, RecurveError, StoreUnavailable
from service.core.gaps import HOUR_S
from service.core.lifetime import idle_ttl_s
from service.core.many.answers import Answers
from service.core.many.asked import Asked, Places
from service.core.many.carrying import LEAST, Carried, ManyCarrier
from service.core.many.turns import Turns
from service.core.patience import give_way
from service.core.permodel import PerModel
from service.core.ports import Clock, Save, SavesMany, StateStore, Stored, WitnessesMany
from service.core.predictor import Limits, Predictor
from service.core.recent import Recent
from service.core.registry import Registry, ServedModel
from service.core.requests import Answer, PredictRequest
from service.core.types import ClientKey, ModelSpec, of_tuple

logger = logging.getLogger(__name__)

Outcome = Answer | Exception
T = TypeVar("T")

_save = of_tuple(Save)


class One(NamedTuple):
    """A request that is for the predictor, and its place among the items of the call."""

    place: int
    key: ClientKey
    request: PredictRequest


@dataclass(slots=True)
class Outcomes:
    """What became of the items: each place is in `ones`, or in one of `many` at the place that stands beside it."""

    ones: dict[int, Outcome] = field(default_factory=dict)
    many: list[tuple[Sequence[int], Answers]] = field(default_factory=list)


class Together:
    """Predicts for many clients of one model in a call; each item is absorbed whole or not at all, on its own.

    Safe from any thread and, over a shared store, from any process, beside a predictor over the same. `bound_s`: for so
    long a call goes on trying where others hold its clients or the store is away.
    """

    def __init__(
        self,
        predictor: Predictor,
        registry: Registry,
        store: StateStore,
        clock: Clock = time.time,
        limits: Limits | None = None,
        *,
        witnesses: Sequence[WitnessesMany] = (),
        recent: Recent | None = None,
    ) -> None:
        self._predictor = predictor
        self._registry = registry
        self._store = store if isinstance(store, SavesMany) else None
        self._one_by_one = store
        self._clock = clock
        self._limits = limits if limits is not None else Limits()
        self._witnesses = tuple(witnesses)
        self._recent = Recent() if recent is None else recent
        self._turns = Turns()
        self._random = Random(secrets.randbits(256))
        self._carriers = PerModel(self._carrier)

    def predict(self, model: str, asked: Asked, places: Sequence[int], ones: Sequence[One]) -> Outcomes:
        """Absorb `asked`, whose items stand at `places`, rising, and `ones`; those of one client in their order.

        An item's own error is its outcome. ModelNotFound and NotReady are the call's.
        """
        give_way()
        served = self._registry.model(model)
        outcomes, trying = Outcomes(), _Trying(self._limits.contention_s)
        for some, others in _waves(asked, places, ones):
            left = self._together(served, asked, places, some, outcomes, trying)
            for one in sorted([*others, *left]):
                outcomes.ones[one.place] = self._one(one, trying)
        return outcomes

    def _one(self, one: One, trying: _Trying) -> Outcome:
        if trying.given_up is not None:
            return trying.given_up
        try:
            return self._predictor.predict(one.key, one.request)
        except RecurveError as error:
            trying.met(error)
            return error
        except Exception as error:  # noqa: BLE001  # the item's outermost handler: others are absorbed already
            return error

    def _together(
        self, model: ServedModel, asked: Asked, places: Sequence[int], some: Places, outcomes: Outcomes, trying: _Trying
    ) -> list[One]:
        """Absorb those of `asked` at `some` that are usual; what is left for the predictor."""
        carrier, done = self._carriers.of(model), np.zeros(len(asked), bool)
        if carrier is not None and self._store is not None and len(some) >= LEAST:
            usual = some[_are_fit(model.labelled().spec, asked, some, self._clock())]
            these = asked.some(usual)
            with self._turns.of(these.keys, self._limits.contention_s) as ours:
                if ours:
                    saved = self._carry(self._store, carrier, these, trying, outcomes, usual, places)
                    done[usual[saved]] = True
        return [One(places[at], asked.keys[at], asked.request(at)) for at in some[~done[some]].tolist()]

    def _carry(
        self, store: SavesMany, carrier: ManyCarrier, asked: Asked, trying: _Trying, outcomes: Outcomes, at: Places,
        places: Sequence[int],
    ) -> NDArray[np.intp]:  # fmt: skip
        """Load, step and save; which of `asked` have their outcome now."""
        ttl_s = idle_ttl_s(self._limits.idle_ttl_s, carrier.model.labelled().spec)
        block = self._recent.take_block(asked.keys)
        if block is not None:
            known, old = np.arange(len(asked)), block.nonces
            again = carrier.again(asked, block.rows, self._clock(), ttl_s)
            steps = [] if again is None else [again]
        else:
            try:
                loaded = self._load(store, asked.keys)
            except StoreUnavailable:
                return np.empty(0, np.intp)  # one by one it may do for some
            stored = [each for each in loaded if each is not None]
            known = np.arange(len(loaded))
            if len(stored) < len(loaded):
                known = np.array([place for place, each in enumerate(loaded) if each is not None], np.intp)
            old, blobs = [nonce for nonce, _ in stored], [blob for _, blob in stored]
            steps = carrier.step(asked.some(known), blobs, self._clock(), ttl_s)
        settled = []
        for carried in steps:
            won, doubtful = self._save(store, carried, old, trying)
            of_these = known[carried.places]
            for place, error in doubtful.items():
                outcomes.ones[places[at[of_these[place]]]] = error
            answers = carried.answers.some(won)
            if len(answers):
                outcomes.many.append((_picked(places, at[of_these[won]]), answers))
                for each in self._witnesses:
                    each.witness_many(answers)
            settled += [of_these[won], of_these[np.array(list(doubtful), np.intp)]]
        return np.concatenate(settled) if settled else np.empty(0, np.intp)

    def _load(self, store: SavesMany, keys: Sequence[ClientKey]) -> list[Stored | None]:
        """The client's records, from the store where this process did not save them last."""
        found = self._recent.take_many(keys)
        if None in found:
            missing = [place for place, stored in enumerate(found) if stored is None]
            for place, stored in zip(missing, store.load_many([keys[place] for place in missing]), strict=True):
                found[place] = stored
        return found

    def _remember(self, carried: Carried, saves: Sequence[Save], won: Places) -> None:
        """Records that are stored now; who is not among them has been overtaken."""
        if len(won) == len(saves):
            self._recent.keep_block(Block(carried.answers.asked.keys, [new for _, _, new, _ in saves], carried.rows))
            return
        saved = [saves[place] for place in won.tolist()]
        self._recent.keep_many((key, Stored(new, bytes(blob))) for key, _, new, blob in saved)
        for place in set(range(len(saves))).difference(won.tolist()):
            self._recent.overtaken(saves[place].key)

    def _save(
        self, store: SavesMany, carried: Carried, nonces: Sequence[bytes], trying: _Trying
    ) -> tuple[Places, dict[int, StoreUnavailable]]:
        """Which are stored now, and of which that is not known; others were first at the rest. `nonces` are those of
        all records that there were."""
        n, keys = len(carried.rows), carried.answers.asked.keys
        fresh = self._random.getrandbits(64 * n).to_bytes(8 * n, "big")
        new = [fresh[at : at + 8] for at in range(0, 8 * n, 8)]
        saves = list(map(_save, zip(keys, _picked(nonces, carried.places), new, carried.blobs(), strict=True)))
        try:
            won = np.flatnonzero(store.save_many(saves))
            self._remember(carried, saves, won)
            return won, {}
        except StoreUnavailable as error:
            trying.met(error)
            return self._save_again(saves, trying)

    def _save_again(self, saves: Sequence[Save], trying: _Trying) -> tuple[Places, dict[int, StoreUnavailable]]:
        """After a failure that leaves open which are stored: each once more, which is harmless."""
        won, doubtful = [], {}
        for place, save in enumerate(saves):
            try:
                if trying.given_up is not None:
                    raise trying.given_up
                if self._one_by_one.save(save.key, save.old, save.new, bytes(save.blob)):
                    won.append(place)
                else:  # others have written: before it, or after
                    doubtful[place] = _in_doubt("others wrote the client's record while the store failed")
            except StoreUnavailable as error:
                trying.met(error)
                doubtful[place] = _in_doubt(error.detail)
        return np.array(won, np.intp), doubtful

    def _carrier(self, model: ServedModel) -> ManyCarrier | None:
        return ManyCarrier.of(model, adaptive=self._limits.adaptive_intervals)


class _Trying:
    """For how long a call bears with a store that is away: every item would wait for it anew."""

    def __init__(self, bound_s: float) -> None:
        self._end = time.monotonic() + bound_s
        self.given_up: StoreUnavailable | None = None

    def met(self, error: RecurveError) -> None:
        """An item's error."""
        if isinstance(error, StoreUnavailable | Contended) and time.monotonic() > self._end:
            self.given_up = StoreUnavailable("the store failed other items of this request; this one was not tried")


def _waves(asked: Asked, places: Sequence[int], ones: Sequence[One]) -> list[tuple[Places, list[One]]]:
    """The items in rounds, each client once in a round and in the order of its items."""
    every = [*asked.keys, *(one.key for one in ones)]
    if len(set(every)) == len(every):
        return [(np.arange(len(asked)), list(ones))]
    rounds: list[tuple[list[int], list[One]]] = []
    seen: dict[ClientKey, int] = {}
    whole: list[tuple[int, int | One]] = [(place, at) for at, place in enumerate(places)]
    whole += [(one.place, one) for one in ones]
    for _, item in sorted(whole, key=lambda pair: pair[0]):
        key = asked.keys[item] if isinstance(item, int) else item.key
        number = seen[key] = seen.get(key, -1) + 1
        if number == len(rounds):
            rounds.append(([], []))
        if isinstance(item, int):
            rounds[number][0].append(item)
        else:
            rounds[number][1].append(item)
    return [(np.array(some, np.intp), others) for some, others in rounds]


def _are_fit(spec: ModelSpec, asked: Asked, some: Places, now: float) -> NDArray[np.bool_]:
    """Which of `asked` at `some` `checks.check_request` would let pass."""
    x = asked.observations[some].astype(np.float64)  # limits are no float32 numbers
    fit = np.asarray(np.isfinite(x).all(axis=1))
    if x.shape[1] != len(spec.features):
        return np.zeros(len(some), bool)
    for column, feature in enumerate(spec.features):
        if feature.minimum is not None:
            fit &= x[:, column] >= feature.minimum
        if feature.maximum is not None:
            fit &= x[:, column] <= feature.maximum
    if asked.times is not None:
        times = asked.times[some]
        fit &= ~(times > now + max(HOUR_S, 2 * (spec.interval_s or 0.0))) & ~np.isneginf(times)
    if asked.gaps is not None and spec.feedback is None:
        fit &= np.array([asked.gaps[place] != "fill" for place in some.tolist()])
    return fit


def _picked(values: Sequence[T], places: Places) -> Sequence[T]:
    """Those at `places`, rising."""
    return values if len(places) == len(values) else [values[place] for place in places.tolist()]


def _in_doubt(detail: str) -> StoreUnavailable:
    return StoreUnavailable(f"{detail}; it may be stored", in_doubt=True)
