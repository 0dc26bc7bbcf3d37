"""Trains a model of binary images whose likelihood is exact, and draws images.

python examples/nade.py --model=made --dataset=fashion_mnist --binarize=dynamic
python examples/nade.py --num_orders=8  # a NADE of any order of the pixels
"""

import os
import time

import keras
import numpy as np
from absl import app, flags

from keras_gen import FVBN, MADE, NADE, callbacks, datasets

FLAGS = flags.FLAGS
flags.DEFINE_enum("model", "nade", ["fvbn", "nade", "made"], "Which model.")
flags.DEFINE_string("dataset", "mnist_5k", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_string("output_dir", "run/nade", "Where everything is written.")
flags.DEFINE_enum("binarize", "static", ["static", "dynamic"], "How.")
flags.DEFINE_multi_integer("hidden_dim", [500], "Units; MADE: of each layer.")
flags.DEFINE_integer("num_orders", 1, "Of NADE; masks and orders of MADE.")
flags.DEFINE_integer("epochs", 30, "Passes over the training data.")
flags.DEFINE_integer("batch_size", 128, "Images per step.")
flags.DEFINE_float("learning_rate", 3e-3, "Adam's; decays to a tenth.")
flags.DEFINE_integer("seed", 0, "Of weights, data order and draws.")


def load(split):
    return datasets.load(
        FLAGS.dataset,
        split,
        batch_size=FLAGS.batch_size,
        binarize=FLAGS.binarize,
        data_dir=FLAGS.data_dir,
    )


def make(shape):
    hidden_dims, count = FLAGS.hidden_dim, FLAGS.num_orders
    if FLAGS.model == "fvbn":
        return FVBN(shape, seed=FLAGS.seed)
    if FLAGS.model == "nade":
        return NADE(shape, hidden_dims[0], num_orders=count, seed=FLAGS.seed)
    masks = {"num_masks": count, "shuffle_order": count > 1}
    return MADE(shape, hidden_dims, **masks, seed=FLAGS.seed)


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    train, test, folder = load("train"), load("test"), FLAGS.output_dir
    model = make(datasets.image_shape(train))
    steps = max(1, FLAGS.epochs * len(train))
    decay = keras.optimizers.schedules.CosineDecay
    model.compile(keras.optimizers.Adam(decay(FLAGS.learning_rate, steps, 0.1)))
    watch = [
        callbacks.SampleGrid(folder),
        callbacks.Checkpoint(os.path.join(folder, "checkpoints")),
    ]
    began = time.time()
    model.fit(train, validation_data=test, epochs=FLAGS.epochs, callbacks=watch)
    print(f"trained for {time.time() - began:.0f} s")
    nats = np.concatenate([model.log_prob(x) for x in test])
    error = nats.std() / len(nats) ** 0.5
    print(f"test log_prob: {nats.mean():.2f} +- {error:.2f} nats per image")
    model.save(os.path.join(folder, "nade.keras"))
    model.export(os.path.join(folder, "serving"))
    print(f"samples: {folder}/samples.png, SavedModel: {folder}/serving")


if __name__ == "__main__":
    app.run(main)
