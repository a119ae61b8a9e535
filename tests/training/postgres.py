"""A PostgreSQL server of the tests' own, from Debian's packages, on a unix socket in a folder of its own.

PostgreSQL refuses to run as root: then it runs as `postgres`, whom Debian's package makes, or `nobody`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_S = 120


def binary(name: str) -> str:
    """Where Debian puts `name`, which is not on the path there, or where the path has it."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    where = str(found[-1]) if found else shutil.which(name)
    if where is None:
        raise FileNotFoundError(f"no {name}: apt-get install postgresql (no service need run)")
    return where


@contextmanager
def running_postgres() -> Iterator[str]:
    """A server for the block: the SQLAlchemy URL of an empty database. Its folder is gone afterwards."""
    identity = {}
    folder = Path(tempfile.mkdtemp(prefix="recurve-postgres-", dir="/tmp"))  # short: a socket's path is at most 107
    environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    if os.geteuid() == 0:
        names = {entry.pw_name: entry for entry in pwd.getpwall()}
        user = names.get("postgres") or names["nobody"]
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        os.chown(folder, user.pw_uid, user.pw_gid)
    try:
        data, log = folder / "data", folder / "log"
        subprocess.run(
            [binary("initdb"), "-D", data, "-U", "recurve", "-A", "trust", "-N", "-E", "UTF8"],
            cwd=folder, env=environment, check=True, capture_output=True, timeout=START_S, **identity,
        )  # fmt: skip
        with log.open("wb") as out:
            server = subprocess.Popen(
                [binary("postgres"), "-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"],
                cwd=folder, env=environment, stdout=out, stderr=out, **identity,
            )  # fmt: skip
        try:
            _wait(server, folder, log)
            yield f"postgresql://recurve@/postgres?host={folder}"
        finally:
            server.send_signal(signal.SIGINT)  # "fast": sessions are ended, the files are whole
            server.wait(START_S)
    finally:
        shutil.rmtree(folder)


def _wait(server: subprocess.Popen[bytes], folder: Path, log: Path) -> None:
    import psycopg

    from tests.serving import wait_until

    def answers() -> bool:
        if server.poll() is not None:
            raise RuntimeError(f"PostgreSQL ended: {log.read_text()}")
        try:
            psycopg.connect(f"host={folder} user=recurve dbname=postgres connect_timeout=5").close()
        except psycopg.OperationalError:
            return False
        return True

    wait_until(answers, START_S, "PostgreSQL answers")
