import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen.layers.pixel_lstm import DiagonalBiLSTM, RowLSTM

H, W, UNITS = 4, 5, 3


def images(channels=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, H, W, channels)).astype("float32")


def built(layer, scale=0.7):
    layer(images())
    rng = np.random.default_rng(0)
    for weight in layer.trainable_weights:
        weight.assign(rng.normal(0, scale, weight.shape))
    return layer


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def step(gates, c):
    o, f, i, g = np.split(gates, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def test_row_lstm_is_its_recurrence():
    layer, x = built(RowLSTM(UNITS)), images()
    kernel, bias = (np.asarray(w) for w in layer.input_to_state.weights)
    states = np.asarray(layer.state_to_state).reshape(3, UNITS, 4 * UNITS)
    # Columns with one more on each side, which stays zero.
    h = np.zeros((2, H + 1, W + 2, UNITS))
    c = np.zeros_like(h)
    x = np.pad(x, ((0, 0), (0, 0), (1, 0), (0, 0)))
    for i in range(H):
        for j in range(W):
            gates = bias + sum(x[:, i, j + k] @ kernel[0, k] for k in (0, 1))
            gates = gates + sum(h[:, i, j + k] @ states[k] for k in range(3))
            h[:, i + 1, j + 1], c[:, i + 1, j + 1] = step(gates, c[:, i, j + 1])
    np.testing.assert_allclose(layer(images()), h[:, 1:, 1:-1], atol=1e-5)


def test_diagonal_lstm_is_its_recurrence_from_both_sides():
    layer, x = built(DiagonalBiLSTM(UNITS)), images()
    total = np.zeros((2, H, W, UNITS))
    for side in range(2):
        kernel, bias = (
            np.asarray(w) for w in layer.input_to_state[side].weights
        )
        states = np.asarray(layer.state_to_state[side])
        beside, above = np.split(states, 2)
        seen = x[:, :, ::-1] if side else x
        h = np.zeros((2, H + 1, W + 1, UNITS))
        c = np.zeros_like(h)
        for i in range(H):
            for j in range(W):
                gates = seen[:, i, j] @ kernel[0, 0] + bias
                gates += h[:, i + 1, j] @ beside + h[:, i, j + 1] @ above
                h[:, i + 1, j + 1], c[:, i + 1, j + 1] = step(
                    gates, c[:, i + 1, j]
                )
        if side:
            total[:, 1:] += h[:, 1:-1, :0:-1]
        else:
            total += h[:, 1:, 1:]
    np.testing.assert_allclose(layer(images()), total, atol=1e-5)


@pytest.mark.parametrize("kind", [RowLSTM, DiagonalBiLSTM])
def test_a_pixel_sees_itself_and_earlier_pixels(kind):
    layer = built(kind(UNITS))
    # Of image k pixel k is changed.
    x = np.repeat(images()[:1], H * W, axis=0)
    changed = x + np.eye(H * W, dtype="float32").reshape(-1, H, W, 1)
    differs = np.asarray(layer(changed)) != np.asarray(layer(x))
    seen = np.any(differs, axis=-1)
    seen_by, (i, j) = np.arange(H * W), np.indices((H, W))
    row, column = seen_by // W, seen_by % W
    below, beside = i - row[:, None, None], np.abs(j - column[:, None, None])
    wanted = seen_by[:, None, None] <= i * W + j
    if kind is RowLSTM:  # a triangle; and one pixel to the left in its row
        to_left = (j - column[:, None, None]) >= 0
        wanted &= beside <= below + to_left
    np.testing.assert_array_equal(seen, wanted)


@pytest.mark.parametrize("kind", [RowLSTM, DiagonalBiLSTM])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_gradients_are_finite_in_graphs_and_under_xla(kind, jit_compile):
    layer, x = built(kind(UNITS)), tf.constant(images())

    def gradients(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x) ** 2)
        return tape.gradient(loss, layer.trainable_weights)

    eager = gradients(x)
    compiled = tf.function(gradients, jit_compile=jit_compile)(x)
    for one, other in zip(eager, compiled, strict=True):
        assert np.any(one != 0)
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("layer", [RowLSTM(4, 5), DiagonalBiLSTM(4)])
def test_a_layer_survives_its_config(layer):
    y = layer(images())
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    copy = keras.saving.deserialize_keras_object(config)
    copy(images())
    copy.set_weights(layer.get_weights())
    assert copy.get_config() == layer.get_config()
    np.testing.assert_array_equal(copy(images()), y)
    assert layer.compute_output_shape((2, H, W, 2)) == y.shape


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`kernel_size` must be odd"):
        RowLSTM(4, 2)
    with pytest.raises(ValueError, match="`units`"):
        DiagonalBiLSTM(0)
