"""What goes wrong with the service's processes, and the rule by which troubles follow each other: at random moments."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol

from tests.serving import Running, free_port, running_service, wait_until

Trouble = Callable[[], None]
RECOVERY_S = 120.0
ENOUGH = 20  # acknowledged requests after a trouble that tell that it is over
LONGER_S = 240.0  # than was meant to, at the most


class Sending(Protocol):
    """A load under way: how many requests were acknowledged so far, and whether an answer broke a promise."""

    @property
    def acknowledged(self) -> int: ...

    @property
    def failed(self) -> bool: ...


class Service:
    """`python -m service` on one port, over and over again."""

    def __init__(self, models_dir: Path, state_url: str, rng: random.Random, workers: int = 2, **settings: Any) -> None:
        self._rng = rng
        port = free_port()
        settings = {"adaptive_intervals": False, **settings}  # answers are compared with the model's own, offline
        self._begin = lambda: running_service(models_dir, state_url, workers, port=port, **settings)
        self._stack = ExitStack()
        self.url = f"http://127.0.0.1:{port}"
        self.running: Running = self._start()

    def kill_a_worker(self) -> None:
        """SIGKILL to one worker; gunicorn starts another."""
        workers = self.running.workers()
        if workers:
            with suppress(ProcessLookupError):  # it may be ending by itself
                os.kill(self._rng.choice(workers), signal.SIGKILL)

    def kill_every_worker(self) -> None:
        """SIGKILL to all workers in turn, and to one that has hardly begun."""
        for worker in self.running.workers():
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        wait_until(lambda: bool(self.running.workers()), RECOVERY_S, "a new worker")
        self.kill_a_worker()

    def kill_all(self) -> None:
        """SIGKILL to the master and its workers at once; then a new start."""
        self.running.kill_group()
        self._restart()

    def kill_the_master(self) -> None:
        """SIGKILL to the master alone: its workers notice and end by themselves; then a new start."""
        master, workers = self.running.process, self.running.workers()
        master.kill()
        master.wait()
        try:
            wait_until(lambda: not any(map(_lives, workers)), RECOVERY_S, "the end of workers without a master")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(master.pid, signal.SIGKILL)
        self._restart()

    def stop(self) -> None:
        """SIGTERM, which lets requests under way end; then a new start."""
        code = self.running.terminate()
        assert code == 0, f"exit code {code}\n{self.running.stderr()[-3000:]}"
        self._restart()

    def reload(self) -> None:
        """SIGHUP: gunicorn replaces the workers one after the other."""
        before = set(self.running.workers())
        self.running.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not before & set(self.running.workers()), RECOVERY_S, "new workers")

    def close(self) -> None:
        """Ends it."""
        self._stack.close()

    def _restart(self) -> None:
        self._stack.close()
        self.running = self._start()

    def _start(self) -> Running:
        return self._stack.enter_context(self._begin())


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def haunt(
    load: Sending,
    troubles: Mapping[str, Trouble],
    rng: random.Random,
    seconds: float,
    enough: Callable[[], bool] = lambda: True,
) -> Counter[str]:
    """Troubles in random order, each as often as the others, at random moments of `load`; how often each happened.

    For `seconds`, and beyond them until `enough` has come of it: a slow machine takes longer to do as much.
    TimeoutError where the load does not go on after a trouble.
    """
    happened: Counter[str] = Counter()
    order: list[str] = []
    end = time.monotonic() + seconds

    def over() -> bool:
        late = time.monotonic() - end
        return late > LONGER_S or (late > 0 and len(happened) == len(troubles) and enough())

    while not over() and not load.failed:
        if not order:
            order = sorted(troubles)
            rng.shuffle(order)
        name = order.pop()
        threading.Event().wait(rng.uniform(0.02, 0.8))
        troubles[name]()
        happened[name] += 1
        before = load.acknowledged
        wait_until(
            lambda before=before: load.failed or load.acknowledged >= before + ENOUGH,  # type: ignore[misc]
            RECOVERY_S,
            f"answers after: {name}",
        )
    return happened
