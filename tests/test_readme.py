"""What README.md says of the service is what the service is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.bootstrap import build
from service.http.described.operations import OPERATIONS
from service.http.errors import TITLES
from service.server.refusal import SLOW_BODY
from service.settings import SECRETS, Settings, variable

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    """The cells of each row of the table in `text`, below its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def api_table() -> dict[str, str]:
    """Each endpoint of the API table, such as "GET /livez", and what it does."""
    section = README.split("\n## API\n")[1].split("\n### ")[0]
    return {
        call.strip("`").replace("CLIENT", "/v1/models/{model}/clients/{client}"): does for call, does in rows(section)
    }


def test_the_settings_table_is_the_settings() -> None:
    table = README.split("<!-- settings -->")[1].split("<!-- /settings -->")[0]
    expected = []
    for name, field in Settings.model_fields.items():
        default = "none" if field.default is None else str(field.default)
        if field.annotation is bool:
            default = "on" if field.default else "off"
        option = "" if name in SECRETS else f"`--{name.replace('_', '-')}`"
        expected.append([option, f"`{variable(name)}`", f"`{default}`", field.description])
    assert rows(table) == expected


def test_the_api_table_has_every_endpoint_and_no_other(tmp_path: Path) -> None:
    service = build(Settings(workers=1, state_url="memory://", models_dir=tmp_path))
    try:
        served = {
            f"{method} {re.sub('<(int:)?', '{', rule.rule).replace('>', '}')}"
            for rule in service.app.url_map.iter_rules()
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        }
    finally:
        service.close()
    assert set(api_table()) == served


def test_the_api_table_says_what_the_description_says() -> None:
    table = api_table()
    for each in OPERATIONS:
        assert table[f"{each.method} {each.path}"].startswith(each.summary)


def test_every_error_code_is_in_the_table() -> None:
    section = README.split("\n### Errors\n")[1].split("\n## ")[0]
    said = {code for row in rows(section) for code in re.findall(r"`([a-z_]+)`", row[1])}
    assert said - {"expected_step", "field", "last_seen"} == set(TITLES) | {SLOW_BODY.code}


def test_every_metric_is_in_the_table_and_no_other(tmp_path: Path) -> None:
    service = build(Settings(workers=1, state_url="memory://", models_dir=tmp_path))
    try:
        text = service.app.test_client().get("/metrics").get_data(as_text=True)
    finally:
        service.close()
    kinds = dict(re.findall(r"^# TYPE (recurve_\w+) (\w+)$", text, re.MULTILINE))
    section = README.split("\n### Metrics\n")[1].split("\n### ")[0]
    said = {name for row in rows(section) for name in re.findall(r"`(\w+)`", row[0])}
    assert said == {name for name in kinds if not name.endswith("_created")}


@pytest.mark.parametrize("path", sorted(set(re.findall(r"]\(([^)#]+)\)", README))))
def test_a_link_of_the_readme_leads_somewhere(path: str) -> None:
    assert (Path(__file__).resolve().parent.parent / path).exists()
