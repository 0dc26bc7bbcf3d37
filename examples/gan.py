"""Trains a GAN, watches its samples, and exports its generator.

python examples/gan.py --dataset=fashion_mnist --epochs=6
"""

import os
import time

import keras
from absl import app, flags

from keras_gen import GAN, callbacks, datasets

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "mnist_5k", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_string("output_dir", "run/gan", "Where everything is written.")
flags.DEFINE_integer("image_size", None, "Resize images to this; 16 to 64.")
flags.DEFINE_integer("latent_dim", 64, "Dimensions of z.")
flags.DEFINE_string("loss", "non_saturating", "See GAN.compile.")
flags.DEFINE_float("gradient_penalty", None, "Weight of the penalty.")
flags.DEFINE_integer("d_steps", 1, "Discriminator updates per step.")
flags.DEFINE_integer("epochs", 20, "Passes over the training data.")
flags.DEFINE_integer("batch_size", 64, "Images per step.")
flags.DEFINE_float("learning_rate", 2e-4, "Of both Adams.")
flags.DEFINE_integer("seed", 0, "Of weights, data order and noise.")


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    train = datasets.load(
        FLAGS.dataset,
        "train",
        image_size=FLAGS.image_size,
        batch_size=FLAGS.batch_size,
        shuffle_seed=FLAGS.seed,
        data_dir=FLAGS.data_dir,
    )
    gan = GAN(datasets.image_shape(train), FLAGS.latent_dim, seed=FLAGS.seed)
    gan.compile(
        d_optimizer=keras.optimizers.Adam(FLAGS.learning_rate, beta_1=0.5),
        g_optimizer=keras.optimizers.Adam(FLAGS.learning_rate, beta_1=0.5),
        loss=FLAGS.loss,
        gradient_penalty=FLAGS.gradient_penalty,
        d_steps=FLAGS.d_steps,
    )
    folder = FLAGS.output_dir
    watch = [
        callbacks.SampleGrid(folder, every_steps=500),
        callbacks.Checkpoint(os.path.join(folder, "checkpoints")),
    ]
    began = time.time()
    gan.fit(train, epochs=FLAGS.epochs, callbacks=watch)
    print(f"trained for {time.time() - began:.0f} s")
    gan.save(os.path.join(folder, "gan.keras"))
    gan.export(os.path.join(folder, "serving"))
    print(f"samples: {folder}/samples.png, SavedModel: {folder}/serving")


if __name__ == "__main__":
    app.run(main)
