"""`python -m service state` in this process or in one of its own, and stores that hold it up."""

import fcntl
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import redis
from click.testing import CliRunner

from service.__main__ import main
from service.stores import open_store
from service.stores.sqlite_folder import lock_file, shard_file
from tests.serving import ROOT


def run(*arguments, status=0):
    """The command in this process; what it said."""
    result = CliRunner().invoke(main, ["state", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result.output


def command(*arguments):
    """The command as a list."""
    return [sys.executable, "-m", "service", "state", *map(str, arguments)]


def started(*arguments):
    """The command under way."""
    return subprocess.Popen(command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextmanager
def taking_some(url):
    """Within the block the empty store at `url` takes some of thousands of records and refuses the rest for a while:
    another holds the writers' turn of a shard, or the server has little memory. Whoever brings them waits for half a
    minute.
    """
    if url.startswith("sqlite"):
        open_store(url).close()
        with lock_file(shard_file(Path(url.removeprefix("sqlite:///")), 4)).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        return
    with redis.Redis.from_url(url) as client:
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 3 * 2**20)
        try:
            yield
        finally:
            client.config_set("maxmemory", 0)


def written(url):
    """About how many bytes were written to a store since it was made, looked up from outside."""
    if url.startswith("sqlite"):
        return sum(_size(file) for file in Path(url.removeprefix("sqlite:///")).glob("*.db*"))
    with redis.Redis.from_url(url) as client:
        return client.dbsize() * 2000


def _size(file):
    try:
        return file.stat().st_size
    except FileNotFoundError:  # a log comes and goes
        return 0
