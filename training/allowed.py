"""Which layers a step can be made of: an allow-list, refusals with their reasons, and the rest left to the proofs.

A layer on the list treats each time step by itself as long as it is set up as checked here. What is not on it may
still be exported if the numeric proofs hold (`training.proofs`); what is refused here would be wrong or can't be
kept per client whatever the numbers say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
from keras import layers
from keras.src.models.functional import Functional  # public only as the class keras.Model makes

from training.refusals import ExportRefused

POINTWISE: tuple[type, ...] = (
    layers.Dense, layers.EinsumDense, layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU,
    layers.Dropout, layers.SpatialDropout1D, layers.GaussianNoise, layers.GaussianDropout, layers.AlphaDropout,
    layers.ActivityRegularization, layers.Identity, layers.Rescaling, layers.Add, layers.Subtract, layers.Multiply,
    layers.Average, layers.Maximum, layers.Minimum, layers.TimeDistributed, layers.InputLayer,
)  # fmt: skip
LAST_AXIS: tuple[type, ...] = (
    layers.Softmax, layers.Normalization, layers.LayerNormalization, layers.BatchNormalization,
    layers.UnitNormalization, layers.RMSNormalization, layers.Concatenate,
)  # fmt: skip
OPERATIONS = (  # of keras.ops
    "Add Subtract Multiply Divide TrueDivide Negative Absolute Exp Expm1 Log Log1p Sqrt Rsqrt Square Power Maximum "
    "Minimum Clip Tanh Sigmoid Softplus Relu Silu Gelu Where Cast Sign Reciprocal Isfinite Isnan Logaddexp"
)

OVER_TIME: dict[type, str] = {
    layers.GlobalAveragePooling1D: "it pools over time",
    layers.GlobalMaxPooling1D: "it pools over time",
    layers.AveragePooling1D: "it pools over time",
    layers.MaxPooling1D: "it pools over time",
    layers.Flatten: "it flattens the time axis, so it needs a fixed window",
    layers.Cropping1D: "it cuts the time axis",
    layers.ZeroPadding1D: "it lengthens the time axis; use padding='causal' in Conv1D",
    layers.UpSampling1D: "it stretches the time axis",
}
NEVER: dict[type, str] = {
    layers.Masking: "a step has no mask; leave missing observations out, the service fills gaps by itself",
    layers.Bidirectional: "it reads the future; use the forward layer alone",
    layers.Attention: "attention looks at the whole series, a step has only its state",
    layers.AdditiveAttention: "attention looks at the whole series, a step has only its state",
    layers.MultiHeadAttention: "attention looks at the whole series, a step has only its state",
    layers.GroupQueryAttention: "attention looks at the whole series, a step has only its state",
    layers.RepeatVector: "it makes a new time axis; predict one step, the service feeds predictions back",
    layers.Lambda: "a Lambda carries Python code, a bundle carries none; write it with keras.ops or a layer of its own",
}


def has_graph(operation: Any) -> bool:
    """True for nested functional models and Sequentials, which are walked in place."""
    if isinstance(operation, keras.Sequential):
        return True
    return isinstance(operation, Functional) and type(operation).call is Functional.call


def check_model(model: Any) -> Any:
    """The functional graph of `model`; ExportRefused if it has none."""
    name = getattr(model, "name", str(model))
    if not has_graph(model):
        raise ExportRefused(
            name,
            "only functional models and Sequentials can be stepped, this is a "
            f"{type(model).__name__} whose call() is its own code",
        )
    if not model.built:
        raise ExportRefused(name, "the model is not built yet: give it a keras.Input((None, features))")
    return model._functional if isinstance(model, keras.Sequential) else model


def check_ends(model: Any) -> None:
    """ExportRefused unless the model has one input (batch, time, features) and one output."""
    graph = check_model(model)
    if len(graph.inputs) != 1:
        names = ", ".join(symbol.name for symbol in graph.inputs)
        raise ExportRefused(model.name, f"it has several inputs ({names}); join them into one (batch, time, features)")
    if len(graph.outputs) != 1:
        raise ExportRefused(model.name, f"it has {len(graph.outputs)} outputs; join them into one")
    shape = graph.inputs[0].shape
    if len(shape) != 3 or shape[-1] is None:
        raise ExportRefused(graph.inputs[0].name, f"its input is {tuple(shape)}, it has to be (batch, time, features)")
    if keras.backend.standardize_dtype(graph.inputs[0].dtype) != "float32":
        raise ExportRefused(graph.inputs[0].name, f"its input is {graph.inputs[0].dtype}, it has to be float32")


def check_node(node: Any, key: str, *, timed: bool) -> None:
    """ExportRefused if this call can't be part of a step; `timed`: its input has the time axis."""
    layer = node.operation
    for kind, reason in NEVER.items():
        if isinstance(layer, kind):
            raise ExportRefused(key, reason)
    if timed:
        for kind, reason in OVER_TIME.items():
            if isinstance(layer, kind):
                raise ExportRefused(key, reason)
    for part in _with_parts(layer):
        policy, inside = getattr(part, "dtype_policy", None), "" if part is layer else f" of its {part.name!r}"
        if policy is not None and policy.name != "float32":
            raise ExportRefused(key, f"the dtype policy{inside} is {policy.name!r}, only float32 is exported")
        if isinstance(part, layers.Lambda):
            raise ExportRefused(key, NEVER[layers.Lambda])
    for symbol in node.outputs:
        kind = keras.backend.standardize_dtype(symbol.dtype)
        if "float" in kind and kind != "float32":
            raise ExportRefused(key, f"it answers in {kind}, only float32 is exported")
    if getattr(layer, "stateful", False):
        raise ExportRefused(key, "stateful=True fixes the batch size and hides the state in the layer; leave it off")
    if isinstance(layer, layers.Embedding) and layer.mask_zero:
        raise ExportRefused(key, "mask_zero makes a mask, a step has none")
    if isinstance(layer, layers.RNN):
        _check_recurrent(node, key)
    elif isinstance(layer, layers.Conv1D) and timed:
        _check_conv(layer, key)
    elif isinstance(layer, layers.Permute) and timed and layer.dims[0] != 1:
        raise ExportRefused(key, "it moves the time axis")
    elif isinstance(layer, layers.Reshape) and timed:
        _check_reshape(node, key)


def _check_recurrent(node: Any, key: str) -> None:
    layer = node.operation
    if layer.go_backwards:
        raise ExportRefused(key, "go_backwards=True reads the future")
    if layer.unroll:
        raise ExportRefused(key, "unroll=True fixes the length of the series; leave it off, the weights stay the same")
    if len(node.input_tensors) != 1 or node.arguments.kwargs.get("initial_state") is not None:
        raise ExportRefused(key, "its initial_state comes from the graph; a client's state comes from its record")
    if isinstance(layer, layers.ConvLSTM1D | layers.ConvLSTM2D | layers.ConvLSTM3D):
        raise ExportRefused(key, "its state is an image, not a row of numbers per client")


def _with_parts(layer: Any) -> Iterator[Any]:
    """`layer`, and what it runs inside: the layer it wraps, its cell, the cells of that."""
    yield layer
    parts = [getattr(layer, name, None) for name in ("layer", "cell")] + list(getattr(layer, "cells", None) or [])
    for part in parts:
        if isinstance(part, layers.Layer):
            yield from _with_parts(part)


def _check_reshape(node: Any, key: str) -> None:
    """-1 in front has to stand for time: as many numbers per step after it as before."""
    shape, target = node.input_tensors[0].shape, node.operation.target_shape
    if target[0] == -1 and None not in shape[2:] and math.prod(shape[2:]) != math.prod(target[1:]):
        raise ExportRefused(key, f"it puts {tuple(shape[2:])} per step into {tuple(target[1:])}: time is stretched")


def _check_conv(layer: Any, key: str) -> None:
    if layer.strides[0] != 1:
        raise ExportRefused(key, f"strides={layer.strides[0]} drops time steps")
    if layer.data_format != "channels_last":
        raise ExportRefused(key, "it convolves over channels_first; use channels_last")
    if layer.padding != "causal" and layer.kernel_size[0] != 1:
        raise ExportRefused(key, f"padding={layer.padding!r} does not keep time causal; use padding='causal'")


def is_listed(operation: Any) -> bool:
    """True if this call is known to treat each time step by itself (or is stepped with state)."""
    kind = type(operation)
    if issubclass(kind, layers.RNN) or kind is layers.Conv1D or kind in POINTWISE:
        return True
    if kind is layers.Reshape:  # one row of numbers per step, put into another shape
        return bool(operation.target_shape[0] == -1 and operation.target_shape.count(-1) == 1)
    if keras.saving.get_registered_name(kind).startswith("recurve>"):  # ours, each with its own tests
        return True
    if kind in LAST_AXIS:
        axis = operation.axis
        return all(a == -1 or a == 2 for a in (axis if isinstance(axis, list | tuple) else [axis]))
    return kind.__module__.startswith("keras.src.ops") and kind.__name__ in OPERATIONS.split()
