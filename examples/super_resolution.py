"""Draws large images given small ones, or colours given grey, by a PixelCNN.

python examples/super_resolution.py --dataset=emoji_images/fluent_64 --size=32
python examples/super_resolution.py --task=colour --dataset=FOLDER --size=32
"""

import time

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from keras import layers

from keras_gen import PixelCNN, callbacks, datasets, images

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "mnist_5k", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_string("output_dir", "run/super_resolution", "Where to write.")
flags.DEFINE_enum("task", "enlarge", ["enlarge", "colour"], "What is missing.")
flags.DEFINE_integer("size", None, "Height and width that images are cut to.")
flags.DEFINE_integer("factor", 4, "How much smaller the small images are.")
flags.DEFINE_integer("num_filters", 64, "Features of each stack.")
flags.DEFINE_integer("epochs", 10, "Passes over the training data.")
flags.DEFINE_integer("batch_size", 32, "Images per step.")
flags.DEFINE_integer("seed", 0, "Of weights, data order and draws.")


def known_part(x):
    """What the model is given of images: their small, or grey, versions."""
    if FLAGS.task == "colour":
        return tf.reduce_mean(x, axis=-1, keepdims=True)
    return tf.nn.avg_pool2d(x, FLAGS.factor, FLAGS.factor, "VALID")


def load(split):
    options = {"image_size": FLAGS.size, "data_dir": FLAGS.data_dir}
    options["batch_size"] = FLAGS.batch_size
    dataset = datasets.load(FLAGS.dataset, split, **options)
    return dataset.map(lambda x: (x, layers.Flatten()(known_part(x))))


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    train, test, folder = load("train"), load("test"), FLAGS.output_dir
    x, condition = next(iter(test))
    shape, small = x.shape[1:], known_part(x).shape[1:]
    factor, width = shape[0] // small[0], condition.shape[1]
    conv = {"padding": "same", "activation": "relu"}
    condition_network = [
        *(keras.Input((width,)), layers.Reshape(small)),
        *(layers.UpSampling2D(factor), layers.Conv2D(32, 5, **conv)),
    ]
    model = PixelCNN(
        *(shape, FLAGS.num_filters),
        likelihood="discretized_logistic",
        condition_dim=width,
        condition_network=keras.Sequential(condition_network),
        seed=FLAGS.seed,
    )
    model.compile(keras.optimizers.Adam(1e-3))
    resume = callbacks.Checkpoint(f"{folder}/checkpoints")
    began, watch = time.time(), {"validation_data": test, "callbacks": [resume]}
    model.fit(train, epochs=FLAGS.epochs, **watch)
    print(f"trained for {time.time() - began:.0f} s")
    x, condition = x[:16], tf.repeat(condition[:16], 2, axis=0)
    draws = model.sample(len(condition), condition=condition, seed=FLAGS.seed)
    coarse = np.repeat(np.repeat(known_part(x), factor, 1), factor, 2)
    shown = [np.broadcast_to(coarse, x.shape), draws[::2], draws[1::2], x]
    shown = np.stack(shown, axis=1).reshape(-1, *shape)
    images.save_grid(shown, f"{folder}/samples.png", num_columns=8)
    model.save(f"{folder}/super_resolution.keras")
    model.export(f"{folder}/serving")
    print(f"given, two draws, truth: samples: {folder}/samples.png")


if __name__ == "__main__":
    app.run(main)
