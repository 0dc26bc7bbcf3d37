"""Learns classes from 100 labels and many images without a label, as a GAN.

python examples/semi_supervised_gan.py --dataset=fashion_mnist --num_draws=3
"""

import time

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

from keras_gen import SemiSupervisedGAN, callbacks, datasets

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "mnist_5k", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_string("output_dir", "run/semi_supervised_gan", "For all files.")
flags.DEFINE_integer("num_labels", 10, "Labelled images of each class.")
flags.DEFINE_integer("num_draws", 1, "Draws of the labels, whose mean counts.")
flags.DEFINE_integer("epochs", 20, "Passes over the images without a label.")
flags.DEFINE_integer("batch_size", 64, "Images without a label per step.")
flags.DEFINE_float("learning_rate", 1e-3, "Of all Adams, at first.")
flags.DEFINE_integer("seed", 0, "Of the labels, weights, order and noise.")


def load(split):
    options = {"batch_size": FLAGS.batch_size, "data_dir": FLAGS.data_dir}
    data = datasets.load(FLAGS.dataset, split, labels=True, **options)
    return [np.concatenate(part) for part in zip(*data, strict=True)]


def mixed(x, y, known):
    """Batches of `x` without labels, and a quarter as many known beside."""
    few, slices = FLAGS.batch_size // 4, tf.data.Dataset.from_tensor_slices
    labelled = slices((x[known], y[known])).shuffle(len(known), FLAGS.seed)
    rest = slices((x, np.full_like(y, -1))).shuffle(len(x), FLAGS.seed)
    rest = rest.batch(FLAGS.batch_size, drop_remainder=True)
    return tf.data.Dataset.zip(labelled.repeat().batch(few), rest).map(
        lambda *both: tuple(tf.concat(p, 0) for p in zip(*both, strict=True))
    )


def adam(num_steps):
    """Adam, whose rate falls to zero along a line."""
    rate = keras.optimizers.schedules.PolynomialDecay(
        FLAGS.learning_rate, max(1, num_steps), end_learning_rate=0.0
    )
    return keras.optimizers.Adam(rate, beta_1=0.5)


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    (x, y), test, folder = load("train"), load("test"), FLAGS.output_dir
    test = {"x": test[0], "y": test[1], "verbose": 0, "return_dict": True}
    num_classes, began, scores = int(y.max()) + 1, time.time(), []
    for draw in range(FLAGS.num_draws):
        order = np.random.default_rng(FLAGS.seed + draw).permutation(len(y))
        each = [order[y[order] == c] for c in range(num_classes)]
        known = np.concatenate([c[: FLAGS.num_labels] for c in each])
        gan = SemiSupervisedGAN(x.shape[1:], 64, num_classes, seed=draw)
        # The same network, of labels alone.
        alone = keras.models.clone_model(gan.discriminator)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        alone.compile(adam(500), loss, metrics=["accuracy"])
        few = tf.data.Dataset.from_tensors((2 * x[known] - 1, y[known]))
        alone.fit(few.repeat(500), verbose=0)
        num_steps = FLAGS.epochs * (len(x) // FLAGS.batch_size)
        gan.compile(adam(num_steps), adam(num_steps))
        grid = callbacks.SampleGrid(folder)
        gan.fit(mixed(x, y, known), epochs=FLAGS.epochs, callbacks=[grid])
        logs = alone.evaluate(**{**test, "x": 2 * test["x"] - 1})
        scores.append([logs["accuracy"], gan.evaluate(**test)["accuracy"]])
        print(f"accuracy of labels alone, of all: {np.round(scores[-1], 4)}")
    print(f"trained for {time.time() - began:.0f} s")
    print(f"mean of {len(scores)} draws: {np.mean(scores, axis=0).round(4)}")
    gan.save(f"{folder}/semi_supervised_gan.keras")
    gan.export(f"{folder}/serving")
    print(f"samples: {folder}/samples.png, SavedModel: {folder}/serving")


if __name__ == "__main__":
    app.run(main)
