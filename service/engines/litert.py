"""LiteRT: a bundle's step.tflite, a few microseconds a step, without TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from service.core.errors import BundleInvalid
from service.core.types import FloatArray, ModelSpec

Run = TypeVar("Run")

CHUNK = 32  # larger batches run in chunks of this size, the last one padded
FEW = 4  # no more are left over: one by one, a padded chunk being some eight times the work of one


class _Step:
    """One interpreter, its `step` graph allocated for one batch size. For one thread at a time.

    A signature runner resizes and allocates at every call. Its own parts, which it names with an underscore, let
    that be done once: the public set_tensor and invoke reach a file's first graph only, and that may be `gates`.
    """

    def __init__(self, content: bytes, batch: int) -> None:
        self._interpreter = Interpreter(model_content=content, num_threads=1)  # kept alive: the runner does not
        runner = self._interpreter.get_signature_runner("step")
        self._graph, self._run = runner._subgraph_index, runner._interpreter_wrapper
        inputs, outputs = runner.get_input_details(), runner.get_output_details()
        self._x, self._state = inputs["x"]["index"], inputs["state"]["index"]
        self._y, self._next = outputs["y"]["index"], outputs["state"]["index"]
        for detail in inputs.values():
            shape = np.array([batch, *detail["shape"][1:]], np.int32)
            self._run.ResizeInputTensor(detail["index"], shape, False, self._graph)
        self._run.AllocateTensors(self._graph)

    def __call__(self, x: FloatArray, state: FloatArray) -> tuple[FloatArray, FloatArray]:
        run, graph = self._run, self._graph
        run.SetTensor(self._x, x, graph)
        run.SetTensor(self._state, state, graph)
        run.Invoke(graph)
        return run.GetTensor(self._y, graph), run.GetTensor(self._next, graph)

    def walk(self, x: FloatArray, state: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Each row of ``x`` (T, F) in turn, in batches of one: ``y`` (T, K, W) and the state after the last, (1, S).

        Tensors are copied in and out as in a step. Views of them would save a tenth, but a graph may have the runtime
        move its tensors while it runs, and the exported ones have their `y` where it likes.
        """
        set_tensor, invoke, get_tensor = self._run.SetTensor, self._run.Invoke, self._run.GetTensor
        at_x, at_state, at_y, at_next, graph = self._x, self._state, self._y, self._next, self._graph
        ys = []
        for row in x[:, None]:
            set_tensor(at_x, row, graph)
            set_tensor(at_state, state, graph)
            invoke(graph)
            ys.append(get_tensor(at_y, graph))
            state = get_tensor(at_next, graph)
        return np.concatenate(ys), state


class _Gates:
    """One interpreter for the `gates` graph, any batch size. For one thread at a time."""

    def __init__(self, content: bytes) -> None:
        self._interpreter = Interpreter(model_content=content, num_threads=1)
        self._runner = self._interpreter.get_signature_runner("gates")

    def __call__(self, x: FloatArray, state: FloatArray) -> dict[str, FloatArray]:
        out: dict[str, FloatArray] = self._runner(x=x, state=state)
        return out


class _Pool(Generic[Run]):
    """Runs that nobody uses now, the last used on top; as many are made as threads ever run at once."""

    def __init__(self, make: Callable[[], Run]) -> None:
        self._make = make
        self._free: list[Run] = []

    def take(self) -> Run:
        """One of them for the caller alone, who gives it back."""
        try:
            return self._free.pop()
        except IndexError:
            return self._make()

    def give(self, run: Run) -> None:
        """Take back what `take` gave."""
        self._free.append(run)

    def clear(self) -> None:
        """Give back the memory of those not in use."""
        self._free.clear()


class LiteRTEngine:
    """Engine over a .tflite with the signatures `step` and `gates`.

    An interpreter is not thread-safe and slow to resize (set_tensor and invoke: 8 us, with a resize: 148 us), so
    there are some for each batch size, 1 and 32. The last used goes first: its copy of the weights is still in the
    processor's cache, where one for each thread would push the others' out.
    """

    def __init__(self, tflite: Path, spec: ModelSpec) -> None:
        """BundleInvalid if the file is missing, does not load, or its `step` has other shapes than `spec`."""
        self._spec = spec
        try:
            content = tflite.read_bytes()
            self._single = _Pool(lambda: _Step(content, 1))
            self._chunk = _Pool(lambda: _Step(content, CHUNK))
            self._gates = _Pool(lambda: _Gates(content))
            x = np.zeros((1, len(spec.features)), np.float32)
            y, state = self.step(x, spec.initial_state[None])
        except (OSError, ValueError, KeyError, RuntimeError) as exc:
            raise BundleInvalid(f"{tflite.name} of {spec.name} {spec.version} does not run: {exc}") from exc
        expected = (1, len(spec.targets), spec.columns), (1, spec.initial_state.size)
        if (y.shape, state.shape) != expected:
            detail = f"step of {spec.name} {spec.version} gives {y.shape}, {state.shape}; its manifest says {expected}"
            raise BundleInvalid(detail)

    def step(self, x: FloatArray, state: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See Engine."""
        batch = len(x)
        if batch == 1:
            single = self._single.take()
            try:
                return single(x, state)
            finally:
                self._single.give(single)
        # into place at once: chunks kept until the end would each take new memory, an eighth slower beside other work
        ys = np.empty((batch, len(self._spec.targets), self._spec.columns), np.float32)
        states = np.empty((batch, self._spec.initial_state.size), np.float32)
        left = batch % CHUNK
        whole = batch - left if left <= FEW else batch
        if whole:
            run = self._chunk.take()
            try:
                for at in range(0, whole, CHUNK):
                    size = min(CHUNK, batch - at)
                    y, following = run(*self._padded(x[at : at + size], state[at : at + size]))
                    ys[at : at + size], states[at : at + size] = y[:size], following[:size]
            finally:
                self._chunk.give(run)
        for at in range(whole, batch):
            ys[at : at + 1], states[at : at + 1] = self.step(x[at : at + 1], state[at : at + 1])
        return ys, states

    def _padded(self, x: FloatArray, state: FloatArray) -> tuple[FloatArray, FloatArray]:
        missing = CHUNK - len(x)
        if missing == 0:
            return x, state
        filler = np.broadcast_to(self._spec.initial_state, (missing, state.shape[1]))
        return np.concatenate((x, np.zeros((missing, x.shape[1]), np.float32))), np.concatenate((state, filler))

    def walk(self, x: FloatArray, state: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See Walks."""
        single = self._single.take()
        try:
            return single.walk(x, state)
        finally:
            self._single.give(single)

    def gates(self, x: FloatArray, state: FloatArray) -> Sequence[FloatArray]:
        """See Engine."""
        if not self._spec.gates:
            return []
        run = self._gates.take()
        try:
            out = run(x, state)
        finally:
            self._gates.give(run)
        return [out[gate.output] for gate in self._spec.gates]

    def close(self) -> None:
        """See Engine."""
        for pool in (self._single, self._chunk, self._gates):
            pool.clear()
