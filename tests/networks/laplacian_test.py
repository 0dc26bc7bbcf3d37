"""Shapes of the networks of a level, and what they depend on."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen.networks.laplacian import (
    laplacian_discriminator,
    laplacian_generator,
)


@pytest.mark.parametrize("condition_dim", [None, 3])
def test_shapes_and_dtypes_are_those_of_a_level(condition_dim):
    keras.config.set_dtype_policy("mixed_float16")
    arguments = {"filters": 4, "condition_dim": condition_dim}
    generator = laplacian_generator((6, 10, 3), **arguments)
    discriminator = laplacian_discriminator((6, 10, 3), **arguments)
    given = [tf.eye(3)[:2]] if condition_dim else []
    seen = tf.ones((2, 6, 10, 4))
    band = generator([seen, *given] if given else seen)
    assert band.shape == (2, 6, 10, 3) and band.dtype == "float32"
    logits = discriminator([band, *given] if given else band)
    assert logits.shape == (2, 1) and logits.dtype == "float32"


def test_a_band_depends_on_the_image_the_noise_and_the_condition():
    keras.utils.set_random_seed(0)
    generator = laplacian_generator((4, 4, 1), filters=4, condition_dim=2)
    seen, condition = tf.random.normal((1, 4, 4, 2)), tf.eye(2)[:1]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([seen, condition])
        total = tf.reduce_sum(tf.square(generator([seen, condition])))
    slopes = np.abs(tape.gradient(total, seen)).max(axis=(0, 1, 2))
    assert np.all(slopes > 0)
    assert np.all(np.abs(tape.gradient(total, condition)) > 0)


def test_a_logit_is_that_of_one_image():
    keras.utils.set_random_seed(0)
    discriminator = laplacian_discriminator((7, 7, 1), filters=4)
    x = np.random.default_rng(0).normal(size=(5, 7, 7, 1))
    alone = [discriminator(x[i : i + 1], training=True) for i in range(5)]
    together = discriminator(x, training=True)
    np.testing.assert_allclose(
        together, np.concatenate(alone), rtol=1e-4, atol=1e-8
    )


def test_minibatch_std_shows_the_discriminator_how_varied_a_batch_is():
    keras.utils.set_random_seed(0)
    network = laplacian_discriminator((7, 7, 1), filters=4, minibatch_std=True)
    x = np.random.default_rng(0).normal(size=(4, 7, 7, 1)).astype("float32")
    same = np.repeat(x[:1], 4, axis=0)
    assert np.ptp(network(same)) < 1e-6
    assert abs(float(network(x)[0, 0] - network(same)[0, 0])) > 1e-6


def test_odd_sides_are_refused():
    with pytest.raises(ValueError, match=r"`image_shape`.*\(7, 4, 1\)"):
        laplacian_generator((7, 4, 1))
