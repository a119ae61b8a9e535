"""The report: one file that needs nothing else, with the verdict first."""

import re

import pytest

from tests.training.closed import Proportional, autoregressive, job, manifest
from training.evaluate import evaluate
from training.report import Curve, write_report


class Epoch:
    """One epoch of a training curve."""

    def __init__(self, number):
        self.number, self.loss, self.validation = number, 1 / number, 1.2 / number


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of a report on a good forecaster of three targets."""
    folder = tmp_path_factory.mktemp("report")
    stepper, spec, asked = Proportional(0.8), manifest(3), job(3)
    found = evaluate(stepper, spec, asked, [autoregressive(0.8, 3_000, n_features=3)])
    heard = []
    write_report(folder, spec, asked, found, stepper, curve=Curve([Epoch(n) for n in range(1, 6)], 5),
                 seconds={"fit": 12.0}, advance=heard.append)  # fmt: skip
    assert heard[-1] == 1.0
    return folder


def test_every_plot_is_a_png_of_its_own(written):
    names = {"forecast.png", "horizon.png", "residuals.png", "gates.png", "training.png"}
    assert {path.name for path in written.iterdir()} == names | {"report.html"}
    for name in names:
        assert (written / name).read_bytes().startswith(b"\x89PNG")


def test_the_page_loads_nothing_from_elsewhere(written):
    page = (written / "report.html").read_text()
    sources = re.findall(r'(?:src|srcset|href)="([^"]{0,30})', page)
    assert len(sources) == 10
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "<script" not in page
    assert "url(" not in page


def test_the_verdict_comes_first_and_in_words(written):
    text = re.sub(r"<style.*?</style>|<[^>]+>", " ", (written / "report.html").read_text(), flags=re.S)
    assert text.index("better than the last value") < text.index("Forecast against truth")
    assert "AR(24)" in text
    assert "seasonal naive" in text
    assert "fit 12 s" in text


def test_it_follows_the_reader_s_light_or_dark_and_fits_a_phone(written):
    page = (written / "report.html").read_text()
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


def test_names_from_the_job_cannot_smuggle_markup(tmp_path):
    stepper, spec = Proportional(0.8), manifest()
    asked = job(title="<img src=x onerror=alert(1)>")
    found = evaluate(stepper, spec, asked, [autoregressive(0.8, 800)])
    page = write_report(tmp_path, spec, asked, found, stepper).read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


def test_a_series_without_skill_is_said_so_and_several_series_get_a_table(tmp_path):
    stepper, spec, asked = Proportional(1.0), manifest(gates=()), job()
    series = [autoregressive(1.0, 900, seed=i, key=f"room {i}") for i in range(2)]
    found = evaluate(stepper, spec, asked, series)
    page = write_report(tmp_path, spec, asked, found, stepper).read_text()
    assert "no skill over the last value" in page
    assert "room 0" in page
    assert not (tmp_path / "gates.png").exists()


def test_the_same_evaluation_gives_the_same_files(tmp_path):
    stepper, spec, asked = Proportional(0.8), manifest(), job()
    found = evaluate(stepper, spec, asked, [autoregressive(0.8, 800)])
    for name in ("a", "b"):
        write_report(tmp_path / name, spec, asked, found, stepper)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
