import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from keras_gen.likelihood import importance_weighted
from keras_gen.models.vae import VAE

tfd = tfp.distributions

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(5, 3)).astype("float32")
NOISE = 0.5
COVARIANCE = WEIGHTS @ WEIGHTS.T + NOISE**2 * np.eye(5)


def normal(loc, scale):
    return tfd.Independent(tfd.Normal(loc, scale), 1)


# x = W z + noise, for which p(x) and the posterior are known.
LINEAR = {
    "prior": normal(tf.zeros(3), 1.0),
    "likelihood": lambda z: normal(tf.linalg.matvec(WEIGHTS, z), NOISE),
}


def posterior(width):
    """The exact posterior, wider by a factor."""
    gain = WEIGHTS.T @ np.linalg.inv(COVARIANCE)
    scale = width * np.linalg.cholesky(np.eye(3) - gain @ WEIGHTS)

    def q(x):
        return tfd.MultivariateNormalTriL(
            tf.linalg.matvec(tf.constant(gain, tf.float32), x),
            tf.constant(scale, tf.float32),
        )

    return q


@pytest.fixture(scope="module")
def data():
    x = np.random.default_rng(1).multivariate_normal(
        np.zeros(5), COVARIANCE, size=30
    )
    exact = scipy.stats.multivariate_normal(np.zeros(5), COVARIANCE).logpdf(x)
    return x.astype("float32"), exact


def estimate(x, width=1.3, **arguments):
    arguments = {"dequantize": False, **arguments}
    return importance_weighted(
        x, posterior=posterior(width), **LINEAR, **arguments
    )


def test_the_exact_posterior_gives_log_prob_with_one_sample(data):
    x, exact = data
    result = estimate(x, width=1.0, num_samples=1)
    np.testing.assert_allclose(result.value, exact, atol=1e-4)


def test_5000_samples_are_within_two_hundredths_of_the_marginal(data):
    x, exact = data
    result = estimate(x)
    np.testing.assert_allclose(result.value, exact, atol=0.05)
    assert abs(np.mean(result.value - exact)) < 0.02
    assert result.kind == "lower_bound" and not result.discrete
    # Wide Gaussians have weights of a known spread.
    expected = (2 * 1.3**2 - 1) ** 1.5 / 1.3**6
    np.testing.assert_allclose(
        result.effective_sample_size, 5000 * expected, rtol=0.1
    )


def test_standard_error_is_the_spread_of_the_estimates(data):
    x = np.repeat(data[0][:1], 400, axis=0)
    result = estimate(x, num_samples=50)
    assert np.std(result.value) == pytest.approx(
        np.mean(result.standard_error), rel=0.15
    )


def test_more_samples_raise_the_bound(data):
    x, exact = data
    few, more = (
        estimate(np.repeat(x, 10, axis=0), 2.0, num_samples=n).value.mean()
        for n in (1, 8)
    )
    assert few < more < exact.mean() + 0.02


def test_parts_are_summed_to_one_bound(data, monkeypatch):
    x, exact = data
    module = "keras_gen.likelihood.importance.PART"
    monkeypatch.setattr(module, 5 * 7 * 30)  # 7 draws at a time
    done = []
    result = estimate(
        x,
        num_samples=2000,
        batch_size=8,
        progress=lambda *numbers: done.append(numbers),
    )
    np.testing.assert_allclose(result.value, exact, atol=0.1)
    assert done[-1] == (2000 * 30, 2000 * 30) and len(done) > 4 * 70


def test_the_same_seed_gives_the_same_value_and_another_does_not(data):
    first, second, other = (
        estimate(data[0], num_samples=10, seed=seed).value for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, second)
    assert np.all(first != other)


def test_binary_images_have_the_probabilities_of_quadrature():
    slope = np.array([2.0, -1.0, 0.5, 1.5], "float32")
    result = importance_weighted(
        (np.arange(16)[:, None] >> np.arange(4) & 1).astype("float32"),
        posterior=lambda x: normal(tf.zeros_like(x[:, :1]), 1.5),
        prior=normal(tf.zeros(1), 1.0),
        likelihood=lambda z: tfd.Independent(
            tfd.Bernoulli(logits=slope * z), 1
        ),
    )
    z, weights = np.polynomial.hermite_e.hermegauss(60)
    images = np.arange(16)[:, None] >> np.arange(4) & 1
    signs = 2 * images - 1
    log_likelihood = scipy.special.log_expit(
        signs[:, None] * slope * z[:, None]
    ).sum(axis=-1)
    exact = np.log(np.exp(log_likelihood) @ weights / weights.sum())
    np.testing.assert_allclose(result.value, exact, atol=0.05)
    assert np.exp(result.value).sum() == pytest.approx(1, abs=0.01)
    assert result.discrete


def test_a_dequantized_density_gives_the_probability_of_a_level():
    levels = np.arange(256, dtype="uint8").reshape(-1, 1, 1, 1)
    result = importance_weighted(
        levels,
        posterior=lambda x: normal(tf.zeros_like(x[:, 0, 0]), 1.0),
        prior=normal(tf.zeros(1), 1.0),
        likelihood=lambda z: tfd.Independent(
            tfd.Normal(0.5 + 0.0 * z[..., None, None], 0.1), 3
        ),
        num_samples=1000,
    )
    edges = scipy.stats.norm(0.5, 0.1).cdf(np.arange(257) / 256)
    np.testing.assert_allclose(np.exp(result.value), np.diff(edges), rtol=0.01)
    assert result.discrete and result.settings["dequantize"]
    mean_bits = np.mean(result.bits_per_dim((1, 1, 1)))
    assert mean_bits == pytest.approx(-np.mean(np.log2(np.diff(edges))), 0.01)


@pytest.mark.parametrize(
    "likelihood", ["bernoulli", "gaussian", "discretized_logistic"]
)
def test_a_vae_gets_what_its_own_log_prob_says(likelihood):
    vae = VAE((4, 4, 1), 2, likelihood=likelihood, seed=0)
    x = keras.random.uniform((3, 4, 4, 1), seed=1)
    result = importance_weighted(
        x,
        posterior=vae.posterior,
        prior=vae.prior,
        likelihood=vae.likelihood,
        num_samples=3000,
    )
    expected = vae.log_prob(x, num_samples=3000, seed=1)
    np.testing.assert_allclose(
        result.value,
        expected,
        atol=float(0.02 + 6 * result.standard_error.max()),
    )


def test_a_density_above_one_at_an_image_is_refused():
    # A spike narrower than a level.
    with pytest.raises(ValueError, match="must not be positive"):
        importance_weighted(
            np.full((1, 1), 0.5, "float32"),
            posterior=lambda x: normal(tf.zeros_like(x), 1.0),
            prior=normal(tf.zeros(1), 1.0),
            likelihood=lambda z: normal(128.5 / 256 + 0.0 * z, 1e-4),
            num_samples=1000,
        )


@pytest.mark.parametrize(
    "x, change, message",
    [
        (np.zeros((2, 4)), {}, r"shape \(batch, 5\), got shape \(2, 4\)"),
        (np.zeros((0, 5)), {}, r"got shape \(0, 5\)"),
        (np.full((2, 5), np.nan), {}, "`x` must be finite"),
        (np.full((2, 5), 2.0), {"dequantize": None}, r"images in \[0, 1\]"),
        (np.zeros((2, 5)), {"num_samples": 0}, "`num_samples` must be"),
        (np.zeros((2, 5)), {"batch_size": 1.5}, "`batch_size` must be"),
        (np.zeros((2, 5)), {"seed": -1}, "`seed` must be"),
        (np.zeros((2, 5)), {"progress": 3}, "`progress` must be a func"),
        (np.zeros((2, 5)), {"prior": None}, "`prior` must be a `tfd"),
        (np.zeros((2, 5)), {"likelihood": 1}, "`likelihood` must be a func"),
        (np.zeros((2, 5)), {"posterior": 1}, "`posterior` must be a func"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(x, change, message):
    arguments = {
        "posterior": posterior(1.0),
        **LINEAR,
        "dequantize": False,
        **change,
    }
    with pytest.raises(ValueError, match=message) as error:
        importance_weighted(x, **arguments)
    assert len(str(error.value)) < 600
