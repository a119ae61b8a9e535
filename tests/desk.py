"""A predictor over the memory store, a leaky integrator and a clock that is set: the core alone, in milliseconds."""

import numpy as np

from service.core.predictor import Limits, Predictor
from service.core.requests import PredictRequest
from service.core.types import ClientKey
from service.stores import open_store
from tests.fakes import LeakyIntegrator, SettableClock, registry_of

HOUR = 3600.0


def request(*values, **more):
    """A request of one-feature observations; a tuple stands for an observation of several."""
    rows = [value if isinstance(value, tuple) else (value,) for value in values]
    return PredictRequest(np.array(rows, np.float32), **more)


class Desk:
    """One client at a predictor: what most tests need, in few words."""

    def __init__(self, spec, limits=None, engine=None):
        self.spec, self.engine, self.clock = spec, engine or LeakyIntegrator(), SettableClock()
        self.store = open_store("memory://")
        self.registry = registry_of(spec, self.engine)
        self.predictor = Predictor(self.registry, self.store, self.clock, limits or Limits())
        self.key = ClientKey("default", spec.name, "c")

    def send(self, *values, **more):
        return self.predictor.predict(self.key, request(*values, **more))

    def prime(self, *values, **more):
        return self.predictor.prime(self.key, request(*values, **more))

    def stored(self):
        found = self.store.load(self.key)
        return None if found is None else found.blob
