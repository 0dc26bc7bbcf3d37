"""What importance samples and the variants of a VAE cost.

    python benchmarks/vae.py

The first table compares the gradient of the importance-weighted bound, k
latents an image, with one pass of the decoder over as many latents and
nothing else: forward, Bernoulli likelihood and backward, an image beside each
latent. The bound's own work is the encoder, the draws, their densities and
weights. The second table has the training step of each variant, by `fit`.
Sides take turns, in an order shuffled in each round; medians are printed, and
of the ratios also the lowest and highest round. Read those of processor time
when the machine has other work.
"""

import os
import random
import statistics
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

from keras_gen import VAE, networks

IMAGE_SHAPE = (28, 28, 1)
LATENT_DIM = 50

flags.DEFINE_integer("batch_size", 128, "Images a step.", lower_bound=1)
flags.DEFINE_integer("k", 50, "Importance samples an image.", lower_bound=1)
flags.DEFINE_integer("steps", 5, "Steps a repeat of the first table.")
flags.DEFINE_integer("images", 6400, "Images a repeat of the second table.")
flags.DEFINE_integer("repeats", 7, "Repeats of every side.", lower_bound=1)
flags.DEFINE_bool("variants", True, "Whether to time the variants too.")
FLAGS = flags.FLAGS

VARIANTS = {
    "elbo": {},
    "iwae, k=5": {"objective": "iwae", "num_importance_samples": 5},
    "iwae, k=5, doubly reparameterized": {
        "objective": "iwae",
        "num_importance_samples": 5,
        "doubly_reparameterized": True,
    },
    "free bits, warm-up": {"free_bits": 0.1, "beta_warmup_steps": 1000},
    "full posterior": {"posterior": "full"},
    "mixture posterior": {"posterior": "mixture"},
    "flow posterior": {"posterior": "flow"},
    "mixture prior": {"prior": "mixture"},
    "VampPrior": {"prior": "vamp"},
    "two layers": {"latent_dim": (100, 50)},
    "categorical latents": {"latent": "categorical", "latent_dim": 20},
    "10 classes": {"num_classes": 10},
    "gaussian likelihood": {"likelihood": "gaussian"},
    "discretized logistic": {"likelihood": "discretized_logistic"},
    "categorical likelihood": {"likelihood": "categorical"},
}


def interleaved(sides, repeats):
    """(seconds, processor seconds) of every repeat, by side."""
    for run in sides.values():
        run()  # compiles
        run()
    seconds = {name: [] for name in sides}
    for _ in range(repeats):
        for name in random.sample(list(sides), len(sides)):
            start = time.perf_counter(), time.process_time()
            sides[name]()
            seconds[name].append(
                (
                    time.perf_counter() - start[0],
                    time.process_time() - start[1],
                )
            )
    return seconds


def binary_images(num_images):
    x = np.random.default_rng(0).random((num_images, *IMAGE_SHAPE))
    return np.round(x).astype("float32")


def importance_sides():
    """The two sides of the first table, `FLAGS.steps` gradients each."""
    vae = VAE(
        IMAGE_SHAPE,
        LATENT_DIM,
        objective="iwae",
        num_importance_samples=FLAGS.k,
        encoder=networks.mlp_encoder(
            IMAGE_SHAPE, 2 * LATENT_DIM, (200, 200), "tanh"
        ),
        decoder=networks.mlp_decoder(
            LATENT_DIM, IMAGE_SHAPE, (200, 200), "tanh"
        ),
        seed=0,
    )
    x = tf.constant(binary_images(FLAGS.batch_size))
    beside = tf.repeat(x, FLAGS.k, axis=0)
    z = tf.random.normal((len(beside), LATENT_DIM), seed=0)

    @tf.function(jit_compile=True)
    def bound():
        weights = vae.trainable_weights
        with tf.GradientTape() as tape:
            loss = vae.loss_terms(x, training=True)["loss"]
        return tf.reduce_mean(loss), tape.gradient(loss, weights)

    @tf.function(jit_compile=True)
    def decoder_pass():
        weights = vae.decoder.trainable_weights
        with tf.GradientTape() as tape:
            tape.watch(z)
            h = vae.decoder(z, training=True)
            loss = vae.pixels.log_prob(h, beside)
        return tf.reduce_mean(loss), tape.gradient(loss, [*weights, z])

    def repeated(step):
        def run():
            for _ in range(FLAGS.steps):
                loss, _ = step()
            loss.numpy()

        return run

    return {"bound": repeated(bound), "pass": repeated(decoder_pass)}


def variant_side(arguments):
    arguments = {"latent_dim": LATENT_DIM, **arguments}
    vae = VAE(IMAGE_SHAPE, seed=0, **arguments)
    vae.compile(keras.optimizers.Adam(1e-3))
    images = binary_images(FLAGS.images)
    data = tf.data.Dataset.from_tensor_slices(
        (images, np.arange(len(images)) % 10)
    )
    data = data.batch(FLAGS.batch_size, drop_remainder=True).cache()
    return lambda: vae.fit(data, epochs=1, verbose=0)


def print_importance(seconds):
    print("| time | bound, ms | decoder pass, ms | ratio | lowest | highest |")
    print("| --- | --- | --- | --- | --- | --- |")
    for i, kind in enumerate(("wall", "processor")):
        bound, one = ([r[i] for r in seconds[s]] for s in ("bound", "pass"))
        ratios = [a / b for a, b in zip(bound, one, strict=True)]
        middles = [
            f"{1000 * statistics.median(values) / FLAGS.steps:.1f}"
            for values in (bound, one)
        ]
        print(
            f"| {kind} | {' | '.join(middles)} "
            f"| {statistics.median(ratios):.3f} "
            f"| {min(ratios):.3f} | {max(ratios):.3f} |"
        )


def print_variants(seconds):
    print("| variant | ms a step | processor ms a step | times the first |")
    print("| --- | --- | --- | --- |")
    steps = FLAGS.images // FLAGS.batch_size
    first = None
    for name, repeats in seconds.items():
        wall, processor = (
            1000 * statistics.median(values) / steps
            for values in zip(*repeats, strict=True)
        )
        first = first or processor
        ratio = processor / first
        print(f"| {name} | {wall:.2f} | {processor:.2f} | {ratio:.2f} |")


def main(_):
    cores = len(os.sched_getaffinity(0))
    print(
        f"28x28 binary pixels, batch {FLAGS.batch_size}, k = {FLAGS.k}, "
        f"{cores} cores.\n"
    )
    print_importance(interleaved(importance_sides(), FLAGS.repeats))
    if FLAGS.variants:
        sides = {name: variant_side(args) for name, args in VARIANTS.items()}
        print()
        print_variants(interleaved(sides, FLAGS.repeats))


if __name__ == "__main__":
    app.run(main)
