"""Learns classes from 100 labels and many images without a label (M1+M2).

python examples/semi_supervised.py --dataset=fashion_mnist --num_draws=5
"""

import os
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

from keras_gen import VAE, SemiSupervisedVAE, callbacks, datasets, networks

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "mnist_5k", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_string("output_dir", "run/semi_supervised", "For all files.")
flags.DEFINE_integer("num_labels", 10, "Labelled images of each class.")
flags.DEFINE_integer("num_draws", 1, "Draws of the labels, whose mean counts.")
flags.DEFINE_bool("stacked", True, "Whether M2 sees M1's features: M1+M2.")
flags.DEFINE_integer("epochs", 10, "Passes over the images, of M1 and M2.")
flags.DEFINE_integer("batch_size", 128, "Images without a label per step.")
flags.DEFINE_integer("seed", 0, "Of the labels, weights, order and noise.")


def load(split):
    options = {"batch_size": FLAGS.batch_size, "data_dir": FLAGS.data_dir}
    data = datasets.load(FLAGS.dataset, split, labels=True, **options)
    return [np.concatenate(part) for part in zip(*data, strict=True)]


def mixed(x, y, known):
    """Batches of `x` without labels, and beside them some that are known."""
    few, slices = FLAGS.batch_size // 8 + 1, tf.data.Dataset.from_tensor_slices
    labelled = slices((x[known], y[known])).shuffle(len(known), FLAGS.seed)
    rest = slices((x, np.full_like(y, -1))).shuffle(len(x), FLAGS.seed)
    rest = rest.batch(FLAGS.batch_size, drop_remainder=True)
    return tf.data.Dataset.zip(labelled.repeat().batch(few), rest).map(
        lambda *both: tuple(tf.concat(p, 0) for p in zip(*both, strict=True))
    )


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    (x, y), test, folder = load("train"), load("test"), FLAGS.output_dir
    shape, num_classes, began = x.shape[1:], int(y.max()) + 1, time.time()
    m1, test = None, {"x": test[0], "y": test[1], "return_dict": True}
    if FLAGS.stacked:
        m1 = VAE(shape, 40, likelihood="discretized_logistic", seed=FLAGS.seed)
        m1.compile()
        m1.fit(x, batch_size=FLAGS.batch_size, epochs=FLAGS.epochs)
    scores, grid = [], callbacks.SampleGrid(folder)
    for draw in range(FLAGS.num_draws):
        order = np.random.default_rng(FLAGS.seed + draw).permutation(len(y))
        each = [order[y[order] == c] for c in range(num_classes)]
        known = np.concatenate([c[: FLAGS.num_labels] for c in each])
        m2 = SemiSupervisedVAE(shape, 10, num_classes, features=m1, seed=draw)
        m2.compile()
        m2.fit(mixed(x, y, known), epochs=FLAGS.epochs, callbacks=[grid])
        alone = networks.mlp_encoder(shape, num_classes, (500,))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        alone.compile("adam", loss, metrics=["accuracy"])
        few = tf.data.Dataset.from_tensor_slices((x[known], y[known]))
        # 200 passes in one epoch, since to begin one takes longer than a step.
        few = few.shuffle(len(known)).repeat(200).batch(100)
        alone.fit(few, verbose=0)
        models = (alone, m2)
        scores.append([m.evaluate(**test)["accuracy"] for m in models])
        print(f"accuracy of labels alone, of M2: {np.round(scores[-1], 4)}")
    print(f"trained for {time.time() - began:.0f} s")
    print(f"mean of {len(scores)} draws: {np.mean(scores, axis=0).round(4)}")
    m2.save(os.path.join(folder, "semi_supervised.keras"))
    m2.export(os.path.join(folder, "serving"))
    print(f"samples: {folder}/samples.png")


if __name__ == "__main__":
    app.run(main)
