import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from keras_gen import pixel_likelihoods

NAMES = ("bernoulli", "gaussian", "discretized_logistic", "categorical")
LEVELS = (np.arange(256) / 255).astype("float32").reshape(256, 1, 1, 1)


def decoder_output(name, *shape, channels=1, seed=0):
    maps = pixel_likelihoods.get(name).maps(channels)
    h = np.random.default_rng(seed).normal(size=(*shape, maps))
    return h.astype("float32")


def images(*shape, seed=1):
    levels = np.random.default_rng(seed).integers(0, 256, shape)
    return (levels / 255).astype("float32")


def loc_and_scale(h):
    loc, scale = np.split(np.asarray(h, "float64"), 2, axis=-1)
    return loc + 0.5, np.logaddexp(0, scale) + 1e-3


def numpy_log_prob(name, h, x, noise):
    """The same once more, in NumPy and float64, of a single image."""
    h, x = np.asarray(h, "float64"), np.asarray(x, "float64")
    if name == "bernoulli":
        p = scipy.special.expit(h)
        return np.sum(x * np.log(p) + (1 - x) * np.log1p(-p))
    if name == "categorical":
        h = h.reshape(*x.shape, 256)
        level = np.round(255 * x).astype(int)[..., np.newaxis]
        log_p = scipy.special.log_softmax(h, axis=-1)
        return np.take_along_axis(log_p, level, axis=-1).sum()
    loc, scale = loc_and_scale(h)
    if name == "gaussian":
        value = (np.round(255 * x) + noise) / 256
        log_p = scipy.stats.norm(loc, scale).logpdf(value)
        return np.sum(log_p) - x.size * math.log(256)
    logistic = scipy.stats.logistic(loc, scale)
    above = np.where(x > 0.999, 1, logistic.cdf(x + 1 / 510))
    below = np.where(x < 0.001, 0, logistic.cdf(x - 1 / 510))
    return np.sum(np.log(above - below))


@pytest.mark.parametrize(
    "name, maps", [(NAMES[0], 3), (NAMES[1], 6), (NAMES[2], 6), (NAMES[3], 768)]
)
def test_maps_are_the_numbers_of_a_pixel(name, maps):
    assert pixel_likelihoods.get(name).maps(3) == maps


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_log_prob_is_the_formula(name, channels):
    h = decoder_output(name, 4, 2, 3, channels=channels)
    x = images(4, 2, 3, channels)
    noise = np.random.default_rng(2).uniform(size=x.shape).astype("float32")
    likelihood = pixel_likelihoods.get(name)
    log_prob = likelihood.log_prob(h, x, noise if likelihood.needs_noise else 0)
    assert log_prob.dtype == tf.float32
    expected = [
        numpy_log_prob(name, *row) for row in zip(h, x, noise, strict=True)
    ]
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_is_that_of_the_distribution(name):
    h, x = decoder_output(name, 4, 2, 3), images(4, 2, 3, 1)
    likelihood = pixel_likelihoods.get(name)
    distribution = likelihood.distribution(h)
    assert distribution.batch_shape == (4,)
    assert distribution.event_shape == (2, 3, 1)
    value, units = x, 0.0
    if likelihood.needs_noise:  # the density at (k + noise) / 256
        value, units = (np.round(x * 255) + 0.25) / 256, 6 * math.log(256)
    np.testing.assert_allclose(
        likelihood.log_prob(h, x, 0.25 if likelihood.needs_noise else 0.0),
        distribution.log_prob(value) - units,
        rtol=1e-5,
    )


@pytest.mark.parametrize("name", ["discretized_logistic", "categorical"])
def test_probabilities_of_the_levels_sum_to_one(name):
    h = 3 * decoder_output(name, 1, 1, 1, seed=4)
    log_prob = pixel_likelihoods.get(name).log_prob(h, LEVELS)
    assert np.sum(np.exp(log_prob)) == pytest.approx(1, abs=1e-5)


def test_dequantized_levels_share_the_mass_of_the_unit_interval():
    h = np.array([0.2, -1.0], "float32").reshape(1, 1, 1, 2)
    noise = (np.arange(16, dtype="float32") + 0.5) / 16
    likelihood = pixel_likelihoods.Gaussian()
    log_prob = likelihood.log_prob(h, LEVELS, noise.reshape(16, 1, 1, 1, 1))
    assert log_prob.shape == (16, 256)
    normal = scipy.stats.norm(*np.ravel(loc_and_scale(h)))
    assert np.mean(np.exp(log_prob), axis=0).sum() == pytest.approx(
        normal.cdf(1) - normal.cdf(0), rel=1e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_images_broadcast_over_draws(name):
    h, x = decoder_output(name, 3, 5, 2, 2), images(3, 2, 2, 1)
    likelihood = pixel_likelihoods.get(name)
    together = likelihood.log_prob(h, x[:, np.newaxis], 0.5)
    assert together.shape == (3, 5)
    for k in range(5):
        np.testing.assert_allclose(
            together[:, k], likelihood.log_prob(h[:, k], x, 0.5), rtol=1e-5
        )


@pytest.mark.parametrize("name", NAMES)
def test_samples_and_their_mean_are_those_of_the_pixels(name):
    h = decoder_output(name, 1, 1, 2, seed=6)
    if name == "gaussian":  # little is clipped
        h = h * 0.05 - np.array([0.0, 2.5], "float32")
    distribution = pixel_likelihoods.get(name).distribution(h)
    samples = np.asarray(distribution.sample(20000, seed=(1, 2)))
    assert samples.shape == (20000, 1, 1, 2, 1)
    assert samples.min() >= 0 and samples.max() <= 1
    error = samples.std(axis=0) / np.sqrt(20000)
    # The mean of the rounded logistic is exact to half a level.
    np.testing.assert_array_less(
        np.abs(samples.mean(axis=0) - distribution.mean()),
        4 * error + 1 / 510,
    )
    assert np.any(samples != distribution.sample(20000, seed=(1, 3)))


def test_categorical_levels_are_drawn_with_their_probabilities():
    h = np.full((1, 1, 256), -30.0, "float32")
    h[..., [0, 7, 255]] = np.log([0.2, 0.5, 0.3])
    distribution = pixel_likelihoods.Categorical().distribution(h)
    samples = np.asarray(distribution.sample(20000, seed=(1, 2)))
    frequency = np.bincount(
        np.round(255 * samples).astype(int).ravel(), minlength=256
    )
    np.testing.assert_allclose(
        frequency[[0, 7, 255]] / 20000, [0.2, 0.5, 0.3], atol=0.015
    )
    assert frequency.sum() == 20000
    np.testing.assert_allclose(
        distribution.mean(), np.full((1, 1, 1), 0.5 * 7 / 255 + 0.3), rtol=1e-5
    )


def test_categorical_logits_lie_channel_by_channel():
    h = np.zeros((1, 1, 768), "float32")
    h[..., [10, 256 + 20, 512 + 30]] = 100.0
    mean = pixel_likelihoods.Categorical().distribution(h).mean()
    np.testing.assert_allclose(255 * np.ravel(mean), [10, 20, 30], rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_computed_in_float32(name):
    h, x = decoder_output(name, 2, 2, 2), images(2, 2, 2, 1)
    h = h.astype("float16")
    likelihood = pixel_likelihoods.get(name)
    half = likelihood.log_prob(tf.constant(h), x, 0.5)
    assert half.dtype == tf.float32
    np.testing.assert_array_equal(
        half, likelihood.log_prob(h.astype("float32"), x, 0.5)
    )
    assert likelihood.distribution(h).mean().dtype == tf.float32


@pytest.mark.parametrize("name", NAMES)
def test_likelihoods_and_their_gradients_compile(name):
    likelihood = pixel_likelihoods.get(name)
    h = tf.constant(decoder_output(name, 3, 1, 2, 2))
    x = images(3, 1, 2, 2, 1)[:, 0]

    def value_and_gradient(h):
        with tf.GradientTape() as tape:
            tape.watch(h)
            log_prob = likelihood.log_prob(h, x[:, np.newaxis], 0.5)
        sample = likelihood.distribution(h).sample(seed=(1, 2))
        return log_prob, tape.gradient(log_prob, h), sample

    log_prob, gradient, _ = value_and_gradient(h)
    compiled = tf.function(value_and_gradient, jit_compile=True)(h)
    np.testing.assert_allclose(compiled[0], log_prob, rtol=1e-4)
    np.testing.assert_allclose(compiled[1], gradient, rtol=1e-3, atol=1e-5)
    assert np.any(gradient)
    assert compiled[2].shape == (3, 1, 2, 2, 1)


@pytest.mark.parametrize("name", NAMES)
def test_likelihoods_are_found_by_name_and_pass_through(name):
    likelihood = pixel_likelihoods.get(name)
    assert likelihood.name == name
    assert pixel_likelihoods.get(likelihood) is likelihood


@pytest.mark.parametrize("wrong", ["poisson", None, pixel_likelihoods.Gaussian])
def test_other_likelihoods_are_refused(wrong):
    with pytest.raises(ValueError, match=r"`likelihood`.*bernoulli"):
        pixel_likelihoods.get(wrong)
