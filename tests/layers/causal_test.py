import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen.layers.causal import CausalConv1D, GatedResidualBlock


def random_weights(layer, seed=0):
    """Gives all weights of a layer, biases too, random values."""
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    return layer


def jacobian(layer, x):
    """Of the outputs, summed over channels: `(steps, batch, steps, dim)`."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        y = y[0] if isinstance(y, tuple) else y
        totals = tf.reduce_sum(y[0], axis=-1)
    return tape.jacobian(totals, x)


@pytest.mark.parametrize("kernel_size, dilation", [(1, 1), (2, 3), (3, 2)])
def test_convolution_is_its_formula(kernel_size, dilation):
    x = np.random.default_rng(1).normal(size=(2, 9, 3)).astype("float32")
    layer = CausalConv1D(4, kernel_size, dilation)
    layer.build(x.shape)
    kernel, bias = random_weights(layer).get_weights()
    expected = np.tile(bias, (2, 9, 1))
    for t in range(9):
        for k in range(kernel_size):
            source = t - (kernel_size - 1 - k) * dilation
            if source >= 0:
                expected[:, t] += x[:, source] @ kernel[k]
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_convolution_is_that_of_keras():
    x = np.random.default_rng(1).normal(size=(2, 9, 3)).astype("float32")
    ours = CausalConv1D(4, kernel_size=2, dilation=4)
    other = keras.layers.Conv1D(4, 2, padding="causal", dilation_rate=4)
    ours.build(x.shape)
    other.build(x.shape)
    other.set_weights(random_weights(ours).get_weights())
    np.testing.assert_allclose(ours(x), other(x), rtol=1e-4, atol=1e-5)


def test_block_sees_its_step_and_one_that_lies_the_dilation_before():
    block = GatedResidualBlock(4, dilation=3)
    x = tf.constant(np.random.default_rng(1).normal(size=(1, 8, 2)), "float32")
    block.build(x.shape)
    seen = np.any(jacobian(random_weights(block), x)[:, 0], axis=-1)
    steps = np.arange(8)
    lag = steps[:, None] - steps
    np.testing.assert_array_equal(seen, (lag == 0) | (lag == 3))


def test_block_is_the_published_one():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 6, 3)).astype("float32")
    condition = rng.normal(size=(2, 3, 5)).astype("float32")
    block = GatedResidualBlock(4, dilation=2)
    block.build(x.shape, condition.shape)
    random_weights(block)
    kernel, bias = block.convolution.get_weights()
    (projection,) = block.projection.get_weights()
    out_kernel, out_bias = block.outputs.get_weights()
    past = np.concatenate([np.zeros((2, 2, 3)), x[:, :-2]], axis=1)
    # Each of the three frames is for two steps.
    of_frames = np.repeat(condition, 2, axis=1) @ projection
    h = past @ kernel[0] + x @ kernel[1] + bias + of_frames
    z = np.tanh(h[..., :3]) / (1 + np.exp(-h[..., 3:]))
    out = z @ out_kernel + out_bias
    new_x, skip = block(x, condition)
    np.testing.assert_allclose(new_x, x + out[..., :3], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(skip, out[..., 3:], rtol=1e-4, atol=1e-5)


def test_a_step_alone_is_that_of_the_whole_sequence():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 6, 3)).astype("float32")
    block = GatedResidualBlock(4, dilation=2)
    block.build(x.shape)
    random_weights(block)
    whole = block(x)
    alone = block.of_taps([x[:, 2], x[:, 4]])
    for one, other in zip(whole, alone, strict=True):
        np.testing.assert_allclose(one[:, 4], other, rtol=1e-4, atol=1e-5)


def test_layers_come_back_from_their_configuration():
    for layer in (
        CausalConv1D(4, 3, dilation=2, kernel_initializer="he_normal"),
        GatedResidualBlock(5, kernel_size=3, dilation=4),
    ):
        layer.build((None, 7, 3))
        config = keras.saving.serialize_keras_object(layer)
        again = keras.saving.deserialize_keras_object(config)
        assert again.get_config() == layer.get_config()
        if not again.built:
            again.build((None, 7, 3))
        again.set_weights(layer.get_weights())
        x = np.random.default_rng(1).normal(size=(2, 7, 3))
        for one, other in zip(
            tf.nest.flatten(layer(x)), tf.nest.flatten(again(x)), strict=True
        ):
            np.testing.assert_array_equal(one, other)


def test_half_precision_is_used_within_and_close():
    x = np.random.default_rng(1).normal(size=(2, 6, 3)).astype("float32")
    exact = GatedResidualBlock(4, dilation=2)
    half = GatedResidualBlock(4, dilation=2, dtype="mixed_float16")
    for block in (exact, half):
        block.build(x.shape)
    half.set_weights(exact.get_weights())
    for one, other in zip(exact(x), half(x), strict=True):
        assert other.dtype == "float16"
        np.testing.assert_allclose(one, other, atol=0.02)


@pytest.mark.parametrize("name", ["filters", "kernel_size", "dilation"])
def test_a_bad_number_of_a_convolution_is_refused(name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        CausalConv1D(**{"filters": 4, name: 0})


@pytest.mark.parametrize("name", ["skip_filters", "kernel_size", "dilation"])
def test_a_bad_number_of_a_block_is_refused(name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        GatedResidualBlock(**{"skip_filters": 4, name: 2.5})
