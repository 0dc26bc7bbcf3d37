"""The small layers of a progressive GAN, against their formulas in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen.layers.fade_in import FadeIn, downscale, upscale
from keras_gen.layers.minibatch_std import MinibatchStdDev
from keras_gen.layers.pixel_normalization import PixelNormalization


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def test_pixels_are_scaled_to_a_mean_square_of_one():
    x = 7 * normal(2, 3, 3, 16)
    y = PixelNormalization()(x)
    np.testing.assert_allclose(np.mean(np.square(y), -1), 1, rtol=1e-5)
    np.testing.assert_allclose(
        y, x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-8), rtol=1e-5
    )
    z = PixelNormalization()(normal(4, 9))
    np.testing.assert_allclose(np.linalg.norm(z, axis=-1), 3, rtol=1e-5)


def test_large_and_vanishing_pixels_are_finite_in_half_precision():
    layer = PixelNormalization(dtype="mixed_float16")
    x = np.stack([np.full(8, 300.0), np.zeros(8), np.full(8, 1e-6)])
    y = layer(x.astype("float16"))
    assert y.dtype == "float16"
    np.testing.assert_allclose(y[0], 1, rtol=2e-3)  # 300**2 is inf there
    assert np.all(np.isfinite(y)) and not np.any(y[1])


def reference_std(x, size):
    """The extra map, one group after another."""
    batch = len(x)
    values = np.empty(batch)
    for start in range(batch // size):
        group = x[start :: batch // size]
        std = np.sqrt(np.var(group, axis=0) + 1e-8)  # biased: over size
        values[start :: batch // size] = np.mean(std)
    return values


@pytest.mark.parametrize(
    "batch, group_size, used",
    [(8, 4, 4), (4, 4, 4), (6, 4, 3), (5, 4, 1), (2, 4, 2), (16, 16, 16)],
)
def test_the_map_is_the_deviation_over_strided_groups(batch, group_size, used):
    x = normal(batch, 2, 3, 5)
    layer = MinibatchStdDev(group_size)
    expected = reference_std(x, used)
    unknown = tf.function(
        layer, input_signature=[tf.TensorSpec((None, 2, 3, 5))]
    )
    for y in (layer(x), unknown(x), tf.function(layer, jit_compile=True)(x)):
        np.testing.assert_array_equal(y[..., :5], x)
        for image, value in zip(y[..., 5], expected, strict=True):
            np.testing.assert_allclose(image, value, rtol=1e-4)


def test_the_deviation_is_computed_in_float32():
    x = np.concatenate([np.full((2, 2, 2, 3), v, "float16") for v in (0, 400)])
    y = MinibatchStdDev(2, dtype="mixed_float16")(x)
    assert y.dtype == "float16"
    np.testing.assert_allclose(y[..., 3], 200, rtol=1e-3)  # 200**2 is not inf


def test_equal_images_have_a_finite_slope():
    x = tf.ones((4, 2, 2, 3))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = MinibatchStdDev()(x)[..., 3]
    assert np.all(np.isfinite(tape.gradient(y, x)))


@pytest.mark.parametrize("shapes", [[(4, 1), (1, 3)], [(4, 1)]])
def test_a_fade_is_between_two_tensors_of_one_shape(shapes):
    with pytest.raises(ValueError, match="two tensors of the same shape"):
        FadeIn()([np.zeros(shape, "float32") for shape in shapes], alpha=0.5)


def test_a_fade_is_exact_at_both_ends_and_linear_between():
    new, old = normal(2, 3), normal(2, 3, seed=1)
    fade = FadeIn()
    np.testing.assert_array_equal(fade([new, old], alpha=0.0), old)
    np.testing.assert_array_equal(fade([new, old], alpha=1.0), new)
    alpha = tf.Variable(0.25)
    np.testing.assert_allclose(
        fade([new, old], alpha=alpha), 0.25 * new + 0.75 * old, rtol=1e-5
    )


def test_a_small_alpha_survives_half_precision():
    one, zero = (tf.cast(x, "float16") for x in (tf.ones(1), tf.zeros(1)))
    fade = FadeIn(dtype="mixed_float16")
    near = fade([zero, one], alpha=tf.constant(1 - 1e-4))  # 1 in float16
    assert near.dtype == "float16"
    np.testing.assert_allclose(near, 1e-4, rtol=1e-2)


def test_pixels_become_squares_and_squares_their_means():
    x = np.arange(8, dtype="float32").reshape(1, 2, 2, 2)
    large = upscale(x)
    np.testing.assert_array_equal(large, x.repeat(2, 1).repeat(2, 2))
    np.testing.assert_array_equal(downscale(large), x)
    rows = normal(3, 8, 12, 2)
    means = rows.reshape(3, 2, 4, 3, 4, 2).mean((2, 4))
    np.testing.assert_allclose(downscale(rows, 4), means, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(
        upscale(means, 4), means.repeat(4, 1).repeat(4, 2)
    )


@pytest.mark.parametrize(
    "layer", [PixelNormalization(1e-4), MinibatchStdDev(3), FadeIn()]
)
def test_a_layer_survives_serialization(layer):
    config = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == layer.get_config()


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`epsilon`"):
        PixelNormalization(0.0)
    with pytest.raises(ValueError, match="`group_size`"):
        MinibatchStdDev(0)


def test_fading_takes_numbers_by_position():
    new, old = np.full((1, 2), 3.0), np.ones((1, 2))
    np.testing.assert_array_equal(FadeIn()([new, old], 0.25), [[1.5, 1.5]])
