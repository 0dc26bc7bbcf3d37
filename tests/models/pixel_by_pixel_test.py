"""What FVBN, NADE and MADE share, on all 2**12 binary images of 3x4 pixels."""

import itertools
import json

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from keras_gen.models.made import MADE
from keras_gen.models.nade import FVBN, NADE

SHAPE = (3, 4, 1)
IMAGES = np.array(list(itertools.product((0, 1), repeat=12)), "float32")
IMAGES = IMAGES.reshape(-1, *SHAPE)
MODELS = {
    "FVBN": lambda: FVBN(SHAPE, seed=1),
    "NADE": lambda: NADE(SHAPE, 5, seed=1),
    "NADE-order-agnostic": lambda: NADE(SHAPE, 5, num_orders=3, seed=1),
    "MADE": lambda: MADE(SHAPE, (20,), seed=1),
    "MADE-masks": lambda: MADE(
        SHAPE, (20, 15), num_masks=3, shuffle_order=True, seed=1
    ),
}
ONE_ORDER = ("FVBN", "NADE", "MADE")


@pytest.fixture(scope="module")
def models():
    """Models with weights that are not small."""
    made = {name: make() for name, make in MODELS.items()}
    for model in made.values():
        rng = np.random.default_rng(0)
        for weight in model.trainable_weights:
            weight.assign(rng.normal(0, 0.7, weight.shape))
    return made


@pytest.fixture(params=MODELS, ids=list(MODELS))
def model(request, models):
    return models[request.param]


@pytest.fixture(params=ONE_ORDER, ids=list(ONE_ORDER))
def model_of_one_order(request, models):
    return models[request.param]


def probabilities(model):
    return np.exp(np.asarray(model.log_prob(IMAGES), "float64"))


def numbers(images):
    """The place of binary images in `IMAGES`."""
    flat = np.asarray(images).reshape(-1, 12).astype(int)
    return flat @ 2 ** np.arange(11, -1, -1)


def assert_drawn_from(probabilities, drawn, num_bins=32):
    """A chi-squared test of states, those of like probability together."""
    ranked = np.argsort(probabilities)
    bins = np.zeros(len(ranked), int)
    cumulative = np.cumsum(probabilities[ranked])
    bins[ranked] = np.minimum(num_bins * cumulative, num_bins - 1)
    expected = np.bincount(bins, probabilities, minlength=num_bins)
    found = np.bincount(bins[drawn], minlength=num_bins)
    assert not np.any(probabilities[drawn] == 0)
    used = expected > 0
    expected = expected[used] / expected.sum() * len(drawn)
    test = scipy.stats.chisquare(found[used], expected)
    assert test.pvalue > 1e-4


def test_probabilities_of_all_images_sum_to_one(model):
    assert probabilities(model).sum() == pytest.approx(1, abs=1e-5)


def test_a_pixel_sees_exactly_those_before_it_in_each_order(model):
    x = np.random.default_rng(0).random((1, *SHAPE), "float32")
    x = tf.constant(np.tile(x, (12, 1, 1, 1)))
    for m, order in enumerate(model.orders):
        with tf.GradientTape() as tape:
            tape.watch(x)
            logits = model.conditionals(x, m).distribution.logits
            # Of image i only pixel i: its gradient is row i of the Jacobian.
            logits = tf.linalg.trace(tf.reshape(logits, (12, 12)))
        slopes = np.reshape(tape.gradient(logits, x), (12, 12))
        places = np.argsort(order)
        earlier = places[np.newaxis] < places[:, np.newaxis]
        np.testing.assert_array_equal(slopes != 0, earlier)


def test_samples_follow_the_probabilities(model):
    p = probabilities(model)
    samples = model.sample(4000, seed=0)
    drawn = numbers(samples)
    assert_drawn_from(p, drawn)
    pairs = np.einsum("ni,nj->nij", *2 * [IMAGES.reshape(-1, 12)])
    exact = np.tensordot(p, pairs, axes=1)
    error = np.sqrt(exact * (1 - exact) / 4000)
    assert np.all(np.abs(pairs[drawn].mean(axis=0) - exact) < 4.5 * error)


def test_the_cache_changes_no_sample(model):
    np.testing.assert_array_equal(
        model.sample(300, seed=5), model.sample(300, seed=5, cached=False)
    )


def test_several_orders_are_averaged_as_probabilities(model):
    x = IMAGES[::37]
    by_order = [
        np.exp(np.asarray(model.conditionals(x, m).log_prob(x), "float64"))
        for m in range(len(model.orders))
    ]
    np.testing.assert_allclose(
        model.log_prob(x), np.log(np.mean(by_order, axis=0)), rtol=1e-5
    )


def test_grey_values_count_as_probabilities_of_white(model_of_one_order):
    x = np.random.default_rng(0).random((5, *SHAPE), "float32")
    white = np.asarray(model_of_one_order(x), "float64")
    assert white.shape == x.shape and white.min() > 0 and white.max() < 1
    cross_entropy = x * np.log(white) + (1 - x) * np.log(1 - white)
    np.testing.assert_allclose(
        model_of_one_order.log_prob(x),
        cross_entropy.sum(axis=(1, 2, 3)),
        rtol=1e-4,
    )


def test_evaluation_gives_the_negative_log_likelihood(models):
    model = models["MADE-masks"]
    model.compile(jit_compile=False)
    logs = model.evaluate(IMAGES[:100], return_dict=True, verbose=0)
    exact = -np.mean(model.log_prob(IMAGES[:100]))
    assert logs == {"loss": pytest.approx(exact, rel=1e-5)}


def test_missing_pixels_after_the_observed_follow_their_conditional(
    model_of_one_order,
):
    x = IMAGES[1234][np.newaxis]
    mask = np.arange(12).reshape(SHAPE) < 6
    p = probabilities(model_of_one_order)
    agrees = np.all((IMAGES == x) | ~mask, axis=(1, 2, 3))
    conditional = np.where(agrees, p, 0) / p[agrees].sum()
    draws = model_of_one_order.impute(x, mask, num_samples=2000, seed=0)
    assert_drawn_from(conditional, numbers(draws), num_bins=12)


def test_observed_pixels_come_back_bit_equal_and_the_others_do_not_count(
    model,
):
    rng = np.random.default_rng(0)
    x = rng.random((5, *SHAPE), "float32")
    mask = rng.random(x.shape) < 0.5
    filled = np.asarray(model.impute(x, mask, num_samples=3, seed=0))
    assert filled.shape == (3, *x.shape) and filled.dtype == "float32"
    assert set(filled[:, ~mask].ravel()) == {0, 1}
    for one in filled:
        np.testing.assert_array_equal(one[mask], x[mask])
    other = np.where(mask, x, 1 - x)
    np.testing.assert_array_equal(
        model.impute(other, mask, num_samples=3, seed=0), filled
    )
    assert np.any(filled[0] != filled[1])


def test_a_model_survives_its_config(model):
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    copy = keras.saving.deserialize_keras_object(config)
    copy.set_weights([np.array(weight) for weight in model.weights])
    assert copy.get_config() == model.get_config()
    np.testing.assert_array_equal(
        copy.log_prob(IMAGES[:9]), model.log_prob(IMAGES[:9])
    )


@pytest.mark.parametrize("make", [FVBN, MADE])
def test_grey_likelihoods_are_refused(make):
    with pytest.raises(ValueError, match=r"`likelihood`.*'gaussian'"):
        make(SHAPE, likelihood="gaussian")


@pytest.mark.parametrize("order", [-1, 3, 1.0, "first", True])
def test_an_order_that_does_not_exist_is_refused(models, order):
    with pytest.raises(ValueError, match=r"`order`.*from 0 to 2"):
        models["NADE-order-agnostic"].conditionals(IMAGES[:1], order)


def test_bad_arguments_of_verbs_are_refused(models):
    model = models["FVBN"]
    with pytest.raises(ValueError, match="`num_samples`"):
        model.sample(0)
    with pytest.raises(ValueError, match="`num_samples`"):
        model.impute(IMAGES[:2], np.ones(SHAPE, bool), num_samples=0)
    with pytest.raises(ValueError, match="`mask`"):
        model.impute(IMAGES[:2], np.ones((5, 5)))
    with pytest.raises(ValueError, match="`x`"):
        model.log_prob(255 * IMAGES[:2])
