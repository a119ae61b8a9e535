"""Hundreds of clients as they are in the field: each sends its series in order and repeats what was not acknowledged.

A few threads share the clients, so that a client has one request under way at a time. A request that is answered with
429 or 503, or not answered at all, is sent again as it was: the same step, the same Idempotency-Key. A client that
sends neither asks where it stands and repeats, numbered then, what is not absorbed. A refusal that does not say
`in_doubt` must have moved nothing.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, zip_longest
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

MODEL = "tiny"
PATIENCE_S = 180.0  # a request that nobody acknowledges for so long is a defect
TIMEOUT_S = 20.0
AGAIN_S = 0.05
USUAL, SPREAD = (10.0, 5.0, 1010.0), (9.0, 7.0, 8.0)
TRANSIENT = frozenset({429, 503})

How = Literal["step", "key", "both", "neither"]
HOWS: tuple[How, ...] = ("step", "step", "key", "both", "neither")


class Broken(Exception):
    """An answer that breaks a promise, or none within the bound. `expected_step` is what a 409 named."""

    def __init__(self, what: str, expected_step: int | None = None) -> None:
        super().__init__(what)
        self.expected_step = expected_step


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """One answer: observations `first` to `last` are absorbed, `predictions` are (step, what is expected next)."""

    first: int
    last: int
    predictions: list[tuple[int, dict[str, Any]]]


class Client:
    """One series and what was acknowledged of it. `step` is the last acknowledged one."""

    def __init__(self, name: str, how: How, seed: str) -> None:
        self.name = name
        self.how = how
        self.step = 0
        self.answers: list[Acknowledged] = []
        self._numbers = np.random.default_rng(list(seed.encode()))
        self._rows = np.empty((0, len(USUAL)), np.float32)

    def series(self, end: int) -> NDArray[np.float32]:
        """Observations 1 to `end`, (end, 3) float32, the same for the same seed."""
        while len(self._rows) < end:
            more = self._numbers.normal(USUAL, SPREAD, (256, len(USUAL))).astype(np.float32)
            self._rows = np.concatenate((self._rows, more))
        return self._rows[:end]


@dataclass
class Load:
    """Clients at work on `urls` between `start` and `finish`. `counts` says what they met.

    `told` hears of each acknowledged request at once: the client's name and step. With `together` above 1 so many
    clients at a time are in one bulk request.
    """

    urls: Sequence[str]
    seed: int
    clients_n: int = 240
    threads_n: int = 4
    hows: Sequence[How] = HOWS
    told: Callable[[str, int], None] = lambda name, step: None
    together: int = 1
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = range(self.clients_n)
        self.clients = [Client(f"client-{n}", self.hows[n % len(self.hows)], f"{self.seed}/{n}") for n in names]
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(self.threads_n)]

    def start(self) -> None:
        """Begins to send."""
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Lets every client end its request, then one more each; Broken if any answer broke a promise."""
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S * 3)
            if thread.is_alive():
                self.failures.append(f"{thread.name} did not end")
        if self.failures:
            raise Broken("\n".join(self.failures))

    @property
    def acknowledged(self) -> int:
        """Requests acknowledged so far."""
        return self.counts["acknowledged"]

    @property
    def failed(self) -> bool:
        """Whether an answer broke a promise; `finish` says which."""
        return bool(self.failures)

    def _work(self, thread: int) -> None:
        rng = random.Random(f"{self.seed}/thread-{thread}")
        mine = self.clients[thread :: self.threads_n]
        wire = Wire(self.urls, rng, self.counts)
        try:
            while not self._stop.is_set():
                chosen = rng.sample(mine, self.together)
                if self.together == 1:
                    advance(chosen[0], wire, rng)
                else:
                    advance_together(chosen, wire, rng)
                for client in chosen:
                    self.told(client.name, client.step)
            for client in mine:  # what each state has become shows in one more prediction
                advance(client, wire, rng)
                if wire.stands(client) != client.step:
                    raise Broken(f"{client.name}: step {client.step} was acknowledged, {wire.stands(client)} is kept")
        except Broken as broken:
            self.failures.append(str(broken))
        finally:
            wire.close()


class Wire:
    """One thread's kept-alive connections. `counts` is shared: what is added to it is for people to read."""

    def __init__(self, urls: Sequence[str], rng: random.Random, counts: Counter[str] | None = None) -> None:
        self.counts: Counter[str] = Counter() if counts is None else counts
        self._places = [urlsplit(url).netloc for url in urls]
        self._rng = rng
        self._open: dict[str, http.client.HTTPConnection] = {}

    def once(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, Any, bool] | None:
        """Status, parsed body and whether it is a replay; None if there was no answer."""
        place = self._rng.choice(self._places)
        connection = self._open.setdefault(place, http.client.HTTPConnection(place, timeout=TIMEOUT_S))
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            self.counts["no answer"] += 1
            return None
        if answer.status in TRANSIENT:
            self.counts[f"{answer.status} {json.loads(content).get('code')}"] += 1
            if answer.getheader("Retry-After") is None:
                raise Broken(f"{answer.status} without Retry-After: {content!r}")
        return answer.status, json.loads(content), answer.getheader("Idempotent-Replay") == "true"

    def lines(self, path: str, bodies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The answers to a body of lines, as far as they came."""
        connection = http.client.HTTPConnection(self._rng.choice(self._places), timeout=TIMEOUT_S)
        content = b""
        try:
            sent = b"\n".join(json.dumps(body).encode() for body in bodies)
            connection.request("POST", path, sent, {"Content-Type": "application/x-ndjson"})
            answer = connection.getresponse()
            if answer.status != 200:
                return _results(answer.status, answer.read()) if answer.status not in TRANSIENT else []
            while piece := answer.read1(65536):
                content += piece
        except (OSError, http.client.HTTPException):
            self.counts["no answer"] += 1
        finally:
            connection.close()
        return [json.loads(line) for line in content.split(b"\n")[:-1]]

    def stands(self, client: Client) -> int:
        """The step that is kept of `client`, 0 for none; asked until it is known."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            seen = self.once("GET", path(client), None, {})
            if seen is not None and seen[0] not in TRANSIENT:
                if seen[0] not in (200, 404):
                    raise Broken(f"GET {client.name}: {seen}")
                return int(seen[1]["step"]) if seen[0] == 200 else 0
            self.rest()
        raise Broken(f"{client.name}: nobody says where it stands for {PATIENCE_S:g} s")

    def rest(self) -> None:
        """The pause before a request is sent again, unlike that of others."""
        time.sleep(AGAIN_S * self._rng.uniform(0.2, 2))

    def close(self) -> None:
        """Gives the connections back."""
        for connection in self._open.values():
            connection.close()


def path(client: Client) -> str:
    """Where the client's state is."""
    return f"/v1/models/{MODEL}/clients/{client.name}"


def advance(client: Client, wire: Wire, rng: random.Random) -> None:
    """One request of one to three observations, sent until it is acknowledged."""
    n, first = rng.choice((1, 1, 1, 2, 3)), client.step + 1
    body: dict[str, Any] = {"observations": client.series(client.step + n)[client.step :].tolist()}
    headers = {}
    if client.how in ("step", "both"):
        body["step"] = first
    if client.how in ("key", "both"):
        headers["Idempotency-Key"] = f"{client.name}/{first}"
    if rng.random() < 0.5:
        body["return"] = "all"
    deadline, refused, doubt = time.monotonic() + PATIENCE_S, False, False
    while True:
        seen = wire.once("POST", f"{path(client)}/predict", json.dumps(body).encode(), headers)
        if seen is not None and seen[0] not in TRANSIENT:
            break
        refused, doubt = True, doubt or seen is None or bool(seen[1].get("in_doubt"))
        if time.monotonic() > deadline:
            raise Broken(f"{client.name}: step {first} was not acknowledged for {PATIENCE_S:g} s; the last was {seen}")
        wire.rest()
        if client.how == "neither" and "step" not in body and wire.stands(client) == client.step:
            body["step"] = first
        elif client.how == "neither" and "step" not in body:
            if not doubt:
                raise Broken(f"{client.name}: step {first} was refused without a doubt, and is kept")
            client.step = first + n - 1  # absorbed, its answer lost; `stands` is compared in the end
            wire.counts["answers lost"] += 1
            return
    status, answer, replayed = seen
    if status != 200:
        said = f"{client.name}, how {client.how}: step {first} got {status}: {answer}"
        raise Broken(said, answer.get("expected_step") if status == 409 else None)
    if replayed and refused and not doubt:
        raise Broken(f"{client.name}: step {first} was refused without a doubt, and replayed")
    _check(client, first, n, answer)
    client.step = answer["step"]
    wire.counts["acknowledged"] += 1
    wire.counts["replays"] += replayed
    told = [(one["step"], one["prediction"]) for one in answer.get("predictions", [])]
    client.answers.append(Acknowledged(first, client.step, [*told, (client.step, answer["prediction"])]))


@dataclass
class _Item:
    """A client's part of a bulk request, until it is acknowledged."""

    client: Client
    first: int
    n: int
    body: dict[str, Any]
    refused: bool = False
    doubt: bool = False


def advance_together(clients: Sequence[Client], wire: Wire, rng: random.Random) -> None:
    """One item of each client in one request; those that are not acknowledged are sent again, together."""
    waiting = [_item(client, rng) for client in clients]
    deadline = time.monotonic() + PATIENCE_S
    while waiting:
        rng.shuffle(waiting)
        bodies = [item.body for item in waiting]
        if rng.random() < 0.5:
            answers = wire.lines(f"/v1/models/{MODEL}/predict", bodies)
        else:
            seen = wire.once("POST", f"/v1/models/{MODEL}/predict", json.dumps({"items": bodies}).encode(), {})
            answers = [] if seen is None or seen[0] in TRANSIENT else _results(seen[0], seen[1])
        for item, answer in zip_longest(waiting, answers):
            item.refused = item.refused or answer is None or answer.get("status") in TRANSIENT
            item.doubt = item.doubt or answer is None or bool(answer.get("in_doubt"))
        left = []
        for item, answer in zip_longest(waiting, answers):
            if answer is None or answer.get("status") in TRANSIENT:
                wire.counts["items sent again"] += 1
                left.append(item)
            else:
                _acknowledge(item, answer, wire)
        waiting = left
        if waiting:
            if time.monotonic() > deadline:
                raise Broken(
                    f"{waiting[0].client.name}: step {waiting[0].first} was not acknowledged in {PATIENCE_S:g} s"
                )
            wire.rest()


def _item(client: Client, rng: random.Random) -> _Item:
    n, first = rng.choice((1, 1, 1, 1, 1, 2)), client.step + 1
    rows = client.series(client.step + n)[client.step :].tolist()
    body: dict[str, Any] = {"client": client.name, **({"observation": rows[0]} if n == 1 else {"observations": rows})}
    if client.how in ("step", "both", "neither"):
        body["step"] = first
    if client.how in ("key", "both"):
        body["idempotency_key"] = f"{client.name}/{first}"
    if rng.random() < 0.1:
        body["return"] = "all"
    return _Item(client, first, n, body)


def _results(status: int, body: Any) -> list[dict[str, Any]]:
    if status != 200:
        raise Broken(f"a bulk request got {status}: {body}")
    results: list[dict[str, Any]] = body["results"]
    return results


def _acknowledge(item: _Item, answer: dict[str, Any], wire: Wire) -> None:
    client = item.client
    if "status" in answer:
        raise Broken(f"{client.name}, how {client.how}: step {item.first} got {answer}", answer.get("expected_step"))
    if answer["client"] != client.name:
        raise Broken(f"{client.name} was answered what {answer['client']} asked")
    if answer.get("replayed") and item.refused and not item.doubt:
        raise Broken(f"{client.name}: step {item.first} was refused without a doubt, and replayed")
    _check(client, item.first, item.n, answer)
    client.step = answer["step"]
    wire.counts["acknowledged"] += 1
    wire.counts["replays"] += bool(answer.get("replayed"))
    told = [(one["step"], one["prediction"]) for one in answer.get("predictions", [])]
    client.answers.append(Acknowledged(item.first, client.step, [*told, (client.step, answer["prediction"])]))


def _check(client: Client, first: int, n: int, answer: dict[str, Any]) -> None:
    """What an answer says of itself: the step that was meant, and a state that was carried over from the one before."""
    state = answer["state"]
    begun = first == 1
    expected = {"status": "started" if begun else "carried", "reason": None, "context": first + n - 1, "filled": 0}
    if answer["step"] != first + n - 1 or state != expected or (answer["previous"] is None) != begun:
        raise Broken(f"{client.name}: steps {first} to {first + n - 1} were answered with {answer}")
    steps = [one["step"] for one in answer.get("predictions", [])]
    if any(b != a + 1 for a, b in pairwise(steps)):
        raise Broken(f"{client.name}: predictions out of order: {steps}")
