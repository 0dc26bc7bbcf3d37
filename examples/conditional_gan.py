"""Trains a GAN on labelled images and draws every class in a row of its own.

python examples/conditional_gan.py --dataset=fashion_mnist --epochs=10
"""

import os
import time

import keras
import numpy as np
from absl import app, flags

from keras_gen import GAN, callbacks, datasets, losses

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "mnist_5k", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_string("output_dir", "run/conditional_gan", "For all results.")
flags.DEFINE_integer("num_classes", 10, "Classes of the data set.")
flags.DEFINE_enum(
    "conditioning",
    "projection",
    ["projection", "concat", "auxiliary"],
    "How the networks take the class, see GAN.",
)
flags.DEFINE_integer("latent_dim", 64, "Dimensions of z.")
flags.DEFINE_string("loss", "non_saturating", "See GAN.compile.")
flags.DEFINE_float("r1", 0.5, "Weight of the R1 penalty.")
flags.DEFINE_integer("epochs", 20, "Passes over the training data.")
flags.DEFINE_integer("batch_size", 16, "Images per step.")
flags.DEFINE_float("learning_rate", 1e-3, "Of both Adams.")
flags.DEFINE_integer("seed", 0, "Of weights, data order and noise.")


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    train = datasets.load(
        FLAGS.dataset,
        "train",
        labels=True,
        batch_size=FLAGS.batch_size,
        shuffle_seed=FLAGS.seed,
        data_dir=FLAGS.data_dir,
    )
    gan = GAN(
        datasets.image_shape(train),
        FLAGS.latent_dim,
        num_classes=FLAGS.num_classes,
        conditioning=FLAGS.conditioning,
        seed=FLAGS.seed,
    )
    gan.compile(
        *(
            keras.optimizers.Adam(FLAGS.learning_rate, 0.0, 0.99)
            for _ in range(2)
        ),
        loss=FLAGS.loss,
        gradient_penalty=losses.R1(FLAGS.r1) if FLAGS.r1 else None,
    )
    folder = FLAGS.output_dir
    classes = np.arange(64) // 8 % FLAGS.num_classes  # a row each
    watch = [
        callbacks.SampleGrid(folder, num_samples=64, condition=classes),
        callbacks.Checkpoint(os.path.join(folder, "checkpoints")),
    ]
    began = time.time()
    gan.fit(train, epochs=FLAGS.epochs, callbacks=watch)
    print(f"trained for {time.time() - began:.0f} s")
    gan.save(os.path.join(folder, "conditional_gan.keras"))
    gan.export(os.path.join(folder, "serving"))
    print(f"samples: {folder}/samples.png, SavedModel: {folder}/serving")


if __name__ == "__main__":
    app.run(main)
