import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen.layers.masked import MaskedDense, made_degrees, made_masks

MASK = np.array([[1, 0, 1, 1], [0, 1, 1, 0], [0, 0, 0, 1]])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def made(num_inputs, hidden_dims, **arguments):
    """A MADE of tanh units and of weights that are not small."""
    masks = made_masks(num_inputs, hidden_dims, **arguments)
    layers = [MaskedDense(m.shape[1], m, activation="tanh") for m in masks]
    for i, layer in enumerate(layers):
        layer.build((None, len(masks[i])))
        layer.set_weights([normal(*w.shape, seed=i) for w in layer.weights])
    return keras.Sequential(layers)


def jacobian(network, num_inputs):
    """Derivative of output i by input j, `(i, j)`."""
    x = tf.constant(normal(1, num_inputs, seed=9))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = network(x)
    return tape.jacobian(y, x)[0, :, 0].numpy()


def test_masked_dense_is_a_dense_layer_without_the_cut_connections():
    layer = MaskedDense(4, MASK, activation="tanh")
    x, kernel, bias = normal(5, 3), normal(3, 4, seed=1), normal(4, seed=2)
    layer.build(x.shape)
    layer.set_weights([kernel, bias])
    np.testing.assert_allclose(
        layer(x), np.tanh(x @ (MASK * kernel) + bias), rtol=1e-5
    )


@pytest.mark.parametrize(
    "activation, word",
    [
        ("softmax", "mixes units"),
        (lambda x: x - keras.ops.mean(x), "mixes units"),
        ("glu", "fails|mixes"),
        ("nope", "nope"),
        (keras.layers.PReLU(), "weights"),
        (3, "3"),
    ],
)
def test_activations_that_are_not_of_each_unit_alone_are_refused(
    activation, word
):
    with pytest.raises(ValueError, match=f"`activation`.*({word})"):
        MaskedDense(4, MASK, activation=activation)


def test_cut_connections_do_not_train():
    layer = MaskedDense(4, MASK)
    with tf.GradientTape() as tape:
        y = layer(normal(5, 3))
    gradient = tape.gradient(y, layer.kernel.value)
    np.testing.assert_array_equal(gradient.numpy() != 0, MASK.astype(bool))


def test_masked_dense_keeps_the_leading_dimensions():
    layer = MaskedDense(4, MASK)
    x = normal(2, 7, 3)
    y = layer(x)
    assert y.shape == (2, 7, 4)
    np.testing.assert_allclose(y[1], layer(x[1]), rtol=1e-5)
    assert layer.compute_output_shape((None, 7, 3)) == (None, 7, 4)


def test_masked_dense_works_in_half_precision_and_compiled():
    layer = MaskedDense(4, MASK, dtype="mixed_float16")
    x = normal(5, 3)
    y = tf.function(layer, jit_compile=True)(x)
    assert y.dtype == tf.float16 and layer.kernel.dtype == "float32"
    np.testing.assert_allclose(
        y, x @ (MASK * layer.kernel.numpy()), rtol=0.01, atol=0.01
    )


def test_masked_dense_survives_its_config_with_its_mask():
    mask = np.random.default_rng(0).integers(0, 2, (5, 7))
    layer = MaskedDense(7, mask, activation="relu", kernel_initializer="ones")
    x = normal(2, 5)
    y = layer(x)
    config = keras.saving.serialize_keras_object(layer)
    copy = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    assert isinstance(copy, MaskedDense)
    assert copy.get_config() == layer.get_config()
    np.testing.assert_array_equal(copy.mask, mask)
    np.testing.assert_array_equal(copy(x), y)


def test_a_model_of_masked_layers_survives_its_file(tmp_path):
    network = made(4, (6,))
    x = normal(3, 4)
    y = network(x)
    network.save(tmp_path / "made.keras")
    copy = keras.saving.load_model(tmp_path / "made.keras")
    np.testing.assert_array_equal(copy(x), y)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"seed": 3}, {"order": [2, 0, 4, 1, 3]}, {"order": [4, 3, 2, 1, 0]}],
)
def test_an_output_of_a_made_sees_only_the_inputs_before_it(arguments):
    order = np.array(arguments.get("order", range(5)))
    network = made(5, (20, 20), **arguments)
    earlier = order[np.newaxis] < order[:, np.newaxis]
    slopes = jacobian(network, 5)
    assert not np.any(slopes[~earlier])
    if "seed" not in arguments:  # where all degrees occur, it sees all of them
        assert np.all(slopes[earlier])


def test_sequential_degrees_and_their_masks_are_those_worked_by_hand():
    degrees = made_degrees(4, (5,))
    np.testing.assert_array_equal(degrees[0], [1, 2, 3, 4])
    np.testing.assert_array_equal(degrees[1], [1, 1, 2, 2, 3])
    hidden, output = made_masks(4, (5,))
    np.testing.assert_array_equal(
        hidden,
        [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]],
    )
    np.testing.assert_array_equal(
        output,
        [[0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]],
    )
    assert hidden.dtype == np.float32


@pytest.mark.parametrize("units", [100, 500, 783, 1000])
def test_fewer_units_than_inputs_still_see_the_last_ones(units):
    degrees = made_degrees(784, (units,))[1]
    assert degrees[0] == 1
    assert degrees[-1] >= 783 - 783 // units
    assert np.max(np.diff(degrees)) <= np.ceil(783 / units)


def test_direct_connections_are_strict():
    (direct,) = made_masks(3, (), order=[1, 0, 2])
    np.testing.assert_array_equal(direct, [[0, 0, 1], [1, 0, 1], [0, 0, 0]])


def test_drawn_degrees_lie_between_the_smallest_before_and_the_last_but_one():
    for seed in range(20):
        degrees = made_degrees(6, (3, 3, 3), seed=seed)
        for before, after in itertools.pairwise(degrees):
            assert after.min() >= before.min() and after.max() <= 5
    wide = made_degrees(6, (5000,), seed=0)[1]
    np.testing.assert_allclose(np.bincount(wide)[1:] / 5000, 0.2, atol=0.03)
    np.testing.assert_array_equal(wide, made_degrees(6, (5000,), seed=0)[1])
    assert np.any(wide != made_degrees(6, (5000,), seed=1)[1])


def test_a_single_output_sees_nothing():
    assert not np.any(jacobian(made(1, (4,)), 1))


@pytest.mark.parametrize(
    "units, mask, argument",
    [
        (0, MASK, "units"),
        (2.5, MASK, "units"),
        (3, MASK, "mask"),
        (4, MASK[0], "mask"),
        (4, 0.5 * MASK, "mask"),
        (4, "lower", "mask"),
    ],
)
def test_masked_dense_refuses_other_arguments(units, mask, argument):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        MaskedDense(units, mask)


def test_masked_dense_refuses_inputs_that_do_not_fit_its_mask():
    with pytest.raises(ValueError, match=r"`mask`.*3 rows.*2 features"):
        MaskedDense(4, MASK).build((None, 2))


@pytest.mark.parametrize("order", [[0, 1], [1, 2, 3], [0, 0, 1], [0.5, 1, 2]])
def test_orders_that_are_no_permutation_are_refused(order):
    with pytest.raises(ValueError, match="`order`"):
        made_masks(3, (4,), order=order)


def test_made_refuses_sizes_that_are_no_positive_integers():
    with pytest.raises(ValueError, match="`num_inputs`"):
        made_masks(0, (4,))
    with pytest.raises(ValueError, match="`hidden_dims`"):
        made_degrees(3, (4, 0))
