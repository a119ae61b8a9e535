"""The description as a page for people, whole in itself: it loads nothing, and speaks to this service alone."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from flask import render_template

POLICY = (
    "default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SHOWN = {"model": "sensor", "client": "roof-7", "number": "1", "label": "stable"}


def page(api: dict[str, Any]) -> tuple[str, str]:
    """The page that shows `api`, an OpenAPI document, and the Content-Security-Policy it is to be sent with."""
    script = (Path(__file__).parent / "templates" / "docs.js").read_text(encoding="utf-8").strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    by_tag: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, methods in api["paths"].items():
        for method, said in methods.items():
            by_tag.setdefault(said["tags"][0], []).append((method, path, said))
    schemas = api["components"]["schemas"]

    def body_fields(said: dict[str, Any]) -> list[tuple[str, dict[str, Any], bool]]:
        if "requestBody" not in said:
            return []
        schema = schemas[_name(_schema(said["requestBody"]))]
        return [(name, each, name in schema.get("required", ())) for name, each in schema["properties"].items()]

    def answer_of(answer: dict[str, Any]) -> str:
        schema = _schema(answer) if "content" in answer else {}
        name = _name(schema) if "$ref" in schema else "Problem"
        if name == "Problem":
            return str(answer["description"])
        members = ", ".join(schemas[name].get("properties", ()))
        return f"{answer['description']} {schemas[name].get('description', '')} Members: {members}".strip()

    text = render_template(
        "docs.html", api=api, by_tag=by_tag.items(), script=script, body_fields=body_fields, answer_of=answer_of,
        kind_of=_kind, value_of=_value, example_of=_example,
    )  # fmt: skip
    return text, POLICY.format(digest=digest)


def _schema(content: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = next(iter(content["content"].values())).get("schema", {})
    return schema


def _name(schema: dict[str, Any]) -> str:
    return str(schema["$ref"]).rsplit("/", 1)[-1]


def _kind(schema: dict[str, Any]) -> str:
    """A schema in a word or two."""
    if "anyOf" in schema:
        return " or ".join(word for word in map(_kind, schema["anyOf"]) if word != "null")
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    return str(schema.get("type", ""))


def _value(parameter: dict[str, Any]) -> str:
    """What the form begins with."""
    if parameter["in"] == "path":
        return _SHOWN[parameter["name"]]
    default = parameter["schema"].get("default", "")
    return json.dumps(default) if default != "" else ""


def _example(said: dict[str, Any]) -> str:
    return json.dumps(next(iter(said["requestBody"]["content"].values())).get("example", {}))
