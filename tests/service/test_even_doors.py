"""Connections are spread evenly over the workers, and none waits for a worker that does not take it."""

import os
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.service.test_connections import connected, until
from tests.serving import running_service, wait_until

BOUND_S = 120.0
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
ESTABLISHED = "01"


@pytest.fixture
def service(tiny_repository, tmp_path):
    with running_service(tiny_repository, f"sqlite:///{tmp_path / 'state'}", keepalive_s=600) as running:
        both_take(running)
        yield running


def open_at(service):
    """The peers' ports of the connections that each worker has open, by its pid."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    peers = {
        f"socket:[{row[9]}]": int(row[2].partition(":")[2], 16)
        for row in rows
        if row[1].endswith(f":{service.port:04X}") and row[3] == ESTABLISHED
    }
    return {pid: [peers[name] for name in _descriptors(pid) if name in peers] for pid in service.workers()}


def _descriptors(pid):
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            yield os.readlink(descriptor)
        except FileNotFoundError:
            continue


def spread(service):
    return sorted(len(peers) for peers in open_at(service).values())


def all_in(service, connections):
    wait_until(lambda: sum(spread(service)) == connections, BOUND_S, f"{connections} connections")


def both_take(service):
    """Waits until each of the two workers has accepted a connection: it has opened its doors."""

    def both():
        with ExitStack() as stack:
            arrive(service, stack, 4)
            all_in(service, 4)
            took = 0 not in spread(service)
        all_in(service, 0)
        return took

    wait_until(both, BOUND_S, "both workers at their doors")


def arrive(service, stack, number):
    """`number` connections at once, none of which waits for another."""
    peers = [stack.enter_context(socket.socket()) for _ in range(number)]
    for peer in peers:
        peer.setblocking(False)
        peer.connect_ex(("127.0.0.1", service.port))
    for peer in peers:
        peer.settimeout(BOUND_S)
    return peers


def answered(peers):
    for peer in peers:
        peer.sendall(LIVEZ)
    for peer in peers:
        assert until(peer, b'"live":true').startswith(b"HTTP/1.1 200 ")


def stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: ") T " in Path(f"/proc/{pid}/stat").read_text(), BOUND_S, "the worker stopped")


def test_connections_that_come_at_once_are_split_evenly(service):
    rounds = []
    for _ in range(10):
        with ExitStack() as stack:
            arrive(service, stack, 8)
            all_in(service, 8)
            rounds.append(spread(service))
        all_in(service, 0)
    even = rounds.count([4, 4])
    assert even >= 8, f"a machine that stands still may spoil one: {rounds}"


def test_a_rush_is_split_about_evenly_and_all_are_answered(service):
    with ExitStack() as stack:
        answered(arrive(service, stack, 300))
        fewer, more = spread(service)
        assert fewer + more == 300
        assert fewer >= 75, "neither has three times as many as the other"


def test_connections_of_a_killed_worker_count_for_nobody(service):
    with ExitStack() as stack:
        peers = arrive(service, stack, 8)
        all_in(service, 8)
        workers = service.workers()
        os.kill(workers[0], signal.SIGKILL)
        wait_until(lambda: len(set(service.workers()) - {workers[0]}) == 2, BOUND_S, "its successor")
        (successor,) = set(service.workers()) - set(workers)
        wait_until(lambda: _takes(service, successor), BOUND_S, "the successor at its door")
        for peer in peers:
            peer.close()
        all_in(service, 0)
        arrive(service, stack, 8)
        all_in(service, 8)
        assert min(spread(service)) >= 3


def _takes(service, worker):
    """Whether `worker` accepts the next, having the fewest."""
    before = sum(spread(service))
    with connected(service):
        all_in(service, before + 1)
        took = open_at(service)[worker] != []
    all_in(service, before)
    return took


def test_nobody_waits_for_a_worker_that_is_stopped(service):
    idle, _ = service.workers()
    stopped(idle)
    try:
        with ExitStack() as stack:
            answered(arrive(service, stack, 40))
            assert spread(service) == [0, 40]
    finally:
        os.kill(idle, signal.SIGCONT)


def test_who_has_lost_connections_gets_the_next(service):
    with ExitStack() as stack:
        peers = {peer.getsockname()[1]: peer for peer in arrive(service, stack, 8)}
        all_in(service, 8)
        one, other = (open_at(service)[pid] for pid in service.workers())
        for port in one:
            peers[port].close()
        all_in(service, len(other))
        arrive(service, stack, len(one))
        all_in(service, 8)
        assert min(spread(service)) >= 3
