"""Shared by every test: what is slow to make is made once."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# a busy machine is no defect; nothing here is timed
settings.register_profile("recurve", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("recurve")

os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")  # as `training.quiet`: equal to the bit means each time

# A shell ignores Ctrl-C for what it runs in the background, and so would every process that the tests start there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
SINGLE = "single"  # one feature, no interval
TRIPLE = "tiny"  # three features, all predicted, one step an hour


Begin = Callable[..., "subprocess.Popen[Any]"]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Starts a command as `subprocess.Popen` does; what still runs when the test is over is killed."""
    started: list[subprocess.Popen[Any]] = []

    def begin(command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        started.append(subprocess.Popen(command, **{"cwd": ROOT, **options}))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        process.wait()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores opened now wait for Redis for as long as it takes: a machine that stands still is no outage."""
    from service.stores import redis_calls, redis_server
    from tests.patience import LONG_S

    monkeypatch.setattr(redis_server, "TIMEOUT_S", LONG_S)
    monkeypatch.setattr(redis_calls, "TRY_S", LONG_S)


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with two tiny untrained models, really exported and published."""
    from models.repository import Repository
    from tests.training.bundles import make_tiny_bundle

    root = tmp_path_factory.mktemp("published")
    repository = Repository(root)
    for name, n_features, interval_s in ((SINGLE, 1, None), (TRIPLE, 3, 3600.0)):
        with repository.stage(name) as staging:
            manifest = make_tiny_bundle(staging, name=name, n_features=n_features, interval_s=interval_s)
            repository.publish(staging, manifest)
    return root


@pytest.fixture(scope="session")
def two_versions(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose model `tiny` has two versions of unlike weights (seeds 11 and 12), the first of them stable.

    To be copied by whoever moves its labels.
    """
    from models.repository import Repository
    from tests.training.bundles import make_tiny_bundle

    root = tmp_path_factory.mktemp("two-versions")
    shutil.copytree(tiny_repository / TRIPLE, root / TRIPLE)
    repository = Repository(root)
    with repository.stage(TRIPLE) as staging:
        repository.publish(staging, make_tiny_bundle(staging, seed=12), label=None)
    return root
