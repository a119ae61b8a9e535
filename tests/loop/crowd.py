"""Fifty clients whose series swing slowly, and at a word from the test all swing fast: nothing else changes."""

from __future__ import annotations

import http.client
import json
import math
import random
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

MEAN, NOISE, FADES = 20.0, 0.3, 0.97
SLOW, FAST = 12.0, 4.5  # observations a swing takes
PACE_S = 0.3  # between two observations of a client
TIMEOUT_S = 60.0


class Swing:
    """A damped swing kept up by noise, an autoregression of order two: the best forecast errs by NOISE."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._last, self._before = self._random.gauss(0, 1), self._random.gauss(0, 1)

    def next(self, period: float) -> float:
        """The next observation, the swing taking `period` of them."""
        pull = 2 * FADES * math.cos(2 * math.pi / period)
        value = pull * self._last - FADES**2 * self._before + self._random.gauss(0, NOISE)
        self._last, self._before = value, self._last
        return MEAN + value


@dataclass
class Second:
    """What was seen in one second of the load: squared errors of the served forecasts and of the last value."""

    scored: int = 0
    squared: float = 0.0
    naive: float = 0.0
    covered: int = 0
    versions: set[int] = field(default_factory=set)


class Crowd:
    """Clients at work from `start` to `finish`, each in a thread of its own over a connection of its own."""

    def __init__(self, url: str, model: str, clients: int, seed: int) -> None:
        self._address = urlsplit(url).netloc
        self._path = f"/v1/models/{model}/clients"
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.period = SLOW
        self.failures: list[str] = []
        self.steps = [0] * clients
        self.seconds: dict[int, Second] = {}
        self.statuses: dict[tuple[str, str | None], int] = {}
        self._threads = [threading.Thread(target=self._work, args=(n, seed), daemon=True) for n in range(clients)]

    def start(self) -> None:
        """Begin to send."""
        self.began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Let every client end its request."""
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S * 2)
            assert not thread.is_alive()

    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    def between(self, begin: float, end: float) -> Second:
        """All that was seen in whole seconds from `begin` to `end`, seconds since the start."""
        total = Second()
        with self._lock:
            for second, seen in self.seconds.items():
                if begin <= second and second + 1 <= end:
                    total.scored += seen.scored
                    total.squared += seen.squared
                    total.naive += seen.naive
                    total.covered += seen.covered
                    total.versions |= seen.versions
        return total

    def _work(self, number: int, seed: int) -> None:
        swing, lane = Swing(seed * 1000 + number), random.Random(number)
        connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT_S)
        last: float | None = None
        try:
            while not self._stop.wait(PACE_S * lane.uniform(0.5, 1.5)):
                value = swing.next(self.period)
                step = self.steps[number] + 1
                body = json.dumps({"observation": value, "step": step})
                connection.request("POST", f"{self._path}/{number}/predict", body)
                response = connection.getresponse()
                answer = json.loads(response.read())
                if response.status != 200 or answer["step"] != step:
                    self.failures.append(f"client {number}, step {step}: {response.status} {answer}")
                    return
                self.steps[number] = step
                self._note(answer, value, last)
                last = value
        except (OSError, ValueError, http.client.HTTPException) as error:
            self.failures.append(f"client {number}: {type(error).__name__} {error}")
        finally:
            connection.close()

    def _note(self, answer: dict, value: float, last: float | None) -> None:
        previous, state = answer["previous"], answer["state"]
        with self._lock:
            told = (state["status"], state["reason"])
            self.statuses[told] = self.statuses.get(told, 0) + 1
            seen = self.seconds.setdefault(int(self.now()), Second())
            seen.versions.add(answer["version"])
            if previous is not None and last is not None:
                seen.scored += 1
                seen.squared += previous["level"]["error"] ** 2
                seen.naive += (value - last) ** 2


def history(seed: int, rows: int, series: int) -> str:
    """A CSV of `series` slow swings, `rows` observations each: what the first version is trained on."""
    lines = ["time,series,level"]
    for n in range(series):
        swing = Swing(seed * 1000 + 500 + n)
        lines += [f"{1_700_000_000 + 10 * t},{n},{swing.next(SLOW):.4f}" for t in range(rows)]
    return "\n".join(lines) + "\n"
