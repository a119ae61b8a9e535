"""LiteRT: a bundle's step.tflite, a few microseconds a step, without TensorFlow."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from service.core.errors import BundleInvalid
from service.core.types import FloatArray, ModelSpec

CHUNK = 32  # larger batches run in chunks of this size, the last one padded


class _Step:
    """One interpreter, its `step` graph allocated for one batch size. Belongs to the thread that made it.

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


class _PerThread(threading.local):
    """What each thread keeps for itself."""

    def __init__(self) -> None:
        self.steps: dict[int, _Step] = {}
        self.gates: Any = None


class LiteRTEngine:
    """Engine over a .tflite with the signatures `step` and `gates`.

    An interpreter is not thread-safe and slow to resize (set_tensor and invoke: 8 us, with a resize: 148 us), so
    each thread keeps one per batch size, 1 or 32.
    """

    def __init__(self, tflite: Path, spec: ModelSpec) -> None:
        """BundleInvalid if the file is missing, does not load, or its `step` has other shapes than `spec`."""
        self._spec = spec
        self._local = _PerThread()
        try:
            self._content = tflite.read_bytes()
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
            return self._step(1)(x, state)
        run = self._step(CHUNK)
        ys, states = [], []
        for at in range(0, batch, CHUNK):
            size = min(CHUNK, batch - at)
            chunk_x, chunk_state = x[at : at + size], state[at : at + size]
            if size < CHUNK:
                chunk_x = np.concatenate((chunk_x, np.zeros((CHUNK - size, x.shape[1]), np.float32)))
                filler = np.broadcast_to(self._spec.initial_state, (CHUNK - size, state.shape[1]))
                chunk_state = np.concatenate((chunk_state, filler))
            y, following = run(chunk_x, chunk_state)
            ys.append(y[:size])
            states.append(following[:size])
        return np.concatenate(ys), np.concatenate(states)

    def gates(self, x: FloatArray, state: FloatArray) -> Sequence[FloatArray]:
        """See Engine."""
        if not self._spec.gates:
            return []
        if self._local.gates is None:
            interpreter = Interpreter(model_content=self._content, num_threads=1)
            # a runner does not keep its interpreter alive
            self._local.gates = interpreter.get_signature_runner("gates"), interpreter
        runner, _ = self._local.gates
        out = runner(x=x, state=state)
        return [out[gate.output] for gate in self._spec.gates]

    def close(self) -> None:
        """See Engine."""
        self._local.steps.clear()
        self._local.gates = None

    def _step(self, batch: int) -> _Step:
        step = self._local.steps.get(batch)
        if step is None:
            step = self._local.steps[batch] = _Step(self._content, batch)
        return step
