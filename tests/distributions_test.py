import math

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from keras_gen.distributions import (
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    bits_per_dim,
)

tfd = tfp.distributions

LEVELS = np.arange(256) / 255
LOCS = [-0.5, 0.0, 0.3, 1.0, 2.0]
SCALES = [1e-4, 0.003, 0.05, 0.5, 20.0]


def quantized_logistic(loc, scale):
    """The same distribution by other code, on the integers 0..255."""
    logistic = tfd.Logistic(
        np.float64(255 * loc - 0.5), np.float64(255 * scale)
    )
    # `QuantizedDistribution` rounds up, hence the shift by half a level.
    return tfd.QuantizedDistribution(logistic, low=0.0, high=255.0)


def probabilities(loc, scale):
    log_prob = DiscretizedLogistic(loc, scale).log_prob(LEVELS)
    return np.exp(np.asarray(log_prob, "float64"))


def test_bits_per_dim_of_uniform_noise_is_eight():
    log_prob = np.full(3, -28 * 28 * math.log(256))
    np.testing.assert_allclose(bits_per_dim(log_prob, (28, 28, 1)), 8)
    assert bits_per_dim(-3 * math.log(2), (1, 1, 3)) == pytest.approx(1)


def test_bits_per_dim_takes_tensors():
    log_prob = tf.constant([-12 * math.log(2), 0.0])
    np.testing.assert_allclose(bits_per_dim(log_prob, (2, 2, 3)), [1, 0])


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("loc", LOCS)
def test_probabilities_of_the_levels_sum_to_one(loc, scale):
    assert probabilities(loc, scale).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("scale", [0.003, 0.05, 0.5, 20.0])
@pytest.mark.parametrize("loc", LOCS)
def test_log_prob_is_that_of_the_quantized_logistic(loc, scale):
    expected = quantized_logistic(loc, scale).log_prob(255 * LEVELS)
    log_prob = DiscretizedLogistic(loc, scale).log_prob(LEVELS)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4, atol=1e-4)


def test_log_prob_of_the_central_level_is_the_formula_of_pixel_cnn():
    # A logistic around 127 / 255 one level wide: sigmoid(1/2) - sigmoid(-1/2).
    distribution = DiscretizedLogistic(127 / 255, 1 / 255)
    expected = math.log(math.tanh(1 / 4))
    assert float(distribution.log_prob(127 / 255)) == pytest.approx(expected)


def test_edge_levels_take_what_lies_beyond():
    assert probabilities(-5.0, 0.1)[0] == pytest.approx(1)
    assert probabilities(6.0, 0.1)[-1] == pytest.approx(1)
    # Half of a very wide logistic lies on either side of the middle.
    wide = probabilities(0.5, 1e4)
    assert wide[0] == pytest.approx(0.5, abs=1e-3)
    assert wide[-1] == pytest.approx(0.5, abs=1e-3)


def test_log_prob_rounds_to_the_nearest_level():
    distribution = DiscretizedLogistic(0.4, 0.01)
    np.testing.assert_array_equal(
        distribution.log_prob(LEVELS[1:-1] + 0.4 / 255),
        distribution.log_prob(LEVELS[1:-1]),
    )


def test_log_prob_reads_half_precision_images_and_parameters():
    loc, scale = np.float16(0.375), np.float16(0.0625)
    distribution = DiscretizedLogistic(loc, scale)
    assert distribution.dtype == tf.float32
    np.testing.assert_array_equal(
        distribution.log_prob(LEVELS.astype("float16")),
        DiscretizedLogistic(0.375, 0.0625).log_prob(LEVELS),
    )


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 0.1, 1e6])
@pytest.mark.parametrize("loc", [-1e3, 0.5, 1e3])
def test_log_prob_and_its_gradients_are_finite_far_out(loc, scale):
    loc, scale = tf.constant(loc), tf.constant(scale)
    with tf.GradientTape() as tape:
        tape.watch([loc, scale])
        log_prob = DiscretizedLogistic(loc, scale).log_prob(LEVELS)
    assert np.all(np.isfinite(log_prob))
    assert np.all(np.isfinite(tape.gradient(log_prob, [loc, scale])))


@pytest.mark.parametrize("level", [0, 100, 255])
def test_gradients_are_those_of_the_quantized_logistic(level):
    loc = tf.constant(0.3, tf.float64)
    scale = tf.constant(0.1, tf.float64)

    def gradients(log_prob):
        with tf.GradientTape() as tape:
            tape.watch([loc, scale])
            y = log_prob(loc, scale)
        return tape.gradient(y, [loc, scale])

    np.testing.assert_allclose(
        gradients(lambda a, b: DiscretizedLogistic(a, b).log_prob(level / 255)),
        gradients(
            lambda a, b: tfd.QuantizedDistribution(
                tfd.Logistic(255 * a - 0.5, 255 * b), low=0.0, high=255.0
            ).log_prob(np.float64(level))
        ),
        rtol=1e-3,
    )


def test_samples_are_levels_drawn_with_their_probabilities():
    distribution = DiscretizedLogistic([0.02, 0.5], [0.05, 0.004])
    samples = np.asarray(distribution.sample(20000, seed=(1, 2)))
    assert samples.shape == (20000, 2)
    levels = np.round(255 * samples).astype(int)
    np.testing.assert_allclose(samples, levels / 255, atol=1e-7)
    for i, (loc, scale) in enumerate([(0.02, 0.05), (0.5, 0.004)]):
        frequency = np.bincount(levels[:, i], minlength=256) / 20000
        error = np.abs(frequency - probabilities(loc, scale))
        assert error.max() < 4 * 0.5 / np.sqrt(20000)


def test_the_same_seed_gives_the_same_samples():
    distribution = DiscretizedLogistic(tf.fill((4, 4), 0.5), 0.1)
    first, second, third = (
        np.asarray(distribution.sample(seed=seed))
        for seed in [(0, 1), (0, 1), (0, 2)]
    )
    np.testing.assert_array_equal(first, second)
    assert np.any(first != third)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("loc", LOCS)
def test_mean_is_that_of_the_levels_to_half_a_level(loc, scale):
    expected = np.sum(probabilities(loc, scale) * LEVELS)
    mean = float(DiscretizedLogistic(loc, scale).mean())
    assert mean == pytest.approx(expected, abs=1 / 510)
    assert 0 <= mean <= 1


def test_log_prob_of_an_image_is_the_sum_over_its_pixels():
    loc = tf.fill((2, 4, 3, 1), 0.5)
    pixels = DiscretizedLogistic(loc, 0.1)
    images = tfd.Independent(pixels, 3)
    assert pixels.batch_shape == (2, 4, 3, 1)
    assert images.batch_shape == (2,) and images.event_shape == (4, 3, 1)
    np.testing.assert_allclose(
        images.log_prob(loc), 12 * pixels.log_prob(0.5)[:, 0, 0, 0], rtol=1e-5
    )


def test_scale_is_checked_on_request():
    with pytest.raises(tf.errors.InvalidArgumentError, match="`scale`"):
        DiscretizedLogistic(0.5, -1.0, validate_args=True)


def mixture(num_channels, num_components, coupled=True, seed=0):
    """A mixture of logistics with parameters at random, of batch shape (2,)."""
    rng = np.random.default_rng(seed)
    num_pairs = num_channels * (num_channels - 1) // 2
    shape = (2, num_channels, num_components)
    return DiscretizedLogisticMixture(
        rng.normal(size=(2, num_components)),
        rng.uniform(-0.2, 1.2, shape),
        np.exp(rng.uniform(-4, -1, shape)),
        rng.uniform(-1, 1, (2, num_pairs, num_components)) if coupled else None,
    )


@pytest.mark.parametrize(
    "name, shape, message",
    [
        ("logits", (2, 1), "1 of `logits`, 4 of `loc`"),
        ("scale", (2, 3, 1), "1 of `scale`"),
        ("coefficients", (2, 3, 1), "1 of `coefficients`"),
        (
            "coefficients",
            (2, 1, 4),
            "`coefficients` must.* 3 rows for the 3 channels.*got 1",
        ),
        ("coefficients", (2, 6, 4), "3 rows for the 3 channels.*got 6"),
        ("loc", (2, 2, 4), "1 rows for the 2 channels.*got 3"),
    ],
)
def test_mixture_parameters_of_other_shapes_are_refused(name, shape, message):
    shapes = {
        "logits": (2, 4),
        "loc": (2, 3, 4),
        "scale": (2, 3, 4),
        "coefficients": (2, 3, 4),
    }
    DiscretizedLogisticMixture(**{k: tf.ones(v) for k, v in shapes.items()})
    shapes[name] = shape
    with pytest.raises(ValueError, match=message):
        DiscretizedLogisticMixture(**{k: tf.ones(v) for k, v in shapes.items()})


def test_mixture_takes_shapes_that_are_not_known_yet():
    @tf.function(input_signature=[tf.TensorSpec(None)] * 3)
    def log_prob(logits, loc, scale):
        return DiscretizedLogisticMixture(logits, loc, scale).log_prob([0.5])

    given = tf.zeros(2), tf.zeros((1, 2)), tf.ones((1, 2))
    expected = DiscretizedLogisticMixture(*given).log_prob([0.5])
    np.testing.assert_allclose(log_prob(*given), expected, rtol=1e-6)


def all_pairs_of_levels():
    return np.stack(np.meshgrid(LEVELS, LEVELS, indexing="ij"), axis=-1)


def test_mixture_probabilities_of_all_pixels_sum_to_one():
    grey = mixture(1, 3, coupled=False)
    p = np.exp(grey.log_prob(LEVELS[:, np.newaxis, np.newaxis]))
    np.testing.assert_allclose(p.sum(axis=0), 1, atol=1e-5)
    pairs = all_pairs_of_levels().reshape(-1, 1, 2)
    p = np.exp(np.asarray(mixture(2, 2).log_prob(pairs), "float64"))
    np.testing.assert_allclose(p.sum(axis=0), 1, atol=1e-4)


def test_mixture_log_prob_is_the_formula_of_pixel_cnn():
    """By other code: on [-1, 1], in double precision, pair by pair."""
    distribution = mixture(3, 2)
    x = np.random.default_rng(1).integers(0, 256, (50, 1, 3)) / 255
    y = 2 * x[..., np.newaxis] - 1
    logits, loc, scale, slopes = (
        np.asarray(v, "float64")
        for v in (
            distribution.logits,
            2 * distribution.loc - 1,
            2 * distribution.scale,
            distribution.coefficients,
        )
    )
    loc = np.tile(loc, (50, 1, 1, 1))
    loc[:, :, 1] += slopes[:, 0] * y[:, :, 0]
    loc[:, :, 2] += slopes[:, 1] * y[:, :, 0] + slopes[:, 2] * y[:, :, 1]
    upper, lower = (
        1 / (1 + np.exp(-(y + side / 255 - loc) / scale)) for side in (1, -1)
    )
    upper, lower = np.where(y > 0.999, 1, upper), np.where(y < -0.999, 0, lower)
    shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    p = np.sum(shares * np.prod(upper - lower, axis=-2), axis=-1)
    likely = p > 1e-12
    assert likely.sum() > 30
    log_prob = np.asarray(distribution.log_prob(x))
    np.testing.assert_allclose(log_prob[likely], np.log(p[likely]), rtol=1e-3)


def test_mixture_conditionals_multiply_to_the_joint_distribution():
    distribution = mixture(3, 2)
    x = np.random.default_rng(1).integers(0, 256, (50, 2, 3)) / 255
    of_channels = distribution.conditionals(x).log_prob(x)
    np.testing.assert_allclose(
        tf.reduce_sum(of_channels, axis=-1), distribution.log_prob(x), rtol=1e-4
    )
    # A later channel changes nothing.
    other = x.copy()
    other[..., 2] = 0.5
    np.testing.assert_array_equal(
        distribution.conditionals(other).mean(),
        distribution.conditionals(x).mean(),
    )


def test_mixture_samples_follow_their_probabilities():
    distribution, pairs = mixture(2, 2), all_pairs_of_levels()
    samples = np.asarray(distribution.sample(20000, seed=(1, 2)))
    assert samples.shape == (20000, 2, 2)
    np.testing.assert_allclose(255 * samples, np.rint(255 * samples), atol=1e-4)
    p = np.exp(distribution.log_prob(pairs.reshape(-1, 1, 2)))
    pairs = pairs.reshape(-1, 2)
    for i in range(2):
        for function in (
            lambda x: x[:, 0],
            lambda x: x[:, 1],
            lambda x: x[:, 0] * x[:, 1],
            lambda x: x[:, 1] > x[:, 0],
        ):
            values = function(pairs)
            mean = np.sum(p[:, i] * values)
            deviation = np.sqrt(np.sum(p[:, i] * (values - mean) ** 2) / 20000)
            found = function(samples[:, i]).mean()
            assert abs(found - mean) < 4 * deviation + 1e-6


def test_mixture_mean_is_that_of_the_levels_where_channels_do_not_couple():
    distribution = mixture(1, 3, coupled=False)
    p = np.exp(distribution.log_prob(LEVELS[:, np.newaxis, np.newaxis]))
    wanted = np.sum(p * LEVELS[:, np.newaxis], axis=0)
    np.testing.assert_allclose(distribution.mean()[:, 0], wanted, atol=1 / 510)
    with pytest.raises(NotImplementedError, match="conditionals"):
        mixture(2, 3).mean()


def test_mixture_knows_its_shapes_and_wraps_into_images():
    distribution = mixture(3, 2)
    assert distribution.batch_shape == (2,) and distribution.event_shape == (3,)
    images = tfd.Independent(distribution, 1)
    assert images.event_shape == (2, 3)
    assert images.sample(5, seed=(0, 1)).shape == (5, 2, 3)
    uncoupled = mixture(3, 2, coupled=False)
    assert uncoupled.sample(4, seed=(0, 1)).shape == (4, 2, 3)
