"""Equalized layers are plain layers with He's scale in front of the kernel."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen.layers.equalized import EqualizedConv2D, EqualizedDense
from keras_gen.layers.fade_in import downscale, upscale


def normal(*shape, seed=0):
    x = np.random.default_rng(seed).normal(size=shape)
    return tf.constant(x, "float32")


def with_bias(layer, x):
    """The layer, built, whose biases are no longer 0."""
    layer.build(x.shape)
    layer.bias.assign(normal(*layer.bias.shape, seed=1))
    return layer


def test_dense_scales_the_kernel_and_not_the_bias():
    x = normal(3, 5)
    layer = with_bias(EqualizedDense(4, gain=2.0), x)
    kernel = np.array(layer.kernel) * 2.0 / math.sqrt(5)
    np.testing.assert_allclose(
        layer(x), x @ kernel + np.array(layer.bias), rtol=1e-5
    )


def test_dense_to_maps_has_one_bias_a_map():
    x = normal(3, 5)
    flat = EqualizedDense(24)
    layer = with_bias(EqualizedDense((2, 3, 4)), x)
    flat.build(x.shape)
    flat.kernel.assign(layer.kernel)
    assert layer.bias.shape == (4,)
    np.testing.assert_allclose(
        layer(x),
        np.reshape(flat(x), (3, 2, 3, 4)) + np.array(layer.bias),
        rtol=1e-5,
    )


def test_convolution_scales_the_kernel_and_not_the_bias():
    x = normal(2, 4, 6, 3)
    layer = with_bias(EqualizedConv2D(5, 3), x)
    plain = keras.layers.Conv2D(5, 3, padding="same")
    plain.build(x.shape)
    plain.set_weights(
        [np.array(layer.kernel) * math.sqrt(2 / 27), np.array(layer.bias)]
    )
    np.testing.assert_allclose(layer(x), plain(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("resample", ["up", "down"])
def test_resampling_is_part_of_the_convolution(kernel_size, resample):
    x = normal(2, 4, 6, 3)
    fused = with_bias(EqualizedConv2D(5, kernel_size, resample=resample), x)
    plain = EqualizedConv2D(5, kernel_size)
    plain.build(x.shape)
    plain.set_weights(fused.get_weights())
    if resample == "up":
        expected = plain(upscale(x))
    else:
        expected = downscale(plain(x))
    np.testing.assert_allclose(fused(x), expected, rtol=1e-4, atol=1e-5)
    assert fused.compute_output_shape(x.shape) == expected.shape


def test_activations_keep_a_mean_square_of_one():
    keras.utils.set_random_seed(0)
    x = normal(8, 16, 16, 32)
    layer = EqualizedConv2D(64, 3)
    layer.build(x.shape)
    assert np.std(layer.kernel) == pytest.approx(1, abs=0.02)
    y = tf.nn.leaky_relu(layer(x), 0.2)
    # (1 + 0.2**2) / 2 of the 2 that the gain makes of 1, away from borders.
    rms = np.sqrt(np.mean(np.square(y[:, 1:-1, 1:-1])))
    assert rms == pytest.approx(math.sqrt(1.04), abs=0.03)


def test_an_equalized_layer_works_with_any_batch_under_xla():
    layer = EqualizedConv2D(2, 3, resample="up")
    layer.build((None, 4, 4, 3))
    x = normal(3, 4, 4, 3)
    compiled = tf.function(layer, jit_compile=True)
    np.testing.assert_allclose(compiled(x), layer(x), rtol=1e-4, atol=1e-5)
    graph = tf.function(layer, input_signature=[tf.TensorSpec((None, 4, 4, 3))])
    assert graph(x).shape == (3, 8, 8, 2)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_rounds_the_scaled_kernel_once(policy):
    x = normal(2, 4, 4, 3)
    exact = EqualizedConv2D(4, 3, resample="down")
    exact.build(x.shape)
    half = EqualizedConv2D(4, 3, resample="down", dtype=policy)
    half.build(x.shape)
    half.set_weights(exact.get_weights())
    y = half(x)
    assert y.dtype == policy.removeprefix("mixed_")
    assert half.kernel.dtype == "float32"
    np.testing.assert_allclose(
        tf.cast(y, "float32"), exact(x), atol=0.03, rtol=0.03
    )


@pytest.mark.parametrize(
    "layer",
    [
        EqualizedDense((2, 2, 3), gain=0.5, use_bias=False),
        EqualizedConv2D(4, 3, resample="up", gain=1.0),
    ],
    ids=["dense", "convolution"],
)
def test_an_equalized_layer_survives_serialization(layer):
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize(
    "make, word",
    [
        (lambda: EqualizedDense(0), "`units`"),
        (lambda: EqualizedDense((4, -1)), "`units`"),
        (lambda: EqualizedDense(4, gain=0), "`gain`"),
        (lambda: EqualizedDense(4)(normal(2, 3, 3)), "Flatten"),
        (lambda: EqualizedConv2D(4, 2), "`kernel_size`"),
        (lambda: EqualizedConv2D(4, 3, resample="left"), "`resample`"),
        (lambda: EqualizedConv2D(4, 3)(normal(2, 3)), "maps of shape"),
        (
            lambda: EqualizedConv2D(4, 3, resample="down")(normal(1, 5, 4, 2)),
            "even height and width",
        ),
    ],
)
def test_bad_arguments_are_refused(make, word):
    with pytest.raises(ValueError, match=word):
        make()


@pytest.mark.parametrize(
    "layer, x, other",
    [
        (EqualizedDense(3), (2, 4), (2, 5)),
        (EqualizedConv2D(3, 3), (1, 4, 4, 2), (1, 4, 4, 3)),
    ],
    ids=["dense", "convolution"],
)
def test_a_built_layer_refuses_inputs_of_another_width(layer, x, other):
    layer(normal(*x))
    with pytest.raises(ValueError, match="expected axis -1"):
        layer(normal(*other))
