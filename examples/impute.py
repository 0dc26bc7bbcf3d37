"""Completes images by a VAE, by PCA and by the mean image, and compares them.

python examples/impute.py --dataset=fashion_mnist --epochs=60
"""

import time

import keras
import numpy as np
from absl import app, flags

from keras_gen import VAE, callbacks, datasets, images

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "mnist_5k", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_string("output_dir", "run/impute", "Where all is written.")
flags.DEFINE_float("missing", 0.5, "Share of pixels that are missing.")
flags.DEFINE_integer("latent_dim", 64, "Dimensions of z.")
flags.DEFINE_float("beta", 0.3, "Weight of KL; with 1 few dimensions are used.")
flags.DEFINE_integer("epochs", 20, "Passes over the training data.")
flags.DEFINE_integer("batch_size", 128, "Images per step.")
flags.DEFINE_integer("num_samples", 16, "Draws an image, whose mean counts.")
flags.DEFINE_integer("num_steps", 100, "Steps of the Markov chain of a draw.")
flags.DEFINE_integer("seed", 0, "Of weights, data order, noise and masks.")


def load(split):
    options = {"batch_size": FLAGS.batch_size, "data_dir": FLAGS.data_dir}
    return datasets.load(FLAGS.dataset, split, **options)


def iterative_pca(train, x, mask):
    """Projects on the first 64 components, puts back what is known, repeats."""
    train, mean = train.reshape(len(train), -1), train.mean(axis=0)
    basis = np.linalg.eigh(np.cov(train.T))[1][:, -64:]
    filled = np.where(mask, x, mean)
    for _ in range(100):
        codes = (filled - mean).reshape(len(x), -1) @ basis
        filled = np.where(mask, x, mean + (codes @ basis.T).reshape(x.shape))
    return np.clip(filled, 0, 1)


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    train, test, folder = load("train"), load("test"), FLAGS.output_dir
    shape, seed = datasets.image_shape(train), FLAGS.seed
    options = {"likelihood": "discretized_logistic", "beta": FLAGS.beta}
    vae = VAE(shape, FLAGS.latent_dim, seed=seed, **options)
    steps = max(1, FLAGS.epochs * len(train))
    decay = keras.optimizers.schedules.CosineDecay(1e-3, steps, 0.1)
    vae.compile(keras.optimizers.Adam(decay))
    began, grid = time.time(), callbacks.SampleGrid(folder)
    vae.fit(train, epochs=FLAGS.epochs, callbacks=[grid])
    print(f"trained for {time.time() - began:.0f} s")
    vae.save(f"{folder}/impute.keras")
    vae.export(f"{folder}/serving")

    x = np.concatenate(list(test))[:1000]
    x_train = np.concatenate(list(train))
    mask = np.random.default_rng(seed).random(x.shape) >= FLAGS.missing
    chain = {"num_samples": FLAGS.num_samples, "num_steps": FLAGS.num_steps}
    draws = vae.impute(x, mask, seed=seed, **chain)
    filled = {
        "mean image": np.where(mask, x, x_train.mean(axis=0)),
        "iterative PCA": iterative_pca(x_train, x, mask),
        "VAE": np.mean(draws, axis=0),
    }
    for name, values in filled.items():
        rmse = np.sqrt(np.mean((values - x)[~mask] ** 2))
        print(f"RMSE of the missing pixels, {name}: {rmse:.4f}")
    rows = [x, np.where(mask, x, 0.5), *filled.values(), draws[0]]
    rows = np.concatenate([row[:16] for row in rows])
    images.save_grid(rows, f"{folder}/imputed.png", 16)
    print(f"samples: {folder}/samples.png, {folder}/imputed.png")


if __name__ == "__main__":
    app.run(main)
