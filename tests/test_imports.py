"""Who may import whom: every import of every file, also those inside functions and under TYPE_CHECKING."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# For the files under a path (the longest that fits counts): what they may import besides the standard library.
# Everything that is not named is forbidden, ours and others' alike.
RULES: dict[str, set[str]] = {
    # What the service knows: no web framework, no runtime, no driver, nothing of ours but itself.
    "service/core": {"numpy", "service.core"},
    # What executes a bundle's step: the only files of the service that import a runtime.
    "service/engines": {"numpy", "ai_edge_litert", "tensorflow", "service.core", "service.engines", "models"},
    # Where records live: the only files that import a driver.
    "service/stores": {"numpy", "sqlite3", "redis", "service.core", "service.stores"},
    # The HTTP face: parses, calls the core, renders. It is handed its store, engines and metrics by bootstrap, and
    # shares the request id with the logs.
    "service/http": {
        "flask", "werkzeug", "pydantic", "orjson", "numpy", "service.core", "service.http", "service.logs",
    },
    # Metrics wrap the core's ports.
    "service/metrics.py": {
        "prometheus_client", "service.core", "service.drift.metrics", "service.live", "service.logged",
        "service.sessions", "service.tally", "service.timing", "service.trials",
    },
    # Drift of live errors. The detector's library is heavy: its process alone imports it.
    "service/drift": {
        "models", "service.core", "service.drift.apart", "service.drift.history", "service.live", "service.looking",
    },
    "service/drift/detector.py": {"river"},
    "service/drift/__main__.py": {"service.drift.detector"},
    "service/drift/metrics.py": {"prometheus_client"},
    "service/live.py": {"numpy", "prometheus_client", "service.core", "service.minutes", "service.tally"},
    "service/sessions.py": {"prometheus_client", "service.core", "service.tally"},
    "service/logged.py": {"prometheus_client"},
    # What is observed, logged in the journals' format, which training reads.
    "service/observed": {"numpy", "service.core", "service.observed", "models.journal", "models.journals"},
    "service/tally.py": {"numpy", "prometheus_client"},
    "service/timing.py": {"service.core", "service.tally"},
    # A thread around the core's sweep.
    "service/looking.py": set(),
    "service/sweeper.py": {"service.core", "service.looking"},
    # Sums of all processes' requests, in the store.
    "service/minutes.py": {"service.core"},
    # A thread around the core's trials; their evidence and their verdicts' effect are the repository's.
    "service/judge.py": {"models", "service.core", "service.looking", "service.minutes"},
    "service/trials.py": {"prometheus_client", "service.tally"},
    # The environment is read here, and nothing of ours is needed for it.
    "service/settings.py": {"pydantic"},
    "service/logs.py": {"pythonjsonlogger"},
    # The composition root knows all others.
    "service/bootstrap.py": {"flask", "numpy", "service", "models"},
    # From published bundles to served models; bootstrap hands it the way to open an engine.
    "service/loader.py": {"numpy", "models", "service.core", "service.specs"},
    "service/specs.py": {"numpy", "models.manifest", "service.core.types"},
    # Labels moved by an administrator: the repository's, and the loader's at once.
    "service/labels.py": {"models", "service.core", "service.loader"},
    # What we change of gunicorn, and what its master says at the start.
    "service/server": {
        "gunicorn", "httptools", "uvloop",
        "service.core.patience", "service.logs", "service.server", "service.settings",
    },
    "service/server/granian.py": {
        "granian", "service.banner", "service.bootstrap", "service.logs", "service.metrics", "service.server",
        "service.settings", "service.wsgi",
    },
    "service/banner.py": {"models", "service.settings"},
    # What a process starts with knows settings and the composition root alone.
    "service/wsgi.py": {"flask", "service.bootstrap", "service.settings"},
    "service/gunicorn.conf.py": {
        "service.banner", "service.bootstrap", "service.settings", "service.logs", "service.metrics",
        "service.server.master", "service.server.seats",
    },
    "service/__main__.py": {
        "click", "pydantic", "service.server.granian", "service.server.start", "service.settings",
        "service.state_commands",
    },
    # Moving whole stores: the commands open them, what moves them is handed them.
    "service/state_commands.py": {"click", "service.core", "service.moving", "service.stores"},
    "service/moving": {"service.core", "service.moving"},
    "service/__init__.py": set(),
    # What a bundle is: met by both halves, so it imports neither, and no framework.
    "models": {"pydantic", "models"},
    # Measures the service from outside, and its parts; what exports a model to measure is a process of its own, so that
    # no measuring process holds TensorFlow. Nothing of the tests.
    "benchmarks": {"ai_edge_litert", "click", "matplotlib", "numpy", "rich", "benchmarks", "models", "service"},
    "benchmarks/bundle.py": {"keras", "numpy", "benchmarks", "models", "training.export"},
    "benchmarks/bulk_bare.py": {"numpy", "orjson", "benchmarks", "models", "service"},
    "benchmarks/crowd.py": {"sqlite3", "benchmarks", "service"},
    # what training kept aside, followed by what serves
    "benchmarks/intervals.py": {"click", "matplotlib", "numpy", "rich", "models", "service", "training"},
    "benchmarks/empty.py": {"flask"},
    "benchmarks/redis_server.py": {"redis", "benchmarks"},
    # Offline: whatever it needs, but nothing of the service. `export --import MODULE` computes a name: a user's layers.
    "training": {
        "ai_edge_litert", "tensorflow", "keras", "numpy", "pandas", "pyarrow", "matplotlib", "jinja2", "pydantic",
        "click", "rich", "apscheduler", "prometheus_client", "sqlalchemy", "models", "training", "<computed>",
    },
}  # fmt: skip

# In the standard library, and yet a driver: only where a rule names it.
GUARDED = {"sqlite3", "dbm", "shelve"}


def imports(tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import in `tree`, a module of `package`; `from a import b` gives ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - (node.level - 1)]
                base = ".".join([*above, base] if base else above)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"}:
            name = node.args[0] if node.args else None
            constant = isinstance(name, ast.Constant) and isinstance(name.value, str)
            yield node.lineno, name.value if constant else "<computed>"


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def allowed(name: str, rule: set[str]) -> bool:
    """Whether `rule` lets a file import `name`."""
    top = name.split(".")[0]
    if top in sys.stdlib_module_names and top not in GUARDED:
        return True
    return any(name == known or name.startswith(f"{known}.") for known in rule)


def violations(root: Path, rules: dict[str, set[str]]) -> list[str]:
    """Every import under `root` that the rules forbid, and every file of ours that no rule covers."""
    found = []
    folders = {path.split("/")[0] for path in rules}
    for file in sorted(file for folder in folders for file in (root / folder).rglob("*.py")):
        path = file.relative_to(root).as_posix()
        fitting = [prefix for prefix in rules if path == prefix or path.startswith(f"{prefix}/")]
        if not fitting:
            found.append(f"{path}: no rule covers it")
            continue
        rule = rules[max(fitting, key=len)]
        package = ".".join(file.relative_to(root).parent.parts)
        found += [
            f"{path}:{line} imports {name}"
            for line, name in imports(ast.parse(file.read_text(encoding="utf-8")), package)
            if not allowed(name, rule)
        ]
    return found


def test_every_import_is_one_that_its_folder_may_have() -> None:
    assert violations(ROOT, RULES) == []


def test_every_rule_is_about_files_that_exist() -> None:
    assert [path for path in RULES if not (ROOT / path).exists()] == []


@pytest.mark.parametrize(
    ("path", "source", "named"),
    [
        ("service/core/bad.py", "import flask", "flask"),
        ("service/core/bad.py", "def later():\n    import redis", "redis"),
        ("service/core/bad.py", "from service.stores import sqlite", "service.stores.sqlite"),
        ("service/core/bad.py", "from ..stores.sqlite import SqliteStore", "service.stores.sqlite.SqliteStore"),
        ("service/core/bad.py", "from .. import http", "service.http"),
        ("service/core/bad.py", "import numpy, pydantic", "pydantic"),
        ("service/core/deep/bad.py", "from ... import bootstrap", "service.bootstrap"),
        ("service/core/bad.py", "import importlib\nimportlib.import_module('tensorflow')", "tensorflow"),
        ("service/core/bad.py", "name = 'x'\n__import__(name)", "<computed>"),
        ("service/core/bad.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import keras", "keras"),
        ("service/core/bad.py", "import sqlite3", "sqlite3"),
        ("service/http/bad.py", "import ai_edge_litert.interpreter", "ai_edge_litert.interpreter"),
        ("service/http/bad.py", "from models.repository import Repository", "models.repository.Repository"),
        ("service/http/bad.py", "import sqlite3", "sqlite3"),
        ("service/engines/bad.py", "import training.stepping", "training.stepping"),
        ("service/stores/bad.py", "import service.bootstrap", "service.bootstrap"),
        ("service/bootstrap.py", "import training", "training"),
        ("models/bad.py", "from service.core import types", "service.core.types"),
        ("models/bad.py", "import tensorflow as tf", "tensorflow"),
        ("training/bad.py", "from service.core.types import ModelSpec", "service.core.types.ModelSpec"),
        ("service/new.py", "", "no rule covers it"),
        ("benchmarks/bad.py", "from tests.serving import free_port", "tests.serving.free_port"),
        ("benchmarks/bad.py", "import keras", "keras"),
        ("service/bootstrap.py", "import benchmarks.load", "benchmarks.load"),
        ("service/wsgi.py", "from service import stores", "service.stores"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, path: str, source: str, named: str) -> None:
    bad = tmp_path / path
    bad.parent.mkdir(parents=True)
    bad.write_text(source, encoding="utf-8")
    found = violations(tmp_path, RULES)
    assert len(found) == 1
    assert found[0].startswith(path)
    assert named in found[0]


def test_what_the_rules_allow_is_not_reported(tmp_path: Path) -> None:
    good = tmp_path / "service/core/good.py"
    good.parent.mkdir(parents=True)
    good.write_text(
        "import collections.abc\nimport numpy as np\nfrom numpy import typing\nfrom . import types\n"
        "from .types import ClientKey\nfrom service.core.ports import Engine\n",
        encoding="utf-8",
    )
    assert violations(tmp_path, RULES) == []


# Imports every module of the named packages and reports what our own lines did besides: files, sockets, databases,
# processes, threads, Flask apps. What a library does while it is imported is its own affair: the walk up the stack
# ends at the import machinery. service.wsgi and __main__ are the doors that processes enter by: they build, and are
# left out.
IMPORT_ALL = """
import gc, importlib, pkgutil, sys, threading
from pathlib import Path

root = Path(sys.argv[1])
events = []

def ours():
    frame = sys._getframe(2)
    while frame is not None and "importlib" not in frame.f_code.co_filename:
        if frame.f_code.co_filename.startswith(str(root)) and "/.venv/" not in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False

def watch(event, args):
    if event in ("open", "sqlite3.connect", "subprocess.Popen", "socket.connect", "socket.bind") and ours():
        events.append(f"{event} {args}")

sys.path.insert(0, str(root))
sys.dont_write_bytecode = True
packages = [importlib.import_module(name) for name in sys.argv[2:]]
sys.addaudithook(watch)
for package in packages:
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name.split(".")[-1] not in ("__main__", "wsgi", "conf"):
            importlib.import_module(module.name)
flask = sys.modules.get("flask")
apps = [] if flask is None else [thing for thing in gc.get_objects() if isinstance(thing, flask.Flask)]
events += [f"an app: {app}" for app in apps]
events += [f"a thread: {thread}" for thread in threading.enumerate() if thread is not threading.main_thread()]
print("\\n".join(events), end="")
"""


def what_importing_did(root: Path, *packages: str) -> str:
    command = [sys.executable, "-c", IMPORT_ALL, str(root), *packages]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("packages", [("models", "service"), ("training",)], ids=" ".join)
def test_importing_our_modules_opens_and_builds_nothing(packages: tuple[str, ...]) -> None:
    assert what_importing_did(ROOT, *packages) == ""


def test_building_at_import_is_found(tmp_path: Path) -> None:
    package = tmp_path / "service"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "bad.py").write_text(
        "import sqlite3, flask\napp = flask.Flask('bad')\ndatabase = sqlite3.connect(':memory:')\n", encoding="utf-8"
    )
    (package / "reads.py").write_text("import tempfile\nfile = tempfile.TemporaryFile()\n", encoding="utf-8")
    done = what_importing_did(tmp_path, "service")
    assert "sqlite3.connect" in done
    assert "an app" in done
    assert "open" in done
