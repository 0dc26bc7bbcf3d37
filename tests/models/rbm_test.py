"""The mathematics of an RBM; what every model must do is in contract_test."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gen.likelihood import (
    annealed_log_partition,
    normalized_log_prob,
    sigmoid_schedule,
)
from keras_gen.models.rbm import RBM

special = pytest.importorskip("scipy.special")
stats = pytest.importorskip("scipy.stats")

SHAPE = (2, 3, 1)
BETAS = sigmoid_schedule(800)


def states(num_units):
    """All states of binary units, `(2**num_units, num_units)`."""
    return np.array(list(itertools.product((0, 1), repeat=num_units)), float)


def softplus(x):
    return np.logaddexp(0, x)


def rbm(hidden_dim=4, shape=SHAPE, scale=0.8, **arguments):
    """A machine whose weights are not small."""
    model = RBM(shape, hidden_dim, seed=1, **arguments)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, scale, weight.shape))
    if arguments.get("likelihood") == "gaussian":
        model.units.bias.assign(rng.uniform(0.3, 0.7, model.num_dims))
        model.units.log_scale.assign(rng.uniform(-3, -2, model.num_dims))
    return model


def parameters(model):
    return [
        np.array(weight, "float64")
        for weight in (model.kernel, model.units.bias, model.hidden_bias)
    ]


def joint(model):
    """log of the unnormalized p(v, h) of binary units, all v by all h."""
    w, b, c = parameters(model)
    v, h = states(len(b)), states(len(c))
    return v @ w @ h.T + (v @ b)[:, None] + h @ c


def log_partition_by_hidden_states(model):
    """log Z in float64, summed over all states of few hidden units."""
    w, b, c = parameters(model)
    h = states(len(c))
    if model.is_binary:
        return special.logsumexp(h @ c + softplus(b + h @ w.T).sum(axis=1))
    scale = np.array(model.units.scale, "float64")
    volume = 0.5 * len(b) * np.log(2 * np.pi) + np.log(scale).sum()
    square = ((h @ w.T) ** 2).sum(axis=1)
    return volume + special.logsumexp(h @ c + 0.5 * square)


def images(v):
    return v.reshape(-1, *SHAPE).astype("float32")


# The machine


def test_free_energy_sums_the_hidden_units_out():
    model = rbm()
    expected = -special.logsumexp(joint(model), axis=1)
    v = images(states(6))
    np.testing.assert_allclose(model.free_energy(v), expected, rtol=1e-5)


def test_codes_and_reconstructions_are_conditional_means():
    model = rbm()
    probabilities = special.softmax(joint(model), axis=1)
    means = probabilities @ states(4)
    np.testing.assert_allclose(
        model.encode(images(states(6))), means, rtol=1e-5
    )
    given_h = special.softmax(joint(model), axis=0).T @ states(6)
    decoded = model.decode(states(4))
    np.testing.assert_allclose(decoded, images(given_h), rtol=1e-5)
    v = images(states(6))[:5]
    np.testing.assert_allclose(
        model.reconstruct(v), model.decode(model.encode(v)), rtol=1e-6
    )


def test_a_sweep_leaves_the_distribution_as_it_is():
    model, count = rbm(), 20_000
    p = special.softmax(joint(model), axis=None)
    rng = np.random.default_rng(0)
    h = states(4)[rng.choice(16, count, p=p.sum(axis=0))]
    v, h = model._sweep(tf.constant(h, "float32"), (0, 1))
    v, h = (np.array(rows).astype(int) for rows in (v, h))
    which = v @ 2 ** np.arange(6)[::-1] * 16 + h @ 2 ** np.arange(4)[::-1]
    found = np.bincount(which, minlength=1024)
    # The rarest states, together, have one place.
    often = p.ravel() * count >= 5
    found, expected = (
        np.append(n[often], n[~often].sum()) for n in (found, p.ravel() * count)
    )
    assert stats.chisquare(found, expected).pvalue > 1e-3


def test_a_sweep_of_gaussian_units_draws_from_both_conditionals():
    model, count = rbm(2, (1, 2, 1), likelihood="gaussian"), 40_000
    w, b, c = parameters(model)
    scale = np.array(model.units.scale)
    h = np.tile([[1.0, 0.0]], (count, 1)).astype("float32")
    v, new = (np.array(rows) for rows in model._sweep(h, (0, 1)))
    np.testing.assert_allclose(v.mean(0), b + scale * w[:, 0], atol=3e-3)
    np.testing.assert_allclose(np.cov(v.T), np.diag(scale**2), atol=5e-4)
    rates = special.expit(c + (v - b) / scale @ w)
    np.testing.assert_allclose(new.mean(0), rates.mean(0), atol=0.01)
    residual = (new - rates).T @ (v - b) / scale / count
    np.testing.assert_allclose(residual, 0, atol=0.02)


# Likelihood


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_annealing_is_within_a_twentieth_of_a_nat_of_enumeration(likelihood):
    scale = 0.5 if likelihood == "bernoulli" else 0.3
    model = rbm(15, (4, 5, 1), scale, likelihood=likelihood)
    exact = log_partition_by_hidden_states(model)
    log_z = model.log_partition(betas=BETAS)
    assert log_z.value == pytest.approx(exact, abs=0.05)
    assert log_z.kind == "lower_bound" and log_z.standard_error < 0.05
    low, high = log_z.interval()
    assert low <= exact <= high
    x = np.random.default_rng(0).integers(0, 2, (3, 4, 5, 1)).astype("float32")
    estimate = normalized_log_prob(model.log_unnormalized(x), log_z)
    # Gaussian units have a density, in which a level has its volume.
    volume = 0.0 if model.is_binary else -20 * math.log(256)
    np.testing.assert_allclose(
        estimate.value, volume - model.free_energy(x) - exact, atol=0.05
    )


def test_annealing_backwards_bounds_from_the_other_side():
    model = rbm(4, scale=2.0)
    exact = log_partition_by_hidden_states(model)
    p = special.softmax(joint(model), axis=None).sum(axis=0)
    rows = np.random.default_rng(0).choice(16, 2000, p=p)
    above = annealed_log_partition(
        model.annealing_path(), samples=states(4)[rows], betas=[0, 0.5, 1]
    )
    below = model.log_partition(num_chains=5, betas=[0, 0.5, 1])
    assert below.value < exact < above.value + 4 * above.standard_error
    assert above.value == pytest.approx(exact, abs=4 * above.standard_error)


def test_log_prob_is_the_exact_one_within_its_error_and_anneals_once(
    monkeypatch,
):
    monkeypatch.setattr(
        "keras_gen.models.boltzmann_machine.piecewise_schedule", lambda: BETAS
    )
    model = rbm()
    v = images(states(6))
    value = model.log_prob(v, seed=3)
    exact = special.logsumexp(joint(model), axis=1)
    exact -= special.logsumexp(exact)
    np.testing.assert_allclose(value, exact, atol=0.05)
    assert model.log_prob_kind == "estimate"
    log_z = model.log_partition(betas=BETAS, seed=3).value
    np.testing.assert_allclose(value, -model.free_energy(v) - log_z, rtol=1e-5)
    np.testing.assert_array_equal(model.log_prob(v), value)  # as it is known
    assert np.any(model.log_prob(v, seed=4) != value)
    model.kernel.assign(0 * model.kernel)
    independent = -model.num_dims * math.log(2)
    model.units.bias.assign(tf.zeros(6))
    np.testing.assert_allclose(model.log_prob(v), independent, atol=0.01)


def test_gaussian_log_prob_is_of_8_bit_images(monkeypatch):
    monkeypatch.setattr(
        "keras_gen.models.boltzmann_machine.piecewise_schedule", lambda: BETAS
    )
    model = rbm(3, (1, 1, 1), 1.0, likelihood="gaussian")
    levels = np.arange(256, dtype="uint8").reshape(-1, 1, 1, 1)
    total = np.exp(model.log_prob(levels, seed=0)).sum()
    outside = 0.02  # of [0, 1], where the density goes on
    assert 1 - outside < total < 1.02
    log_z = model.log_partition(betas=BETAS)
    middles = normalized_log_prob(model.log_unnormalized(levels), log_z)
    assert 1 - outside < np.exp(middles.value).sum() < 1.02


def test_log_probabilities_above_zero_are_refused(monkeypatch):
    monkeypatch.setattr(
        "keras_gen.models.boltzmann_machine.piecewise_schedule",
        lambda: np.array([0.0, 1.0]),
    )
    model = rbm(8, scale=30.0)
    with pytest.raises(ValueError, match="annealing was too short"):
        model.log_prob(images(states(6)), num_samples=1, seed=0)


# Training


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_with_exact_chains_the_step_is_the_gradient_of_the_likelihood(
    likelihood,
):
    """Chains that hold many exact samples, moved by a sweep, stay such."""
    count = 40_000
    model = rbm(3, (1, 2, 1), likelihood=likelihood, num_chains=count)
    w, b, c = parameters(model)
    h = states(3)
    if likelihood == "bernoulli":
        log_p = h @ c + softplus(b + h @ w.T).sum(axis=1)
    else:
        log_p = h @ c + 0.5 * ((h @ w.T) ** 2).sum(axis=1)
    rows = np.random.default_rng(0).choice(8, count, p=special.softmax(log_p))
    if likelihood == "gaussian":
        model.units.log_scale.assign([0.0, 0.3])
    model.chains.assign(h[rows])
    model.started.assign(1)
    x = np.array([[0, 1], [1, 1], [0, 0]], "float32").reshape(-1, 1, 2, 1)
    model.compile(
        keras.optimizers.SGD(1.0), jit_compile=False, run_eagerly=True
    )
    noise = 0.0
    if likelihood == "gaussian":
        noise = np.full((3, 2), 0.5, "float32")
        model.uniform = lambda shape, training=False: tf.constant(noise)
    before = [np.array(weight) for weight in model.trainable_weights]
    with tf.GradientTape() as tape:
        v = model._values(tf.constant(x), noise=noise)
        log_z = tf.reduce_logsumexp(model._log_sum(tf.constant(h, "float32")))
        loss = tf.reduce_mean(-model._log_unnormalized(v)) + log_z
    gradients = tape.gradient(loss, model.trainable_weights)
    model.train_step(tf.constant(x))
    for weight, old, gradient in zip(
        model.trainable_weights, before, gradients, strict=True
    ):
        np.testing.assert_allclose(old - np.array(weight), gradient, atol=0.05)


def bars(count=256, seed=0):
    """Binary images of 3 x 3 with one white row or column, all as likely."""
    rows = np.zeros((6, 3, 3, 1), "float32")
    for k in range(3):
        rows[k, k], rows[k + 3, :, k] = 1, 1
    return rows[np.random.default_rng(seed).integers(0, 6, count)]


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)  # `fresh_keras` does it after this
    model = RBM((3, 3, 1), 12, num_chains=64, gibbs_steps=2, seed=1)
    decay = keras.optimizers.schedules.PolynomialDecay(0.2, 1200, 0.01)
    model.compile(
        keras.optimizers.SGD(decay), steps_per_execution=50, jit_compile=False
    )
    first, rest = (
        model.fit(x, batch_size=64, epochs=epochs, verbose=0).history
        for x, epochs in ((bars(), 1), (np.tile(bars(), (100, 1, 1, 1)), 3))
    )
    name = "pseudo_log_prob"
    return model, (first[name][0], rest[name][-1])


def exact_log_probs(model, x):
    return -np.array(model.free_energy(x)) - log_partition_by_hidden_states(
        model
    )


def test_persistent_chains_learn_the_distribution(trained):
    model, (start, end) = trained
    different = np.unique(bars(), axis=0)
    assert len(different) == 6
    p = np.exp(exact_log_probs(model, different))
    assert p.sum() > 0.5 and p.min() > 0.04  # of 512 images, of 1 / 512 each
    assert end > start + 2


def test_the_pseudo_likelihood_is_that_of_one_pixel_given_the_others(trained):
    model, _ = trained
    x = np.unique(bars(), axis=0)
    exact = 0.0
    for i in range(9):
        flipped = x.reshape(6, 9).copy()
        flipped[:, i] = 1 - flipped[:, i]
        rise = model.free_energy(flipped.reshape(x.shape))
        rise -= model.free_energy(x)
        exact -= softplus(-np.array(rise))
    many = np.repeat(x, 1000, axis=0)
    logs = model.evaluate(many, batch_size=6000, verbose=0, return_dict=True)
    assert logs["pseudo_log_prob"] == pytest.approx(exact.mean(), rel=0.05)


def test_samples_are_of_the_learned_distribution(trained):
    model, _ = trained
    x = model.sample(2400, chain_length=30, seed=0)
    assert x.shape == (2400, 3, 3, 1) and x.dtype == "float32"
    means = np.mean(bars(4000), axis=0)
    np.testing.assert_allclose(np.mean(x, axis=0), means, atol=0.08)
    white = np.round(x).reshape(2400, -1).astype(int)
    known = {tuple(v) for v in bars().reshape(-1, 9).astype(int)}
    assert np.mean([tuple(v) in known for v in white]) > 0.75
    again = model.sample(2400, chain_length=30, seed=0)
    np.testing.assert_array_equal(x, again)


def test_images_of_one_chain_follow_each_other(trained):
    model, _ = trained
    path = np.array(model.sample(60, chain_length=40, burn_in=10, seed=0))
    steps = np.abs(np.diff(path, axis=0)).mean(axis=(1, 2, 3))
    # 30 images of each of two chains: near but for the change of chains.
    apart = np.abs(path[:30] - path[30:]).mean()
    assert steps[:29].mean() < 0.8 * apart
    # The same chain among more of them, whose products round differently.
    again = model.sample(60, chain_length=17, burn_in=10, seed=0)
    np.testing.assert_allclose(path[:7], again[:7], rtol=0, atol=5e-7)


def test_imputation_keeps_what_is_seen_and_finds_the_rest(trained):
    model, _ = trained
    x = np.unique(bars(), axis=0)
    mask = np.zeros((3, 3, 1), bool)
    mask[0, :2] = mask[1, 0] = True  # tells row, column or neither
    drawn = np.array(model.impute(x, mask, num_samples=40, seed=0))
    assert drawn.shape == (40, 6, 3, 3, 1)
    np.testing.assert_array_equal(
        drawn[:, :, mask], np.tile(x[:, mask], (40, 1, 1))
    )
    row, column = (
        next(i for i, v in enumerate(x) if v[line].all())
        for line in ((0,), (slice(None), 0))
    )
    for i in (row, column):
        assert np.abs(drawn[:, i].mean(axis=0) - x[i]).mean() < 0.1
    again = model.impute(1 - x * ~mask, mask, num_samples=40, seed=0)
    same = np.all((1 - x * ~mask)[:, mask] == x[:, mask], axis=1)
    np.testing.assert_array_equal(np.array(again)[:, same], drawn[:, same])


def test_imputed_pixels_have_their_conditional_distribution():
    model, count = rbm(), 4000
    log_p = special.logsumexp(joint(model), axis=1)
    x, mask = states(6)[37], np.array([0, 1, 0, 1, 1, 1], bool)
    agrees = np.all((states(6) == x) | ~mask, axis=1)
    p = special.softmax(log_p[agrees])
    drawn = model.impute(
        images(x), mask.reshape(SHAPE), num_samples=count, seed=0
    )
    found = np.mean(np.reshape(drawn, (count, 6)), axis=0)
    np.testing.assert_allclose(found, p @ states(6)[agrees], atol=0.03)


def test_visible_units_start_with_the_rates_of_the_first_batch():
    x = bars(64)
    model = RBM((3, 3, 1), 2, num_chains=4, seed=1)
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    model.fit(x, batch_size=64, verbose=0)
    rates = (x.reshape(64, 9).sum(axis=0) + 1) / 66
    np.testing.assert_allclose(
        model.units.bias, special.logit(rates), rtol=1e-4
    )
    kept = RBM((3, 3, 1), 2, num_chains=4, seed=1)
    kept.started.assign(1)
    kept.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    kept.fit(x, batch_size=64, verbose=0)
    np.testing.assert_array_equal(kept.units.bias, np.zeros(9))


def test_contrastive_divergence_starts_its_sweeps_at_the_data():
    model = rbm(num_chains=0, gibbs_steps=3)
    assert model.chains is None
    model.hidden_bias.assign([90.0, -90.0, 90.0, -90.0])  # so h is certain
    model.kernel.assign(np.tile([[90.0, 0, 0, 0]], (6, 1)))
    v = model._negative_phase(tf.zeros((5, 6)), training=True)
    np.testing.assert_array_equal(v, np.ones((5, 6)))


def test_gaussian_units_learn_means_and_scales():
    rng = np.random.default_rng(0)
    low = rng.random((512, 1)) < 0.5
    x = np.where(low, [[0.4, 0.6]], [[0.6, 0.4]])
    x = np.clip(x + 0.05 * rng.normal(size=x.shape), 0, 1)
    x = x.reshape(-1, 1, 2, 1).astype("float32")
    model = RBM((1, 2, 1), 4, likelihood="gaussian", seed=1)
    model.compile(
        keras.optimizers.Adam(0.01), steps_per_execution=40, jit_compile=False
    )
    model.fit(np.tile(x, (30, 1, 1, 1)), batch_size=64, epochs=2, verbose=0)
    np.testing.assert_allclose(model.units.scale, 0.05, atol=0.03)
    samples = np.array(model.sample(400, seed=0)).reshape(400, 2)
    assert np.corrcoef(samples.T)[0, 1] < -0.6
    np.testing.assert_allclose(samples.mean(axis=0), 0.5, atol=0.06)


# Errors


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"hidden_dim": 0}, "hidden_dim"),
        ({"hidden_dim": 4, "likelihood": "categorical"}, "likelihood"),
        ({"hidden_dim": 4, "likelihood": ["bernoulli"]}, "likelihood"),
        ({"hidden_dim": 4, "num_chains": -1}, "num_chains"),
        ({"hidden_dim": 4, "gibbs_steps": 0}, "gibbs_steps"),
    ],
)
def test_bad_arguments_are_refused(arguments, word):
    with pytest.raises(ValueError, match=f"`{word}`"):
        RBM(SHAPE, **arguments)


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"num_samples": 0}, "num_samples"),
        ({"num_samples": 3, "chain_length": 0}, "chain_length"),
        ({"num_samples": 3, "burn_in": -1}, "burn_in"),
        ({"num_samples": 3, "chain_length": 5, "burn_in": 5}, "burn_in"),
        ({"num_samples": 3, "condition": [0, 1, 2]}, "condition"),
    ],
)
def test_bad_arguments_of_sample_are_refused(arguments, word):
    with pytest.raises(ValueError, match=f"`{word}`"):
        rbm().sample(**arguments)


def test_log_prob_is_given_no_condition():
    with pytest.raises(ValueError, match="RBM is not conditional"):
        rbm().log_prob(images(states(6)), condition=[0] * 64)


def test_chains_that_replicas_cannot_share_are_refused(two_replicas):
    with two_replicas.scope():
        model = RBM(SHAPE, 4, num_chains=7)
        with pytest.raises(ValueError, match=r"`num_chains`.*2 replicas.*8"):
            model.compile()
