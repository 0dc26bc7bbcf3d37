"""The mathematics of the VAE; what every model must do is in contract_test."""

import functools
import json
import math

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from keras_gen import VAE, networks, pixel_likelihoods
from keras_gen.layers import posteriors, priors
from keras_gen.models.vae import ActiveUnits

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
    noise = tf.random.stateless_normal((6, k, 2), seeds[0]).numpy()
    pixel_noise = tf.random.stateless_uniform((6, k, *SHAPE), seeds[1]).numpy()
    loc, scale = parameters_of(
        affine(x.reshape(6, -1), vae.encoder.get_weights())
    )
    loc, scale = loc[:, None], scale[:, None] + 1e-5
    z = loc + scale * noise
    h = decoded(z, vae.decoder.get_weights())
    log_weights = (
        log_likelihood(likelihood, x[:, None], h, pixel_noise)
        + scipy.stats.norm.logpdf(z).sum(-1)
        - scipy.stats.norm.logpdf(z, loc, scale).sum(-1)
    )
    np.testing.assert_allclose(
        vae.elbo(x, num_samples=k, seed=7), log_weights.mean(1), rtol=1e-4
    )
    np.testing.assert_allclose(
        vae.log_prob(x, num_samples=k, seed=7),
        scipy.special.logsumexp(log_weights, axis=1) - math.log(k),
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
        noise.append(tf.random.stateless_normal((batch, count, 1), seed))
    noise = np.concatenate(noise, axis=1)

    log_prob = vae.log_prob(x, num_samples=k, seed=3)
    elbo = vae.elbo(x, num_samples=k, seed=3)
    for row in (0, 1000, batch - 1):
        m, s = loc[row // (batch // 2)], scale[row // (batch // 2)] + 1e-5
        z = m + s * noise[row]
        h = (z @ logits + bias + 0.5).reshape(k, *shape)
        log_weights = (
            log_likelihood("bernoulli", x[row], h)
            + scipy.stats.norm.logpdf(z).sum(-1)
            - scipy.stats.norm.logpdf(z, m, s).sum(-1)
        )
        expected = scipy.special.logsumexp(log_weights) - math.log(k)
        assert float(log_prob[row]) == pytest.approx(expected, abs=0.05)
        assert float(elbo[row]) == pytest.approx(log_weights.mean(), abs=0.05)
        assert np.ptp(log_weights) > 0.2


def test_the_first_batch_may_be_one_image():
    # TensorFlow knows its size then, and lets a loop change no known shape.
    vae, x = small_vae(), images()
    for verb in (vae.log_prob, vae.elbo):
        alone = verb(x[:1], num_samples=2000, seed=0)
        of_many = verb(x, num_samples=2000, seed=0)
        np.testing.assert_allclose(alone, of_many[:1], atol=0.2)


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


# Every part against an exact marginal. The decoder is linear, so that normal
# latents make normal images: x = MEAN + DIRECTIONS @ z + NOISE * noise.

MEAN = np.array([0.4, 0.5, 0.6, 0.5])
DIRECTIONS = np.array([[0.2, 0.1], [0.2, -0.1], [0.2, 0.1], [0.1, -0.1]])


def unconstrained(scale, least=1e-5):
    """What `softplus(h) + least` makes `scale` of."""
    return np.log(np.expm1(np.asarray(scale) - least))


def linear_vae(latent_dim=2, shifts=None, **arguments):
    """A VAE of a linear decoder, and an encoder that finds z approximately.

    Args:
        shifts: Array `(width, 4)`, what a condition adds to the pixels.
    """
    width = None if shifts is None else len(shifts)
    two_layers = isinstance(latent_dim, tuple)
    vae = VAE(
        PCA_SHAPE,
        latent_dim,
        likelihood="gaussian",
        encoder=networks.mlp_encoder(
            PCA_SHAPE,
            VAE(
                PCA_SHAPE, latent_dim, **arguments
            ).posterior_layer.num_parameters,
            (),
            condition_dim=width,
        ),
        decoder=networks.mlp_decoder(
            2, PCA_SHAPE, (), output_channels=2, condition_dim=width
        ),
        seed=0,
        **arguments,
    )
    kernel, bias = vae.encoder.get_weights()
    bias[:] = unconstrained(0.4)
    kernel[:] = 0
    locs = [(0, 1)]
    if isinstance(vae.posterior_layer, posteriors.MixturePosterior):
        # Weights, then the centers and scales of the five components.
        bias[:5] = np.linspace(-0.5, 0.5, 5)
        locs = [(5 + 4 * c, 6 + 4 * c) for c in range(5)]
    precision = DIRECTIONS.T @ DIRECTIONS / NOISE**2 + np.eye(2)
    to_latents = np.linalg.solve(precision, DIRECTIONS.T / NOISE**2).T
    for i, columns in enumerate(locs):
        for j, column in enumerate(columns):
            kernel[:4, column] = to_latents[:, j]
            bias[column] = -MEAN @ to_latents[:, j] + 0.1 * i
            if width is not None:
                kernel[4:, column] = -shifts @ to_latents[:, j]
    vae.encoder.set_weights([kernel, bias])

    pixels = np.zeros((2 + (width or 0), 4, 2))
    pixels[:2, :, 0] = DIRECTIONS.T
    if width is not None:
        pixels[2:, :, 0] = shifts
    bias = np.stack([MEAN - 0.5, np.full(4, unconstrained(NOISE, 1e-3))], 1)
    vae.decoder.set_weights([pixels.reshape(-1, 8), bias.ravel()])
    assert two_layers == (vae.z_dim == 3)
    return vae


def normal_marginal(loc=(0, 0), covariance=((1, 0), (0, 1)), shift=0):
    """p(x) for z of this mean and covariance."""
    covariance = DIRECTIONS @ np.asarray(covariance) @ DIRECTIONS.T
    return scipy.stats.multivariate_normal(
        MEAN + DIRECTIONS @ np.asarray(loc) + shift,
        covariance + NOISE**2 * np.eye(4),
    )


def levels_of(marginal, num_images=6):
    """8-bit images drawn from p(x), and where their density is taken."""
    x = marginal.rvs(10 * num_images, random_state=0)
    inside = np.all((x > 0.02) & (x < 0.98), axis=1)
    levels = np.floor(256 * x[inside][:num_images])
    assert len(levels) == num_images
    x = levels.reshape(-1, *PCA_SHAPE).astype("uint8")
    return x, (levels + 0.5) / 256


def assert_log_prob(vae, x, density, **arguments):
    """`density` is that of p(x), in nats, of continuous images."""
    log_prob = vae.log_prob(x, num_samples=20_000, seed=0, **arguments)
    expected = density - 4 * math.log(256)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(log_prob, expected, atol=0.05)


@pytest.mark.parametrize("posterior", ["diagonal", "full", "mixture", "flow"])
def test_log_prob_is_exact_under_every_posterior(posterior):
    marginal = normal_marginal()
    x, centers = levels_of(marginal)
    vae = linear_vae(posterior=posterior)
    assert_log_prob(vae, x, marginal.logpdf(centers))


def mixture_of(weights, locs, scales):
    """Log-density of p(x) for z from a mixture of diagonal Gaussians."""
    parts = [
        normal_marginal(loc, np.diag(np.square(scale)))
        for loc, scale in zip(locs, scales, strict=True)
    ]

    def logpdf(x):
        of_parts = [part.logpdf(x) for part in parts]
        return scipy.special.logsumexp(of_parts, 0, np.c_[weights])

    return logpdf


def test_log_prob_of_a_mixture_prior_is_that_of_a_mixture_of_normals():
    prior = priors.MixturePrior(2, num_components=2)
    locs, scales = np.array([[1, 0], [-1, 1]]), np.array([[0.3, 1], [0.8, 0.5]])
    prior.set_weights([np.log([0.3, 0.7]), locs, unconstrained(scales)])
    vae = linear_vae(prior=prior)
    x, centers = levels_of(normal_marginal())
    logpdf = mixture_of([0.3, 0.7], locs, scales)
    assert_log_prob(vae, x, logpdf(centers))
    z = np.array(vae.prior.sample(4000, seed=(0, 1)))
    np.testing.assert_allclose(z.mean(0), [0.3 - 0.7, 0.7], atol=0.1)


def test_log_prob_of_a_vamp_prior_is_that_of_its_posteriors_mixture():
    prior = priors.VampPrior(PCA_SHAPE, num_components=3)
    vae = linear_vae(prior=prior)
    pseudo = np.random.default_rng(0).uniform(0.2, 0.8, (3, *PCA_SHAPE))
    prior.set_weights([pseudo])
    posterior = vae.posterior(pseudo.astype("float32"))
    logpdf = mixture_of(
        np.full(3, 1 / 3), posterior.mean().numpy(), posterior.stddev().numpy()
    )
    x, centers = levels_of(normal_marginal())
    assert_log_prob(vae, x, logpdf(centers))


def test_log_prob_takes_any_distribution_as_a_prior():
    loc, scale = np.float32([0.5, -1]), np.float32([0.5, 1.5])
    vae = linear_vae(prior=tfd.MultivariateNormalDiag(loc, scale))
    marginal = normal_marginal(loc, np.diag(scale**2))
    x, centers = levels_of(marginal)
    assert_log_prob(vae, x, marginal.logpdf(centers))


def test_log_prob_of_two_layers_is_that_of_the_normal_marginal():
    vae = linear_vae(latent_dim=(2, 1))
    # tanh is the identity near zero: p(z1 given z2) is linear in z2.
    small, slope, offset = 1e-3, np.array([0.8, -0.5]), np.array([0.3, 0.0])
    first, second, last = np.zeros((1, 100)), np.zeros((100, 100)), None
    first[0, 0], second[0, 0], last = small, 1.0, np.zeros((100, 4))
    last[0, :2] = slope / small
    bias = np.concatenate([offset, unconstrained([0.6, 0.7])])
    zeros = np.zeros(100)
    vae.prior_layer.set_weights([first, zeros, second, zeros, last, bias])
    *kernels, bias = vae.posterior_layer.get_weights()
    bias[:] = [0, unconstrained(0.9)]
    vae.posterior_layer.set_weights([*(0 * w for w in kernels), bias])
    marginal = normal_marginal(
        offset, np.outer(slope, slope) + np.diag([0.36, 0.49])
    )
    x, centers = levels_of(marginal)
    assert_log_prob(vae, x, marginal.logpdf(centers))
    assert vae.encode(x).shape == (6, 3)
    z = np.array(vae.prior.sample(4000, seed=(0, 1)))
    np.testing.assert_allclose(z.mean(0), [0.3, 0, 0], atol=0.1)


def test_log_prob_of_categorical_latents_is_the_sum_over_all_codes():
    vae = VAE(
        SHAPE,
        2,
        latent="categorical",
        num_categories=3,
        encoder=networks.mlp_encoder(SHAPE, 6, (5,)),
        decoder=networks.mlp_decoder(6, SHAPE, (5,)),
        seed=0,
    )
    randomize(vae)
    # Codes that q hardly ever draws would be missed.
    vae.encoder.set_weights([w / 3 for w in vae.encoder.get_weights()])
    codes = np.eye(3)[list(np.ndindex(3, 3))].reshape(9, 6)
    h = decoded(codes, vae.decoder.get_weights())
    x = np.round(images())
    of_codes = log_likelihood("bernoulli", x[:, None], h)
    exact = scipy.special.logsumexp(of_codes, axis=1) - math.log(9)
    log_prob = vae.log_prob(x, num_samples=5000, seed=0)
    np.testing.assert_allclose(log_prob, exact, atol=0.05)

    # KL and the reconstruction of exact draws, by the same enumeration.
    probs = vae.encode(x).numpy().reshape(6, 2, 3)
    kl = np.sum(probs * np.log(3 * probs), axis=(1, 2))
    np.testing.assert_allclose(
        np.sum(vae.kl_per_dimension(x), axis=1), kl, rtol=1e-3, atol=1e-5
    )
    of_x = np.einsum("bi,bj->bij", probs[:, 0], probs[:, 1]).reshape(6, 9)
    elbo = np.sum(of_x * of_codes, axis=1) - kl
    np.testing.assert_allclose(
        vae.elbo(x, num_samples=5000, seed=0), elbo, atol=0.1
    )


def randomize(vae, seed=3):
    rng = np.random.default_rng(seed)
    for network in (vae.encoder, vae.decoder):
        network.set_weights(
            [rng.normal(0, 0.7, w.shape) for w in network.weights]
        )
    return vae


# Conditional models


SHIFTS = np.array([[0, 0, 0, 0], [0.2, 0, -0.1, 0], [0, 0.1, 0.1, -0.2]])


@pytest.fixture(scope="module")
def of_classes():
    """A class-conditional linear VAE, images and log p(x given y) of each."""
    vae = linear_vae(shifts=SHIFTS, num_classes=3)
    x, centers = levels_of(normal_marginal())
    log_probs = [normal_marginal(shift=s).logpdf(centers) for s in SHIFTS]
    return vae, x, np.stack(log_probs, axis=1) - 4 * math.log(256)


def test_log_prob_under_a_class_is_that_of_the_class(of_classes):
    vae, x, exact = of_classes
    classes = [0, 1, 2, 0, 1, 2]
    log_prob = vae.log_prob(x, condition=classes, num_samples=5000, seed=0)
    np.testing.assert_allclose(log_prob, exact[range(6), classes], atol=0.05)
    bound = vae.elbo(x, condition=classes, num_samples=5000, seed=0)
    assert np.all(bound < exact[range(6), classes])


def test_log_prob_without_a_class_is_that_of_their_mean(of_classes):
    vae, x, exact = of_classes
    expected = scipy.special.logsumexp(exact, axis=1) - math.log(3)
    log_prob = vae.log_prob(x, num_samples=5000, seed=0)
    np.testing.assert_allclose(log_prob, expected, atol=0.05)
    assert np.all(vae.elbo(x, num_samples=5000, seed=0) < expected)


def test_classify_is_the_rule_of_bayes(of_classes):
    vae, x, exact = of_classes
    probs = vae.classify(x, num_samples=5000, seed=0)
    np.testing.assert_allclose(
        probs, scipy.special.softmax(exact, axis=1), atol=0.02
    )
    assert not hasattr(small_vae(), "classify")


def test_samples_and_codes_are_those_of_their_class(of_classes):
    vae, x, _ = of_classes
    classes = np.arange(6) % 3
    z = vae.prior.sample(6, seed=(4, 0))
    expected = vae.decode(z, condition=classes)
    np.testing.assert_allclose(
        vae.sample(6, condition=classes, seed=4), expected, rtol=1e-6
    )
    np.testing.assert_allclose(
        expected.numpy().reshape(6, 4),
        np.clip(MEAN + z @ DIRECTIONS.T + SHIFTS[classes], 0, 1),
        atol=1e-5,
    )
    np.testing.assert_allclose(
        vae.reconstruct(x, condition=classes),
        vae.decode(vae.encode(x, condition=classes), condition=classes),
        rtol=1e-6,
    )
    np.testing.assert_array_equal(
        vae.reconstruct(x, condition=classes), vae(x, condition=classes)
    )


def test_samples_without_a_class_are_of_all_classes_alike():
    # Only the class is seen: the decoder paints it and nothing else.
    vae = linear_vae(shifts=SHIFTS, num_classes=3)
    kernel, bias = vae.decoder.get_weights()
    kernel[:2] = 0
    vae.decoder.set_weights([kernel, bias])
    samples = vae.sample(3000, seed=1).numpy().reshape(3000, 1, 4)
    found = np.isclose(samples, MEAN + SHIFTS, atol=1e-4).all(axis=-1)
    assert np.all(found.sum(axis=1) == 1)
    np.testing.assert_allclose(found.mean(axis=0), 1 / 3, atol=0.04)


def test_log_prob_under_a_vector_is_that_of_the_shifted_marginal():
    vae = linear_vae(shifts=SHIFTS[1:], condition_dim=2)
    x, centers = levels_of(normal_marginal())
    vectors = np.random.default_rng(0).normal(0, 0.5, (6, 2))
    exact = [
        normal_marginal(shift=v @ SHIFTS[1:]).logpdf(c)
        for v, c in zip(vectors, centers, strict=True)
    ]
    assert_log_prob(vae, x, np.array(exact), condition=vectors)


def test_conditions_that_are_missing_or_wrong_are_refused(of_classes):
    vae, x, _ = of_classes
    z = np.zeros((6, 2), "float32")
    for verb, data in (
        (vae.encode, x),
        (vae.reconstruct, x),
        (vae.decode, z),
        (vae.kl_per_dimension, x),
        (lambda x, **c: vae.impute(x, True, **c), x),
    ):
        with pytest.raises(ValueError, match="`condition` must be given"):
            verb(data)
        for bad in ([0, 1], [0, 1, 2, 3, 0, 1], np.zeros((6, 3))):
            with pytest.raises(ValueError, match="`condition`"):
                verb(data, condition=bad)
    for bad in ([0, 1], np.full(6, 3)):
        with pytest.raises(ValueError, match="`condition`"):
            vae.sample(6, condition=bad)
        with pytest.raises(ValueError, match="`condition`"):
            vae.log_prob(x, condition=bad)
    with pytest.raises(ValueError, match="`condition` must be `None`"):
        small_vae().sample(6, condition=np.zeros(6, int))
    with pytest.raises(ValueError, match="`condition` must be given"):
        VAE(SHAPE, 2, condition_dim=2).sample(3)


# Objectives


def log_weights_of(vae, x, noise):
    """Log weights `(k, batch)` by the distributions, for given noise."""
    posterior = vae.posterior(x)
    z = posterior.mean() + posterior.stddev() * noise
    return (
        vae.likelihood(z).log_prob(x)
        + vae.prior.log_prob(z)
        - posterior.log_prob(z)
    )


def test_the_importance_weighted_loss_and_gradient_are_their_formulas():
    k, x = 4, images()
    vae = small_vae(objective="iwae", num_importance_samples=k)
    noise = tf.random.stateless_normal((6, k, 2), (1, 0))
    noise = tf.transpose(noise, (1, 0, 2))
    weights = vae.trainable_weights
    with tf.GradientTape() as tape:
        terms = vae.loss_terms(x, training=True)
    gradients = tape.gradient(terms["loss"], weights)
    with tf.GradientTape(persistent=True) as tape:
        log_weights = log_weights_of(vae, x, noise)
        # The gradient of each weight counts by its share.
        weighted = tf.stop_gradient(tf.nn.softmax(log_weights, axis=0))
        total = -tf.reduce_sum(weighted * log_weights)
    expected = scipy.special.logsumexp(log_weights, axis=0) - math.log(k)
    np.testing.assert_allclose(terms["loss"], -expected, rtol=1e-5)
    for one, other in zip(
        gradients, tape.gradient(total, weights), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        terms["reconstruction"] - terms["kl"],
        np.mean(log_weights, axis=0),
        rtol=1e-4,
    )


@pytest.mark.parametrize("posterior", ["diagonal", "full", "mixture"])
def test_one_importance_sample_is_the_elbo_in_expectation(posterior):
    # A mixture draws from every component, and so is tighter than the ELBO.
    losses = []
    for objective in ("elbo", "iwae"):
        vae = linear_vae(posterior=posterior, objective=objective)
        x = np.repeat(levels_of(normal_marginal(), 1)[0] / 256, 20_000, axis=0)
        loss = vae.loss_terms(x.astype("float32"))["loss"]
        losses.append(np.array(loss, "float64"))
    error = math.hypot(*(loss.std() for loss in losses)) / math.sqrt(20_000)
    difference = losses[0].mean() - losses[1].mean()
    if posterior == "mixture":
        assert difference > 4 * error
    else:
        assert abs(difference) < 4 * error


def test_the_mean_over_samples_is_the_loss_of_the_elbo():
    k, x = 3, images()
    vae = small_vae(num_importance_samples=k)
    noise = tf.random.stateless_normal((6, k, 2), (1, 0))
    posterior = vae.posterior(x)
    z = posterior.mean()[:, None] + posterior.stddev()[:, None] * noise
    expected = vae.likelihood(z).log_prob(x[:, None])
    terms = vae.loss_terms(x, training=True)
    np.testing.assert_allclose(
        terms["reconstruction"], np.mean(expected, axis=1), rtol=1e-5
    )
    np.testing.assert_allclose(
        terms["loss"], terms["kl"] - terms["reconstruction"], rtol=1e-5
    )


@pytest.mark.parametrize("posterior, beta", [("diagonal", 1.0), ("full", 0.5)])
def test_the_doubly_reparameterized_gradient_is_unbiased_and_less_noisy(
    posterior, beta
):
    """Per image: the condition is what the encoder says, and nothing else."""
    x, _ = levels_of(normal_marginal(), 1)
    num_copies, k = 4000, 8
    num_parameters = 4 if posterior == "diagonal" else 5
    condition = keras.Input((num_parameters,))
    encoder = keras.Model(
        [keras.Input(PCA_SHAPE), condition],
        keras.layers.Activation("linear")(condition),
    )
    linear = linear_vae(
        shifts=np.zeros((num_parameters, 4)),
        condition_dim=num_parameters,
        posterior=posterior,
    )
    zeros = np.zeros((1, num_parameters), "float32")
    h = np.array(linear.encoder([x / np.float32(256), zeros]))
    h = tf.constant(np.repeat(h + 0.1, num_copies, axis=0))
    x = tf.constant(np.repeat(x / np.float32(256), num_copies, axis=0))
    gradients = []
    for doubly_reparameterized in (False, True):
        vae = VAE(
            PCA_SHAPE,
            2,
            likelihood="gaussian",
            posterior=posterior,
            condition_dim=num_parameters,
            encoder=encoder,
            decoder=linear.decoder,
            objective="iwae",
            num_importance_samples=k,
            doubly_reparameterized=doubly_reparameterized,
            beta=beta,
            seed=2,
        )
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(h)
            terms = vae.loss_terms(x, h, training=True)
        gradient = tape.gradient(terms["loss"], h).numpy().astype("float64")
        of_decoder = tape.gradient(terms["loss"], vae.decoder.weights)
        gradients.append((gradient, of_decoder, terms["loss"]))
    (plain, *same), (doubly, *also) = gradients
    # The decoder's gradient and the loss are not touched.
    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=0.05),
        same,
        also,
    )
    error = np.hypot(plain.std(0), doubly.std(0)) / math.sqrt(num_copies)
    assert np.all(np.abs(plain.mean(0) - doubly.mean(0)) < 4 * error)
    assert np.any(np.abs(doubly.mean(0)) > 4 * error)
    assert doubly.var(0).sum() < 0.5 * plain.var(0).sum()


def test_free_bits_are_the_least_mean_divergence_of_each_latent():
    x = images()
    kl = np.array(small_vae().kl_per_dimension(x))
    least = float(kl.mean(0).mean())  # between the two latents
    assert kl.mean(0).min() < least < kl.mean(0).max()
    vae = small_vae(free_bits=least, beta=2.0)
    weights = vae.encoder.trainable_weights
    with tf.GradientTape(persistent=True) as tape:
        terms = vae.loss_terms(x, training=True)
        penalty = tf.reduce_mean(terms["loss"] + terms["reconstruction"])
        of_free = tf.reduce_mean(
            vae._kl_per_dimension(x)[:, np.argmax(kl.mean(0))]
        )
    assert float(penalty) == pytest.approx(
        2 * (kl.mean(0).max() + least), rel=1e-5
    )
    np.testing.assert_allclose(terms["kl"], kl.sum(1), rtol=1e-4)
    for one, other in zip(
        tape.gradient(penalty, weights),
        tape.gradient(of_free, weights),
        strict=True,
    ):
        np.testing.assert_allclose(one, 2 * other, rtol=1e-3, atol=1e-5)
    terms = vae.loss_terms(x)  # reported without them
    np.testing.assert_allclose(
        terms["loss"], 2 * terms["kl"] - terms["reconstruction"], rtol=1e-5
    )


def test_beta_rises_with_the_optimizers_steps_in_training_alone():
    x = images()
    vae = compiled(small_vae(beta=3.0, beta_warmup_steps=4), 0.0)
    for step, weight in ((0, 0), (1, 0.75), (3, 2.25), (4, 3), (9, 3)):
        vae.optimizer.iterations.assign(step)
        for training, expected in ((True, weight), (False, 3)):
            terms = vae.loss_terms(x, training=training)
            np.testing.assert_allclose(
                terms["loss"],
                expected * terms["kl"] - terms["reconstruction"],
                rtol=1e-5,
            )
    vae.optimizer.iterations.assign(2)
    logs = one_step(vae, x)
    assert logs["loss"] == pytest.approx(
        1.5 * logs["kl"] - logs["reconstruction"], rel=1e-5
    )


def test_the_temperature_falls_with_the_optimizers_steps():
    def trained(**arguments):
        layer = posteriors.CategoricalPosterior(2, 3, temperature=0.8)
        vae = VAE(
            SHAPE,
            2,
            latent="categorical",
            num_categories=3,
            posterior=layer,
            seed=0,
            **arguments,
        )
        compiled(vae).fit(images(), batch_size=2, verbose=0)  # three steps
        return vae

    vae = trained(temperature_decay=0.1)
    temperature = vae.posterior_layer.temperature
    assert float(temperature) == pytest.approx(math.exp(-0.1 * 2))
    vae.optimizer.iterations.assign(1000)
    one_step(vae, images())
    assert float(temperature) == 0.5
    vae = trained(temperature_decay=0)
    assert float(vae.posterior_layer.temperature) == pytest.approx(0.8)


# What is logged


def test_active_units_are_the_latents_whose_means_vary():
    means = np.random.default_rng(0).normal(size=(1000, 4)).astype("float32")
    means = [5, 0, -1, 3] + means * [1, 0, 0.09, 0.11]
    metric = ActiveUnits(4)
    assert float(metric.result()) == 0
    for part in np.split(means, [100, 101, 700]):
        metric.update_state(part)
    assert float(metric.result()) == 2 == np.sum(means.var(axis=0) > 0.01)
    copy = ActiveUnits.from_config({**metric.get_config(), "threshold": 2.0})
    copy.update_state(means)
    assert float(copy.result()) == 0


def test_active_units_are_counted_over_the_epoch_and_the_validation_data():
    vae = compiled(small_vae(), 0.0)
    kernel, bias = vae.encoder.get_weights()[-2:]
    kernel[:, 0] = 0  # the first latent says nothing
    vae.encoder.set_weights([*vae.encoder.get_weights()[:-2], kernel, bias])
    x = images(32)
    assert np.var(vae.encode(x), axis=0)[1] > 0.01
    history = vae.fit(x, batch_size=1, validation_data=x, verbose=0).history
    assert history["active_units"] == history["val_active_units"] == [1]


@pytest.mark.parametrize("posterior", ["diagonal", "full"])
def test_kl_per_dimension_adds_up_to_the_divergence(posterior):
    vae = linear_vae(posterior=posterior)
    x = levels_of(normal_marginal())[0] / np.float32(256)
    kl = vae.kl_per_dimension(x)
    assert kl.shape == (6, 2)
    samples = vae.posterior(x).sample(20_000, seed=(0, 1))
    ratio = vae.posterior(x).log_prob(samples) - vae.prior.log_prob(samples)
    np.testing.assert_allclose(np.sum(kl, 1), np.mean(ratio, 0), atol=0.05)


def test_kl_and_bound_are_those_under_the_condition():
    vae = linear_vae(shifts=SHIFTS[1:], condition_dim=2)
    x = levels_of(normal_marginal())[0] / np.float32(256)
    terms = []
    for vectors in np.random.default_rng(0).normal(size=(2, 6, 2)):
        kl = vae.kl_per_dimension(x, condition=vectors)
        _, expected = vae.elbo_terms(x, vectors)
        np.testing.assert_allclose(np.sum(kl, axis=1), expected, rtol=1e-4)
        terms.append(expected)
    assert np.max(np.abs(terms[0] - terms[1])) > 0.01


def test_kl_per_dimension_without_a_closed_form_is_refused():
    vae = VAE(SHAPE, 2, posterior="mixture")
    with pytest.raises(ValueError, match=r"kl_per_dimension.*MixturePost"):
        vae.kl_per_dimension(images())


# Missing pixels


@pytest.mark.parametrize("widening", [1.0, 1.7])
def test_imputed_pixels_have_the_exact_conditional_mean_and_variance(widening):
    """However wrong q(z given x) is: the chain corrects for it."""
    vae, mean, _ = probabilistic_pca(widening)
    kernel = vae.decoder.get_weights()[0].reshape(2, 4, 2)
    directions = kernel[:, :, 0].T
    x = np.array([0.5, 0.3, 0.9, 0.4, 0.2, 0.6, 0.5, 0.5]).reshape(2, 4)
    mask = np.array([True, False, True, False])
    images_ = x.reshape(2, *PCA_SHAPE).astype("float32")
    imputed = vae.impute(
        images_,
        mask.reshape(PCA_SHAPE),
        num_samples=1500,
        num_steps=60,
        seed=0,
    ).numpy()
    assert imputed.shape == (1500, 2, *PCA_SHAPE)
    observed = directions[mask]
    covariance = np.linalg.inv(observed.T @ observed / NOISE**2 + np.eye(2))
    z = (x[:, mask] - mean[mask]) @ observed @ covariance / NOISE**2
    missing = directions[~mask]
    values = imputed.reshape(1500, 2, 4)[:, :, ~mask]
    deviation = np.sqrt(np.diag(missing @ covariance @ missing.T))
    np.testing.assert_allclose(
        values.mean(0),
        mean[~mask] + z @ missing.T,
        atol=5 * deviation.max() / math.sqrt(1500) + 1 / 256,
    )
    np.testing.assert_allclose(
        values.std(0), np.stack([deviation] * 2), rtol=0.12
    )


def test_observed_pixels_come_back_bit_for_bit():
    vae, x = small_vae(), images()
    mask = np.random.default_rng(0).random(x.shape) < 0.5
    arguments = {"num_samples": 2, "num_steps": 4, "seed": 0}
    imputed = vae.impute(x, mask, **arguments)
    assert imputed.shape == (2, *x.shape) and imputed.dtype == "float32"
    for sample in imputed.numpy():
        np.testing.assert_array_equal(sample[mask], x[mask])
        assert np.all((sample >= 0) & (sample <= 1))
        assert np.all(sample[~mask] != x[~mask])
    # What stands at missing pixels does not matter.
    hidden = np.where(mask, x, 0.123).astype("float32")
    np.testing.assert_array_equal(
        vae.impute(hidden, mask.astype("float32"), **arguments), imputed
    )
    np.testing.assert_array_equal(
        vae.impute(x, True, **arguments), np.stack([x, x])
    )
    columns = np.arange(3)[None, :, None] > 0
    imputed = vae.impute(x, columns, **{**arguments, "num_samples": 2})
    np.testing.assert_array_equal(imputed[0, :, :, 1:], x[:, :, 1:])
    assert np.any(imputed[0] != imputed[1])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"mask": np.ones((5, *SHAPE), bool)},
            r"`mask`.*\(6, 2, 3, 1\).*\(5, 2, 3, 1\)",
        ),
        ({"mask": np.full(SHAPE, 0.5)}, "`mask` must be boolean"),
        ({"mask": np.full(SHAPE, np.nan)}, "`mask` must be boolean"),
        ({"mask": True, "num_samples": 0}, "`num_samples`"),
        ({"mask": True, "num_steps": 0.5}, "`num_steps`"),
        ({"mask": True, "seed": -1}, "`seed`"),
    ],
)
def test_bad_arguments_of_impute_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        small_vae().impute(images(), **arguments)
    assert len(str(error.value)) <= 600


# All parts together


@keras.saving.register_keras_serializable(package="vae_test")
class SurerGaussian(pixel_likelihoods.Gaussian):
    """Of the same `name` as the plain one."""

    def log_prob(self, h, x, noise=0.0):
        return 2.0 * super().log_prob(h, x, noise)

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls()


VARIANTS = {
    "full-dreg": {
        "posterior": "full",
        "objective": "iwae",
        "num_importance_samples": 3,
        "doubly_reparameterized": True,
        "likelihood": "gaussian",
        "condition_dim": 2,
    },
    "mixture-vamp": {
        "posterior": "mixture",
        "prior": priors.VampPrior(SHAPE, 4),
        "num_importance_samples": 2,
        "num_classes": 3,
    },
    "flow-mixture": {
        "posterior": "flow",
        "prior": "mixture",
        "likelihood": "discretized_logistic",
        "beta_warmup_steps": 10,
    },
    "categorical": {
        "latent": "categorical",
        "num_categories": 3,
        "likelihood": "categorical",
        "free_bits": 0.1,
    },
    "two-layers": {
        "latent_dim": (2, 1),
        "objective": "iwae",
        "num_importance_samples": 3,
        "beta": 0.5,
    },
    "fixed": {
        "prior": tfd.MultivariateNormalDiag(tf.ones(2)),
        "likelihood": SurerGaussian(),
    },
}


def variant(name):
    """The model and the condition that goes with six images."""
    arguments = {"latent_dim": 2, "seed": 0, **VARIANTS[name]}
    condition = None
    if "num_classes" in arguments:
        condition = np.arange(6) % 3
    if "condition_dim" in arguments:
        condition = np.random.default_rng(0).random((6, 2)).astype("float32")
    vae = VAE(SHAPE, **arguments)
    vae.compile()
    return vae, condition


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_survives_its_config(name):
    vae, condition = variant(name)
    config = json.dumps(keras.saving.serialize_keras_object(vae))
    copy = keras.saving.deserialize_keras_object(json.loads(config))
    copy.set_weights(vae.get_weights())
    terms = [
        v.loss_terms(images(), *vectors(v, condition)) for v in (vae, copy)
    ]
    for key in terms[0]:
        np.testing.assert_array_equal(terms[0][key], terms[1][key])
    assert json.dumps(keras.saving.serialize_keras_object(copy)) == config


def vectors(vae, condition):
    if condition is None:
        return []
    return [np.eye(3)[condition] if vae.num_classes else condition]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_the_same_under_xla(name, monkeypatch):
    # XLA has random numbers of its own, but for seeds that it can fold.
    for kind in ("normal", "uniform"):
        draw = functools.partial(
            getattr(tf.random, f"stateless_{kind}"), seed=(0, 1), alg="philox"
        )
        monkeypatch.setattr(VAE, kind, lambda _, shape, __, d=draw: d(shape))

    def loss_and_gradients(vae, x, *condition):
        weights = vae.trainable_weights
        with tf.GradientTape() as tape:
            loss = vae.loss_terms(x, *condition, training=True)["loss"]
        gradients = tape.gradient(loss, weights)
        assert all(g is not None for g in gradients)
        return loss, gradients

    results = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        vae, condition = variant(name)
        condition = [tf.cast(v, "float32") for v in vectors(vae, condition)]
        step = loss_and_gradients
        if jit_compile:
            step = tf.function(step, jit_compile=True, autograph=False)
        results.append(step(vae, tf.constant(images()), *condition))
    for one, other in zip(*map(tf.nest.flatten, results), strict=True):
        np.testing.assert_allclose(
            one, other, rtol=1e-3, atol=1e-4 * (1 + np.abs(one).max())
        )


# What goes together, and what does not


def coins(dim):
    """Vectors of 0 and 1, floats that have probabilities."""
    return tfd.Independent(tfd.Bernoulli(tf.zeros(dim), dtype="float32"), 1)


def mixture_of_normals(dim):
    return tfd.MixtureSameFamily(
        tfd.Categorical(logits=tf.zeros(3)),
        tfd.Independent(tfd.Normal(tf.zeros((3, dim)), 1.0), 1),
    )


@pytest.mark.parametrize(
    "arguments",
    [
        # TFP's mixtures are not reparameterized, but these are densities.
        {"prior": mixture_of_normals(2)},
        {
            "prior": tfd.Mixture(
                tfd.Categorical(tf.zeros(1)),
                [tfd.MultivariateNormalDiag(tf.zeros(2))],
            )
        },
        {
            "prior": tfd.TransformedDistribution(
                mixture_of_normals(2), tfp.bijectors.Scale(2.0)
            )
        },
        {
            "latent": "categorical",
            "num_categories": 3,
            "prior": coins(6),
        },
        {
            "latent_dim": 6,
            "posterior": posteriors.CategoricalPosterior(2, 3),
            "prior": priors.UniformCategoricalPrior(2, 3),
        },
        {"latent": "categorical", "prior": priors.VampPrior(SHAPE, 4)},
    ],
)
def test_latents_of_one_kind_go_together(arguments):
    vae = VAE(SHAPE, **{"latent_dim": 2, **arguments})
    assert np.isfinite(vae.loss_terms(images())["loss"]).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"prior": "laplace"}, r"`prior` must be one of.*vamp.*laplace"),
        ({"prior": None}, "`prior` must be one of"),
        ({"posterior": "exact"}, r"`posterior` must be one of.*flow.*exact"),
        ({"latent": "binary"}, r"`latent` must be one of.*categorical"),
        ({"objective": "vimco"}, r"`objective` must be one of.*iwae"),
        ({"num_importance_samples": 0}, "`num_importance_samples`"),
        ({"beta_warmup_steps": -1}, "`beta_warmup_steps`"),
        ({"beta_warmup_steps": 2.5}, "`beta_warmup_steps`"),
        ({"free_bits": -1.0}, "`free_bits`"),
        ({"temperature_decay": "fast"}, "`temperature_decay`"),
        ({"num_classes": 0}, "`num_classes`"),
        ({"condition_dim": 1.5}, "`condition_dim`"),
        ({"num_classes": 3, "condition_dim": 2}, "must not both be given"),
        ({"latent_dim": (2, 1, 1)}, "`latent_dim"),
        ({"latent_dim": (2, 0)}, "`latent_dim"),
        (
            {"latent_dim": (2, 1), "posterior": "flow"},
            r"`posterior='flow'` is for one layer of Gaussian",
        ),
        (
            {"latent_dim": (2, 1), "prior": "vamp"},
            r"`prior='vamp'` is for one layer of Gaussian",
        ),
        (
            {"latent_dim": (2, 1), "latent": "categorical"},
            "`latent='categorical'` has one stochastic layer",
        ),
        (
            {"latent": "categorical", "posterior": "full"},
            r"`posterior='full'` is for one layer of Gaussian",
        ),
        (
            {"latent": "categorical", "prior": "mixture"},
            r"`prior='mixture'` is for one layer of Gaussian",
        ),
        (
            {"prior": tfd.MultivariateNormalDiag(tf.zeros(3))},
            r"`prior` must be over 2 dimensions.*over 3",
        ),
        (
            {"posterior": posteriors.CategoricalPosterior(2, 3)},
            r"`posterior` must be over 2 dimensions.*over 6",
        ),
        (
            {"posterior": keras.layers.Dense(3)},
            r"`posterior` must be a layer with.*got a Dense",
        ),
        (
            {"posterior": priors.MixturePrior(2)},
            r"`posterior` must be a layer with.*got a MixturePrior",
        ),
        (
            {"prior": keras.layers.Dense(3)},
            r"`prior` must be a layer with.*got a Dense",
        ),
        (
            {"prior": posteriors.DiagonalPosterior(2)},
            r"`prior` must be a layer with.*got a DiagonalPosterior",
        ),
        (
            {"prior": priors.VampPrior((3, 2, 1), 4)},
            r"`prior` must.*\(2, 3, 1\), got.*`image_shape=\(3, 2, 1\)`",
        ),
        *(
            (
                {"latent_dim": 6, "num_categories": 3, **combination},
                rf"`posterior` and `prior` must both.*got {kinds}",
            )
            for combination, kinds in (
                (
                    {"posterior": posteriors.CategoricalPosterior(2, 3)},
                    r"CategoricalPosterior \(discrete\) and StandardNormal",
                ),
                (
                    {"prior": priors.UniformCategoricalPrior(2, 3)},
                    r"DiagonalPosterior \(cont.*Categorical.*\(discrete\)",
                ),
                (
                    {
                        "latent_dim": 2,
                        "latent": "categorical",
                        "prior": tfd.MultivariateNormalDiag(tf.zeros(6)),
                    },
                    r"CategoricalPosterior.*and FixedPrior \(continuous\)",
                ),
                (
                    {"prior": coins(6)},
                    r"DiagonalPosterior.*and FixedPrior \(discrete\)",
                ),
            )
        ),
        (
            {"objective": "elbo", "doubly_reparameterized": True},
            r"`doubly_reparameterized=True`.*got `objective='elbo'`",
        ),
        *(
            (
                {
                    "objective": "iwae",
                    "doubly_reparameterized": True,
                    **combination,
                },
                f"`doubly_reparameterized=True` needs.*got {kind}",
            )
            for combination, kind in (
                ({"posterior": "mixture"}, "MixturePosterior"),
                ({"posterior": "flow"}, "FlowPosterior"),
                ({"latent_dim": (2, 1)}, "TwoLayerPosterior"),
                ({"latent": "categorical"}, "CategoricalPosterior"),
            )
        ),
        (
            {"objective": "iwae", "free_bits": 0.1},
            r"`free_bits`.*got `objective='iwae'`",
        ),
        (
            {"posterior": "flow", "free_bits": 0.1},
            r"`free_bits` needs.*FlowPosterior with StandardNormalPrior",
        ),
        (
            {"num_classes": 3, "encoder": networks.mlp_encoder(SHAPE, 4, ())},
            r"`encoder` of a conditional model must have two inputs",
        ),
        (
            {
                "num_classes": 3,
                "decoder": networks.mlp_decoder(2, SHAPE, (), condition_dim=4),
            },
            r"`decoder` of a conditional model.*\(None, 3\).*\(None, 4\)",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        VAE(SHAPE, **{"latent_dim": 2, **arguments})
    assert len(str(error.value)) <= 600


def test_free_bits_and_active_units_are_those_of_all_replicas(two_replicas):
    x = tf.data.Dataset.from_tensor_slices(images(32))
    x = x.batch(16, drop_remainder=True)
    least = float(np.mean(small_vae().kl_per_dimension(images(16))))
    one = compiled(small_vae(free_bits=least), 0.01)
    with two_replicas.scope():
        two = small_vae(free_bits=least)
        two.compile(keras.optimizers.SGD(0.01))
    two.set_weights(one.get_weights())
    logs = [vae.fit(x, verbose=0).history for vae in (one, two)]
    for name in logs[0]:
        np.testing.assert_allclose(logs[0][name], logs[1][name], rtol=1e-4)
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_categorical_latents_anneal_on_every_replica(two_replicas):
    x = tf.data.Dataset.from_tensor_slices(images(12))
    with two_replicas.scope():
        vae = VAE(SHAPE, 2, latent="categorical", temperature_decay=0.1, seed=0)
        vae.compile(keras.optimizers.SGD(0.01))
    vae.fit(x.batch(4, drop_remainder=True), verbose=0)
    for value in vae.posterior_layer.temperature.value.values:
        assert float(value) == pytest.approx(math.exp(-0.1 * 2))


@pytest.mark.parametrize("latent", ["gaussian", "categorical"])
def test_a_vae_of_several_replicas_is_saved(two_replicas, latent, tmp_path):
    with two_replicas.scope():
        vae = VAE(SHAPE, 2, latent=latent, beta=0.5, seed=0)
    if latent == "categorical":
        vae.posterior_layer.temperature.assign(0.25)
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    assert float(loaded.beta) == 0.5
    if latent == "categorical":
        assert float(loaded.posterior_layer.temperature) == 0.25
    x = images()
    np.testing.assert_array_equal(loaded.encode(x), vae.encode(x))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_computes_in_float32_under_mixed_precision(name):
    full, condition = variant(name)
    keras.config.set_dtype_policy("mixed_float16")
    half, _ = variant(name)
    half.set_weights(full.get_weights())
    terms = [
        vae.loss_terms(images(), *vectors(vae, condition), training=True)
        for vae in (full, half)
    ]
    for key, value in terms[1].items():
        assert value.dtype == "float32"
        np.testing.assert_allclose(value, terms[0][key], rtol=0.02, atol=0.05)
    given = {} if condition is None else {"condition": condition}
    np.testing.assert_allclose(
        half(images(), **given), full(images(), **given), atol=0.02
    )


def test_networks_may_be_subclassed_models():
    class Dense(keras.Model):
        def __init__(self, network):
            super().__init__()
            self.network = network
            self(np.zeros((1, *network.input_shape[1:])))

        def call(self, x):
            return self.network(x)

    parts = {
        "encoder": networks.mlp_encoder((2, 2, 1), 6, (4,)),
        "decoder": networks.mlp_decoder(3, (2, 2, 1), (4,)),
    }
    wrapped = {name: Dense(network) for name, network in parts.items()}
    x = np.random.default_rng(0).random((3, 2, 2, 1), "float32")
    one, other = (
        VAE((2, 2, 1), 3, **given, seed=1).log_prob(x, seed=0)
        for given in (parts, wrapped)
    )
    np.testing.assert_allclose(one, other, rtol=1e-6)
