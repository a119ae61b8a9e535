"""Headers that were read before: what is taken by them is what the parser makes of it, and everything else is its."""

import asyncio
import random
from types import SimpleNamespace

import pytest

from service.server.exchange import base_environ
from service.server.house import Bounds, House
from service.server.reading import Reader

BASE = base_environ("http", ("127.0.0.1", 8000), ("127.0.0.1", 50_000))
PREDICT = b"/v1/models/sensor/clients/roof-7/predict"
JSON = (b"Content-Type: application/json",)


class Readings:
    """Readers of one house, whose requests are kept with the body that the application would read."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        bounds = Bounds(200, 8190, 70_000, 100, 1.0, 1.0)
        kinds = SimpleNamespace(
            many_at_once=1,
            body_limit=lambda method: 5000,
            is_short=lambda *request: True,
            is_many=lambda *request: False,
            is_stream=lambda environ: "ndjson" in environ.get("CONTENT_TYPE", ""),
        )
        self.house = House(None, self.loop, 1, bounds, kinds)
        self.seen = []

    def reader(self):
        return Reader(self.house, BASE, self)

    def ready(self, exchange):
        stream = exchange.inlet is not None
        environ = dict(exchange.give_environ())
        body = environ.pop("wsgi.input").read()
        self.house.release(exchange.size)
        self.seen.append((environ, body, exchange.keep_alive, exchange.over, exchange.complete, stream))

    def leave_asked(self):
        pass

    def more(self, exchange):
        pass

    through = more

    def knows(self, data):
        return self.house.heads.exchange(data, BASE, self.house.bounds.line_bytes) is not None

    def close(self):
        self.house.close()
        self.loop.close()


@pytest.fixture
def readings():
    readings = Readings()
    yield readings
    readings.close()


@pytest.fixture
def fresh():
    """A house that knows no headers: what it makes of a request is the parser's work."""
    readings = Readings()
    yield readings
    readings.close()


def post(body=b'{"observation": 1}', path=PREDICT, headers=JSON, length=None, line=b"POST %s HTTP/1.1"):
    fields = [line % path, b"Host: x", b"Content-Length: %d" % (len(body) if length is None else length), *headers]
    return b"\r\n".join([*fields, b"", b""]) + body


def test_a_request_with_known_headers_is_what_the_parser_makes_of_it(readings, fresh):
    chance = random.Random(5)
    kinds = [
        (), JSON, (*JSON, b"Accept: */*", b"User-Agent: a b"), (b"x-tenant:  two  ", b"X-Tenant: three"),
        (b"Under_Score: dropped", b"Connection: keep-alive"), (b"X-Latin: \xe9",),
    ]  # fmt: skip
    reader, known = readings.reader(), 0
    for _ in range(400):
        path = b"/" + bytes(chance.choice(b"abc/-_.~!$&'()*+,;=:@#\"[]") for _ in range(chance.randrange(30)))
        body = bytes(chance.randrange(256) for _ in range(chance.choice((0, 5, 40, 41, 42))))
        data = post(body, path, chance.choice(kinds))
        known += readings.knows(data)
        reader.feed(data)
        fresh.house.heads._known.clear()
        fresh.reader().feed(data)
        assert readings.seen == fresh.seen, data
        assert len(readings.seen) == 1
        readings.seen.clear()
        fresh.seen.clear()
    assert known > 300


def test_known_headers_with_more_or_less_behind_them_are_read_by_the_parser(readings):
    reader = readings.reader()
    reader.feed(post(b"12345"))
    assert readings.knows(post(b"54321", b"/other"))
    reader.feed(post(b"one.." + post(b"two.."), length=5))
    assert [body for _, body, *_ in readings.seen] == [b"12345", b"one..", b"two.."]
    reader.feed(post(b"thr", length=5))
    assert len(readings.seen) == 3
    reader.feed(b"ee")
    assert readings.seen[-1][1] == b"three"
    reader.feed(post(b"12345")[:20])
    reader.feed(post(b"12345"))  # in the middle of another's head: no request of its own
    assert len(readings.seen) == 4


def test_a_body_that_looks_like_the_end_of_headers_is_a_body(readings):
    reader = readings.reader()
    for body in (b"\r\n\r\n", b"ab\r\n", b"\r\n\r\n", b"ab\r\n"):
        reader.feed(post(body))
        assert readings.seen[-1][1] == body


@pytest.mark.parametrize(
    "data",
    [
        post(headers=(b"Connection: close",)),
        post(headers=(b"Expect: 100-continue",)),
        post(headers=(b"Idempotency-Key: 7",)),
        post(headers=(b"Content-Type: application/x-ndjson",)),
        post(headers=(b"X-Long: " + b"x" * 1024,)),
        post(b"x" * 6000),
        post(path=PREDICT + b"?horizon=3"),
        post(path=b"/a%20b"),
        post(path=b"/" + b"a" * 200),
        post(line=b"POST %s HTTP/1.0"),
        post(line=b"PUT %s HTTP/1.1"),
        post().replace(b"Content-Length: 18", b"Transfer-Encoding: chunked").replace(b"{", b"0\r\n\r\n"),
    ],
    ids=["close", "expect", "key", "lines", "long", "large", "query", "escape", "path", "1.0", "put", "chunks"],
)
def test_an_unusual_request_is_the_parsers_each_time(readings, data):
    readings.reader().feed(data)
    assert not readings.knows(data)


def test_known_headers_do_not_lengthen_the_path_that_is_taken(readings):
    reader = readings.reader()
    reader.feed(post())
    long = post(path=b"/" + b"a" * 200)
    assert not readings.knows(long)
    reader.feed(long)
    assert reader.refusal is not None


def test_after_the_last_request_of_a_connection_nothing_is_taken(readings):
    first = readings.reader()
    first.feed(post())
    reader = readings.reader()
    reader.feed(post(headers=(b"Connection: close",)))
    reader.feed(post())
    assert len(readings.seen) == 2
    assert reader.deaf


def test_the_headers_remembered_are_bounded(readings):
    reader = readings.reader()
    for number in range(1000):
        reader.feed(post(headers=(b"X-Number: %d" % number,)))
        assert readings.knows(post(headers=(b"X-Number: %d" % number,)))
        assert len(readings.house.heads._known) <= 256
