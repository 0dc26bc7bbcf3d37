"""Trains a PixelCNN, whose likelihood is exact, and draws images from caches.

python examples/pixel_cnn.py --dataset=fashion_mnist --num_filters=32
python examples/pixel_cnn.py --likelihood=bernoulli --binarize=dynamic
"""

import os
import time

import keras
import numpy as np
from absl import app, flags

from keras_gen import PixelCNN, callbacks, datasets
from keras_gen.distributions import bits_per_dim

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "mnist_5k", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_string("output_dir", "run/pixel_cnn", "Where all is written.")
flags.DEFINE_enum("binarize", None, ["static", "dynamic"], "Black and white.")
flags.DEFINE_string("likelihood", "categorical", "See PixelCNN.")
flags.DEFINE_integer("num_filters", 64, "Features of each stack.")
flags.DEFINE_integer("num_layers", 7, "Layers of each stack.")
flags.DEFINE_integer("kernel_size", 3, "Odd, of all layers but the first.")
flags.DEFINE_integer("first_kernel_size", 7, "Odd, of the first layer.")
flags.DEFINE_integer("num_classes", None, "If conditional on the labels.")
flags.DEFINE_integer("epochs", 10, "Passes over the training data.")
flags.DEFINE_integer("batch_size", 8, "Images per step: few learn faster.")
flags.DEFINE_float("learning_rate", 2e-3, "Adam's; decays to a hundredth.")
flags.DEFINE_string("dtype", "float32", "Or 'mixed_bfloat16', which is faster.")
flags.DEFINE_integer("seed", 0, "Of weights, data order and draws.")


def load(split):
    return datasets.load(
        FLAGS.dataset,
        split,
        batch_size=FLAGS.batch_size,
        labels=bool(FLAGS.num_classes),
        binarize=FLAGS.binarize,
        data_dir=FLAGS.data_dir,
    )


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    keras.config.set_dtype_policy(FLAGS.dtype)
    train, test, folder = load("train"), load("test"), FLAGS.output_dir
    model = PixelCNN(
        datasets.image_shape(train),
        FLAGS.num_filters,
        FLAGS.num_layers,
        likelihood=FLAGS.likelihood,
        num_classes=FLAGS.num_classes,
        kernel_size=FLAGS.kernel_size,
        first_kernel_size=FLAGS.first_kernel_size,
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
    test = test.map(lambda x, *y: x)
    nats = np.concatenate([model.log_prob(x) for x in test])
    bits = bits_per_dim(nats, model.image_shape).mean()
    error = nats.std() / len(nats) ** 0.5
    print(f"test log_prob: {nats.mean():.2f} +- {error:.2f} nats per image")
    print(f"test bits per dimension: {bits:.4f}")
    model.save(os.path.join(folder, "pixel_cnn.keras"))
    model.export(os.path.join(folder, "serving"))
    print(f"samples: {folder}/samples.png, SavedModel: {folder}/serving")


if __name__ == "__main__":
    app.run(main)
