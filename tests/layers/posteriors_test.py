import keras
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from keras_gen.layers.posteriors import (
    CategoricalPosterior,
    DiagonalPosterior,
    FlowPosterior,
    FullCovariancePosterior,
    MixturePosterior,
    TwoLayerPosterior,
)
from keras_gen.layers.priors import (
    MixturePrior,
    StandardNormalPrior,
    UniformCategoricalPrior,
)

tfd = tfp.distributions

POSTERIORS = {
    "diagonal": lambda: DiagonalPosterior(3),
    "full": lambda: FullCovariancePosterior(3),
    "mixture": lambda: MixturePosterior(3, num_components=2),
    "flow": lambda: FlowPosterior(3, num_flows=2, hidden_dim=8),
    "categorical": lambda: CategoricalPosterior(2, 3, temperature=0.7),
    "two layers": lambda: TwoLayerPosterior((2, 1), hidden_dim=4),
}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def small_posterior(kind):
    """A posterior with weights that are not small."""
    posterior = POSTERIORS[kind]()
    if kind != "categorical":
        posterior.set_weights(
            [normal(*w.shape, seed=i) for i, w in enumerate(posterior.weights)]
        )
    return posterior


def noise_for(posterior, batch=2, k=5, seed=7):
    shape = (batch, k, posterior.noise_dim)
    if posterior.noise == "uniform":
        draw = np.random.default_rng(seed).uniform(size=shape)
        return draw.astype("float32")
    return normal(*shape, seed=seed)


def log_prob_of_draws(posterior, h, z):
    """By the distribution, which has the draws in front of the batch."""
    z = tf.transpose(z, (1, 0, 2))
    return tf.transpose(posterior.distribution(h).log_prob(z))


@keras.saving.register_keras_serializable(package="posteriors_test")
class Holder(keras.Model):
    """A model that owns a posterior, as a VAE does."""

    def __init__(self, posterior):
        super().__init__()
        self.posterior = posterior
        self.built = True

    def call(self, h):
        return self.posterior.draw(h, noise_for(self.posterior))

    def get_config(self):
        posterior = keras.saving.serialize_keras_object(self.posterior)
        return {"posterior": posterior}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["posterior"]))


# What all posteriors promise.


@pytest.mark.parametrize("kind", POSTERIORS)
def test_draws_have_the_shapes_that_the_attributes_tell(kind):
    posterior = small_posterior(kind)
    h = normal(2, posterior.num_parameters)
    z, log_q, log_share = posterior.draw(h, noise_for(posterior))
    num_draws = 5 * posterior.num_strata
    assert z.shape == (2, num_draws, posterior.z_dim)
    assert log_q.shape == log_share.shape == (2, num_draws)
    np.testing.assert_allclose(
        np.exp(log_share).sum(axis=1), np.ones(2), rtol=1e-6
    )
    distribution = posterior.distribution(h)
    assert distribution.batch_shape == (2,)
    assert distribution.event_shape == (posterior.z_dim,)
    assert distribution.sample(4, seed=(1, 2)).shape == (4, 2, posterior.z_dim)
    assert posterior.mean(h).shape == (2, posterior.z_dim)


@pytest.mark.parametrize("kind", POSTERIORS)
def test_log_q_and_its_gradient_are_those_of_the_density_at_the_draw(kind):
    posterior = small_posterior(kind)
    h = tf.constant(normal(2, posterior.num_parameters))
    variables = [h, *posterior.trainable_weights]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(h)
        z, log_q, _ = posterior.draw(h, noise_for(posterior))
        log_prob = log_prob_of_draws(posterior, h, z)
    np.testing.assert_allclose(log_q, log_prob, rtol=1e-4, atol=1e-4)
    ours, theirs = (tape.gradient(y, variables) for y in (log_q, log_prob))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("kind", POSTERIORS)
def test_a_posterior_and_its_weights_survive_a_file(kind, tmp_path):
    posterior = small_posterior(kind)
    h = normal(2, posterior.num_parameters)
    Holder(posterior).save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras").posterior
    assert copy.get_config() == posterior.get_config()
    for a, b in zip(
        copy.draw(h, noise_for(posterior)),
        posterior.draw(h, noise_for(posterior)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", POSTERIORS)
def test_mixed_precision_computes_posteriors_in_float32(kind):
    # Numbers that half precision keeps.
    h = normal(2, POSTERIORS[kind]().num_parameters).astype("float16")
    expected = Holder(small_posterior(kind))(h.astype("float32"))
    keras.config.set_dtype_policy("mixed_float16")
    posterior = small_posterior(kind)
    for a, b in zip(Holder(posterior)(h), expected, strict=True):
        assert a.dtype == tf.float32
        np.testing.assert_array_equal(a, b)
    assert posterior.distribution(h).dtype == tf.float32


@pytest.mark.parametrize("kind", POSTERIORS)
def test_draws_and_their_gradients_compile(kind):
    posterior = small_posterior(kind)
    h = tf.constant(normal(2, posterior.num_parameters))
    noise = noise_for(posterior)

    def draw_and_gradient(h):
        with tf.GradientTape() as tape:
            tape.watch(h)
            z, log_q, log_share = posterior.draw(h, noise)
            y = tf.exp(log_share) * (log_q + tf.reduce_sum(z**2, axis=-1))
        return z, log_q, tape.gradient(y, h)

    for a, b in zip(
        tf.function(draw_and_gradient, jit_compile=True)(h),
        draw_and_gradient(h),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["diagonal", "full", "mixture", "categorical"])
def test_the_mean_is_that_of_the_samples(kind):
    posterior = small_posterior(kind)
    h = normal(2, posterior.num_parameters)
    samples = posterior.distribution(h).sample(20000, seed=(1, 2)).numpy()
    error = samples.std(axis=0) / np.sqrt(20000)
    np.testing.assert_array_less(
        np.abs(samples.mean(axis=0) - posterior.mean(h)), 4 * error
    )


# Each of them.


def test_diagonal_draws_are_loc_plus_scale_times_noise():
    posterior = DiagonalPosterior(3)
    h, noise = normal(2, 6), normal(2, 5, 3, seed=1)
    loc, scale = h[:, np.newaxis, :3], np.logaddexp(0, h[:, np.newaxis, 3:])
    z, log_q, _ = posterior.draw(h, noise)
    np.testing.assert_allclose(z, loc + (scale + 1e-5) * noise, rtol=1e-5)
    np.testing.assert_allclose(
        log_q,
        scipy.stats.norm.logpdf(z, loc, scale + 1e-5).sum(axis=-1),
        rtol=1e-4,
    )
    np.testing.assert_array_equal(posterior.mean(h), h[:, :3])


def test_diagonal_kl_is_the_integral():
    h = np.float32([[0.7, -0.4]])
    (kl,) = DiagonalPosterior(1).kl(h, StandardNormalPrior(1))[0].numpy()
    q = scipy.stats.norm(0.7, np.logaddexp(0, -0.4) + 1e-5)
    integral, _ = scipy.integrate.quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - scipy.stats.norm.logpdf(z)), -8, 8
    )
    assert kl == pytest.approx(integral, rel=1e-5)


@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_gaussian_kl_is_that_of_tfp_a_term_for_each_latent(kind):
    posterior = small_posterior(kind)
    h = normal(4, posterior.num_parameters)
    kl = posterior.kl(h, StandardNormalPrior(3))
    assert kl.shape == (4, 3) and np.all(kl.numpy() >= 0)
    q = posterior.distribution(h)
    if kind == "diagonal":
        q = tfd.MultivariateNormalDiag(q.mean(), q.stddev())
    expected = q.kl_divergence(tfd.MultivariateNormalDiag(tf.zeros(3)))
    np.testing.assert_allclose(np.sum(kl, axis=1), expected, rtol=1e-4)


@pytest.mark.parametrize("kind", ["diagonal", "full", "categorical"])
def test_kl_is_the_mean_of_the_log_ratios_of_draws(kind):
    posterior = small_posterior(kind)
    prior = StandardNormalPrior(3)
    if kind == "categorical":
        prior = UniformCategoricalPrior(2, 3)
    h = normal(2, posterior.num_parameters)
    z, log_q, _ = posterior.draw(h, noise_for(posterior, k=20000), hard=True)
    log_ratios = log_q - prior.distribution(None).log_prob(z)
    error = np.std(log_ratios, axis=1) / np.sqrt(20000)
    kl = np.sum(posterior.kl(h, prior), axis=1)
    np.testing.assert_array_less(np.abs(np.mean(log_ratios, 1) - kl), 4 * error)


def test_there_is_no_closed_form_for_other_pairs():
    for kind, make in POSTERIORS.items():
        posterior = make()
        h = normal(2, posterior.num_parameters)
        assert posterior.kl(h, MixturePrior(posterior.z_dim)) is None
        if kind in ("mixture", "flow", "two layers"):
            assert posterior.kl(h, StandardNormalPrior(posterior.z_dim)) is None


def test_full_covariance_is_l_times_its_transpose():
    posterior = FullCovariancePosterior(3)
    h = normal(2, posterior.num_parameters)
    noise = np.tile(np.eye(4, 3, dtype="float32"), (2, 1, 1))
    z = posterior.draw(h, noise)[0].numpy()
    # The columns of L are draws of unit noise, less that of none.
    tril = np.swapaxes(z[:, :3] - z[:, 3:], 1, 2)
    np.testing.assert_allclose(tril, np.tril(tril), atol=1e-6)
    assert np.all(np.diagonal(tril, axis1=1, axis2=2) > 0)
    np.testing.assert_allclose(z[:, 3], posterior.mean(h), rtol=1e-6)
    np.testing.assert_allclose(
        posterior.distribution(h).covariance(),
        tril @ np.swapaxes(tril, 1, 2),
        rtol=1e-4,
        atol=1e-5,
    )


def test_stratified_means_are_exact_where_the_components_are():
    posterior = MixturePosterior(2, num_components=3)
    h = normal(2, posterior.num_parameters)
    # Noise of +1 and -1 has the mean and the variance of the normal.
    noise = np.ones((2, 2, posterior.noise_dim), "float32")
    noise[:, 1] = -1
    z, _, log_share = posterior.draw(h, noise)
    distribution = posterior.distribution(h)
    components = distribution.components_distribution
    weights = distribution.mixture_distribution.probs_parameter()
    moments = components.mean() ** 2 + components.variance() + components.mean()
    expected = np.einsum("bc,bcd->bd", weights, moments)
    mean = np.sum(np.exp(log_share)[..., np.newaxis] * (z**2 + z), axis=1)
    np.testing.assert_allclose(mean, expected, rtol=1e-5)


def test_the_weights_of_a_mixture_have_a_gradient():
    posterior = MixturePosterior(2, num_components=3)
    h = tf.constant(normal(2, posterior.num_parameters))
    with tf.GradientTape() as tape:
        tape.watch(h)
        z, _, log_share = posterior.draw(h, noise_for(posterior))
        y = tf.reduce_sum(tf.exp(log_share)[..., tf.newaxis] * z)
    assert np.all(tape.gradient(y, h).numpy()[:, :3] != 0)


def divergence_to_two_peaks(posterior):
    """KL of the fitted posterior to that of z given `x = z**2 + noise`."""
    grid = tf.reshape(tf.linspace(-4.0, 4.0, 2001), (-1, 1, 1))
    prior, scale, x = tfd.Normal(0.0, 1.0), 0.4, 2.0

    def log_joint(z):
        return (prior.log_prob(z) + tfd.Normal(z**2, scale).log_prob(x))[..., 0]

    h = tf.Variable(normal(1, posterior.num_parameters))
    optimizer = keras.optimizers.Adam(0.05)
    optimizer.build([h])

    @tf.function
    def step(seed):
        shape = (1, 16, posterior.noise_dim)
        noise = tf.random.stateless_normal(shape, seed)
        with tf.GradientTape() as tape:
            z, log_q, log_share = posterior.draw(h, noise)
            loss = tf.reduce_sum(tf.exp(log_share) * (log_q - log_joint(z)))
        optimizer.apply_gradients([(tape.gradient(loss, h), h)])

    for i in range(400):
        step(tf.constant([i, 0]))
    log_q = posterior.distribution(h).log_prob(grid)[:, 0].numpy()
    log_p = log_joint(grid)[:, 0].numpy()
    width = 8 / 2000
    log_p -= scipy.special.logsumexp(log_p) + np.log(width)
    q = np.exp(log_q)
    assert np.sum(q) * width == pytest.approx(1, abs=0.01)
    return np.sum(q * (log_q - log_p)) * width


def test_a_mixture_fits_two_peaks_where_a_gaussian_finds_one():
    gaussian = divergence_to_two_peaks(DiagonalPosterior(1))
    mixture = divergence_to_two_peaks(MixturePosterior(1, num_components=5))
    # One of two equal peaks costs log(2).
    assert gaussian > 0.9 * np.log(2)
    assert mixture < 0.5 * gaussian and mixture < 0.1


def jacobian(posterior, h, noise):
    """Derivatives of the first draw by its noise, and its log-density."""
    noise = tf.constant(noise)
    with tf.GradientTape() as tape:
        tape.watch(noise)
        z, log_q, _ = posterior.draw(h, noise)
    return tape.jacobian(z, noise)[0, 0, :, 0, 0].numpy(), log_q[0, 0].numpy()


def test_one_step_of_the_flow_is_autoregressive():
    posterior = FlowPosterior(4, num_flows=1, hidden_dim=60)
    posterior.set_weights(
        [
            0.5 * normal(*w.shape, seed=i)
            for i, w in enumerate(posterior.weights)
        ]
    )
    h = normal(1, posterior.num_parameters)
    matrix, _ = jacobian(posterior, h, normal(1, 1, 4, seed=3))
    np.testing.assert_array_equal(matrix, np.tril(matrix))
    assert np.all(np.diagonal(matrix) > 0) and np.all(
        matrix[np.tril_indices(4)]
    )


def test_two_steps_of_the_flow_let_all_dimensions_depend_on_all():
    posterior = FlowPosterior(4, num_flows=2, hidden_dim=60)
    posterior.set_weights(
        [
            0.5 * normal(*w.shape, seed=i)
            for i, w in enumerate(posterior.weights)
        ]
    )
    h = normal(1, posterior.num_parameters)
    assert np.all(jacobian(posterior, h, normal(1, 1, 4, seed=3))[0])


@pytest.mark.parametrize("kind", ["diagonal", "full", "flow", "two layers"])
def test_log_q_is_the_change_of_variables(kind):
    posterior = small_posterior(kind)
    h, noise = normal(1, posterior.num_parameters), normal(1, 1, 3, seed=3)
    matrix, log_q = jacobian(posterior, h, noise)
    log_noise = scipy.stats.norm.logpdf(noise).sum()
    log_det = np.linalg.slogdet(matrix.astype("float64"))[1]
    assert log_q == pytest.approx(log_noise - log_det, rel=1e-4)


def test_the_density_of_a_flow_integrates_to_one():
    posterior = FlowPosterior(2, num_flows=2, hidden_dim=6)
    posterior.set_weights(
        [
            0.7 * normal(*w.shape, seed=i)
            for i, w in enumerate(posterior.weights)
        ]
    )
    h = 0.5 * normal(1, posterior.num_parameters)
    axis = np.linspace(-8, 8, 161, dtype="float32")
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 1, 2)
    density = np.exp(posterior.distribution(h).log_prob(grid))
    assert density.sum() * 0.1**2 == pytest.approx(1, abs=0.01)


def test_the_gates_of_a_new_flow_are_nearly_open():
    posterior = FlowPosterior(3, num_flows=1, hidden_dim=8)
    posterior.set_weights([0 * w.numpy() for w in posterior.weights])
    h = np.zeros((1, posterior.num_parameters), "float32")
    matrix, _ = jacobian(posterior, h, normal(1, 1, 3))
    gate = scipy.special.expit(2) * (np.log(2) + 1e-5)
    np.testing.assert_allclose(matrix, gate * np.eye(3), rtol=1e-5)


def test_relaxed_draws_are_the_gumbel_softmax():
    posterior = CategoricalPosterior(2, 3, temperature=0.7)
    h, noise = normal(2, 6), noise_for(posterior)
    scores = h[:, np.newaxis] - np.log(-np.log(noise))
    expected = scipy.special.softmax(
        scores.reshape(2, 5, 2, 3) / 0.7, axis=-1
    ).reshape(2, 5, 6)
    z, log_q, _ = posterior.draw(h, noise)
    np.testing.assert_allclose(z, expected, rtol=1e-4)
    log_probs = scipy.special.log_softmax(h.reshape(2, 1, 2, 3), axis=-1)
    np.testing.assert_allclose(
        log_q, np.sum(expected * log_probs.reshape(2, 1, 6), -1), rtol=1e-4
    )


def test_draws_favour_the_categories_by_their_probabilities():
    posterior = CategoricalPosterior(2, 3, temperature=5.0)
    h = normal(1, 6)
    probs = scipy.special.softmax(h.reshape(2, 3), axis=-1)
    noise = noise_for(posterior, batch=1, k=20000)
    relaxed = posterior.draw(h, noise)[0].numpy().reshape(-1, 2, 3)
    hard = posterior.draw(h, noise, hard=True)[0].numpy().reshape(-1, 2, 3)
    largest = np.eye(3)[relaxed.argmax(axis=-1)]
    np.testing.assert_array_equal(largest, hard)
    np.testing.assert_allclose(largest.mean(axis=0), probs, atol=0.02)
    np.testing.assert_allclose(posterior.mean(h)[0], probs.ravel(), rtol=1e-5)


def test_gumbel_softmax_gradients_are_those_of_the_sum_over_categories():
    # Their bias falls in proportion to the temperature.
    posterior = CategoricalPosterior(1, 3, temperature=0.03)
    h = tf.constant([[0.5, -0.3, 0.1]])
    values = tf.constant([1.0, -2.0, 3.0])
    noise = noise_for(posterior, batch=1, k=400000)

    def cost(z):
        return tf.square(tf.linalg.matvec(z, values) + 1.0)

    with tf.GradientTape() as tape:
        tape.watch(h)
        mean = tf.reduce_mean(cost(posterior.draw(h, noise)[0]))
    relaxed = tape.gradient(mean, h)
    with tf.GradientTape() as tape:
        tape.watch(h)
        mean = tf.reduce_sum(tf.nn.softmax(h) * cost(tf.eye(3)))
    exact = tape.gradient(mean, h)
    error = np.linalg.norm(relaxed - exact) / np.linalg.norm(exact)
    assert error < 0.05


def test_straight_through_draws_are_one_hot_with_the_relaxed_gradient():
    h, values = tf.constant(normal(2, 6)), normal(6)
    draws, gradients = [], []
    for straight_through in (True, False):
        posterior = CategoricalPosterior(
            2, 3, temperature=0.7, straight_through=straight_through
        )
        with tf.GradientTape() as tape:
            tape.watch(h)
            z, _, _ = posterior.draw(h, noise_for(posterior))
            y = tf.reduce_sum(values * z)
        draws.append(z.numpy())
        gradients.append(tape.gradient(y, h))
    assert set(np.unique(draws[0])) == {0, 1}
    np.testing.assert_array_equal(draws[0].reshape(2, 5, 2, 3).sum(-1), 1)
    assert len(np.unique(draws[1])) > 20
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-5)
    assert np.any(gradients[0])


def test_noise_of_zero_gives_finite_draws_and_gradients():
    posterior = CategoricalPosterior(1, 3, temperature=0.1)
    h = tf.constant([[0.5, -0.3, 0.1]])
    with tf.GradientTape() as tape:
        tape.watch(h)
        z, log_q, _ = posterior.draw(h, np.zeros((1, 1, 3), "float32"))
        y = tf.reduce_sum(z**2) + log_q
    assert np.all(np.isfinite(z)) and np.all(np.isfinite(tape.gradient(y, h)))


def test_the_temperature_is_a_variable_that_compiled_draws_follow():
    posterior = CategoricalPosterior(2, 3, temperature=10.0)
    h, noise = normal(1, 6), noise_for(posterior, batch=1)
    draw = tf.function(lambda: posterior.draw(h, noise)[0])
    assert np.max(draw()) < 0.6
    posterior.temperature.assign(0.01)
    assert np.min(np.max(np.reshape(draw(), (-1, 3)), axis=-1)) > 0.9
    assert posterior.get_config()["temperature"] == pytest.approx(0.01)
    assert not posterior.trainable_weights


def test_categorical_kl_is_that_of_tfp_a_term_for_each_variable():
    h = normal(2, 6)
    kl = CategoricalPosterior(2, 3).kl(h, UniformCategoricalPrior(2, 3))
    expected = tfd.Categorical(h.reshape(2, 2, 3)).kl_divergence(
        tfd.Categorical(tf.zeros(3))
    )
    np.testing.assert_allclose(kl, expected, rtol=1e-4)


def test_the_second_layer_of_a_posterior_depends_on_the_first():
    posterior = small_posterior("two layers")
    h = normal(1, 4)
    matrix, _ = jacobian(posterior, h, normal(1, 1, 3, seed=3))
    np.testing.assert_array_equal(matrix[:2, 2], 0)
    assert np.all(matrix[2] != 0) and matrix[0, 1] == matrix[1, 0] == 0
    np.testing.assert_array_equal(posterior.mean(h)[:, :2], h[:, :2])


@pytest.mark.parametrize(
    "posterior, arguments, argument",
    [
        (DiagonalPosterior, (0,), "latent_dim"),
        (FullCovariancePosterior, (2.5,), "latent_dim"),
        (MixturePosterior, (None,), "latent_dim"),
        (MixturePosterior, (2, 0), "num_components"),
        (FlowPosterior, ("2",), "latent_dim"),
        (FlowPosterior, (2, 0), "num_flows"),
        (FlowPosterior, (2, 1, -3), "hidden_dim"),
        (CategoricalPosterior, (True, 3), "latent_dim"),
        (CategoricalPosterior, (2, 0), "num_categories"),
        (CategoricalPosterior, (2, 3, 0.0), "temperature"),
        (TwoLayerPosterior, (7,), "latent_dims"),
        (TwoLayerPosterior, ((7, -1),), "latent_dims"),
        (TwoLayerPosterior, ((7, 1), 0), "hidden_dim"),
    ],
)
def test_other_arguments_are_refused(posterior, arguments, argument):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        posterior(*arguments)
