"""PixelRNN; what it shares with PixelCNN is tested in pixel_cnn_test."""

import itertools
import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen.models.pixel_rnn import PixelRNN
from keras_gen.networks.pixel_rnn import PixelLSTM

KINDS = ("row_lstm", "diagonal_bilstm")
SHAPE = (3, 4, 1)
IMAGES = np.array(list(itertools.product((0, 1), repeat=12)), "float32")
IMAGES = IMAGES.reshape(-1, *SHAPE)


def randomize(model, scale=0.7):
    """Weights that are not small."""
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, scale, weight.shape))
    return model


@pytest.fixture(scope="module")
def models():
    return {
        kind: randomize(
            PixelRNN(SHAPE, 6, 2, kind=kind, likelihood="bernoulli", seed=1)
        )
        for kind in KINDS
    }


@pytest.fixture(params=KINDS)
def model(request, models):
    return models[request.param]


def test_probabilities_of_all_images_sum_to_one(model):
    log_prob = np.asarray(model.log_prob(IMAGES), "float64")
    assert np.exp(log_prob).sum() == pytest.approx(1, abs=1e-5)


def test_a_pixel_sees_exactly_those_before_it(model):
    # In some images a path is shut by a unit below zero.
    x = np.random.default_rng(0).random((8, 1, *SHAPE), "float32")
    x = tf.constant(np.tile(x, (1, 12, 1, 1, 1)).reshape(-1, *SHAPE))
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = model.conditionals(x).distribution.logits
        # Of image i only pixel i: its gradient is row i of the Jacobian.
        logits = tf.linalg.trace(tf.reshape(logits, (8, 12, 12)))
    slopes = np.reshape(tape.gradient(logits, x), (8, 12, 12))
    seen = np.any(slopes != 0, axis=0)
    np.testing.assert_array_equal(seen, np.tri(12, k=-1, dtype=bool))


def test_only_diagonals_see_what_is_far_to_the_right_above():
    for kind in KINDS:
        network = PixelLSTM((2, 9, 1), 1, 3, 2, kind, first_kernel_size=3)
        randomize(network)
        x = np.zeros((2, 2, 9, 1), "float32")
        x[1, 0, 8] = 1.0
        first, second = np.asarray(network(x))[:, 1, 0]
        assert (first != second) == (kind == "diagonal_bilstm")


def test_the_cache_changes_no_sample_and_samples_have_the_exact_mean(model):
    samples = np.asarray(model.sample(3001, seed=0))
    plain = np.asarray(model.sample(3001, seed=0, cached=False))
    # A sum of other rounding may move a pixel, and with it those after it.
    differ = np.any(samples != plain, axis=(1, 2, 3))
    assert np.sum(differ) <= 1
    p = np.exp(np.asarray(model.log_prob(IMAGES), "float64"))
    exact = np.tensordot(p, IMAGES, axes=1)
    error = np.sqrt(exact * (1 - exact) / 3001)
    assert np.all(np.abs(samples.mean(axis=0) - exact) < 4.5 * error)


@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_changes_no_sample_of_colours_and_classes(kind):
    model = PixelRNN((2, 3, 2), 4, 1, kind=kind, num_classes=3, seed=1)
    randomize(model, 0.5)
    images = model.sample(9, seed=5)
    np.testing.assert_array_equal(images, model.sample(9, seed=5, cached=False))
    assert len(np.unique(images)) > 40
    x = np.asarray(images)
    of_classes = [model.log_prob(x, condition=np.full(9, y)) for y in range(3)]
    assert np.all(np.ptp(of_classes, axis=0) > 1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_that_rows_repeat(kind):
    x = np.zeros((4, 3, 3, 1), "float32")
    x[:2, :, 1] = x[2:, :, 2] = x[1::2, :, 0] = 1
    model = PixelRNN((3, 3, 1), 6, 1, kind=kind, likelihood="bernoulli")
    model.compile(keras.optimizers.Adam(0.03))
    data = tf.data.Dataset.from_tensors(np.tile(x, (4, 1, 1, 1))).repeat(150)
    history = model.fit(data, verbose=0).history
    losses = -np.asarray(model.log_prob(x))
    np.testing.assert_allclose(losses, 2 * math.log(2), atol=0.1)
    bits = history["loss"][0] / (9 * math.log(2))
    assert history["bits_per_dim"][0] == pytest.approx(bits, rel=1e-4)


def test_a_model_survives_its_config(model):
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    copy = keras.saving.deserialize_keras_object(config)
    copy.set_weights([np.array(weight) for weight in model.weights])
    assert copy.get_config() == model.get_config()
    assert copy.network.kind == model.kind
    np.testing.assert_array_equal(
        copy.log_prob(IMAGES[:9]), model.log_prob(IMAGES[:9])
    )


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"kind": "lstm"}, "`kind`.*'lstm'"),
        ({"kind": ["lstm"]}, "`kind`.*lstm"),
        ({"hidden_dim": 0}, "`hidden_dim`"),
        ({"num_layers": 0}, "`num_layers`"),
        ({"likelihood": "gaussian"}, "`likelihood`"),
    ],
)
def test_bad_arguments_are_refused(arguments, word):
    with pytest.raises(ValueError, match=word):
        PixelRNN(SHAPE, **arguments)
    if "kind" in arguments:
        with pytest.raises(ValueError, match="`num_groups`"):
            PixelLSTM((3, 3, 3), 6, num_groups=2)


@pytest.mark.parametrize("size", [1, 2, 0, -3, (3, 5)])
def test_a_first_kernel_through_which_no_pixel_is_seen_is_refused(size):
    with pytest.raises(ValueError, match="`first_kernel_size` must be"):
        PixelLSTM(SHAPE, 1, first_kernel_size=size)


def test_regularization_of_a_network_is_minimized_and_not_logged():
    logs, steps = [], []
    for regularizer in (None, keras.regularizers.L2(0.3)):
        model = PixelRNN(SHAPE, 4, 1, likelihood="bernoulli", seed=1)
        model = randomize(model)
        kernel = max(model.trainable_weights, key=lambda w: len(w.shape))
        kernel.regularizer = regularizer
        start = np.array(kernel)
        model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
        history = model.fit(IMAGES[:8], shuffle=False, verbose=0).history
        logs.append(history)
        steps.append(start - np.array(kernel))
    assert logs[0] == logs[1]
    np.testing.assert_allclose(
        steps[1] - steps[0], 0.1 * 2 * 0.3 * start, rtol=1e-3, atol=1e-6
    )
