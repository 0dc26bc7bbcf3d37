"""The mathematics of FVBN and NADE; see also pixel_by_pixel_test."""

import itertools
import math

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from keras_gen.models.nade import FVBN, NADE, nade_logits

SHAPE = (2, 3, 1)
IMAGES = np.array(list(itertools.product((0, 1), repeat=6)), "float32")
IMAGES = IMAGES.reshape(-1, *SHAPE)


def nade(num_orders=1, hidden_dim=5, shape=SHAPE):
    """A NADE of weights that are not small."""
    model = NADE(shape, hidden_dim, num_orders=num_orders, seed=1)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, 0.8, weight.shape))
    return model


def published_log_prob(model, x, order):
    """The recurrence, a pixel and an image at a time, in float64."""
    weights = {
        weight.name: np.array(weight, "float64")
        for weight in model.trainable_weights
    }
    shown = weights.get("shown_kernel", np.zeros_like(weights["kernel"]))
    log_probs = []
    for image in np.asarray(x, "float64").reshape(len(x), -1):
        a, total = weights["bias"], 0.0
        for i in order:
            h = scipy.special.expit(a)
            logit = weights["output_bias"][i] + weights["output_kernel"][i] @ h
            total += scipy.special.log_expit(logit if image[i] else -logit)
            a = a + weights["kernel"][i] * image[i] + shown[i]
        log_probs.append(total)
    return np.array(log_probs)


def test_log_prob_is_that_of_the_published_recurrence():
    model = nade()
    np.testing.assert_allclose(
        model.log_prob(IMAGES),
        published_log_prob(model, IMAGES, range(6)),
        rtol=1e-5,
    )


def test_an_ensemble_averages_the_published_recurrence_over_its_orders():
    model = nade(num_orders=4)
    assert len({tuple(order) for order in model.orders}) == 4
    by_order = [published_log_prob(model, IMAGES, o) for o in model.orders]
    np.testing.assert_allclose(
        model.log_prob(IMAGES),
        scipy.special.logsumexp(by_order, axis=0) - math.log(4),
        rtol=1e-5,
    )


def test_more_orders_begin_with_those_of_fewer():
    np.testing.assert_array_equal(
        nade(num_orders=5).orders[:3], nade(num_orders=3).orders
    )


@pytest.mark.parametrize("num_dims, scale", [(6, 1.0), (500, 3.0)])
def test_the_gradient_is_that_of_all_hidden_layers_at_once(num_dims, scale):
    """Which is taken in float64, so that the second shows no lost digits."""
    rng = np.random.default_rng(0)
    shape = (num_dims, 4)
    arguments = [
        np.round(rng.random((7, num_dims)), 2 if scale == 1 else 0),
        *(rng.normal(0, scale, shape) for _ in range(3)),
        rng.normal(size=num_dims),
    ]
    weights = rng.normal(size=(7, num_dims))

    def gradients(logits_of, dtype, **options):
        tensors = [tf.constant(argument, dtype) for argument in arguments]

        @tf.function(autograph=False, **options)
        def compute(*tensors):
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                logits = logits_of(*tensors)
                total = tf.reduce_sum(logits * tf.cast(weights, dtype))
            return logits, *tape.gradient(total, tensors)

        return [np.asarray(value) for value in compute(*tensors)]

    def at_once(x, kernel, bias, output_kernel, output_bias):
        a = tf.cumsum(x[:, :, tf.newaxis] * kernel, axis=1, exclusive=True)
        h = tf.sigmoid(a + bias)
        return tf.reduce_sum(h * output_kernel, axis=2) + output_bias

    expected = gradients(at_once, "float64")
    for options in ({}, {"jit_compile": True})[: 1 + (num_dims > 6)]:
        found = gradients(nade_logits, "float32", **options)
        for one, other in zip(found, expected, strict=True):
            close = 2e-5 * np.abs(other).max()
            np.testing.assert_allclose(one, other, atol=close, rtol=1e-4)


def test_the_order_agnostic_loss_is_the_mean_over_orders_and_splits():
    model = nade(num_orders=2, shape=(2, 2, 1))
    x = IMAGES.reshape(-1, 6)[::3, :4].reshape(-1, 2, 2, 1)
    orders = list(itertools.permutations(range(4)))
    expected = [-published_log_prob(model, x, order) for order in orders]
    losses = []
    for order, d in itertools.product(orders, range(1, 5)):
        shown = np.zeros((len(x), 4), "float32")
        shown[:, list(order[: d - 1])] = 1
        losses.append(model._order_agnostic_loss(x, shown, d - 1.0))
    np.testing.assert_allclose(
        np.mean(losses, axis=0), np.mean(expected, axis=0), rtol=1e-5
    )


def test_what_is_shown_is_a_random_order_cut_at_a_random_place():
    model, count = nade(num_orders=2, shape=(2, 2, 1)), 20_000
    shown, num_shown = model._splits(tf.zeros((count, 2, 2, 1)))
    np.testing.assert_array_equal(num_shown, np.sum(shown, axis=1))
    subset = np.asarray(shown).astype(int) @ [8, 4, 2, 1]
    sizes = [bin(i).count("1") for i in range(15)]
    expected = [count / 4 / math.comb(4, size) for size in sizes]
    found = np.bincount(subset, minlength=15)  # all four are never shown
    assert scipy.stats.chisquare(found, expected).pvalue > 1e-3


def test_order_agnostic_imputation_is_the_conditional_for_any_mask():
    model = nade(num_orders=2)
    x = IMAGES[37][np.newaxis]
    mask = np.array([0, 1, 0, 0, 1, 1], bool)
    missing = np.flatnonzero(~mask)
    agrees = np.all((IMAGES == x).reshape(-1, 6) | ~mask, axis=1)
    expected = 0
    for order in model.orders:
        order = [*np.flatnonzero(mask), *(i for i in order if i in missing)]
        p = np.exp(published_log_prob(model, IMAGES[agrees], order))
        expected += p / p.sum() / len(model.orders)
    count = 4000
    draws = model.impute(x, mask.reshape(SHAPE), num_samples=count, seed=0)
    draws = np.asarray(draws).reshape(count, 6)
    np.testing.assert_array_equal(
        draws[:, mask], np.tile(x[0].ravel()[mask], (count, 1))
    )
    found = np.bincount((draws[:, missing] @ [4, 2, 1]).astype(int))
    assert scipy.stats.chisquare(found, count * expected).pvalue > 1e-3


def trained(model, x, steps=300):
    model.compile(keras.optimizers.Adam(0.1), jit_compile=False)
    x = np.tile(x, (8, 1, 1, 1))
    model.fit(
        x, batch_size=len(x), epochs=steps // 50, steps_per_epoch=50, verbose=0
    )
    return float(-np.mean(model.log_prob(x)))


XOR = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]], "uint8")
XOR = 255 * XOR.reshape(4, 1, 3, 1)


def test_a_hidden_layer_learns_what_logistic_regression_cannot():
    """The third pixel tells by itself whether the first two differ."""
    loss = trained(FVBN((1, 3, 1)), XOR)
    assert loss == pytest.approx(3 * math.log(2), abs=1e-3)
    loss = trained(NADE((1, 3, 1), 8), XOR)
    assert loss == pytest.approx(2 * math.log(2), abs=0.02)


def test_order_agnostic_training_learns_every_conditional():
    model = NADE((1, 3, 1), 16, num_orders=6, seed=1)
    assert trained(model, XOR) == pytest.approx(2 * math.log(2), abs=0.2)
    for missing in range(3):
        mask = np.arange(3).reshape(1, 3, 1) != missing
        filled = model.impute(XOR, mask, num_samples=50, seed=0)
        assert np.mean(filled == XOR / 255.0) > 0.95


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"hidden_dim": 0}, "hidden_dim"),
        ({"hidden_dim": 2.5}, "hidden_dim"),
        ({"hidden_dim": 4, "num_orders": 0}, "num_orders"),
        ({"hidden_dim": 4, "likelihood": "normal"}, "likelihood"),
    ],
)
def test_bad_arguments_are_refused(arguments, word):
    with pytest.raises(ValueError, match=f"`{word}`"):
        NADE(SHAPE, **arguments)


def test_fvbn_has_one_order():
    model = FVBN(SHAPE, num_orders=1)
    assert model.get_config()["num_orders"] == 1
    copy = FVBN.from_config(model.get_config())
    assert copy.get_config() == model.get_config()
    for bad in (0, 2, 1.0, True, "1", None):
        with pytest.raises(ValueError, match=r"`num_orders`.*one order.*NADE"):
            FVBN(SHAPE, num_orders=bad)
