"""Fits a mixture of Gaussians by EM, measures it, and fills in half images.

python examples/gaussian_mixture.py --dataset=fashion_mnist --num_components=25
"""

import os
import time

import keras
import numpy as np
from absl import app, flags

from keras_gen import (
    GaussianMixture,
    callbacks,
    datasets,
    distributions,
    images,
)

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "mnist_5k", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_string("output_dir", "run/gaussian_mixture", "For all results.")
flags.DEFINE_enum(
    "covariance", "full", ["full", "diagonal", "factor"], "Of each component."
)
flags.DEFINE_integer("num_components", 10, "How many Gaussians are mixed.")
flags.DEFINE_integer("num_factors", None, "Of factor analysers.")
flags.DEFINE_float("ridge", 0.0, "Variance added to each pixel.")
flags.DEFINE_integer("memory", None, "Images of running statistics, if any.")
flags.DEFINE_integer("epochs", 15, "Iterations of EM.")
flags.DEFINE_integer("batch_size", 1000, "Images per step.")
flags.DEFINE_integer("num_samples", 1, "Draws of the noise for log_prob.")
flags.DEFINE_integer("seed", 0, "Of the start, data order and noise.")


def load(split):
    return datasets.load(
        FLAGS.dataset,
        split,
        batch_size=FLAGS.batch_size,
        data_dir=FLAGS.data_dir,
    )


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    train, test, folder = load("train"), load("test"), FLAGS.output_dir
    shape = datasets.image_shape(train)
    mixture = GaussianMixture(
        shape,
        FLAGS.num_components,
        FLAGS.covariance,
        num_factors=FLAGS.num_factors,
        ridge=FLAGS.ridge,
        memory=FLAGS.memory,
        seed=FLAGS.seed,
    )
    mixture.compile()
    watch = [
        callbacks.SampleGrid(folder),
        callbacks.Checkpoint(os.path.join(folder, "checkpoints"), keep=1),
    ]
    began = time.time()
    mixture.fit(train, epochs=FLAGS.epochs, callbacks=watch)
    print(f"trained for {time.time() - began:.0f} s")
    verb = {"num_samples": FLAGS.num_samples, "seed": FLAGS.seed}
    nats = np.concatenate([mixture.log_prob(x, **verb) for x in test])
    bits = distributions.bits_per_dim(np.mean(nats), shape)
    print(f"test log_prob {np.mean(nats):.2f} nats, {bits:.3f} bits/dim")

    x = np.asarray(next(iter(test)))[:8]
    mask = np.arange(shape[0])[:, None, None] < shape[0] // 2  # upper half
    filled = np.array(mixture.impute(x, mask, num_samples=6, seed=FLAGS.seed))
    rows = np.stack([x, x * mask, *filled], axis=1)
    images.save_grid(rows.reshape(-1, *shape), f"{folder}/imputed.png")
    mixture.save(os.path.join(folder, "gaussian_mixture.keras"))
    mixture.export(os.path.join(folder, "serving"))
    print(f"samples: {folder}/samples.png, filled in: {folder}/imputed.png")


if __name__ == "__main__":
    app.run(main)
