import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from keras_gen import pixel_draws

LEVELS = np.arange(256, dtype="float32") / 255


def normal(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return tf.constant(rng.normal(size=shape), "float32")


def grid(count):
    """The middles of so many equal parts of [0, 1]."""
    return (np.arange(count, dtype="float32") + 0.5) / count


@pytest.mark.parametrize("n", [3, 10, 256])
def test_choose_inverts_the_distribution_function(n):
    p = np.random.default_rng(0).dirichlet(np.full(n, 0.3)).astype("float32")
    uniform = grid(5000)
    chosen = pixel_draws.choose(np.tile(p, (5000, 1)), uniform)
    edges = np.cumsum(p.astype("float64"))
    wanted = np.minimum(np.searchsorted(edges, uniform, "right"), n - 1)
    assert np.mean(chosen != wanted) < 1e-3  # next to an edge
    np.testing.assert_array_less(np.abs(chosen - wanted), 1.5)


def test_the_last_level_is_the_last_one_chosen():
    p = np.full((1, 256), 0.999 / 256, "float32")
    chosen = pixel_draws.choose(p, np.array([0.9999], "float32"))
    assert float(chosen[0]) == 255


def test_bernoulli_draws_white_with_its_probability():
    pixels = pixel_draws.get("bernoulli")
    uniform = np.stack([grid(1000), 1 - grid(1000)], axis=1)
    h, x = tf.fill((1000, 1), -1.0), tf.zeros((1000, 2))
    for channel in range(2):
        drawn = np.asarray(pixels.draw(h, uniform, x, channel))
        assert set(drawn) == {0, 1}
        assert drawn.mean() == pytest.approx(1 / (1 + np.e), abs=1e-3)


def test_categorical_draws_levels_with_their_probabilities():
    pixels, h = pixel_draws.get("categorical"), 3 * normal(1, 256)
    drawn = pixels.draw(
        tf.repeat(h, 20000, axis=0), grid(20000)[:, np.newaxis], None, 0
    )
    found = np.bincount(np.rint(255 * np.asarray(drawn)).astype(int))
    wanted = np.asarray(tf.nn.softmax(h))[0]
    np.testing.assert_allclose(found / 20000, wanted, atol=2e-4)


@pytest.mark.parametrize("channel", [0, 2])
def test_mixture_draws_each_channel_given_those_before(channel):
    pixels = pixel_draws.get("discretized_logistic", num_components=3)
    h, x = normal(1, pixels.maps(3)) - 1.0, tf.constant([[0.2, 0.9, 0.4]])
    # Points that fill the square evenly.
    points = scipy.stats.qmc.Sobol(2, scramble=False).random(2**16)
    uniform = np.full((len(points), 6), 0.5, "float32")
    uniform[:, 2 * channel : 2 * channel + 2] = points
    drawn = pixels.draw(
        tf.repeat(h, len(points), axis=0),
        uniform,
        tf.repeat(x, len(points), axis=0),
        channel,
    )
    found = np.bincount(
        np.rint(255 * np.asarray(drawn)).astype(int), minlength=256
    )
    candidates = np.tile(x, (256, 1))
    candidates[:, channel] = LEVELS
    log_probs = pixels._pixels(tf.repeat(h, 256, axis=0)).conditionals(
        candidates
    )
    wanted = np.exp(log_probs.log_prob(candidates))[:, channel]
    assert wanted.sum() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(found / len(points), wanted, atol=3e-4)


def test_categorical_log_prob_is_that_of_its_distribution():
    pixels, h = pixel_draws.get("categorical"), normal(2, 3, 4, 512)
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 2)) / np.float32(
        255
    )
    np.testing.assert_allclose(
        pixels.log_prob(h, x), pixels.distribution(h).log_prob(x), rtol=1e-5
    )


def test_a_pixel_that_is_not_a_number_gives_one():
    pixels = pixel_draws.get("categorical")
    h = tf.fill((1, 2, 2, 256), np.nan)
    assert np.isnan(pixels.log_prob(h, tf.fill((1, 2, 2, 1), np.nan)))
    # The last one of an image, of which no logits tell.
    x, h = np.zeros((2, 2, 2, 1), "float32"), normal(2, 2, 2, 256)
    x[0, -1, -1, -1] = np.nan
    with tf.GradientTape() as tape:
        tape.watch(h)
        log_prob = pixels.log_prob(h, x)
    np.testing.assert_array_equal(np.isnan(log_prob), [True, False])
    slopes = np.isnan(tape.gradient(log_prob, h))
    assert slopes[0, -1, -1].all() and not slopes[1].any()


@pytest.mark.parametrize("name", ["bernoulli", "categorical"])
def test_means_are_those_of_the_distribution(name):
    pixels = pixel_draws.get(name)
    h = normal(2, 3, 4, pixels.maps(2))
    mean = pixels.mean(h, tf.zeros((2, 3, 4, 2)))
    np.testing.assert_allclose(mean, pixels.distribution(h).mean(), rtol=1e-5)


def test_means_of_a_mixture_are_those_given_earlier_channels():
    pixels = pixel_draws.get("discretized_logistic", num_components=2)
    h, x = (
        normal(1, 1, 1, pixels.maps(2)),
        np.full((256, 1, 1, 2), 0.8, "float32"),
    )
    x[..., 1] = LEVELS[:, np.newaxis, np.newaxis]
    p = np.exp(pixels.distribution(tf.repeat(h, 256, axis=0)).log_prob(x))
    mean = np.asarray(pixels.mean(h, x[:1]))[0, 0, 0, 1]
    assert mean == pytest.approx(np.sum(p * LEVELS) / p.sum(), abs=1 / 510)


def test_one_grey_component_costs_what_a_discretized_logistic_does():
    pixels = pixel_draws.get("discretized_logistic", num_components=1)
    assert pixels.maps(1) == 3 and pixels.maps(3) == 10
    h = normal(2, 3, 4, 3)
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 1)) / 255
    # By other code, on [-1, 1] and in double precision.
    loc, log_scale = (np.asarray(h, "float64")[..., i] for i in (1, 2))
    y = 2 * x[..., 0] - 1
    upper, lower = (
        1 / (1 + np.exp(-(y + side / 255 - loc) / np.exp(log_scale)))
        for side in (1, -1)
    )
    upper, lower = np.where(y > 0.999, 1, upper), np.where(y < -0.999, 0, lower)
    wanted = np.log(upper - lower).sum(axis=(1, 2))
    np.testing.assert_allclose(pixels.log_prob(h, x), wanted, rtol=1e-4)


def test_other_likelihoods_are_refused():
    with pytest.raises(ValueError, match=r"`likelihood`.*'gaussian'"):
        pixel_draws.get("gaussian")
    with pytest.raises(ValueError, match="`num_components`"):
        pixel_draws.get("discretized_logistic", 0)
