"""What the tiny bundle's Keras model answers offline, to compare the service's answers with."""

import numpy as np

NAMES = ("temperature", "dew_point", "pressure")
SCALE = 1.0  # the tiny bundle's `scale`, the s of the tolerance


def offline_pass():
    """The Keras model of the tiny bundle: (T, 3) observations -> (T, 3, 4) predictions, in one pass."""
    import tensorflow as tf

    from tests.training.bundles import make_tiny_model

    whole_pass = tf.function(make_tiny_model(), reduce_retracing=True)

    def run(series):
        # padded to few lengths, so that few graphs are traced: the model is causal, what follows changes nothing
        padded = np.zeros((1, 32 if len(series) <= 32 else 320, 3), np.float32)
        padded[0, : len(series)] = series
        return whole_pass(padded).numpy()[0, : len(series)]

    return run


def assert_equal(answer, row):
    """One rendered prediction against a row of the offline pass, (3, 4), within the promise's tolerance."""
    for k, name in enumerate(NAMES):
        told = answer[name]
        got = (told["value"], told["interval"]["lower"], told["interval"]["upper"])
        for ours, theirs in zip(got, (row[k, 0], row[k, 1], row[k, 3]), strict=True):
            assert abs(ours - theirs) <= 1e-5 * max(abs(theirs), SCALE), name
