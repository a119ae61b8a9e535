"""From bundles to served models: whole, verified, beside what is served; one bad bundle stops no other."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from models.manifest import Feature, GateLayer, Manifest, Residuals, Target
from models.repository import Repository
from service.core.errors import BundleInvalid, VersionUnfit
from service.core.registry import Registry
from service.loader import RETRY_S, Loader
from service.specs import spec_of
from tests.fakes import LeakyIntegrator
from tests.serving import wait_until

BOUND_S = 120.0


def manifest(name="toy", **more):
    fields = {
        "name": name,
        "fingerprint": "ab" * 32,
        "created": "2026-01-01T00:00:00Z",
        "features": (Feature(name="a", unit="u"),),
        "targets": (Target(name="a", unit="u", scale=1.0),),
        "initial_state": (0.0,),
        "quantiles": (0.05, 0.5, 0.95),
        "architecture": "lstm",
        "context_length": 8,
    }
    return Manifest(**{**fields, **more})


class Desk:
    """A repository, a registry and a loader between them whose engines are leaky integrators."""

    def __init__(self, root):
        self.repository, self.registry = Repository(root), Registry()
        self.opened, self.failing = [], set()
        self.loader = Loader(self.repository, self.registry, self.open_engine, poll_s=0.01)

    def open_engine(self, bundle, spec):
        self.opened.append((spec.name, spec.version))
        if spec.name in self.failing:
            raise BundleInvalid(f"step of {spec.name} does not run")
        return LeakyIntegrator()

    def publish(self, name="toy", label="stable", **more):
        with self.repository.stage(name) as staging:
            (staging / "weights").write_bytes(b"weights")
            return self.repository.publish(staging, manifest(name, **more), label)


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path / "models")


def test_an_empty_or_missing_repository_is_no_error(desk):
    assert desk.loader.refresh() is False
    assert desk.loader.problems() == []
    assert desk.registry.models == {}


def test_a_published_model_is_served_with_its_spec_and_manifest(desk):
    desk.publish()
    assert desk.loader.refresh() is True
    served = desk.registry.model("toy").labelled()
    assert (served.spec.name, served.spec.version) == ("toy", 1)
    assert served.manifest["fingerprint"] == "ab" * 32
    assert desk.registry.model("toy").generation == 1


def test_every_labelled_version_is_loaded_and_no_other(desk):
    desk.publish(label=None)
    desk.publish()
    desk.publish(label="candidate")
    desk.loader.refresh()
    model = desk.registry.model("toy")
    assert sorted(model.versions) == [2, 3]
    assert model.labels == {"stable": 2, "candidate": 3}


def test_a_second_look_loads_nothing_again_and_adds_what_is_new(desk):
    desk.publish("one")
    desk.loader.refresh()
    kept = desk.registry.model("one")
    assert desk.loader.refresh() is False
    desk.publish("two")
    assert desk.loader.refresh() is True
    assert desk.registry.model("one") is kept
    assert desk.opened == [("one", 1), ("two", 1)]


def test_a_damaged_bundle_is_named_and_the_others_are_served(desk):
    desk.publish("good")
    desk.publish("bad")
    (desk.repository.bundle("bad", 1) / "weights").write_bytes(b"other")
    desk.loader.refresh()
    assert list(desk.registry.models) == ["good"]
    (problem,) = desk.loader.problems()
    assert (problem["model"], problem["version"]) == ("bad", 1)
    assert "weights has other bytes" in problem["detail"]


def test_a_bundle_that_no_engine_opens_is_named(desk):
    desk.publish()
    desk.failing.add("toy")
    desk.loader.refresh()
    assert desk.loader.problems() == [{"model": "toy", "version": 1, "detail": "step of toy does not run"}]


def test_a_candidate_that_does_not_load_leaves_stable_served(desk):
    desk.publish()
    desk.publish(label="candidate")
    (desk.repository.bundle("toy", 2) / "weights").unlink()
    desk.loader.refresh()
    assert desk.registry.model("toy").labels == {"stable": 1}
    assert desk.loader.problems()[0]["version"] == 2


@pytest.mark.parametrize("label", ["candidate", "stable"])
def test_a_version_of_other_quantities_copied_from_elsewhere_is_not_served(desk, tmp_path, label):
    """Nothing published is one, but its second track, or its first, would make every client's record unreadable."""
    desk.publish()
    desk.loader.refresh()
    other = Desk(tmp_path / "elsewhere")
    both = (Target(name="a", unit="u", scale=1.0), Target(name="b", unit="u", scale=1.0))
    other.publish(targets=both)
    other.publish(targets=both)
    shutil.copytree(other.repository.bundle("toy", 2), desk.repository.root / "toy" / "2")
    with pytest.raises(VersionUnfit, match="are not those of version 1"), desk.loader.prepared("toy", 2):
        pass
    desk.repository.set_label("toy", label, 2)
    desk.loader.refresh()
    assert desk.registry.model("toy").labels == {"stable": 1}
    assert desk.loader.problems()[0]["version"] == 2
    restarted = Desk(desk.repository.root)
    desk.repository.set_label("toy", "stable", 1)
    desk.repository.set_label("toy", "candidate", 2)
    restarted.loader.refresh()
    assert restarted.registry.model("toy").labels == {"stable": 1}


def test_a_model_that_was_removed_and_published_anew_is_not_taken_for_the_one_that_is_loaded(desk):
    """Same number, same generation; a worker that starts later would serve other weights under them."""
    desk.publish()
    desk.loader.refresh()
    shutil.rmtree(desk.repository.root / "toy")
    desk.loader.refresh()
    assert desk.registry.model("toy").labelled().spec.fingerprint == "ab" * 32
    desk.publish(fingerprint="cd" * 32)
    assert desk.loader.refresh() is True
    assert desk.registry.model("toy").labelled().spec.fingerprint == "cd" * 32
    assert desk.loader.refresh() is False


def test_whatever_a_bundle_makes_a_runtime_raise_stays_its_own_problem(desk, monkeypatch):
    def explode(bundle, spec):
        raise MemoryError("too large")

    desk.publish()
    loader = Loader(desk.repository, desk.registry, explode)
    loader.refresh()
    assert loader.problems() == [{"model": "toy", "version": 1, "detail": "MemoryError: too large"}]


def test_damaged_labels_and_a_missing_stable_label_are_named(desk):
    desk.publish("torn")
    (desk.repository.root / "torn" / "labels.json").write_text("{")
    desk.publish("bare", label="candidate")
    desk.loader.refresh()
    assert {problem["model"]: problem["version"] for problem in desk.loader.problems()} == {"torn": None, "bare": None}
    assert desk.registry.models == {}


def test_a_repository_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / "models").write_text("a file, not a folder")
    desk = Desk(tmp_path / "models")
    assert desk.loader.refresh() is False
    assert "can't be read" in desk.loader.problems()[0]["detail"]


def test_a_bad_bundle_is_not_loaded_over_and_over(desk, monkeypatch):
    desk.publish()
    desk.failing.add("toy")
    for _ in range(5):
        desk.loader.refresh()
    assert len(desk.opened) == 1
    now = [0.0]
    monkeypatch.setattr("service.loader.time.monotonic", lambda: now[0])
    now[0] = 1e9 + RETRY_S
    desk.loader.refresh()
    assert len(desk.opened) == 2


def test_a_bad_bundle_is_looked_at_again_when_its_label_moves(desk):
    desk.publish()
    desk.failing.add("toy")
    desk.loader.refresh()
    desk.failing.clear()
    desk.publish()
    assert desk.loader.refresh() is True
    assert desk.loader.problems() == []
    assert desk.registry.model("toy").labelled().spec.version == 2


def test_a_label_that_moves_swaps_in_what_it_names_now(desk):
    desk.publish()
    desk.loader.refresh()
    before = desk.registry.model("toy")
    desk.publish()
    assert desk.loader.refresh() is True
    model = desk.registry.model("toy")
    assert (model.generation, model.labels, list(model.versions)) == (2, {"stable": 2}, [2])
    assert list(before.versions) == [1]  # a request under way keeps what it holds
    assert desk.opened == [("toy", 1), ("toy", 2)]
    assert desk.loader.refresh() is False


def test_only_what_is_not_loaded_yet_is_loaded(desk):
    desk.publish()
    desk.publish(label="candidate")
    desk.loader.refresh()
    kept = desk.registry.model("toy").version(2)
    desk.repository.set_label("toy", "stable", 2)
    assert desk.loader.refresh() is True
    assert desk.registry.model("toy").labelled() is kept
    assert desk.opened == [("toy", 1), ("toy", 2)]
    desk.repository.set_label("toy", "stable", 1)
    assert desk.loader.refresh() is True
    assert desk.registry.model("toy").labels == {"candidate": 2, "stable": 1}


def test_a_version_has_run_once_before_it_is_served(desk):
    class Counting(LeakyIntegrator):
        looks = 0

        def gates(self, x, state):
            self.looks += 1
            return super().gates(x, state)

    engines = []

    def open_engine(bundle, spec):
        engines.append(Counting())
        return engines[-1]

    desk.publish()
    Loader(desk.repository, desk.registry, open_engine).refresh()
    (engine,) = engines
    assert (engine.steps, engine.looks) == (1, 1)
    assert desk.registry.model("toy").labelled().engine is engine


def test_a_successor_that_loads_and_does_not_run_leaves_the_old_one_and_is_named(desk):
    desk.publish()
    desk.loader.refresh()
    opened = desk.open_engine

    def open_bad(bundle, spec):
        engine = opened(bundle, spec)
        engine.step = None
        return engine

    desk.loader._open_engine = open_bad
    desk.publish()
    desk.loader.refresh()
    assert desk.registry.model("toy").labelled().spec.version == 1
    assert [problem["version"] for problem in desk.loader.problems()] == [2]


def test_what_is_served_stays_while_its_successor_loads(desk):
    desk.publish()
    desk.loader.refresh()
    meanwhile = []
    opened = desk.open_engine

    def open_and_look(bundle, spec):
        meanwhile.append(desk.registry.model("toy").labelled().spec.version)
        return opened(bundle, spec)

    desk.loader._open_engine = open_and_look
    desk.publish()
    desk.loader.refresh()
    assert (meanwhile, desk.registry.model("toy").labelled().spec.version) == ([1], 2)


def test_a_successor_that_does_not_load_leaves_the_old_one_and_is_named(desk):
    desk.publish()
    desk.loader.refresh()
    kept = desk.registry.model("toy")
    desk.failing.add("toy")
    desk.publish()
    for _ in range(3):
        assert desk.loader.refresh() is False
        desk.loader.reload("toy")
    assert desk.registry.model("toy") is kept
    assert desk.loader.problems() == [{"model": "toy", "version": 2, "detail": "step of toy does not run"}]
    assert desk.opened.count(("toy", 2)) == 1  # not over and over
    desk.failing.clear()
    desk.publish()
    assert desk.loader.refresh() is True
    assert desk.registry.model("toy").labels == {"stable": 3}
    assert desk.loader.problems() == []


def test_a_label_whose_new_version_does_not_load_keeps_its_old_one(desk):
    desk.publish()
    desk.publish(label="candidate")
    desk.loader.refresh()
    desk.publish(label="candidate")
    (desk.repository.bundle("toy", 3) / "weights").unlink()
    desk.repository.set_label("toy", "stable", 2)
    desk.loader.refresh()
    model = desk.registry.model("toy")
    assert (model.labels, sorted(model.versions)) == ({"candidate": 2, "stable": 2}, [2])
    assert desk.loader.problems()[0]["version"] == 3


def test_damaged_labels_leave_what_is_served_and_are_named(desk):
    desk.publish()
    desk.loader.refresh()
    kept = desk.registry.model("toy")
    (desk.repository.root / "toy" / "labels.json").write_text("{")
    assert desk.loader.refresh() is False
    assert desk.registry.model("toy") is kept
    assert "labels.json" in desk.loader.problems()[0]["detail"]


def test_labels_that_did_not_move_are_not_even_read(desk, monkeypatch):
    desk.publish()
    desk.loader.refresh()
    monkeypatch.setattr(desk.repository, "labels", None)
    assert desk.loader.refresh() is False
    desk.loader.reload("toy")


def test_one_model_is_reloaded_at_once_and_loaded_once_however_many_ask(desk):
    desk.publish()
    desk.publish("other")
    desk.loader.refresh()
    desk.publish()
    desk.publish("other")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(desk.loader.reload, ["toy"] * 32))
    assert desk.registry.model("toy").labelled().spec.version == 2
    assert desk.registry.model("other").labelled().spec.version == 1
    assert desk.opened.count(("toy", 2)) == 1


def test_a_problem_goes_away_with_its_model(desk):
    desk.publish()
    desk.failing.add("toy")
    desk.loader.refresh()
    shutil.rmtree(desk.repository.root / "toy")
    desk.loader.refresh()
    assert desk.loader.problems() == []


def test_it_polls_until_it_is_stopped(desk):
    desk.loader.start()
    desk.publish()
    wait_until(lambda: "toy" in desk.registry.models, BOUND_S, "the model")
    desk.loader.stop()
    assert "loader" not in {thread.name for thread in threading.enumerate()}


def test_a_poll_that_fails_is_not_the_last(desk, monkeypatch):
    calls = []

    def names():
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("a surprise")
        return []

    monkeypatch.setattr(desk.repository, "names", names)
    desk.loader.start()
    wait_until(lambda: len(calls) > 2, BOUND_S, "further looks")
    desk.loader.stop()


def test_a_spec_resolves_names_to_columns():
    spec = spec_of(
        manifest(
            features=(Feature(name="a", unit="m"), Feature(name="b", minimum=0.0, maximum=9.0)),
            targets=(Target(name="b", scale=2.0), Target(name="sum", scale=3.0), Target(name="a", scale=1.0)),
            initial_state=(0.5, -1.0),
            gates=(GateLayer(output="gates_0", layer="l", cell="LSTM", names=("i", "f"), units=4),),
        ),
        7,
    )
    assert spec.version == 7
    assert spec.feedback.tolist() == [2, 0]
    assert spec.observed.tolist() == [1, -1, 0]
    assert spec.initial_state.dtype == np.float32
    assert spec.initial_state.tolist() == [0.5, -1.0]
    assert not spec.initial_state.flags.writeable
    assert (spec.features[1].minimum, spec.features[1].maximum) == (0.0, 9.0)
    assert (spec.gates[0].output, spec.gates[0].names, spec.gates[0].units) == ("gates_0", ("i", "f"), 4)


def test_a_model_that_predicts_not_all_its_features_has_no_feedback():
    features = (Feature(name="a"), Feature(name="b"))
    assert spec_of(manifest(features=features), 1).feedback is None


@pytest.mark.parametrize(
    ("quantiles", "level", "columns"),
    [
        ((0.05, 0.5, 0.95), 0.9, (1, 3)),
        ((0.025, 0.05, 0.5, 0.95, 0.975), 0.9, (2, 4)),
        ((0.1, 0.9), 0.8, (1, 2)),
        ((0.5,), None, None),
        ((0.05, 0.5), None, None),
        ((), None, None),
    ],
)
def test_the_interval_is_the_symmetric_pair_nearest_to_ninety_percent(quantiles, level, columns):
    spec = spec_of(manifest(quantiles=quantiles), 1)
    assert (spec.level, spec.interval_columns) == (level, columns)


def test_look_aheads_bounds_are_residuals_at_the_intervals_levels():
    residuals = Residuals(levels=(0.05, 0.5, 0.95), quantiles=(((-1.0, 0.1, 2.0),), ((-3.0, 0.2, 4.0),)))
    spec = spec_of(manifest(residuals=residuals), 1)
    assert spec.residuals.dtype == np.float32
    assert spec.residuals.tolist() == [[[-1.0, 2.0]], [[-3.0, 4.0]]]
    assert spec_of(manifest(quantiles=(0.1, 0.9), residuals=residuals), 1).residuals is None


def test_a_model_without_quantiles_takes_the_residuals_own_level():
    residuals = Residuals(levels=(0.1, 0.9), quantiles=(((-1.0, 2.0),),))
    spec = spec_of(manifest(quantiles=(), residuals=residuals), 1)
    assert (spec.level, spec.interval_columns) == (0.8, None)
    assert spec.residuals.tolist() == [[[-1.0, 2.0]]]
