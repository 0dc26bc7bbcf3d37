import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen.layers.dequantization import (
    UniformDequantization,
    VariationalDequantization,
)
from keras_gen.networks.coupling import coupling_resnet

SHAPE = (2, 2, 1)


def draws(num_images=6, seed=0):
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, 256, (num_images, *SHAPE))
    noise = rng.random((num_images, *SHAPE), "float32")
    return levels, tf.constant(levels / 255, "float32"), tf.constant(noise)


def variational(randomize=True):
    layer = VariationalDequantization(coupling_resnet(SHAPE, 2, 4, 1))
    layer.build((None, *SHAPE))
    if randomize:
        rng = np.random.default_rng(0)
        for weight in layer.trainable_weights:
            weight.assign(0.5 * rng.normal(size=weight.shape))
    return layer


def test_uniform_points_fill_the_interval_of_their_level():
    levels, x, noise = draws()
    v, log_q = UniformDequantization().draw(x, noise)
    np.testing.assert_allclose(v * 256 - levels, noise, atol=1e-4)
    np.testing.assert_allclose(log_q, np.full(6, 4 * math.log(256)))


def test_learned_noise_starts_as_the_uniform_one():
    _, x, noise = draws()
    v, log_q = variational(randomize=False).draw(x, noise)
    wanted, log_uniform = UniformDequantization().draw(x, noise)
    np.testing.assert_allclose(v, wanted, atol=1e-6)
    np.testing.assert_allclose(log_q, log_uniform, rtol=1e-5)


def test_the_density_of_learned_noise_is_that_of_its_change_of_variables():
    _, x, noise = draws()
    layer = variational()
    with tf.GradientTape() as tape:  # each point has its own noise alone
        tape.watch(noise)
        v, log_q = layer.draw(x, noise)
    slope = tape.gradient(v, noise).numpy()
    np.testing.assert_allclose(
        log_q, -np.log(slope).sum(axis=(1, 2, 3)), rtol=1e-4
    )
    assert np.ptp(log_q) > 0.01


def test_extreme_noise_stays_finite_and_inside_its_level():
    levels, x, noise = draws()
    layer = variational()
    for value in (0.0, 1.0 - 2.0**-24):
        v, log_q = layer.draw(x, tf.fill(noise.shape, value))
        u = v.numpy().astype("float64") * 256 - levels
        assert np.all(np.isfinite(log_q)) and np.all((u >= 0) & (u <= 1))


def test_learned_dequantization_survives_its_config():
    layer = variational()
    config = keras.saving.serialize_keras_object(layer)
    copy = keras.saving.deserialize_keras_object(config)
    copy.set_weights(layer.get_weights())
    _, x, noise = draws()
    for one, other in zip(
        layer.draw(x, noise), copy.draw(x, noise), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_network_of_other_shapes_is_refused():
    layer = VariationalDequantization(coupling_resnet(SHAPE, 3, 4, 1))
    with pytest.raises(ValueError, match="network"):
        layer.build((None, *SHAPE))
