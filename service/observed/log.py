"""The observation log: a witness notes what was absorbed, a thread packs it and writes it to this process's journal."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path
from time import monotonic
from typing import Protocol

from models.journal import Logged, declared, packed
from models.journals import JournalFile
from service.core.many.answers import Answers
from service.core.ports import Clock
from service.core.requests import Answer, PredictRequest
from service.core.types import ClientKey, ModelSpec

logger = logging.getLogger(__name__)

_Noted = tuple[int, ClientKey, PredictRequest, int, float, float]  # number of the model, last step, begun, when

EVERY = "*"
FLUSH_S = 1.0  # between two writes
HURRY_BYTES = 1 << 20  # so much waiting is written at once
MOST_BYTES = 16 << 20  # more does not wait: the disk is stuck, and what comes is lost
MOST_NOTED = 4096  # requests that wait to be packed, of no more than SHORT observations each; others are packed at once
SHORT = 8
JOURNAL_BYTES = 64 << 20


class ObservesLog(Protocol):
    """Who is told what becomes of rows."""

    def observe_logged(self, rows: int) -> None:
        """So many are on the medium."""
        ...

    def observe_lost(self, rows: int) -> None:
        """So many will never be: there was no room for them to wait."""
        ...


class ObservationLog:
    """Logs what predicts of the `models` absorb (names, or EVERY) to journals in `folder`, in this process alone.

    A row is on the medium about FLUSH_S after its answer. A journal is closed after `journal_s` or at JOURNAL_BYTES,
    and by `stop`. While the disk is full or away rows wait, MOST_BYTES of them; what comes then is lost and counted.
    A killed process loses what it had not written. Priming is not logged: whoever sent a history has it.
    """

    def __init__(
        self, folder: Path, models: Collection[str], clock: Clock, observer: ObservesLog, journal_s: float = 300.0
    ) -> None:
        self._folder = folder
        self._models = frozenset(models)
        self._clock = clock
        self._observer = observer
        self._journal_s = journal_s
        self._noted: deque[_Noted] = deque()  # in front of what waits
        self._lock = threading.Lock()  # over what waits: held for moments
        self._waiting: list[bytes] = []
        self._waiting_bytes = self._waiting_rows = self._lost_rows = 0
        self._numbers: dict[tuple[str, str], int] = {}  # by model and fingerprint
        self._logged: dict[Logged, int] = {}
        self._declared: list[bytes] = []
        self._unsynced: list[bytes] = []  # written or not, not on the medium
        self._unsynced_rows = self._unsynced_bytes = 0
        self._journal: JournalFile | None = None
        self._trouble: str | None = None
        self._due = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def witness(self, key: ClientKey, request: PredictRequest, answer: Answer) -> None:
        """See Witness. Notes the rows and leaves them to the thread, which packs many in the time of a few. Where it is
        behind, they are packed here, so that they are counted."""
        model = key.model
        if not self._logs(model):
            return
        noted = self._number(model, answer.spec), key, request, answer.step, answer.begun, self._clock()
        if len(request.observations) > SHORT or len(self._noted) >= MOST_NOTED:
            self._pack(noted)
        else:
            self._noted.append(noted)

    def _pack(self, noted: _Noted) -> None:
        number, key, request, step, begun, now = noted
        values = request.observations
        n, width = values.shape
        frame = packed(
            number,
            key.tenant.encode(),
            key.client.encode(),
            step - n + 1,
            now,
            begun,
            request.times,
            values.astype("<f4", copy=False).tobytes(),
            (n, width),
        )
        self._wait(frame, n)

    def witness_many(self, answers: Answers) -> None:
        """See WitnessesMany. As `witness` for each, with one look at the lock."""
        asked, model = answers.asked, answers.spec.name
        if not self._logs(model):
            return
        number, now, width = self._number(model, answers.spec), self._clock(), asked.observations.shape[1]
        values, size = asked.observations.astype("<f4", copy=False).tobytes(), 4 * width
        steps, begun = answers.steps.tolist(), answers.begun.tolist()
        times = [math.nan] * len(steps) if asked.times is None else asked.times.tolist()
        tenant = asked.keys[0].tenant.encode()
        frames = [
            packed(
                number, tenant, key.client.encode(), step, now, life, None if time != time else (time,),
                values[at * size : (at + 1) * size], (1, width),
            )
            for at, (key, step, life, time) in enumerate(zip(asked.keys, steps, begun, times, strict=True))
        ]  # fmt: skip
        self._wait(b"".join(frames), len(frames))

    def _logs(self, model: str) -> bool:
        return model in self._models or EVERY in self._models

    def _number(self, model: str, spec: ModelSpec) -> int:
        number = self._numbers.get((model, spec.fingerprint))
        return self._declare(model, spec) if number is None else number

    def _wait(self, frames: bytes, rows: int) -> None:
        """Leave frames to the thread."""
        with self._lock:
            if self._waiting_bytes + self._unsynced_bytes + len(frames) > MOST_BYTES:
                self._lost_rows += rows
                return
            self._waiting.append(frames)
            self._waiting_rows += rows
            before, self._waiting_bytes = self._waiting_bytes, self._waiting_bytes + len(frames)
        if before < HURRY_BYTES <= self._waiting_bytes:
            self._due.set()

    def _declare(self, model: str, spec: ModelSpec) -> int:
        """The number of a model whose version is new here: that of its others, while they have the same features."""
        logged = Logged(model, tuple(feature.name for feature in spec.features), spec.interval_s)
        with self._lock:
            number = self._logged.get(logged)
            if number is None:
                number = self._logged[logged] = len(self._declared)
                self._declared.append(declared(number, logged))
                self._waiting.append(self._declared[number])
            self._numbers[model, spec.fingerprint] = number
        return number

    def start(self) -> None:
        """Write in a thread of this process until `stop`."""
        self._thread = threading.Thread(target=self._run, name="recurve-observations", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; everything is written and the journal closed then, unless the disk refuses."""
        self._stopped = True
        self._due.set()
        if self._thread is not None:
            self._thread.join()
        self.write()
        self.write()  # what had to wait for the first
        if not self._unsynced:
            self._attempt(self._journal_ends)
        with self._lock:
            lost, self._waiting, self._waiting_rows = self._waiting_rows, [], 0
        if lost or self._unsynced_rows:
            logger.error("observations are lost", extra={"rows": lost + self._unsynced_rows})
            self._observer.observe_lost(lost + self._unsynced_rows)
            self._unsynced, self._unsynced_rows = [], 0

    def _run(self) -> None:
        while not self._stopped:
            self._due.wait(FLUSH_S)
            self._due.clear()
            try:
                self.write()
            except Exception:  # the thread's outermost handler: the next write may fare better
                logger.exception("writing observations failed")

    def write(self) -> None:
        """Bring what waits onto the medium, and close the journal if it is time. Called by one thread at a time."""
        for _ in range(len(self._noted)):
            self._pack(self._noted.popleft())
        with self._lock:
            lost, self._lost_rows = self._lost_rows, 0
            room = not self._unsynced  # else the disk is in trouble: what waits goes on waiting
            if room:
                self._unsynced, self._waiting = self._waiting, []
                self._unsynced_rows, self._waiting_rows = self._waiting_rows, 0
                self._unsynced_bytes, self._waiting_bytes = self._waiting_bytes, 0
        if lost:
            self._observer.observe_lost(lost)
        if self._unsynced:
            self._attempt(self._bring)
        journal = self._journal
        if journal is not None and not self._unsynced and monotonic() - journal.began >= self._journal_s:
            self._attempt(self._journal_ends)

    def _bring(self) -> None:
        if self._journal is None:
            self._journal = JournalFile(self._folder, b"".join(self._declared))
        self._journal.append(b"".join(self._unsynced))
        self._journal.sync()
        rows, self._unsynced, self._unsynced_rows = self._unsynced_rows, [], 0
        self._unsynced_bytes = 0
        self._observer.observe_logged(rows)
        if self._journal.size >= JOURNAL_BYTES:
            self._journal_ends()

    def _journal_ends(self) -> None:
        journal, self._journal = self._journal, None
        if journal is not None:
            try:
                journal.close()
            finally:
                journal.abandon()

    def _attempt(self, do: Callable[[], None]) -> None:
        """Do something to the journal. What fails is cut off and done again at the next write, in another journal if
        this one can't be mended."""
        try:
            do()
        except OSError as error:
            if self._trouble is None:
                logger.error("observations can't be logged, and wait", extra={"why": str(error)})
            self._trouble = str(error)
            self._mend(lost=isinstance(error, FileNotFoundError))
        else:
            if self._trouble is not None:
                logger.info("observations are logged again")
            self._trouble = None

    def _mend(self, *, lost: bool) -> None:
        """Cut off what is half-written, or leave the journal to whoever compacts; a `lost` one is nobody's."""
        journal = self._journal
        if journal is None:
            return
        try:
            if not lost:
                journal.take_back()
                return
        except OSError:
            logger.info("a journal is left as it is", extra={"journal": journal.path.name})
        self._journal = None
        journal.abandon()
