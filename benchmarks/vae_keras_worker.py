"""The TensorFlow sides of train_step.py: `fit`, and the bare mathematics.

`fit` is what a user writes, with the defaults of the package. The bare side
is the same networks, mathematics and data in a loop that calls one
`tf.function` a step, with or without XLA: what is left when the model, its
distributions, its metrics and `fit` are taken away. It is started by
train_step.py.
"""

import json
import sys

import interleave
import keras
import numpy as np
import tensorflow as tf

import keras_gen
from keras_gen import networks

IMAGE_SHAPE = (28, 28, 1)
LATENT_DIM = 32


def encoder_and_decoder(case):
    if case == "mlp":
        return (
            networks.mlp_encoder(
                IMAGE_SHAPE, 2 * LATENT_DIM, hidden_dims=(512, 256)
            ),
            networks.mlp_decoder(
                LATENT_DIM, IMAGE_SHAPE, hidden_dims=(256, 512)
            ),
        )
    return (
        networks.conv_encoder(IMAGE_SHAPE, 2 * LATENT_DIM, filters=(32, 64)),
        networks.conv_decoder(LATENT_DIM, IMAGE_SHAPE, filters=(64, 32)),
    )


def load(job):
    """The data set that a user would give to `fit`."""
    if job["dataset"]:
        return keras_gen.datasets.load(
            job["dataset"], job["split"], batch_size=job["batch_size"]
        )
    x = np.load(job["pixels"])
    dataset = tf.data.Dataset.from_tensor_slices(x).shuffle(len(x), seed=0)
    return dataset.batch(job["batch_size"]).prefetch(tf.data.AUTOTUNE)


def fit(case, dataset, num_images):
    encoder, decoder = encoder_and_decoder(case)
    model = keras_gen.VAE(
        IMAGE_SHAPE, LATENT_DIM, encoder=encoder, decoder=decoder, seed=0
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-3))

    def run():
        model.fit(dataset, epochs=1, verbose=0)
        return num_images

    return run


def bare_loop(case, dataset, num_images, jit_compile):
    encoder, decoder = encoder_and_decoder(case)
    weights = encoder.trainable_weights + decoder.trainable_weights
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(weights)

    @tf.function(jit_compile=jit_compile)
    def step(x):
        with tf.GradientTape() as tape:
            loc, scale = tf.split(encoder(x, training=True), 2, axis=-1)
            scale = tf.nn.softplus(scale) + 1e-5
            z = loc + scale * tf.random.normal(tf.shape(loc))
            logits = decoder(z, training=True)
            reconstruction = -tf.reduce_sum(
                tf.nn.sigmoid_cross_entropy_with_logits(x, logits), (1, 2, 3)
            )
            kl = tf.reduce_sum(
                0.5 * (loc**2 + scale**2 - 1) - tf.math.log(scale), axis=1
            )
            loss = tf.reduce_mean(kl - reconstruction)
        optimizer.apply(tape.gradient(loss, weights), weights)
        return loss

    def run():
        for x in dataset:
            loss = step(x)
        loss.numpy()
        return num_images

    return run


def main():
    job = json.loads(sys.argv[1])
    keras.utils.set_random_seed(0)
    dataset = load(job)

    def build(case):
        if job["side"] == "keras_gen fit":
            return fit(case, dataset, job["num_images"])
        xla = job["side"] == "bare tf.function, XLA"
        return bare_loop(case, dataset, job["num_images"], xla)

    versions = {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "keras_gen": getattr(keras_gen, "__version__", "?"),
    }
    interleave.serve(build, job["cases"], versions)


if __name__ == "__main__":
    main()
