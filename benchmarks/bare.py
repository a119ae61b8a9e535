"""A bundle's `step` in LiteRT and nothing else: what the engine and everything above it are held against."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from models.manifest import STEP_TFLITE
from models.repository import Repository
from service.core.types import ModelSpec
from service.specs import spec_of


class Bare:
    """One interpreter allocated for one batch size; a step is set tensors, invoke, get tensors."""

    def __init__(self, tflite: Path, batch: int) -> None:
        self._interpreter = Interpreter(str(tflite), num_threads=1)
        runner = self._interpreter.get_signature_runner("step")
        inputs, outputs = runner.get_input_details(), runner.get_output_details()
        # the public calls reach a file's first graph only, which may be `gates`
        self._run, self._graph = runner._interpreter_wrapper, runner._subgraph_index
        self._x, self._state = inputs["x"]["index"], inputs["state"]["index"]
        self._y, self._next = outputs["y"]["index"], outputs["state"]["index"]
        for detail in inputs.values():
            shape = np.array([batch, *detail["shape"][1:]], np.int32)
            self._run.ResizeInputTensor(detail["index"], shape, False, self._graph)
        self._run.AllocateTensors(self._graph)

    def step(self, x: NDArray[np.float32], state: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """``x`` (batch, F), ``state`` (batch, S) -> y (batch, K, W), next state (batch, S)."""
        run, graph = self._run, self._graph
        run.SetTensor(self._x, x, graph)
        run.SetTensor(self._state, state, graph)
        run.Invoke(graph)
        return run.GetTensor(self._y, graph), run.GetTensor(self._next, graph)


def bundle_of(root: Path, name: str) -> tuple[Path, ModelSpec]:
    """The folder and the spec of the version of `name` that is served."""
    repository = Repository(root)
    version = repository.resolve(name)
    return repository.bundle(name, version), spec_of(repository.verify(name, version), version)


class Taken(NamedTuple):
    """Milliseconds that something took, and how many of them on a processor."""

    ms: float
    cpu_ms: float


def bare_series(bundle: Path, spec: ModelSpec, series: NDArray[np.float32]) -> Taken:
    """What the bare runtime takes for ``series`` (T, F), one step after the other."""
    bare, state = Bare(bundle / STEP_TFLITE, 1), spec.initial_state[None]
    bare.step(series[:1], state)
    began, cpu_began = time.perf_counter(), time.thread_time()
    for row in series[:, None]:
        _, state = bare.step(row, state)
    return Taken((time.perf_counter() - began) * 1e3, (time.thread_time() - cpu_began) * 1e3)
