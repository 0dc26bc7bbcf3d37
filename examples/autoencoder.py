"""Trains an autoencoder of any kind, and compares it with PCA.

python examples/autoencoder.py --dataset=fashion_mnist --epochs=60
python examples/autoencoder.py --latent_dim=1000 --sparsity=0.05
"""

import time

import keras
import numpy as np
from absl import app, flags

from keras_gen import PCA, Autoencoder, callbacks, datasets
from keras_gen.layers import MaskingNoise, SaltAndPepper

NOISES = {"masking": MaskingNoise, "salt_and_pepper": SaltAndPepper}
FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "mnist_5k", "See datasets.load.")
flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")
flags.DEFINE_string("output_dir", "run/autoencoder", "Of all that is written.")
flags.DEFINE_integer("latent_dim", 32, "Numbers in a code.")
flags.DEFINE_bool("linear", False, "Networks of one linear layer each.")
flags.DEFINE_enum("corruption", None, list(NOISES), "Denoising.")
flags.DEFINE_float("noise", 0.2, "Share of the values that it changes.")
flags.DEFINE_float("sparsity", None, "Target of the mean activity.")
flags.DEFINE_bool("k_sparse", False, "Keep a twentieth of each code.")
flags.DEFINE_float("contractive", 0.0, "Weight of the code's Jacobian.")
flags.DEFINE_float("code_noise", 0.0, "Stochastic encoder.")
flags.DEFINE_string("likelihood", None, "Stochastic decoder, see VAE.")
flags.DEFINE_integer("epochs", 20, "Passes over the training data.")
flags.DEFINE_integer("batch_size", 128, "Images per step.")
flags.DEFINE_float("learning_rate", 1e-3, "Adam's; decays to nothing.")
flags.DEFINE_integer("seed", 0, "Of weights, data order and noise.")


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    name, size, folder = FLAGS.dataset, FLAGS.batch_size, FLAGS.data_dir
    train = datasets.load(name, "train", batch_size=size, data_dir=folder)
    test = datasets.load(name, "test", batch_size=size, data_dir=folder)
    folder = FLAGS.output_dir
    shape = datasets.image_shape(train)
    pca = PCA(shape, min(FLAGS.latent_dim, np.prod(shape)))
    pca.compile()
    pca.fit(train, verbose=0)
    print("PCA test", pca.evaluate(test, verbose=0, return_dict=True))
    noise = NOISES.get(FLAGS.corruption)
    names = ("linear", "contractive", "code_noise", "likelihood", "seed")
    model = Autoencoder(
        shape,
        FLAGS.latent_dim,
        corruption=noise and noise(FLAGS.noise, seed=FLAGS.seed),
        sparsity="k-sparse" if FLAGS.k_sparse else FLAGS.sparsity,
        **{name: FLAGS[name].value for name in names},
    )
    steps = max(1, FLAGS.epochs * len(train))
    decay = keras.optimizers.schedules.CosineDecay(FLAGS.learning_rate, steps)
    model.compile(keras.optimizers.Adam(decay))
    pictures = callbacks.ReconstructionGrid(folder, test)
    watch = [pictures, callbacks.Checkpoint(f"{folder}/checkpoints")]
    began = time.time()
    model.fit(train, epochs=FLAGS.epochs, validation_data=test, callbacks=watch)
    print(f"trained for {time.time() - began:.0f} s")
    print("test", model.evaluate(test, verbose=0, return_dict=True))
    if FLAGS.linear:
        found = np.linalg.qr(model.decoder.get_weights()[0].T)[0]
        cosines = np.linalg.svd(pca.components.numpy() @ found)[1]
        degrees = np.degrees(np.arccos(np.clip(cosines, 0, 1).min()))
        print(f"largest angle to the principal subspace: {degrees:.1f} degrees")
    model.save(f"{folder}/autoencoder.keras")
    model.export(f"{folder}/serving")
    print(f"pictures: {folder}/reconstructions.png")


if __name__ == "__main__":
    app.run(main)
