"""How many connections each worker of a master has open, where all of them see it."""

from __future__ import annotations

import mmap
import time
from dataclasses import dataclass

SEATS = 128  # while a SIGHUP replaces workers, the old ones and the new ones have one each
WORD_BYTES = 8  # aligned: written and read as a whole, by whatever process
AWAKE_S = 1.0  # a worker shows itself several times in it, unless it is stopped or stuck


class Seats:
    """Memory that the processes forked after it was made share; the master gives it out, a seat a worker.

    A seat has two words: connections open, and until when (ms of the system's monotonic clock) its worker takes more,
    which is 0 while it takes none. Only the worker writes them while it lives, so nothing is locked.
    """

    def __init__(self, seats: int = SEATS) -> None:
        self._words = memoryview(mmap.mmap(-1, 2 * seats * WORD_BYTES)).cast("q")
        self._free = list(range(seats))

    def take(self) -> Seat:
        """A seat whose worker takes nothing yet. If none is left, one apart: it sees nobody, and nobody sees it."""
        if not self._free:
            return Seat(Seats(1)._words, 0)
        seat = Seat(self._words, self._free.pop(0))
        seat.tell(0)
        seat.hide()
        return seat

    def give_back(self, seat: Seat) -> None:
        """Its worker has ended, maybe without a word."""
        if seat.words is self._words:
            seat.hide()
            self._free.append(seat.number)


@dataclass(frozen=True, slots=True)
class Seat:
    """One worker's place among all."""

    words: memoryview
    number: int

    def tell(self, connections: int) -> None:
        """So many are open here now."""
        self.words[2 * self.number] = connections

    def show(self) -> None:
        """This worker takes connections, and counts for the next AWAKE_S: nobody waits for one stuck for longer."""
        self.words[2 * self.number + 1] = _now_ms() + int(AWAKE_S * 1000)

    def hide(self) -> None:
        """This worker takes none until it shows itself again."""
        self.words[2 * self.number + 1] = 0

    def least(self) -> int | None:
        """The fewest connections that another worker has which takes more; None if there is no such worker."""
        now, words = _now_ms(), self.words.tolist()
        words[2 * self.number + 1] = 0
        return min((had for had, until in zip(words[::2], words[1::2], strict=True) if until > now), default=None)


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
