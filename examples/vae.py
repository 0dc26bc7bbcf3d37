"""Trains a VAE, watches its samples, measures its likelihood, and exports it.

python examples/vae.py --dataset=fashion_mnist --binarize=dynamic --epochs=60
"""

import os
import time

import keras
import numpy as np
from absl import app, flags

from keras_gen import VAE, callbacks, datasets, networks

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "mnist_5k", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_string("output_dir", "run/vae", "Where everything is written.")
flags.DEFINE_enum("binarize", None, ["static", "dynamic"], "Black and white.")
flags.DEFINE_string("likelihood", "bernoulli", "p(x given z), see VAE.")
flags.DEFINE_integer("latent_dim", 40, "Dimensions of z.")
flags.DEFINE_multi_integer("hidden_dims", [300, 300], "Gated hidden layers.")
flags.DEFINE_integer("epochs", 20, "Passes over the training data.")
flags.DEFINE_integer("batch_size", 128, "Images per step.")
flags.DEFINE_float("learning_rate", 1e-3, "Adam's; decays to a tenth.")
flags.DEFINE_integer("num_samples", 100, "Importance samples of log_prob.")
flags.DEFINE_integer("seed", 0, "Of weights, data order and noise.")


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
    shape, latent_dim = datasets.image_shape(train), FLAGS.latent_dim
    hidden_dims = FLAGS.hidden_dims
    maps = shape[-1] * (1 if FLAGS.likelihood == "bernoulli" else 2)
    vae = VAE(
        shape,
        latent_dim,
        likelihood=FLAGS.likelihood,
        encoder=networks.mlp_encoder(
            shape, 2 * latent_dim, hidden_dims, gated=True
        ),
        decoder=networks.mlp_decoder(
            latent_dim, shape, hidden_dims, gated=True, output_channels=maps
        ),
        seed=FLAGS.seed,
    )
    steps = max(1, FLAGS.epochs * len(train))
    decay = keras.optimizers.schedules.CosineDecay
    vae.compile(keras.optimizers.Adam(decay(FLAGS.learning_rate, steps, 0.1)))
    watch = [
        callbacks.SampleGrid(folder),
        callbacks.ReconstructionGrid(folder, test),
        callbacks.Checkpoint(os.path.join(folder, "checkpoints")),
    ]
    began = time.time()
    vae.fit(train, epochs=FLAGS.epochs, validation_data=test, callbacks=watch)
    print(f"trained for {time.time() - began:.0f} s")
    print("test", vae.evaluate(test, verbose=0, return_dict=True))
    k = FLAGS.num_samples
    nats = [vae.log_prob(x, num_samples=k, seed=FLAGS.seed) for x in test]
    print(f"test log_prob, {k} samples: {np.mean(np.concatenate(nats)):.2f}")
    vae.save(os.path.join(folder, "vae.keras"))
    vae.export(os.path.join(folder, "serving"))
    print(f"samples: {folder}/samples.png, SavedModel: {folder}/serving")


if __name__ == "__main__":
    app.run(main)
