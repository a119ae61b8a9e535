"""The fingerprint of a model: sha256 over its graph, its state layout and its named weights' bytes.

Two exports of one model agree, whatever names Keras counted up for its layers; one changed weight does not.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from training.walk import Walk

VOLATILE = frozenset({"shared_object_id", "compile_config", "build_config", "trainable", "seed"})


def fingerprint(walk: Walk) -> str:
    """64 hex digits for the model opened by `walk`."""
    names: dict[str, str] = {}
    config = walk.model.get_config()
    _collect(config, names)
    layout = [
        ["/".join(names.get(part, part) for part in key.split("/")), slot.offset, slot.sizes, slot.initial.tolist()]
        for key, slot in walk.slots.items()
    ]
    head = json.dumps([_plain(config, names), layout], sort_keys=True, default=str)
    digest = hashlib.sha256(head.encode())
    for index, weight in enumerate(walk.model.weights):
        value = np.ascontiguousarray(weight.numpy())
        digest.update(f"\n{index} {weight.name} {value.dtype} {value.shape}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _collect(config: Any, names: dict[str, str]) -> None:
    """Number every name in the order it is met: automatic names count up from one build to the next."""
    if isinstance(config, dict):
        name = config.get("name")
        if isinstance(name, str):
            names.setdefault(name, f"#{len(names)}")
        for value in config.values():
            _collect(value, names)
    elif isinstance(config, list | tuple):
        for value in config:
            _collect(value, names)


def _plain(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v, names) for k, v in value.items() if k not in VOLATILE}
    if isinstance(value, list | tuple):
        return [_plain(item, names) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return names.get(value, value) if isinstance(value, str) else value
