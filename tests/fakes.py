"""Hand-written engines with a closed form, a clock that is set, and the specs that go with them."""

import numpy as np

from service.core.registry import Registry, Served, ServedModel
from service.core.types import FeatureSpec, GateSpec, ModelSpec, TargetSpec


class LeakyIntegrator:
    """s' = a s + (1 - a) x for each feature; predicts s' with bounds one to either side.

    Closed form: s_t = a^t s_0 + (1 - a) sum_i a^(t - i) x_i.
    """

    def __init__(self, leak=0.5):
        self.leak = np.float32(leak)
        self.steps = 0

    def step(self, x, state):
        self.steps += len(x)
        following = self.leak * state + (np.float32(1) - self.leak) * x
        y = np.stack((following, following - 1, following + 1), axis=-1)
        return y, following

    def gates(self, x, state):
        return [np.concatenate((state, x), axis=1)]

    def close(self):
        pass


class SettableClock:
    """Tells the time it was set to."""

    def __init__(self, now=1_700_000_000.0):
        self.now = now

    def __call__(self):
        return self.now


def make_spec(features=("a",), *, name="toy", version=1, fingerprint="00", interval_s=None, predicts=None, **more):
    """A spec whose targets are `predicts` (default: every feature), with a 90 % interval in columns 1 and 2."""
    targets = tuple(features if predicts is None else predicts)
    settings = {
        "name": name,
        "version": version,
        "fingerprint": fingerprint * 32,
        "features": tuple(FeatureSpec(feature, "u") for feature in features),
        "targets": tuple(TargetSpec(target, "u", 1.0) for target in targets),
        "interval_s": interval_s,
        "initial_state": np.zeros(len(features), np.float32),
        "quantiles": (0.05, 0.95),
        "context_length": 8,
        "level": 0.9,
        "interval_columns": (1, 2),
        "residuals": np.array([[[-1.0, 1.0]] * len(targets)] * 4, np.float32),
        "gates": (GateSpec("g0", "leak", "leak", ("kept", "read"), len(features)),),
        "feedback": np.array([targets.index(f) for f in features]) if set(features) <= set(targets) else None,
        "observed": np.array([features.index(t) if t in features else -1 for t in targets]),
    }
    return ModelSpec(**{**settings, **more})


def serve(registry, spec, engine, *, generation=1, labels=None):
    """Put one version of one model into the registry, beside what is there."""
    model = ServedModel(
        spec.name, generation, labels or {"stable": spec.version}, {spec.version: Served(spec, engine, {})}
    )
    registry.replace({**registry.models, spec.name: model})


def registry_of(spec, engine):
    """A registry that serves one version."""
    registry = Registry()
    serve(registry, spec, engine)
    return registry
