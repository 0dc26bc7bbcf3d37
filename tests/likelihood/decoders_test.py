import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from keras_gen.layers.priors import FlatOneHot
from keras_gen.likelihood import (
    annealed_importance,
    bidirectional_annealing,
    gaussian_observation,
    sigmoid_schedule,
)
from keras_gen.models.gan import GAN
from keras_gen.models.vae import VAE

tfd = tfp.distributions

WEIGHTS = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
NOISE = 0.5
COVARIANCE = WEIGHTS @ WEIGHTS.T + NOISE**2 * np.eye(5)
SLOPE = np.array([2.0, -1.0, 0.5, 1.5], "float32")


def normal(loc, scale):
    return tfd.Independent(tfd.Normal(loc, scale), 1)


# x = W z + noise, and four binary pixels of logits SLOPE * z.
LINEAR = {
    "prior": normal(tf.zeros(3), 1.0),
    "likelihood": lambda z: normal(tf.linalg.matvec(WEIGHTS, z), NOISE),
}
BINARY = {
    "prior": normal(tf.zeros(1), 1.0),
    "likelihood": lambda z: tfd.Independent(
        tfd.Bernoulli(logits=SLOPE * z, dtype=tf.float32), 1
    ),
}


def exact_linear(x):
    return scipy.stats.multivariate_normal(np.zeros(5), COVARIANCE).logpdf(x)


def exact_binary(x):
    z, weights = np.polynomial.hermite_e.hermegauss(60)
    signs = 2 * np.asarray(x) - 1
    log_likelihood = scipy.special.log_expit(
        signs[:, None] * SLOPE * z[:, None]
    ).sum(axis=-1)
    return np.log(np.exp(log_likelihood) @ weights / weights.sum())


@pytest.fixture(scope="module")
def linear_bounds():
    return bidirectional_annealing(
        **LINEAR, num_images=12, num_chains=200, betas=sigmoid_schedule(200)
    )


@pytest.fixture(scope="module")
def binary_bounds():
    return bidirectional_annealing(
        **BINARY, num_images=12, num_chains=100, betas=sigmoid_schedule(50)
    )


def test_a_linear_decoder_is_within_a_fifth_of_a_nat_of_its_marginal(
    linear_bounds,
):
    exact = exact_linear(linear_bounds.x)
    lower, upper = linear_bounds.lower_bound, linear_bounds.upper_bound
    np.testing.assert_allclose(lower.value, exact, atol=0.2)
    # The chains of one image share their start, and so some of their error.
    np.testing.assert_allclose(upper.value, exact, atol=0.4)
    np.testing.assert_allclose(upper.value.mean(), exact.mean(), atol=0.1)
    assert lower.kind == "lower_bound" and upper.kind == "upper_bound"
    assert not lower.discrete


@pytest.mark.parametrize("name", ["linear_bounds", "binary_bounds"])
def test_reverse_is_above_and_forward_below_the_exact_value(name, request):
    bounds = request.getfixturevalue(name)
    exact = (exact_linear if "linear" in name else exact_binary)(bounds.x)
    assert np.all(bounds.lower_bound.interval(4)[0] <= exact)
    assert np.all(bounds.upper_bound.value >= exact - 0.4)
    assert bounds.lower_bound.value.mean() <= exact.mean() + 0.08
    assert bounds.upper_bound.value.mean() >= exact.mean() - 0.08
    np.testing.assert_allclose(
        bounds.gap, bounds.upper_bound.value - bounds.lower_bound.value
    )


def test_slow_annealing_makes_most_chains_count(linear_bounds):
    for bound in (linear_bounds.lower_bound, linear_bounds.upper_bound):
        size = bound.effective_sample_size
        assert np.mean(size) > 100 and np.all(size <= 200)


def test_simulated_data_have_the_covariance_of_the_model():
    bounds = bidirectional_annealing(
        **LINEAR,
        num_images=2000,
        num_chains=1,
        betas=[0, 1],
        num_leapfrog_steps=1,
        batch_size=2000,
    )
    np.testing.assert_allclose(np.cov(bounds.x.T), COVARIANCE, atol=0.5)
    assert bounds.gap.mean() > 1  # two temperatures bound nothing


def test_weights_are_unbiased_with_few_temperatures(linear_bounds):
    # The log mean of many such weights is log p(x), whatever the moves, if
    # they leave their distributions invariant.
    x = linear_bounds.x
    result = annealed_importance(
        x,
        **LINEAR,
        num_chains=1000,
        betas=sigmoid_schedule(25),
        step_size=0.4,
        dequantize=False,
    )
    assert np.all(result.standard_error < 0.2)
    errors = (result.value - exact_linear(x)) / result.standard_error
    assert np.all(np.abs(errors) < 4)
    assert np.sqrt(np.mean(errors**2)) < 2


def test_binary_images_have_the_probabilities_of_quadrature():
    x = (np.arange(16)[:, None] >> np.arange(4) & 1).astype("float32")
    result = annealed_importance(
        x, **BINARY, num_chains=200, betas=sigmoid_schedule(50)
    )
    np.testing.assert_allclose(result.value, exact_binary(x), atol=0.1)
    assert np.exp(result.value).sum() == pytest.approx(1, abs=0.03)
    assert result.discrete and not result.settings["dequantize"]


def test_a_dequantized_density_gives_at_most_the_probability_of_a_level():
    levels = np.arange(0, 256, 15, dtype="uint8").reshape(-1, 1)
    result = annealed_importance(
        levels,
        prior=normal(tf.zeros(1), 1.0),
        likelihood=lambda z: normal(0.5 + 0.0 * z, 0.1),
        betas=sigmoid_schedule(10),
        num_chains=2,
    )
    level = levels[:, 0] / 256
    cdf = scipy.stats.norm(0.5, 0.1).cdf
    # Narrow levels: the density hardly differs within one.
    np.testing.assert_allclose(
        result.value, np.log(cdf(level + 1 / 256) - cdf(level)), atol=0.15
    )
    assert result.discrete


def test_batches_and_their_progress_make_one_estimate(linear_bounds):
    x = linear_bounds.x
    done = []
    result = annealed_importance(
        x,
        **LINEAR,
        betas=sigmoid_schedule(151),
        num_leapfrog_steps=3,
        batch_size=9,
        dequantize=False,
        progress=lambda *numbers: done.append(numbers),
    )
    np.testing.assert_allclose(result.value, exact_linear(x), atol=1.0)
    assert done == [(n, 1800) for n in (900, 1350, 1650, 1800)]


def test_the_same_seed_gives_the_same_value_and_another_does_not():
    first, second, other = (
        annealed_importance(
            np.ones((3, 4)), **BINARY, betas=sigmoid_schedule(10), seed=seed
        ).value
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, second)
    assert np.all(first != other)


def test_xla_gives_the_same_bound():
    x = np.eye(4, dtype="float32")
    result = annealed_importance(
        x,
        **BINARY,
        num_chains=200,
        betas=sigmoid_schedule(20),
        num_leapfrog_steps=3,
        jit_compile=True,
    )
    np.testing.assert_allclose(result.value, exact_binary(x), atol=0.2)


def test_a_gan_has_a_likelihood_under_noise():
    gan = GAN((4, 4, 1), 2, seed=0)
    prior = normal(tf.zeros(2), 1.0)
    likelihood = gaussian_observation(gan, stddev=0.2)
    z = tf.random.stateless_normal((3, 5, 2), (0, 1))
    distribution = likelihood(z)
    assert distribution.batch_shape == (3, 5)
    np.testing.assert_allclose(
        distribution.mean()[1, 2], gan(z[1, 2:3])[0], atol=1e-6
    )
    np.testing.assert_allclose(distribution.stddev(), 0.2)
    x = gan.sample(2, seed=0)
    result = annealed_importance(
        x, prior=prior, likelihood=likelihood, betas=sigmoid_schedule(30)
    )
    # Two dimensions: the mean over many prior samples is an exact answer.
    z = tf.random.stateless_normal((20_000, 1, 2), (0, 2))
    log_likelihood = likelihood(z).log_prob(x)
    exact = tfp.math.reduce_logmeanexp(log_likelihood, 0) - 16 * np.log(256)
    np.testing.assert_allclose(result.value, exact, atol=0.5)


def test_a_vae_is_estimated_with_its_decoder_alone():
    vae = VAE((4, 4, 1), 2, seed=0)
    x = np.round(keras.random.uniform((3, 4, 4, 1), seed=1))
    result = annealed_importance(
        x,
        prior=vae.prior,
        likelihood=vae.likelihood,
        betas=sigmoid_schedule(50),
    )
    expected = vae.log_prob(x, num_samples=5000, seed=0)
    np.testing.assert_allclose(result.value, expected, atol=0.1)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"prior": tfd.Bernoulli(0.5)}, "continuous latents.*int32"),
        ({"prior": FlatOneHot(tf.zeros((2, 2)))}, "continuous.*one-hot"),
        ({"prior": "normal"}, "`prior` must be a `tfd"),
        ({"likelihood": 1}, "`likelihood` must be a function"),
        ({"num_chains": 0}, "`num_chains` must be"),
        ({"betas": [0.5, 1.0]}, "`betas` must be"),
        ({"num_leapfrog_steps": 0}, "`num_leapfrog_steps` must be"),
        ({"step_size": 1.0}, "`step_size` must be"),
        ({"batch_size": 0}, "`batch_size` must be"),
        ({"seed": 1.5}, "`seed` must be"),
        ({"progress": 3}, "`progress` must be a function"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        annealed_importance(np.zeros((1, 4)), **{**BINARY, **change})
    with pytest.raises(ValueError, match=message):
        bidirectional_annealing(**{**BINARY, **change})


def test_sizes_and_noise_must_be_positive():
    with pytest.raises(ValueError, match="`num_images` must be"):
        bidirectional_annealing(**BINARY, num_images=0)
    with pytest.raises(ValueError, match="`stddev` must be"):
        gaussian_observation(lambda z: z, stddev=0)
