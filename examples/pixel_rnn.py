"""Trains a PixelRNN of row or diagonal LSTMs, and draws images from caches.

python examples/pixel_rnn.py --kind=diagonal_bilstm --binarize=dynamic
"""

import os
import time

import keras
import numpy as np
from absl import app, flags

from keras_gen import PixelRNN, callbacks, datasets
from keras_gen.distributions import bits_per_dim

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "mnist_5k", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_string("output_dir", "run/pixel_rnn", "Where all is written.")
flags.DEFINE_enum("binarize", "static", ["static", "dynamic"], "How.")
flags.DEFINE_enum(
    "kind", "row_lstm", ["row_lstm", "diagonal_bilstm"], "Of LSTM."
)
flags.DEFINE_integer("hidden_dim", 16, "Width of the states.")
flags.DEFINE_integer("num_layers", 7, "Layers of LSTMs.")
flags.DEFINE_integer("epochs", 10, "Passes over the training data.")
flags.DEFINE_integer("batch_size", 16, "Images per step.")
flags.DEFINE_float("learning_rate", 2e-3, "Adam's; decays to a hundredth.")
flags.DEFINE_integer("seed", 0, "Of weights, data order and draws.")


def load(split):
    return datasets.load(
        FLAGS.dataset,
        split,
        batch_size=FLAGS.batch_size,
        binarize=FLAGS.binarize,
        data_dir=FLAGS.data_dir,
    )


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    train, test, folder = load("train"), load("test"), FLAGS.output_dir
    model = PixelRNN(
        datasets.image_shape(train),
        FLAGS.hidden_dim,
        FLAGS.num_layers,
        kind=FLAGS.kind,
        likelihood="bernoulli",
        seed=FLAGS.seed,
    )
    steps, decay = FLAGS.epochs * len(train), keras.optimizers.schedules
    decay = decay.CosineDecay(FLAGS.learning_rate, max(1, steps), 0.01)
    model.compile(keras.optimizers.Adam(decay))
    watch = [
        callbacks.SampleGrid(folder),
        callbacks.Checkpoint(os.path.join(folder, "checkpoints")),
    ]
    began = time.time()
    model.fit(train, validation_data=test, epochs=FLAGS.epochs, callbacks=watch)
    print(f"trained for {time.time() - began:.0f} s")
    nats = np.concatenate([model.log_prob(x) for x in test])
    bits = bits_per_dim(nats, model.image_shape).mean()
    error = nats.std() / len(nats) ** 0.5
    print(f"test log_prob: {nats.mean():.2f} +- {error:.2f} nats per image")
    print(f"test bits per dimension: {bits:.4f}")
    model.save(os.path.join(folder, "pixel_rnn.keras"))
    model.export(os.path.join(folder, "serving"))
    print(f"samples: {folder}/samples.png, SavedModel: {folder}/serving")


if __name__ == "__main__":
    app.run(main)
