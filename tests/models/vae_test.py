"""The mathematics of the VAE; what every model must do is in contract_test."""

import math

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from keras_gen import VAE, networks

tfd = tfp.distributions

SHAPE = (2, 3, 1)
LIKELIHOODS = ("bernoulli", "gaussian", "discretized_logistic")


def small_vae(likelihood="bernoulli", **arguments):
    """A VAE of one hidden layer each way, with weights that are not small."""
    maps = 1 if likelihood == "bernoulli" else 2
    vae = VAE(
        SHAPE,
        2,
        likelihood=likelihood,
        encoder=networks.mlp_encoder(SHAPE, 4, (5,)),
        decoder=networks.mlp_decoder(2, SHAPE, (5,), output_channels=maps),
        seed=1,
        **arguments,
    )
    rng = np.random.default_rng(3)
    for network in (vae.encoder, vae.decoder):
        network.set_weights(
            [rng.normal(0, 0.7, w.shape) for w in network.weights]
        )
    return vae


def compiled(vae, learning_rate=0.1):
    vae.compile(
        keras.optimizers.SGD(learning_rate),
        jit_compile=False,
        steps_per_execution=1,
    )
    return vae


def one_step(vae, x):
    """Logs of one step on the whole of `x`, in its order."""
    history = vae.fit(x, batch_size=len(x), shuffle=False, verbose=0).history
    return {name: values[0] for name, values in history.items()}


def images(num_images=6, shape=SHAPE):
    """8-bit images, black and white pixels among them."""
    x = np.random.default_rng(0).integers(0, 256, (num_images, *shape))
    x[0, 0], x[-1, -1] = 0, 255
    return (x / 255).astype("float32")


# The model once more, in NumPy and float64.


def affine(x, weights):
    """Dense layers with ReLU between them: what the two networks compute."""
    h = np.asarray(x, "float64")
    for i in range(0, len(weights), 2):
        h = (np.maximum(h, 0) if i else h) @ weights[i] + weights[i + 1]
    return h


def parameters_of(h):
    """Location and unconstrained scale: the last axis of `h` halved."""
    loc, scale = np.split(h, 2, axis=-1)
    return loc, np.logaddexp(0, scale)


def log_likelihood(likelihood, x, h, noise=0.0):
    """`log p(x given z)` from the decoder's output `h`, summed over pixels."""
    if likelihood == "bernoulli":
        log_prob = x * scipy.special.log_expit(h)
        log_prob += (1 - x) * scipy.special.log_expit(-h)
        return log_prob.sum((-3, -2, -1))
    loc, scale = parameters_of(h)
    loc, scale = loc + 0.5, scale + 1e-3
    if likelihood == "gaussian":
        pixels = (np.round(255 * x) + noise) / 256
        log_prob = scipy.stats.norm.logpdf(pixels, loc, scale) - math.log(256)
        return log_prob.sum((-3, -2, -1))
    # By symmetry as if all pixels were darker than `loc`: the log of
    # sigmoid(above) - sigmoid(below), both of which may be tiny.
    above = scipy.special.log_expit((1 / 510 - np.abs(x - loc)) / scale)
    below = scipy.special.log_expit((-1 / 510 - np.abs(x - loc)) / scale)
    black = scipy.special.log_expit((1 / 510 - loc) / scale)
    white = scipy.special.log_expit((loc - 1 + 1 / 510) / scale)
    log_prob = above + np.log1p(-np.exp(below - above))
    log_prob = np.where(x > 254.5 / 255, white, log_prob)
    return np.where(x < 0.5 / 255, black, log_prob).sum((-3, -2, -1))


def decoded(z, weights):
    h = affine(z, weights)
    return h.reshape(*z.shape[:-1], *SHAPE[:2], -1)


# The two terms


def test_kl_is_its_formula():
    vae, x = small_vae(), images()
    loc, scale = parameters_of(
        affine(x.reshape(6, -1), vae.encoder.get_weights())
    )
    variance = (scale + 1e-5) ** 2
    expected = -0.5 * np.sum(1 + np.log(variance) - loc**2 - variance, axis=1)
    _, kl = vae.elbo_terms(x)
    np.testing.assert_allclose(kl, expected, rtol=1e-4)
    assert np.all(expected > 0.1)


def test_kl_is_the_mean_of_its_samples():
    vae, x = small_vae(), images()
    posterior = vae.posterior(x)
    z = posterior.sample(20_000, seed=(0, 1))
    ratio = np.array(posterior.log_prob(z) - vae.prior.log_prob(z))
    error = ratio.std(axis=0) / math.sqrt(len(ratio))
    _, kl = vae.elbo_terms(x)
    assert np.all(np.abs(ratio.mean(axis=0) - kl) < 4 * error)


def test_kl_of_the_prior_is_zero():
    vae = small_vae()
    *hidden, kernel, bias = vae.encoder.get_weights()
    unit = math.log(math.expm1(1 - 1e-5))  # what softplus makes 1 of
    bias = np.array([0, 0, unit, unit])
    vae.encoder.set_weights([*hidden, 0 * kernel, bias])
    np.testing.assert_allclose(vae.elbo_terms(images())[1], 0, atol=1e-6)


@pytest.mark.parametrize("x", [images(), np.round(images())], ids=["grey", "b"])
def test_bernoulli_likelihood_is_the_cross_entropy(x):
    vae = small_vae()
    z = np.random.default_rng(1).normal(size=(6, 2)).astype("float32")
    expected = log_likelihood(
        "bernoulli", x, decoded(z, vae.decoder.get_weights())
    )
    np.testing.assert_allclose(
        vae.likelihood(z).log_prob(x), expected, rtol=1e-4
    )


def test_bernoulli_probabilities_of_all_binary_images_sum_to_one():
    vae = small_vae()
    x = np.array(list(np.ndindex(*[2] * 6))).reshape(64, *SHAPE)
    z = np.random.default_rng(1).normal(size=(1, 2)).astype("float32")
    log_prob = vae.likelihood(z).log_prob(x.astype("float32"))
    assert np.sum(np.exp(log_prob)) == pytest.approx(1, rel=1e-5)


def test_discretized_likelihood_is_that_of_a_quantized_logistic():
    vae, x = small_vae("discretized_logistic"), images()
    z = np.random.default_rng(1).normal(size=(6, 2)).astype("float32")
    loc, scale = parameters_of(decoded(z, vae.decoder.get_weights()))
    # On the integers; `QuantizedDistribution` rounds up.
    pixels = tfd.QuantizedDistribution(
        tfd.Logistic(255 * (loc + 0.5) - 0.5, 255 * (scale + 1e-3)), 0.0, 255.0
    )
    expected = np.sum(pixels.log_prob(np.round(255.0 * x)), axis=(1, 2, 3))
    np.testing.assert_allclose(
        vae.likelihood(z).log_prob(x), expected, rtol=1e-4
    )


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_likelihoods_keep_all_leading_axes_of_z(likelihood):
    vae = small_vae(likelihood)
    z = np.random.default_rng(1).normal(size=(3, 4, 2)).astype("float32")
    several = vae.likelihood(z)
    assert several.batch_shape == (3, 4) and several.event_shape == SHAPE
    np.testing.assert_allclose(
        several.mean()[2], vae.likelihood(z[2]).mean(), rtol=1e-6
    )


# Training


def noise_of(shape, counter):
    """The draws of the training stream: its seed, then how many came before."""
    z = tf.random.stateless_normal((*shape, 2), (1, counter))
    noise = tf.random.stateless_uniform((*shape, *SHAPE), (1, counter + 1))
    return z.numpy(), noise.numpy()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_training_step_descends_the_gradient_of_the_loss(likelihood):
    """Against differences of the loss in NumPy, a weight at a time."""
    beta, rate, x = 2.0, 0.1, images()
    vae = compiled(small_vae(likelihood, beta=beta), rate)
    start = [np.array(w, "float64") for w in vae.trainable_weights]
    z_noise, pixel_noise = noise_of((6,), 0)

    def terms(weights):
        h = affine(x.reshape(6, -1), weights[:4])
        loc, scale = parameters_of(h)
        scale = scale + 1e-5
        h = decoded(loc + scale * z_noise, weights[4:])
        reconstruction = log_likelihood(likelihood, x, h, pixel_noise)
        kl = 0.5 * (loc**2 + scale**2 - 1) - np.log(scale)
        return np.mean(reconstruction), np.mean(kl.sum(-1))

    def loss(weights):
        reconstruction, kl = terms(weights)
        return beta * kl - reconstruction

    def slope(index, position, step=1e-6):
        sides = []
        for sign in (1, -1):
            moved = [w.copy() for w in start]
            moved[index][position] += sign * step
            sides.append(loss(moved))
        return (sides[0] - sides[1]) / (2 * step)

    logs = one_step(vae, x)
    for i, weight in enumerate(vae.trainable_weights):
        gradient = np.zeros(weight.shape)
        for position in np.ndindex(*weight.shape):
            gradient[position] = slope(i, position)
        step = (start[i] - np.array(weight)) / rate
        np.testing.assert_allclose(
            step, gradient, rtol=1e-3, atol=1e-3 * np.abs(gradient).max()
        )
    reconstruction, kl = terms(start)
    assert logs["reconstruction"] == pytest.approx(reconstruction, rel=1e-4)
    assert logs["kl"] == pytest.approx(kl, rel=1e-4)
    assert logs["loss"] == pytest.approx(loss(start), rel=1e-4)


def test_the_loss_of_training_and_evaluation_is_beta_kl_less_reconstruction():
    vae = compiled(small_vae(beta=3.0))
    for logs in (
        one_step(vae, images()),
        vae.evaluate(images(), verbose=0, return_dict=True),
    ):
        assert logs["loss"] == pytest.approx(
            3 * logs["kl"] - logs["reconstruction"], rel=1e-5
        )


def test_regularization_of_a_network_is_minimized_and_not_logged():
    logs, steps = [], []
    for regularizer in (None, keras.regularizers.L2(0.3)):
        vae = small_vae()
        vae.encoder.layers[1].kernel.regularizer = regularizer
        start = np.array(vae.encoder.layers[1].kernel)
        logs.append(one_step(compiled(vae, 0.1), images()))
        steps.append(start - np.array(vae.encoder.layers[1].kernel))
    assert logs[0] == logs[1]
    np.testing.assert_allclose(
        steps[1] - steps[0], 0.1 * 2 * 0.3 * start, rtol=1e-3, atol=1e-6
    )


def test_beta_that_is_assigned_counts_in_the_compiled_step():
    assigned, given = compiled(small_vae(beta=1.0)), compiled(small_vae(beta=5))
    for vae in (assigned, given):
        one_step(vae, images())
    assigned.encoder.set_weights(given.encoder.get_weights())
    assigned.decoder.set_weights(given.decoder.get_weights())
    assigned.beta.assign(5.0)
    assert one_step(assigned, images()) == one_step(given, images())
    for one, other in zip(assigned.weights, given.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert assigned.get_config()["beta"] == 5.0


def test_beta_leaves_the_bounds_alone():
    x = images()
    for verb in ("elbo", "log_prob"):
        values = [
            getattr(small_vae(beta=beta), verb)(x, num_samples=3, seed=0)
            for beta in (0.0, 7.0)
        ]
        np.testing.assert_array_equal(*values)


def test_two_patterns_of_six_pixels_cost_hardly_more_than_one_bit():
    x = np.repeat([0.0, 1.0], 64).reshape(-1, 1, 1, 1).astype("float32")
    x = np.broadcast_to(x, (128, *SHAPE))
    vae = VAE(
        SHAPE,
        1,
        encoder=networks.mlp_encoder(SHAPE, 2, (16,)),
        decoder=networks.mlp_decoder(1, SHAPE, (16,)),
        seed=0,
    )
    vae.compile(
        keras.optimizers.Adam(0.02), jit_compile=False, steps_per_execution=50
    )
    vae.fit(x, batch_size=128, epochs=1, steps_per_epoch=300, verbose=0)
    nats = np.mean(vae.log_prob(x, num_samples=200, seed=0))
    # No model does better than ln 2; one without latents has 6 ln 2.
    assert -1.5 * math.log(2) < nats < -0.97 * math.log(2)


def test_the_default_optimizer_is_adam_of_a_thousandth():
    vae = small_vae()
    vae.compile()
    assert isinstance(vae.optimizer, keras.optimizers.Adam)
    assert float(vae.optimizer.learning_rate) == pytest.approx(1e-3)


# The bounds


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_bounds_are_those_of_the_weights_worked_out_by_hand(likelihood):
    vae, x, k = small_vae(likelihood), images(), 5
    seeds = tf.random.split(tf.random.experimental.stateless_fold_in((7, 0), 0))
    noise = tf.random.stateless_normal((k, 6, 2), seeds[0]).numpy()
    pixel_noise = tf.random.stateless_uniform((k, 6, *SHAPE), seeds[1]).numpy()
    loc, scale = parameters_of(
        affine(x.reshape(6, -1), vae.encoder.get_weights())
    )
    scale = scale + 1e-5
    z = loc + scale * noise
    h = decoded(z, vae.decoder.get_weights())
    log_weights = (
        log_likelihood(likelihood, x, h, pixel_noise)
        + scipy.stats.norm.logpdf(z).sum(-1)
        - scipy.stats.norm.logpdf(z, loc, scale).sum(-1)
    )
    np.testing.assert_allclose(
        vae.elbo(x, num_samples=k, seed=7), log_weights.mean(0), rtol=1e-4
    )
    np.testing.assert_allclose(
        vae.log_prob(x, num_samples=k, seed=7),
        scipy.special.logsumexp(log_weights, axis=0) - math.log(k),
        rtol=1e-4,
    )


def test_log_prob_in_parts_is_that_of_all_samples():
    """Six samples a image, of which four fit into one part: 4 and then 2."""
    shape, batch, k, part = (32, 32, 4), 2048, 6, 4
    vae = VAE(
        shape,
        1,
        encoder=networks.mlp_encoder(shape, 2, ()),
        decoder=networks.mlp_decoder(1, shape, ()),
        seed=0,
    )
    logits, bias = vae.decoder.get_weights()
    vae.decoder.set_weights([logits, bias + 0.5])
    x = np.random.default_rng(0).random((2, *shape), "float32")
    h = vae.encoder(x).numpy()
    loc, scale = parameters_of(h.astype("float64"))
    x = np.repeat(x, batch // 2, axis=0)
    noise = []
    for done, count in ((0, part), (part, k - part)):
        seed = tf.random.experimental.stateless_fold_in((3, 0), done)
        seed = tf.random.split(seed)[0]
        noise.append(tf.random.stateless_normal((count, batch, 1), seed))
    noise = np.concatenate(noise)

    log_prob = vae.log_prob(x, num_samples=k, seed=3)
    elbo = vae.elbo(x, num_samples=k, seed=3)
    for row in (0, 1000, batch - 1):
        m, s = loc[row // (batch // 2)], scale[row // (batch // 2)] + 1e-5
        z = m + s * noise[:, row]
        h = (z @ logits + bias + 0.5).reshape(k, *shape)
        log_weights = (
            log_likelihood("bernoulli", x[row], h)
            + scipy.stats.norm.logpdf(z).sum(-1)
            - scipy.stats.norm.logpdf(z, m, s).sum(-1)
        )
        expected = scipy.special.logsumexp(log_weights) - math.log(k)
        assert float(log_prob[row]) == pytest.approx(expected, abs=0.05)
        assert float(elbo[row]) == pytest.approx(log_weights.mean(), abs=0.05)
        assert np.ptp(log_weights) > 0.5


def test_elbo_agrees_with_its_two_terms():
    """The sampled KL of `elbo` against the closed one of `elbo_terms`."""
    vae = small_vae("gaussian")
    x = np.repeat(images(1), 20_000, axis=0)
    reconstruction, kl = vae.elbo_terms(x)
    closed, sampled = np.array(reconstruction - kl), np.array(vae.elbo(x))
    error = math.hypot(closed.std(), sampled.std()) / math.sqrt(len(x))
    assert abs(closed.mean() - sampled.mean()) < 4 * error


def test_one_sample_of_log_prob_is_the_elbo():
    vae, x = small_vae(), images()
    np.testing.assert_allclose(
        vae.log_prob(x, num_samples=1, seed=2),
        vae.elbo(x, num_samples=1, seed=2),
        rtol=1e-6,
    )


# Probabilistic PCA: p(x) is normal, so that all bounds are known.

PCA_SHAPE = (2, 2, 1)
NOISE = 0.1  # standard deviation of a pixel given z


def probabilistic_pca(widening):
    """A linear VAE whose posterior is the exact one, `widening` times wider.

    Returns:
        The VAE, and the mean and the covariance of its images.
    """
    # Orthogonal directions make the exact posterior diagonal.
    directions = np.array([[0.2, 0.1], [0.2, -0.1], [0.2, 0.1], [0.2, -0.1]])
    mean = np.array([0.4, 0.5, 0.6, 0.5])
    precision = np.diag(directions.T @ directions) / NOISE**2 + 1
    to_latents = directions / NOISE**2 / precision

    def unconstrained(scale, least):
        return np.log(np.expm1(scale - least))

    scale = unconstrained(widening / np.sqrt(precision), 1e-5)
    pixels = unconstrained(NOISE, 1e-3)
    vae = VAE(
        PCA_SHAPE,
        2,
        likelihood="gaussian",
        encoder=networks.mlp_encoder(PCA_SHAPE, 4, ()),
        decoder=networks.mlp_decoder(2, PCA_SHAPE, (), output_channels=2),
        seed=0,
    )
    vae.encoder.set_weights(
        [
            np.concatenate([to_latents, np.zeros((4, 2))], axis=1),
            np.concatenate([-mean @ to_latents, scale]),
        ]
    )
    kernel = np.stack([directions, np.zeros((4, 2))], axis=1)
    bias = np.stack([mean - 0.5, np.full(4, pixels)], axis=1)
    vae.decoder.set_weights([kernel.reshape(8, 2).T, bias.ravel()])
    return vae, mean, directions @ directions.T + NOISE**2 * np.eye(4)


def pca_images(num_images, mean, covariance):
    """8-bit images of the model, and their exact log-probabilities."""
    marginal = scipy.stats.multivariate_normal(mean, covariance)
    x = marginal.rvs(4 * num_images, random_state=0)
    inside = np.all((x > 0.02) & (x < 0.98), axis=1)
    levels = np.floor(256 * x[inside][:num_images])
    # Over a cell a 256th wide the density is that of its center.
    exact = marginal.logpdf((levels + 0.5) / 256) - 4 * math.log(256)
    return levels.reshape(-1, *PCA_SHAPE).astype("uint8"), exact


def test_log_prob_of_probabilistic_pca_is_that_of_the_normal_marginal():
    vae, *marginal = probabilistic_pca(widening=1.2)
    x, exact = pca_images(20, *marginal)
    log_prob = vae.log_prob(x, num_samples=5000, seed=0)
    assert len(x) == 20 and np.ptp(exact) > 2
    np.testing.assert_allclose(log_prob, exact, atol=0.05)


@pytest.mark.parametrize("widening", [1.0, 1.5])
def test_elbo_of_probabilistic_pca_lacks_the_divergence_of_posteriors(widening):
    vae, *marginal = probabilistic_pca(widening)
    x, exact = pca_images(5, *marginal)
    # KL of two normals of one mean, in each of the two latents.
    gap = 2 * ((widening**2 - 1) / 2 - math.log(widening))
    elbo = vae.elbo(x, num_samples=10_000, seed=0)
    np.testing.assert_allclose(elbo, exact - gap, atol=0.05)


def test_log_prob_rises_from_the_elbo_to_the_exact_value():
    vae, *marginal = probabilistic_pca(widening=2.0)
    x, exact = pca_images(2, *marginal)
    copies = np.repeat(x[:1], 4000, axis=0)  # as many draws of each estimate
    bounds = [
        np.array(vae.log_prob(copies, num_samples=k, seed=k)).mean()
        for k in (1, 2, 5, 20, 100)
    ]
    assert np.all(np.diff([*bounds, exact[0]]) > 0)
    assert bounds[0] < exact[0] - 1 and bounds[-1] > exact[0] - 0.02


# Verbs


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_reconstruction_is_what_the_code_decodes_to(likelihood):
    vae, x = small_vae(likelihood), images()
    np.testing.assert_allclose(
        vae.decode(vae.encode(x)), vae.reconstruct(x), rtol=1e-6
    )
    np.testing.assert_array_equal(vae.reconstruct(x), vae(x))
    np.testing.assert_allclose(
        vae.encode(x), vae.posterior(x).mean(), rtol=1e-6
    )


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_images_are_means_of_the_likelihood_within_black_and_white(likelihood):
    vae = small_vae(likelihood)
    z = 20 * np.random.default_rng(0).normal(size=(50, 2)).astype("float32")
    decoded_images = vae.decode(z).numpy()
    assert decoded_images.shape == (50, *SHAPE)
    assert decoded_images.min() >= 0 and decoded_images.max() <= 1
    np.testing.assert_allclose(
        decoded_images,
        np.clip(vae.likelihood(z).mean(), 0, 1),
        rtol=1e-5,
        atol=1e-6,
    )


def test_samples_are_decoded_from_standard_normal_latents():
    vae = small_vae()
    z = tf.random.stateless_normal((5, 2), (4, 0))
    np.testing.assert_allclose(vae.sample(5, seed=4), vae.decode(z), rtol=1e-6)


def test_latents_of_another_width_are_refused():
    vae = small_vae()
    for z in (np.zeros((4, 3)), np.zeros(2), np.zeros((1, 4, 2))):
        with pytest.raises(ValueError, match=r"`z`.*\(batch, 2\)"):
            vae.decode(z)


@pytest.mark.parametrize("verb", ["elbo", "log_prob"])
@pytest.mark.parametrize("num_samples", [0, -1, 2.5, "5", True])
def test_numbers_of_samples_of_the_bounds_are_checked(verb, num_samples):
    with pytest.raises(ValueError, match="`num_samples`"):
        getattr(small_vae(), verb)(images(), num_samples=num_samples)


# The constructor


@pytest.mark.parametrize("latent_dim", [0, -3, 2.5, "64", None, True])
def test_latent_dim_must_be_a_positive_integer(latent_dim):
    with pytest.raises(ValueError, match="`latent_dim`"):
        VAE(SHAPE, latent_dim)


@pytest.mark.parametrize("beta", [-0.1, math.nan, math.inf, "1"])
def test_beta_must_be_a_number_of_at_least_zero(beta):
    with pytest.raises(ValueError, match="`beta`"):
        VAE(SHAPE, 2, beta=beta)


@pytest.mark.parametrize("likelihood", ["poisson", None, ["gaussian"]])
def test_unknown_likelihoods_are_refused_with_the_names_of_the_known(
    likelihood,
):
    with pytest.raises(ValueError, match=r"`likelihood`.*discretized_logistic"):
        VAE(SHAPE, 2, likelihood=likelihood)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"encoder": networks.mlp_encoder(SHAPE, 3, ())},
            r"`encoder` must have outputs of shape \(batch, 4\), got.*3\)",
        ),
        (
            {"encoder": networks.mlp_encoder((3, 3, 1), 4, ())},
            r"`encoder` must have inputs of shape \(batch, 2, 3, 1\)",
        ),
        (
            {"decoder": networks.mlp_decoder(4, SHAPE, ())},
            r"`decoder` must have inputs of shape \(batch, 2\), got.*4\)",
        ),
        (
            {
                "decoder": networks.mlp_decoder(2, SHAPE, ()),
                "likelihood": "gaussian",
            },
            r"`decoder` must have outputs of shape \(batch, 2, 3, 2\)",
        ),
        (
            {"encoder": keras.Sequential([keras.layers.Dense(4)])},
            "`encoder` must be a built `keras.Model`",
        ),
        ({"decoder": lambda z: z}, "`decoder` must be a built `keras.Model`"),
    ],
)
def test_networks_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        VAE(SHAPE, 2, **arguments)
    assert len(str(error.value)) <= 600


def test_the_default_networks_fit_every_likelihood():
    for likelihood in LIKELIHOODS:
        vae = VAE((4, 4, 3), 2, likelihood=likelihood, seed=0)
        x = images(3, (4, 4, 3))
        assert vae.reconstruct(x).shape == x.shape
        assert np.all(np.isfinite(vae.log_prob(x, num_samples=2, seed=0)))
