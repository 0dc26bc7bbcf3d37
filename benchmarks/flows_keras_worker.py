"""The keras_gen side of flows.py: what a user writes, with the defaults.

784 dimensions are images of 28x28 pixels, 2 are those of one pixel with two
channels. Data are continuous, without dequantization or logit: the couplings
are all there is, as on the other sides. It is started by flows.py.
"""

import json
import sys

import interleave
import keras
import numpy as np
import tensorflow as tf

import keras_gen

SHAPES = {"2": (1, 1, 2), "784": (28, 28, 1)}
HIDDEN_DIM = {"2": 64, "784": 256}
BATCH_SIZES = {"2": (512, 4096), "784": (128, 512)}


def build(case, steps):
    work, dims = case.split("-")
    shape, (batch_size, large) = SHAPES[dims], BATCH_SIZES[dims]
    keras.utils.set_random_seed(0)
    flow = keras_gen.RealNVP(
        shape,
        num_couplings=8,
        hidden_dim=HIDDEN_DIM[dims],
        convolutional=False,
        dequantization=None,
        logit=False,
        seed=0,
    )
    x = np.random.default_rng(0).random(
        (max(64 * batch_size, large), *shape), "float32"
    )
    if work == "train":
        flow.compile(keras.optimizers.Adam(1e-3))
        dataset = tf.data.Dataset.from_tensor_slices(x[: 64 * batch_size])
        dataset = dataset.batch(batch_size, drop_remainder=True)
        dataset = dataset.cache().repeat().take(steps).prefetch(2)
        # The autotuner makes the end of an epoch wait for its next wake-up.
        options = tf.data.Options()
        options.autotune.enabled = False
        dataset = dataset.with_options(options)

        def run():
            flow.fit(dataset, epochs=1, verbose=0)
            return steps * batch_size

        return run

    images = tf.constant(x[:large])

    def run():
        for i in range(steps):
            if work == "density":
                result = flow.log_prob(images)
            else:
                result = flow.sample(large, seed=i)
        result.numpy()
        return steps * large

    return run


def main():
    job = json.loads(sys.argv[1])
    versions = {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "keras_gen": keras_gen.__version__,
    }
    interleave.serve(
        lambda case: build(case, job["steps"]), job["cases"], versions
    )


if __name__ == "__main__":
    main()
