"""Keeping native libraries' chatter off the terminal: they write to descriptor 2, past sys.stderr."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from training.interruption import INTERRUPTION


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing reaches the standard error stream within the block. Exceptions pass as ever; a stop waits for the end."""
    with INTERRUPTION.held():  # a half-imported library would fail in a way of its own, and be told to nobody
        saved = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(nowhere)


def import_frameworks() -> None:
    """Import TensorFlow and Keras without their greetings; seconds, so only when there is something to train."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    # With several operations at once, TensorFlow adds gradients in the order in which they happen to be ready, and two
    # trainings of one seed end a few bits apart. One of ours is a chain in any case: this costs it nothing.
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
    with quiet():
        import keras  # noqa: F401
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
