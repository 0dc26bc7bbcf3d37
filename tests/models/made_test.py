"""The mathematics of MADE; see also pixel_by_pixel_test."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen.layers.masked import made_masks
from keras_gen.models.made import MADE, units_of_degree

SHAPE = (2, 3, 1)
IMAGES = np.array(list(itertools.product((0, 1), repeat=6)), "float32")
IMAGES = IMAGES.reshape(-1, *SHAPE)


def made(hidden_dims=(16, 12), **arguments):
    """A MADE of weights that are not small."""
    model = MADE(SHAPE, hidden_dims, seed=1, **arguments)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, 0.7, weight.shape))
    return model


def by_hand(model, x):
    """Logits of a MADE of one set of masks, by `made_masks`, in NumPy."""
    position = np.argsort(model.orders[0])
    masks = made_masks(6, model.hidden_dims, order=position)
    (direct,) = made_masks(6, (), order=position)
    h = x = x.reshape(len(x), 6)
    for i, mask in enumerate(masks):
        kernel, bias = np.array(model.kernels[i]), np.array(model.biases[i])
        h = h @ (mask * kernel) + bias
        h = np.maximum(h, 0) if i < len(masks) - 1 else h
    if model.direct_connections:
        h += x @ (direct * np.array(model.direct_kernel))
    return h


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"shuffle_order": True},
        {"direct_connections": False},
        {"hidden_dims": (7,)},
    ],
)
def test_logits_are_those_of_a_dense_network_with_masks(arguments):
    model = made(**arguments)
    logits = model.conditionals(IMAGES).distribution.logits
    np.testing.assert_allclose(
        np.reshape(logits, (-1, 6)), by_hand(model, IMAGES), atol=1e-4
    )


def test_hidden_layers_alone_see_every_earlier_pixel():
    model = made(activation="tanh", direct_connections=False)
    assert len(model.trainable_weights) == 6
    x = tf.fill((6, *SHAPE), 0.3)
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = model.conditionals(x).distribution.logits
        # Of image i only pixel i: its gradient is row i of the Jacobian.
        logits = tf.linalg.trace(tf.reshape(logits, (6, 6)))
    slopes = np.reshape(tape.gradient(logits, x), (6, 6))
    np.testing.assert_array_equal(slopes != 0, np.tri(6, k=-1, dtype=bool))


def test_the_first_pixel_depends_on_its_bias_alone():
    model = made(shuffle_order=True)
    first = model.orders[0, 0]
    logits = np.reshape(model.conditionals(IMAGES).distribution.logits, (-1, 6))
    np.testing.assert_array_equal(
        logits[:, first], np.full(64, np.array(model.biases[-1])[first])
    )


def test_every_step_takes_the_next_masks():
    model = made(num_masks=3, shuffle_order=True)
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    history = model.fit(IMAGES, batch_size=64, epochs=5, verbose=0)
    of_masks = [
        -np.mean(model.conditionals(IMAGES, m).log_prob(IMAGES))
        for m in range(3)
    ]
    assert len(set(np.round(of_masks, 4))) == 3
    np.testing.assert_allclose(
        history.history["loss"], [*of_masks, *of_masks[:2]], rtol=1e-5
    )


def test_masks_differ_and_more_of_them_begin_with_those_of_fewer():
    two, three = (made(num_masks=n, shuffle_order=True) for n in (2, 3))
    for few, many in zip(two.degrees, three.degrees, strict=True):
        np.testing.assert_array_equal(few, many[:2])
        assert np.any(many[0] != many[1])
    np.testing.assert_array_equal(two.orders, three.orders[:2])
    for order, degrees in zip(two.orders, two.degrees[0], strict=True):
        np.testing.assert_array_equal(degrees[order], np.arange(1, 7))


def test_the_order_stays_unless_it_is_shuffled():
    np.testing.assert_array_equal(
        made(num_masks=2).orders, [range(6), range(6)]
    )


def test_units_are_ready_once_and_after_all_that_they_see():
    units = units_of_degree(np.array([[1, 3, 1], [2, 2, 2]]), 4)
    expected = [
        [[0, 2, -1], [-1, -1, -1]],
        [[-1, -1, -1], [0, 1, 2]],
        [[1, -1, -1], [-1, -1, -1]],
        [[-1, -1, -1], [-1, -1, -1]],
    ]
    np.testing.assert_array_equal(units, expected)


@pytest.mark.parametrize(
    "arguments",
    [
        {"direct_connections": False, "activation": "sigmoid"},
        {"num_masks": 2, "direct_connections": False},
    ],
)
def test_cached_samples_are_those_of_full_passes(arguments):
    model = made(**arguments)
    np.testing.assert_array_equal(
        model.sample(200, seed=0), model.sample(200, seed=0, cached=False)
    )


def test_it_learns_with_masks_that_change():
    """The third pixel tells by itself whether the first two differ."""
    x = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]], "float32")
    x = np.tile(x.reshape(4, 1, 3, 1), (8, 1, 1, 1))
    model = MADE((1, 3, 1), (32,), num_masks=4, shuffle_order=True)
    model.compile(keras.optimizers.Adam(0.05), jit_compile=False)
    model.fit(x, batch_size=32, epochs=8, steps_per_epoch=50, verbose=0)
    loss = -np.mean(model.log_prob(x))
    assert loss == pytest.approx(2 * math.log(2), abs=0.02)


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"hidden_dims": ()}, "hidden_dims.*FVBN"),
        ({"hidden_dims": 500}, "hidden_dims"),
        ({"hidden_dims": (5, 0)}, "hidden_dims"),
        ({"num_masks": 0}, "num_masks"),
    ],
)
def test_bad_arguments_are_refused(arguments, word):
    with pytest.raises(ValueError, match=f"`{word}"):
        MADE(SHAPE, **arguments)
