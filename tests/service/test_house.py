"""Connections of one house, in this process: what a peer can do to memory, to time, and to what is owed to it."""

import asyncio
import random
import re
import socket
import threading
import tracemalloc
from contextlib import asynccontextmanager
from functools import wraps

import pytest
import uvloop

from service.core.patience import give_way
from service.server.connection import STOPPING_S, Connection
from service.server.exchange import Exchange
from service.server.house import HELD_BYTES, Bounds, House

BOUND_S = 120.0
HEAD_BYTES = 70_000


class Kinds:
    """Everything is worth a try in the loop, what begins with /many brings many clients, nothing is a stream."""

    many_at_once = 1

    def body_limit(self, method):
        return 100_000

    def is_short(self, method, path, size):
        return True

    def is_many(self, method, path):
        return path.startswith("/many")

    def is_stream(self, environ):
        return False


class Guests:
    """A house with an application of its own. Of a path, /long gives way and waits for `gate`, /big answers 40 kB.

    Its clock is turned (`turn`), a tick for each round of the loop: a machine that stands still makes nobody late.
    """

    def __init__(self, patience_s=0.3, keepalive_s=0.3):
        self.loop = asyncio.get_running_loop()
        self.gate = threading.Event()
        bounds = Bounds(4094, 8190, HEAD_BYTES, 100, patience_s, keepalive_s)
        self.house = House(self.app, self.loop, 2, bounds, Kinds())
        self.now = 0.0
        self.house.now = lambda: self.now
        self.connections = []

    def app(self, environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/silent":
            give_way()
            return []
        if path in ("/long", "/many/long"):
            give_way()
            assert self.gate.wait(BOUND_S)
        start_response("200 OK", [("Content-Type", "text/plain")])
        body = environ["wsgi.input"].read()
        return [b"x" * 40_000 if path == "/big" else b"%s %d;" % (path.encode(), len(body))]

    async def arrive(self, send_bytes=None):
        """The peer's end of a new connection; the house's takes `send_bytes` that the peer has not read."""
        ours, peer = socket.socketpair()
        if send_bytes is not None:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_bytes)
        ours.setblocking(False)
        peer.setblocking(False)
        self.connections.append(Connection(self.house))
        await self.loop.connect_accepted_socket(lambda: self.connections[-1], ours)
        return peer

    def turn(self, seconds):
        """So much later."""
        self.now += seconds
        self.house.look_at_the_clock()

    async def go_on(self):
        """The clock goes on by itself."""
        while True:
            self.turn(0.01)
            await asyncio.sleep(0.01)

    async def until(self, condition, what):
        """Polls `condition`."""
        deadline = self.loop.time() + BOUND_S
        while not condition():
            assert self.loop.time() < deadline, f"{what}: not in time"
            await asyncio.sleep(0.01)

    async def whole(self, peer):
        """Everything until the house closes."""
        answer = b""
        with peer:
            while piece := await asyncio.wait_for(self.loop.sock_recv(peer, 65536), BOUND_S):
                answer += piece
        return answer


@asynccontextmanager
async def open_house(*, clock=True, **more):
    """Guests whose clock goes on by itself, or not."""
    guests = Guests(**more)
    going = asyncio.create_task(guests.go_on()) if clock else None
    try:
        yield guests
    finally:
        guests.gate.set()
        if going is not None:
            going.cancel()
        guests.house.close()


def visit(test):
    """`test` in an event loop as the worker's."""

    @wraps(test)
    def run(*args, **kwargs):
        uvloop.run(test(*args, **kwargs))

    return run


def post(path, body=b"", *, chunked=False, more=""):
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{length}\r\n{more}\r\n".encode() + body


def statuses(answer):
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+) ", answer)]


def test_bodies_are_given_back_whatever_becomes_of_their_requests():
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    sent = [
        post("/a", b"b" * 3000),
        post("/long", b"b" * 3000),
        post("/silent", b"b" * 10),
        post("/big", b"b" * 10),
        post("/over", b"b" * 100_001),
        post("/over", b"186a1\r\n" + b"b" * 100_001 + b"\r\n0\r\n\r\n", chunked=True),
        post("/over", b"186a1\r\n" + b"b" * 100_001 + b"\r\nzz\r\n", chunked=True),
        post("/chunks", b"3\r\nabc\r\n0\r\nA: b\r\n\r\n", chunked=True),
        post("/broken", b"3\r\nabc\r\nzz\r\n", chunked=True),
        post("/last", b"b" * 3000, more="Connection: close\r\n"),
        post("/room", b"b" * 90_000),
        b"no request\r\n\r\n",
    ]

    async def guest(guests, dice):
        peer = await guests.arrive()
        with peer:
            wire = b"".join(dice.choice(sent) for _ in range(dice.randrange(1, 6)))
            wire = wire[: dice.choice((len(wire), len(wire), dice.randrange(len(wire))))]
            try:
                while wire:
                    size = dice.choice((7, 1000, 50_000))
                    await guests.loop.sock_sendall(peer, wire[:size])
                    wire = wire[size:]
                    await asyncio.sleep(0)
                if dice.random() < 0.3:
                    peer.shutdown(socket.SHUT_WR)
                while dice.random() < 0.8 and await guests.loop.sock_recv(peer, 65536):
                    pass
            except ConnectionError:
                return

    async def zoo():
        async with open_house(patience_s=0.1, keepalive_s=0.1) as guests:
            guests.gate.set()
            for room in (0, HELD_BYTES - 50_000):
                assert guests.house.hold(room, room)
                await asyncio.gather(*(guest(guests, random.Random(dice.random())) for _ in range(40)))
                await guests.until(lambda: not guests.house.guests, "all to leave")
                await guests.until(lambda room=room: guests.house._held == room, "all to be given back")
                guests.house.release(room)

    uvloop.run(zoo())


@pytest.mark.parametrize(
    "endless", [b"3\r\nabc\r\n0\r\nA: ", b"0\r\nA: ", b"3;a=", b"3\r\nabc\r\n3;a="], ids=["rest", "trailer", "1", "2"]
)
@visit
async def test_what_follows_chunks_without_end_is_refused(endless):
    async with open_house(patience_s=BOUND_S) as guests:
        peer = await guests.arrive()
        await guests.loop.sock_sendall(peer, post("/a", endless, chunked=True))
        pouring = asyncio.create_task(guests.loop.sock_sendall(peer, b"a" * 10_000_000))
        answer = await guests.loop.sock_recv(peer, 65536)
        assert statuses(answer) == [431]
        pouring.cancel()
        peer.close()


@visit
async def test_trailers_without_end_are_refused():
    async with open_house(patience_s=BOUND_S) as guests:
        peer = await guests.arrive()
        pouring = asyncio.create_task(
            guests.loop.sock_sendall(peer, post("/a", b"0\r\n" + b"A: b\r\n" * 1_000_000, chunked=True))
        )
        assert statuses(await guests.loop.sock_recv(peer, 65536)) == [431]
        pouring.cancel()
        peer.close()


@visit
async def test_many_chunks_are_no_trailers():
    async with open_house(patience_s=BOUND_S) as guests:
        peer = await guests.arrive()
        await guests.loop.sock_sendall(
            peer, post("/a", b"1\r\na\r\n" * 50_000 + b"0\r\n\r\n", chunked=True, more="Connection: close\r\n")
        )
        assert b"/a 50000;" in await guests.whole(peer)


def test_a_body_in_tiny_pieces_takes_no_more_memory_than_whole():
    exchange = Exchange({})
    exchange.limit = 1_000_000
    tracemalloc.start()
    for i in range(100_000):
        exchange.add_body(b"%02d" % (i % 100))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 400_000


def test_long_made_up_header_names_are_not_remembered():
    tracemalloc.start()
    for i in range(200):
        Exchange({}).add_header(b"x" * 8000 + b"%d" % i, b"")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 400_000


@visit
async def test_requests_ahead_of_their_turn_are_few():
    async with open_house(patience_s=BOUND_S) as guests:
        peer = await guests.arrive()
        asked = b"GET / HTTP/1.1\r\n\r\n"
        await guests.loop.sock_sendall(peer, post("/long"))
        pouring = asyncio.create_task(guests.loop.sock_sendall(peer, asked * 100_000))
        connection = guests.connections[0]
        await guests.until(lambda: connection._paused, "the pause")
        assert 0 < len(connection._waiting) < 1000
        pouring.cancel()
        guests.gate.set()
        peer.close()


@visit
async def test_a_head_behind_many_short_requests_is_not_a_long_one():
    async with open_house(patience_s=BOUND_S) as guests:
        peer = await guests.arrive()
        count = 5000
        asked = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n" * count
        pouring = asyncio.create_task(guests.loop.sock_sendall(peer, asked + b"GET /b HTTP/1.1\r\n"))
        answer = b""
        while answer.count(b"/a 0;") < count:
            answer += await asyncio.wait_for(guests.loop.sock_recv(peer, 65536), BOUND_S)
        await pouring
        await guests.loop.sock_sendall(peer, b"Connection: close\r\n\r\n")
        assert statuses(await guests.whole(peer)) == [200]
    assert statuses(answer) == [200] * count


@visit
async def test_who_does_not_read_its_last_answer_does_not_stay():
    async with open_house() as guests:
        with await guests.arrive(send_bytes=4096) as peer:
            await guests.loop.sock_sendall(peer, post("/big", more="Connection: close\r\n"))
            await guests.until(lambda: not guests.house.guests, "the connection's end")


@visit
async def test_who_reads_steadily_is_not_cut_off_for_the_length_of_its_answer():
    async with open_house(patience_s=0.2) as guests:
        peer = await guests.arrive(send_bytes=4096)
        await guests.loop.sock_sendall(peer, post("/big") * 3 + post("/a", more="Connection: close\r\n"))
        answer = b""
        while piece := await asyncio.wait_for(guests.loop.sock_recv(peer, 1000), BOUND_S):
            answer += piece
            await asyncio.sleep(0.005)
        peer.close()
        assert statuses(answer) == [200] * 4


@visit
async def test_an_application_that_does_not_answer_is_a_failure_not_a_wait():
    async with open_house() as guests:
        peer = await guests.arrive()
        await guests.loop.sock_sendall(peer, post("/silent"))
        assert statuses(await guests.whole(peer)) == [500]


@visit
async def test_small_bodies_have_room_beside_large_ones():
    async with open_house() as guests:
        assert guests.house.hold(HELD_BYTES, HELD_BYTES)
        peer = await guests.arrive()
        small, large = post("/a", b"b" * 1000), post("/a", b"b" * 50_000)
        await guests.loop.sock_sendall(peer, small + large)
        assert statuses(await guests.whole(peer)) == [200, 503]


@pytest.mark.parametrize("tail", [b"zz\r\n", b"3;" + b"a" * 100_000], ids=["broken", "endless"])
@visit
async def test_a_request_is_answered_once_though_its_rest_is_broken(tail):
    async with open_house() as guests:
        peer = await guests.arrive()
        over = b"186a1\r\n" + b"b" * 100_001 + b"\r\n"
        await guests.loop.sock_sendall(peer, post("/over", over, chunked=True))
        answer = await guests.loop.sock_recv(peer, 65536)
        await guests.loop.sock_sendall(peer, tail)
        assert statuses(answer + await guests.whole(peer)) == [200]


@visit
async def test_chunks_are_not_for_http_1_0_nor_is_a_word_before_the_body():
    async with open_house() as guests:
        for asked, answered in (
            (post("/a", b"0\r\n\r\n", chunked=True, more="Connection: keep-alive\r\n"), [501]),
            (post("/a", b"abc", more="Expect: 100-continue\r\n"), [200]),
        ):
            peer = await guests.arrive()
            await guests.loop.sock_sendall(peer, asked.replace(b"HTTP/1.1", b"HTTP/1.0"))
            assert statuses(await guests.whole(peer)) == answered


@visit
async def test_a_stop_does_not_wait_for_an_answered_request_to_be_followed_by_another():
    async with open_house(clock=False) as guests:
        peer = await guests.arrive()
        body = b"b" * 100_001
        await guests.loop.sock_sendall(peer, post("/over", body)[:-1])
        assert statuses(await guests.loop.sock_recv(peer, 65536)) == [200]
        guests.house.stop()
        await guests.loop.sock_sendall(peer, body[:1])
        assert await guests.whole(peer) == b"", "with no time passing at all"


@visit
async def test_a_stop_leaves_a_new_connection_time_for_its_first_request_and_ends_an_idle_one():
    async with open_house(clock=False) as guests:
        idle = await guests.arrive()
        await guests.loop.sock_sendall(idle, post("/idle", b""))
        assert statuses(await guests.loop.sock_recv(idle, 65536)) == [200]
        new = await guests.arrive()
        guests.house.stop()
        assert await guests.whole(idle) == b""
        await guests.loop.sock_sendall(new, post("/new", b""))
        answer = await guests.whole(new)
        assert statuses(answer) == [200]
        assert b"Connection: close" in answer


@visit
async def test_a_new_connection_that_asks_for_nothing_does_not_hold_up_a_stop_for_long():
    async with open_house(clock=False, patience_s=BOUND_S, keepalive_s=BOUND_S) as guests:
        silent = await guests.arrive()
        guests.house.stop()
        guests.turn(STOPPING_S - 0.01)
        assert guests.house.guests, "it may still ask"
        guests.turn(0.01)
        assert await guests.whole(silent) == b""


@visit
async def test_requests_of_many_clients_keep_nobody_else_waiting_however_many_there_are():
    async with open_house(patience_s=BOUND_S) as guests:
        crowds = [await guests.arrive() for _ in range(5)]
        for peer in crowds:
            await guests.loop.sock_sendall(peer, post("/many/long", b"{}", more="Connection: close\r\n"))
        alone = await guests.arrive()
        await guests.loop.sock_sendall(alone, post("/silent", b"{}"))
        assert statuses(await guests.whole(alone)) == [500]  # it gave way to a thread, which was free
        guests.gate.set()
        assert [statuses(await guests.whole(peer)) for peer in crowds] == [[200]] * 5
