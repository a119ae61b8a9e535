"""Crowds: many senders at one client at once, whose requests carry no number, no key and no time, each sent only once.

Nothing tells such a request from another, so what became of each shows only in the record: while a client has fewer
observations than its context holds, the context is the list of all that was absorbed, in order.
"""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.core.record import decode
from service.core.types import ClientKey
from service.http.context import TENANT
from service.stores import open_store
from tests.chaos.checker import SCALE, TARGETS, TOLERANCE, Offline
from tests.chaos.load import MODEL, SPREAD, TRANSIENT, USUAL, Broken, Wire

OBSERVATIONS = 60  # of each client: fewer than the 64 of the tiny bundle's context

Fate = Literal["acknowledged", "refused", "in doubt"]


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one observation; `answer` if it was acknowledged."""

    fate: Fate
    answer: dict[str, Any] | None = None


@dataclass
class Crowds:
    """Senders who all send to one client until it has had its observations, then to the next."""

    urls: Sequence[str]
    seed: int
    senders_n: int = 8
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._numbers = np.random.default_rng(self.seed)
        self._stop, self._guard = threading.Event(), threading.Lock()
        self._left: list[tuple[str, int]] = []
        self.acknowledged = 0
        self.series: dict[str, NDArray[np.float32]] = {}
        self.sent: dict[str, dict[int, Sent]] = {}
        self._senders = [threading.Thread(target=self._send_all, args=(n,), daemon=True) for n in range(self.senders_n)]

    @property
    def failed(self) -> bool:
        """Whether an answer was none that may come; `finish` says which."""
        return bool(self.failures)

    def start(self) -> None:
        """Begins to send."""
        for sender in self._senders:
            sender.start()

    def finish(self) -> None:
        """Lets every request end; Broken if an answer was none that may come."""
        self._stop.set()
        for sender in self._senders:
            sender.join(60)
            if sender.is_alive():
                self.failures.append(f"{sender.name} did not end")
        if self.failures:
            raise Broken("\n".join(self.failures))

    def _next(self) -> tuple[str, int]:
        with self._guard:
            if not self._left:
                name = f"crowd-{len(self.series)}"
                self.series[name] = self._numbers.normal(USUAL, SPREAD, (OBSERVATIONS, len(USUAL))).astype(np.float32)
                self.sent[name] = {}
                self._left = [(name, at) for at in range(OBSERVATIONS)]
            return self._left.pop()

    def _send_all(self, number: int) -> None:
        rng = random.Random(f"{self.seed}/sender-{number}")
        wire = Wire(self.urls, rng, self.counts)
        try:
            while not self._stop.is_set():
                name, at = self._next()
                sent = self._send(wire, name, self.series[name][at])
                self.sent[name][at] = sent
                with self._guard:
                    self.acknowledged += sent.fate == "acknowledged"
                if sent.fate != "acknowledged":
                    wire.rest()
        except Broken as broken:
            self.failures.append(str(broken))
        finally:
            wire.close()

    def _send(self, wire: Wire, name: str, row: NDArray[np.float32]) -> Sent:
        body = json.dumps({"observation": row.tolist()}).encode()
        seen = wire.once("POST", f"/v1/models/{MODEL}/clients/{name}/predict", body, {})
        if seen is None:
            return Sent("in doubt")
        status, answer, replayed = seen
        if status in TRANSIENT:
            return Sent("in doubt" if answer.get("in_doubt") else "refused")
        if status != 200 or replayed:
            raise Broken(f"{name}: an unnumbered observation got {status}, replayed {replayed}: {answer}")
        return Sent("acknowledged", answer)


def check_crowds(
    state_url: str, series: Mapping[str, NDArray[np.float32]], sent: Mapping[str, Mapping[int, Sent]], offline: Offline
) -> Counter[str]:
    """How many observations fared how; Broken unless each was absorbed once, or not at all where nobody was told so."""
    fates = Counter[str]()
    store = open_store(state_url)
    try:
        for name, fared in sent.items():
            key = ClientKey(TENANT, MODEL, name)
            stored = store.load(key)
            absorbed = np.empty((0, len(USUAL)), np.float32)
            if stored is not None:
                record = decode(key, stored.blob)
                absorbed = record.context
                if record.step != len(absorbed):
                    raise Broken(f"{name}: step {record.step} after {len(absorbed)} observations")
            check_one(name, series[name], fared, absorbed, offline)
            fates.update(one.fate for one in fared.values())
            acknowledged = sum(one.fate == "acknowledged" for one in fared.values())
            fates["absorbed, nobody told"] += len(absorbed) - acknowledged
    finally:
        store.close()
    return fates


def check_one(
    name: str,
    series: NDArray[np.float32],
    fared: Mapping[int, Sent],
    absorbed: NDArray[np.float32],
    offline: Offline,
) -> None:
    """Broken unless ``absorbed`` (n, 3) are observations of ``series`` (60, 3), each once, in the order of which the
    answers speak, with all that were acknowledged and none that were refused without a doubt."""
    steps: dict[int, int] = {}  # of each observation absorbed: place in the series -> step
    for step, row in enumerate(absorbed, 1):
        (places,) = np.nonzero((series == row).all(axis=1))
        if len(places) != 1:
            raise Broken(f"{name}: step {step} is {row}, which was never sent")
        if int(places[0]) in steps:
            raise Broken(f"{name}: one observation was absorbed twice, as steps {steps[int(places[0])]} and {step}")
        steps[int(places[0])] = step
    for place, one in fared.items():
        if one.fate == "refused" and place in steps:
            raise Broken(f"{name}: step {steps[place]} was refused without a doubt, and is kept")
        if one.answer is not None and steps.get(place) != one.answer["step"]:
            raise Broken(f"{name}: step {one.answer['step']} was acknowledged and is kept as {steps.get(place)}")
    if not len(absorbed):
        return
    expected = offline(absorbed[None])[0]
    for one in fared.values():
        if one.answer is not None:
            row = expected[one.answer["step"] - 1]
            told = np.array([one.answer["prediction"][target]["value"] for target in TARGETS])
            if np.any(np.abs(told - row[:, 0]) > TOLERANCE * np.maximum(np.abs(row[:, 0]), SCALE)):
                raise Broken(f"{name}, step {one.answer['step']}: {told}, offline {row[:, 0]}")
