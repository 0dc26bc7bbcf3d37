"""Counts the modes that a GAN finds, where all of them are known.

python examples/toy_modes.py --dataset=ring --unrolled_steps=10
"""

import time

import keras
import numpy as np
from absl import app, flags
from keras import initializers, layers

from keras_gen import GAN, datasets, images, losses, metrics
from keras_gen.datasets import toys
from keras_gen.layers import MinibatchDiscrimination

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "ring", "'ring' or 'grid'; others train too.")
flags.DEFINE_string("output_dir", "run/toy_modes", "For all results.")
flags.DEFINE_integer("latent_dim", 256, "Dimensions of z.")
flags.DEFINE_multi_integer("g_dims", [128, 128], "Generator's layers.")
flags.DEFINE_multi_integer("d_dims", [128], "Discriminator's layers.")
flags.DEFINE_bool("minibatch", False, "Use minibatch discrimination.")
flags.DEFINE_integer("unrolled_steps", 0, "That the generator looks ahead.")
flags.DEFINE_string("loss", "non_saturating", "See GAN.compile.")
flags.DEFINE_float("gradient_penalty", None, "Its weight, at mixed points.")
flags.DEFINE_float("r1", None, "Weight of the R1 penalty instead.")
flags.DEFINE_integer("d_steps", 1, "Discriminator updates per step.")
flags.DEFINE_multi_float("rates", [1e-4, 1e-3], "Of D's and of G's Adam.")
flags.DEFINE_bool("decay", False, "Lower both rates to 0, along a cosine.")
flags.DEFINE_integer("epochs", 256, "Of 50,000 points.")
flags.DEFINE_integer("batch_size", 512, "Points per step.")
flags.DEFINE_integer("seed", 0, "Of weights, data order and noise.")


def dense(units, activation=None):
    return layers.Dense(units, activation, True, initializers.Orthogonal(0.8))


def adam(rate, num_steps):
    decay = keras.optimizers.schedules.CosineDecay(rate, max(1, num_steps))
    return keras.optimizers.Adam(decay if FLAGS.decay else rate, beta_1=0.5)


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    name, folder, seed = FLAGS.dataset, FLAGS.output_dir, FLAGS.seed
    train = datasets.load(name, "train", batch_size=FLAGS.batch_size)
    shape, known = datasets.image_shape(train), name in ("ring", "grid")
    # What [-1, 1] is in published coordinates, in which networks are given.
    side = toys.to_points(np.ones((1, *shape)), name)[0, 0] if known else 1.0
    generator = [keras.Input((FLAGS.latent_dim,))]
    generator += [dense(units, "relu") for units in FLAGS.g_dims]
    generator += [dense(int(np.prod(shape))), layers.Rescaling(1 / side)]
    judge = [keras.Input(shape), layers.Flatten(), layers.Rescaling(side / 4)]
    judge += [dense(units, "relu") for units in FLAGS.d_dims]
    judge += [MinibatchDiscrimination(4)] if FLAGS.minibatch else []
    networks = {
        "generator": keras.Sequential([*generator, layers.Reshape(shape)]),
        "discriminator": keras.Sequential([*judge, dense(1)]),
    }
    gan = GAN(shape, FLAGS.latent_dim, ema=None, seed=seed, **networks)
    penalty, steps = FLAGS.gradient_penalty, FLAGS.epochs * len(train)
    gan.compile(
        *map(adam, FLAGS.rates, (FLAGS.d_steps * steps, steps)),
        loss=FLAGS.loss,
        gradient_penalty=losses.R1(FLAGS.r1) if FLAGS.r1 else penalty,
        d_steps=FLAGS.d_steps,
        unrolled_steps=FLAGS.unrolled_steps,
    )
    began = time.time()
    gan.fit(train, epochs=FLAGS.epochs, verbose=2)
    print(f"trained for {time.time() - began:.0f} s")
    gan.export(f"{folder}/serving")
    gan.save(f"{folder}/toy_modes.keras")
    pictures = gan.sample(64, seed=seed)
    if known:
        found = metrics.ModeCoverage(toys.centers(name), toys.std(name))
        points = np.reshape(gan.sample(2500, seed=seed), (-1, 2))
        print(found(None, points))
        x, y = points.T
        dots = np.histogram2d(-y, x, 256, [[-1, 0], [0, 1]])[0] > 0
        pictures = dots[None, ..., None]  # y goes upwards
    images.save_grid(pictures, f"{folder}/samples.png")
    print(f"samples: {folder}/samples.png, SavedModel: {folder}/serving")


if __name__ == "__main__":
    app.run(main)
