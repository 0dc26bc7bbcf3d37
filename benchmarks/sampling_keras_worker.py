"""The TensorFlow sides of sampling.py, which starts it.

"products alone" multiplies matrices of 2,048 with as many operations as one
pass of the network has for each image: what a sampler could reach at best that
computes every feature once.
"""

import json
import math
import sys

import interleave
import keras
import tensorflow as tf

import keras_gen
from keras_gen import cached_sampling
from keras_gen.models.pixel_cnn import PixelCNN

IMAGE_SHAPE = (28, 28, 1)
NUM_PIXELS = 28 * 28
FILTERS, LAYERS = 64, 7
# Of the pixels, so many are timed where each takes a full pass.
TIMED_PIXELS = 14


def make_model():
    return PixelCNN(IMAGE_SHAPE, FILTERS, LAYERS, likelihood="bernoulli")


def flops_of_an_image():
    """Operations of one pass for an image: two for each product of a weight."""
    products = 0
    for layer in make_model().network._flatten_layers():
        if hasattr(layer, "kernel"):
            products += math.prod(layer.kernel.shape)
    return 2 * NUM_PIXELS * products


def full_passes(model, batch_size, jit_compile):
    """The loop of `sample(cached=False)`, for the first pixels alone."""

    def draw(seed):
        def draw_pixel(place, x):
            i, j = place // 28, place % 28
            logits = model.network(x)[:, i, j, 0]
            uniform = tf.random.stateless_uniform((batch_size,), seed + place)
            white = tf.cast(uniform < tf.sigmoid(logits), "float32")
            here = tf.reshape(tf.one_hot(place, NUM_PIXELS), (1, 28, 28, 1))
            return place + 1, x + here * white[:, None, None, None]

        return tf.while_loop(
            lambda place, _: place < TIMED_PIXELS,
            draw_pixel,
            (0, tf.zeros((batch_size, *IMAGE_SHAPE))),
            maximum_iterations=TIMED_PIXELS,
        )[1]

    draw = tf.function(draw, jit_compile=jit_compile, autograph=False)

    def run():
        draw(tf.constant([0, 1])).numpy()
        return batch_size * TIMED_PIXELS / NUM_PIXELS

    return run


def cached(model, batch_size):
    def run():
        model.sample(batch_size, seed=0).numpy()
        return batch_size

    return run


def products(batch_size):
    a = tf.random.normal((2048, 2048))
    multiply = tf.function(lambda a: tf.matmul(a, a))
    images = 20 * 2 * 2048**3 / flops_of_an_image()

    def run():
        for _ in range(20):
            b = multiply(a)
        b.numpy()
        return images

    return run


def main():
    job = json.loads(sys.argv[1])
    side = job["side"]
    keras.utils.set_random_seed(0)
    if side == "cached, one thread":
        cached_sampling._LEAST_IMAGES_A_PART = 2**20

    def build(case):
        batch_size = int(case.split()[1])
        if side.startswith("cached"):
            return cached(make_model(), batch_size)
        if side == "products alone":
            return products(batch_size)
        return full_passes(make_model(), batch_size, "XLA" in side)

    versions = {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "keras_gen": keras_gen.__version__,
    }
    interleave.serve(build, job["cases"], versions)


if __name__ == "__main__":
    main()
