"""What the core asks of the outside: protocols of at most five methods; an optional power is one of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from service.core.many.answers import Answers
from service.core.requests import Answer, PredictRequest
from service.core.types import ClientKey, FloatArray


class Stored(NamedTuple):
    """A record as the store holds it. `nonce` is the 8-byte token of the write that made it."""

    nonce: bytes
    blob: bytes


class Page(NamedTuple):
    """Some clients of a listing. `cursor` continues it, None at the end."""

    clients: list[str]
    cursor: str | None


class Entry(NamedTuple):
    """A record met by a scan, as it was when it was met."""

    key: ClientKey
    nonce: bytes
    blob: bytes


class Scan(NamedTuple):
    """Some records of a scan. `cursor` continues it, None at the end."""

    entries: list[Entry]
    cursor: str | None


class Save(NamedTuple):
    """What `StateStore.save` is told, as one of many. A view must stay as it is until the call returns, no longer."""

    key: ClientKey
    old: bytes | None
    new: bytes
    blob: bytes | memoryview


class StateStore(Protocol):
    """Keeps one opaque blob per client: atomic verbs, any thread, any process the driver allows.

    Every method raises StoreUnavailable when the store is away, full or stuck; then nothing is half-written.
    Nonces are 8 random bytes chosen by the writer of each blob.
    """

    def load(self, key: ClientKey) -> Stored | None:
        """The last saved blob of `key`, None if there is none. An empty blob is a blob."""
        ...

    def save(self, key: ClientKey, old: bytes | None, new: bytes, blob: bytes) -> bool:
        """Atomically replace the blob of `key` if its nonce is `old` (None: if there is none) or already `new`.

        True: stored, and seen by every later load anywhere. False: another writer was first, nothing changed.
        A save repeated after a lost reply is harmless: it finds its own nonce and answers True.
        """
        ...

    def delete(self, key: ClientKey, old: bytes | None = None) -> bool:
        """Forget `key`; True if it was there. With `old` only if that is its nonce: what others wrote since stays."""
        ...

    def list(self, tenant: str, model: str, after: str | None, limit: int) -> Page:
        """Up to `limit` clients of a model from the opaque cursor `after` on (None: from the start).

        Order is not promised; a client present throughout a listing appears at least once.
        InvalidInput("after") for a cursor this store did not give.
        """
        ...

    def close(self) -> None:
        """Give back what is held open in this process; later calls raise StoreUnavailable."""
        ...


@runtime_checkable
class CountsClients(Protocol):
    """A store that can tell how many clients a model keeps, by a look at the whole: not for every request."""

    def count(self, tenant: str, model: str) -> int:
        """Clients kept for (tenant, model) now."""
        ...


@runtime_checkable
class CountsRecords(Protocol):
    """A store that can tell how much a scan will meet, by a look at the whole."""

    def records(self) -> int:
        """Records kept now, those of all tenants and models."""
        ...


@runtime_checkable
class Scans(Protocol):
    """A store whose records can be walked through, those of all tenants and models: for what keeps house."""

    def scan(self, after: str | None, limit: int) -> Scan:
        """Up to about `limit` records from the opaque cursor `after` on (None: from the start), in no order.

        A record present throughout a scan appears at least once; fewer entries or none, with a cursor, are not its
        end. InvalidInput("after") for a cursor this store did not give. A store serves requests in between: the
        caller keeps `limit` small.
        """
        ...


@runtime_checkable
class SavesMany(Protocol):
    """A store that loads and saves many records at little more than the cost of one: for what moves them in bulk.

    A store serves requests in between: the caller keeps it to some hundreds at once. Both give way at once to those
    who are in a hurry, where the store is one that waits at all.
    """

    def load_many(self, keys: Sequence[ClientKey]) -> list[Stored | None]:
        """What `load` says of each key, in their order; not all of one moment."""
        ...

    def save_many(self, saves: Sequence[Save]) -> list[bool]:
        """What `save` says of each, in their order: each is decided on its own, one that loses stops no other.

        StoreUnavailable leaves open which of them are stored, each whole or not at all; the same again is harmless, as
        it is for `save`. ValueError, and nothing is stored, if two are of one key: which is first is not for a store.
        """
        ...


class Engine(Protocol):
    """Executes one bundle's step. Pure: the same input gives the same output; safe from any thread."""

    def step(self, x: FloatArray, state: FloatArray) -> tuple[FloatArray, FloatArray]:
        """One observation each for a batch of clients.

        ``x`` (batch, F) float32 raw units, ``state`` (batch, S) float32 ->
        ``y`` (batch, K, 1 + Q) float32 raw units, next state (batch, S) float32; both fresh arrays.
        """
        ...

    def gates(self, x: FloatArray, state: FloatArray) -> Sequence[FloatArray]:
        """Gate activations while `x` is absorbed under `state` (shapes as in `step`).

        One array (batch, n_gates * units) float32 per entry of the spec's `gates`, in its order.
        """
        ...

    def close(self) -> None:
        """Release the runtime's memory; a step under way ends as usual."""
        ...


@runtime_checkable
class Walks(Protocol):
    """An engine that takes one client through a series for less than a step at a time costs."""

    def walk(self, x: FloatArray, state: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The observations of one client, oldest first.

        ``x`` (T, F) float32 raw units, T >= 1, ``state`` (1, S) float32 -> ``y`` (T, K, 1 + Q) float32 raw units, the
        prediction after each, and the state after the last, (1, S) float32; both fresh arrays, with the same bits as
        T calls of `Engine.step` give. Whoever waits for this thread waits for all T.
        """
        ...


class LabelsNow(NamedTuple):
    """Which version each label of a model names; the generation rises by one at every change."""

    generation: int
    labels: Mapping[str, int]


class MovesLabels(Protocol):
    """Where labels are kept, for an administrator.

    Every refusal leaves them as they were: ModelNotFound, LabelNotFound, InvalidInput for a name or a version that is
    none, LabelsMoved if they are not of `generation` (None: whatever they are), RepositoryReadOnly,
    RepositoryUnavailable.
    """

    def labels(self, model: str) -> LabelsNow:
        """The model's labels as they are kept, served here yet or not."""
        ...

    def move(self, model: str, label: str, version: int, generation: int | None) -> LabelsNow:
        """Let `label` name `version`, served by this process on return. VersionUnfit if it could not be."""
        ...

    def drop(self, model: str, label: str, generation: int | None) -> LabelsNow:
        """Take `label` away: its clients fall back to `stable`, which itself stays (LabelKept)."""
        ...


class Witness(Protocol):
    """Who is told of what clients' states absorbed."""

    def witness(self, key: ClientKey, request: PredictRequest, answer: Answer) -> None:
        """`request` was absorbed and is stored, `answer` is what it will be answered; a replay is not told again.

        Called in the request's own thread, the event loop's as a rule: it must not wait, nor raise.
        """
        ...


class WitnessesMany(Protocol):
    """Who is told of what many clients' states absorbed in one call."""

    def witness_many(self, answers: Answers) -> None:
        """All of these were absorbed and are stored. As `Witness.witness`: it must not wait, nor raise."""
        ...


class Clock(Protocol):
    """Wall time, seconds since the epoch: a constructor argument so that tests can set it."""

    def __call__(self) -> float: ...
