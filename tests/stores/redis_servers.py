"""Real Redis servers for tests, each a process of ours on 127.0.0.1, ended by its pid; several make a Cluster."""

import shutil
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis

from tests.serving import free_port, wait_until

SLOTS = 16384
BUS = 10_000  # how far above its port a server of a Cluster talks with the others
STARTS_S = STOPS_S = 120.0


class RedisServer:
    """One server with its files in `folder`. It can be killed and started again, on the same port."""

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.address = ("127.0.0.1", self.port)
        self.process: subprocess.Popen | None = None
        self._options = options
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self, *, wait: bool = True) -> None:
        """Starts it, and with `wait` returns once it answers, its data loaded."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(executable(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
                    *("--save", "", "--daemonize", "no", "--protected-mode", "no", *self._options),
                ],
                stdout=log,
                stderr=log,
            )
        if wait:
            wait_until(self._answers, STARTS_S, f"a Redis server on port {self.port}")

    def kill(self) -> None:
        """SIGKILL, as a crash is."""
        self._end(lambda process: process.kill())

    def stop(self) -> None:
        """SIGTERM: it writes what it has to write and ends."""
        self._end(lambda process: process.terminate())

    def ask(self, *command: str | bytes | int):
        """The reply to one command, over a connection of its own."""
        with redis.Redis(port=self.port, protocol=2, socket_timeout=60) as client:
            return client.execute_command(*command)

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"no Redis server on port {self.port}:\n{(self.folder / 'log').read_text()[-2000:]}")
        try:
            return bool(self.ask("PING"))
        except redis.RedisError:
            return False

    def _end(self, how) -> None:
        if self.process is not None:
            how(self.process)
            self.process.wait(STOPS_S)
            self.process = None


def executable() -> str:
    """The server's program. There is no skipping these tests: `make test` installs it, or says how to."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        raise RuntimeError("these tests need redis-server (or valkey-server): apt-get install redis-server")
    return found


@contextmanager
def redis_server(folder: Path, *options: str, port: int | None = None):
    """A running server."""
    server = RedisServer(folder, *options, port=port)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def redis_cluster(folder: Path, masters: int = 3, replicas: int = 0):
    """The servers of a running Cluster, masters first; replica i follows master i."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                redis_server(
                    *(folder / f"node-{number}", "--cluster-enabled", "yes", "--cluster-node-timeout", "1000"),
                    port=free_port(beside=BUS),
                )
            )
            for number in range(masters + replicas)
        ]
        edges = [SLOTS * number // masters for number in range(masters + 1)]
        for number, server in enumerate(servers[:masters]):
            server.ask("CLUSTER", "ADDSLOTS", *range(edges[number], edges[number + 1]))
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in servers[1:]:
            server.ask("CLUSTER", "MEET", *servers[0].address)
        wait_until(lambda: all(_knows(server, len(servers)) for server in servers), STARTS_S, "the Cluster's meeting")
        for number, server in enumerate(servers[masters:]):
            server.ask("CLUSTER", "REPLICATE", servers[number].ask("CLUSTER", "MYID"))
        wait_until(lambda: all(is_whole(server) for server in servers), STARTS_S, "the Cluster's agreement")
        yield servers


def is_whole(server: RedisServer) -> bool:
    """Whether a server of a Cluster finds every slot served, and is linked to its master if it is a replica."""
    info = cluster_info(server)
    link = server.ask("INFO", "replication").get("master_link_status", "up")
    return info["cluster_state"] == "ok" and info["cluster_slots_ok"] == str(SLOTS) and link == "up"


def cluster_info(server: RedisServer) -> dict[str, str]:
    """What CLUSTER INFO says."""
    return dict(line.split(":", 1) for line in server.ask("CLUSTER", "INFO").decode().splitlines())


def cluster_url(servers: list[RedisServer]) -> str:
    """The state URL of a Cluster."""
    return f"redis+cluster://{','.join(f'127.0.0.1:{server.port}' for server in servers)}"


def _knows(server: RedisServer, many: int) -> bool:
    return cluster_info(server)["cluster_known_nodes"] == str(many)
