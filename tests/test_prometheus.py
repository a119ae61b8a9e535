"""The shipped Prometheus rules say what they are to say, of metrics that there are."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from service.bootstrap import build
from service.settings import Settings
from tests.serving import ROOT

FOLDER = ROOT / "deploy" / "prometheus"
RULES, TESTS = FOLDER / "recurve.rules.yml", FOLDER / "recurve.rules.test.yml"
PROMTOOL = shutil.which("promtool")  # `make test` installs it where it may: Debian's package prometheus


@pytest.fixture(scope="module")
def exposed(tmp_path_factory):
    """The names of the samples that a service exposes: type by family, `_total` where a counter has it."""
    service = build(Settings(workers=1, state_url="memory://", models_dir=tmp_path_factory.mktemp("models")))
    try:
        text = service.app.test_client().get("/metrics").get_data(as_text=True)
    finally:
        service.close()
    return dict(re.findall(r"^# TYPE (recurve_\w+) (\w+)$", text, re.MULTILINE))


def rules():
    """Each rule's own name and its expression, read off the file's indentation."""
    found = []
    for part in re.split(r"^      - (?=record|alert)", RULES.read_text(), flags=re.MULTILINE)[1:]:
        name = re.match(r"(?:record|alert): (\S+)", part).group(1)
        inline = re.search(r"^        expr: ([^|\n].*)$", part, re.MULTILINE)
        block = re.search(r"^        expr: \|\n((?:          .*\n)+)", part, re.MULTILINE)
        found.append((name, inline.group(1) if inline else block.group(1)))
    return found


def test_every_rule_is_about_metrics_that_are_exposed_or_rules_before_it(exposed):
    recorded, used = set(), set()
    for name, expression in rules():
        assert expression.count("(") == expression.count(")")
        for each in re.findall(r"recurve:\w+:\w+", expression):
            assert each in recorded, f"{name} uses {each}"
        metrics = set(re.findall(r"\brecurve_\w+", expression))
        assert metrics <= set(exposed), name
        used |= metrics
        if ":" in name:
            recorded.add(name)
    assert len(recorded) == 10
    assert {name for name in exposed if name.startswith("recurve_live_") and not name.endswith("_created")} <= used


def test_counters_are_used_as_rates_and_gauges_as_they_are(exposed):
    for name, expression in rules():
        for function, metric in re.findall(r"(\w*)\(?\b(recurve_\w+)", expression):
            assert (function in ("rate", "increase")) == (exposed[metric] == "counter"), name


@pytest.mark.skipif(PROMTOOL is None, reason="promtool (Debian: apt-get install prometheus) is not installed")
@pytest.mark.parametrize("arguments", [["check", "rules", RULES], ["test", "rules", TESTS]], ids=["check", "test"])
def test_prometheus_itself_finds_the_rules_right(arguments: list[str | Path]) -> None:
    done = subprocess.run([PROMTOOL, *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
