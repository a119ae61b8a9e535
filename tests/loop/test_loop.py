"""The whole loop, as its users would see it: the world changes, and the service learns it while it serves.

Version 1 is trained on slow swings and served by two workers to fifty clients. Then every series swings fast. The
service notices that its forecasts have become worse, the scheduler retrains on what the service has observed, the new
version is tried in the shadow of the old one, is found better, and takes its place. Of all this no client is to notice
anything but better forecasts.

`make loop` runs this alone, at half the speed, and keeps its picture and figures in docs/.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from models.drift import read_drift
from models.repository import Repository
from tests.loop.crowd import FAST, NOISE, Crowd, Second, history
from tests.loop.plot import draw
from tests.serving import ROOT, Running, running_service, wait_until

MODEL, CLIENTS, SEED = "swing", 50, 4
MINUTE_S = float(os.environ.get("LOOP_MINUTE_S", 0.5))  # what counts as a minute: an hour of evidence is half of one
CALM_S, AFTER_S = 45 * MINUTE_S, 25 * MINUTE_S
BOUND_S = 400.0
PROMOTED = ("carried", "promoted")

JOB = """
name = "swing"
title = "Swings"
horizon = 6
features = [{name = "level", unit = "m"}]
targets = [{name = "level"}]
network = {units = 16, depth = 1}
fit = {epochs = 15, streams = 16, chunk = 24}
"""
FIRST = JOB + '[source]\npath = "history.csv"\nseries = "series"\n'
AGAIN = (
    'source = "observations"\n'
    + JOB
    + """
[retrain]
start = "scratch"
window = "sliding"
length = 150
holdout = 30
publish = "candidate"
[schedule]
cron = "0 3 1 1 *"
on_drift = true
"""
)


@pytest.mark.timeout(1200)
def test_a_change_is_noticed_learnt_proven_and_served_without_a_failed_request(tmp_path):
    models, observed = tmp_path / "models", tmp_path / "observations"
    (tmp_path / "history.csv").write_text(history(SEED, rows=1500, series=4))
    (tmp_path / "first.toml").write_text(FIRST)
    (tmp_path / "again.toml").write_text(AGAIN)
    subprocess.run(training("train", tmp_path / "first.toml", "--models-dir", models), check=True, cwd=ROOT)
    labels = Repository(models)

    service_settings = {"log_observations": MODEL, "observations_dir": observed, "journal_s": 2, "drift_every_s": 3}
    service_settings["promote_deadline_h"] = 6  # more of our minutes than are needed, each an observation of its own
    with (
        running_service(models, f"sqlite:///{tmp_path}/state", minute_s=MINUTE_S, **service_settings) as service,
        scheduler(tmp_path, models, observed) as says,
    ):
        crowd = Crowd(service.url, MODEL, CLIENTS, SEED)
        crowd.start()
        moments: dict[str, float] = {}

        def until(happens, what):
            def happened():
                assert crowd.failures == []
                return happens()

            wait_until(happened, BOUND_S, f"{what}; the scheduler says: {says()}")
            moments[what] = crowd.now()

        until(lambda: crowd.now() > CALM_S, "all swing fast")
        assert read_drift(models / MODEL) is None
        crowd.period = FAST
        until(lambda: read_drift(models / MODEL) is not None, "drift is noticed")
        until(lambda: labels.labels(MODEL).labels.get("candidate") == 2, "a candidate is in the shadow")
        until(lambda: labels.labels(MODEL).labels["stable"] == 2, "it is promoted")
        until(lambda: crowd.statuses.get(PROMOTED) == CLIENTS, "it answers every client")
        until(lambda: crowd.now() > moments["it answers every client"] + AFTER_S, "the end")
        crowd.finish()

        assert crowd.failures == []
        for client, steps in enumerate(crowd.steps):  # none lost, none counted twice
            kept = requests.get(f"{service.url}/v1/models/{MODEL}/clients/{client}", timeout=30).json()
            assert (kept["step"], kept["version"]) == (steps, 2)
        evidence = evidence_of(service)
    assert evidence["verdict"] == "better"
    assert set(crowd.statuses) == {("started", None), ("carried", None), PROMOTED}  # and never rebuilt
    assert crowd.statuses[PROMOTED] == CLIENTS

    calm = crowd.between(CALM_S / 2, CALM_S)
    lost = crowd.between(moments["drift is noticed"], moments["a candidate is in the shadow"])
    after = crowd.between(moments["it answers every client"] + 1, crowd.now())
    assert (calm.versions, lost.versions, after.versions) == ({1}, {1}, {2})
    assert skill(after) > skill(lost) + 0.2
    assert rmse(after) < 2 * NOISE < rmse(lost)
    report(crowd, moments, {"before the change": calm, "after it": lost, "promoted": after}, evidence)


def training(*arguments: object) -> list[str]:
    """The command `python -m training` with these arguments."""
    return [sys.executable, "-m", "training", *map(str, arguments)]


@contextmanager
def scheduler(folder: Path, models: Path, observed: Path) -> Iterator:
    """The scheduler of the job again.toml; gives what tells what it has said so far."""
    command = training("schedule", folder / "again.toml", "--models-dir", models, "--metrics-port", 0)
    command += ["--status-file", str(folder / "status.json"), "--cache", str(folder / "cache")]
    log, environment = folder / "scheduler.log", os.environ | {"RECURVE_OBSERVATIONS_DIR": str(observed)}
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT)
        try:
            yield lambda: log.read_text(errors="replace")[-2000:]
        finally:
            process.terminate()
            process.wait(60)


def evidence_of(service: Running) -> dict:
    """Why version 2 was promoted."""
    return requests.get(f"{service.url}/v1/models/{MODEL}/versions/2/evidence", timeout=30).json()


def rmse(seen: Second) -> float:
    """Root mean squared error of the served forecasts."""
    return math.sqrt(seen.squared / seen.scored)


def skill(seen: Second) -> float:
    """Of the served forecasts over the last value: 1 - RMSE / RMSE of the last value."""
    return 1 - math.sqrt(seen.squared / seen.naive)


def report(crowd: Crowd, moments: dict[str, float], phases: dict[str, Second], evidence: dict) -> None:
    """Prints the figures, and keeps them and the picture in build/loop, or where LOOP_DOCS says."""
    folder = Path(os.environ.get("LOOP_DOCS", ROOT / "build" / "loop"))
    figures = {
        "clients": CLIENTS,
        "seed": SEED,
        "requests": sum(crowd.steps),
        "failed": len(crowd.failures),
        "seconds": {what: round(at, 1) for what, at in moments.items()},
        "rmse": {phase: round(rmse(seen), 3) for phase, seen in phases.items()},
        "skill": {phase: round(skill(seen), 3) for phase, seen in phases.items()},
        "evidence": {key: evidence[key] for key in ("minutes", "steps", "level", "verdict") if key in evidence},
    }
    print(json.dumps(figures, indent=1))
    drawn = {what: at for what, at in moments.items() if what not in ("it answers every client", "the end")}
    draw(crowd, drawn, folder / "loop.png")
    (folder / "loop.json").write_text(json.dumps(figures, indent=1) + "\n")
