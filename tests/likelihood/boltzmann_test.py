import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import logsumexp

from keras_gen.likelihood import (
    AnnealingPath,
    Estimate,
    annealed_log_partition,
    bernoulli_rbm_path,
    normalized_log_prob,
    piecewise_schedule,
    sigmoid_schedule,
)
from keras_gen.likelihood.boltzmann import sample_bernoulli


def states(num_units):
    return np.array(list(itertools.product([0, 1], repeat=num_units)), float)


def softplus(x):
    return np.logaddexp(0, x)


class Machine:
    """A restricted Boltzmann machine and its sums over all hidden states."""

    def __init__(self, num_visible=20, num_hidden=12, scale=0.6, seed=0):
        rng = np.random.default_rng(seed)
        self.w = rng.normal(0, scale, (num_visible, num_hidden))
        self.b = rng.normal(-0.5, 1.0, num_visible)
        self.c = rng.normal(0, 0.5, num_hidden)
        h = states(num_hidden)
        log_hidden = h @ self.c + softplus(self.b + h @ self.w.T).sum(axis=1)
        self.log_z = logsumexp(log_hidden)
        chosen = rng.choice(
            len(h), size=20_000, p=np.exp(log_hidden - self.log_z)
        )
        rates = 1 / (1 + np.exp(-(self.b + h[chosen] @ self.w.T)))
        self.samples = (rng.random(rates.shape) < rates).astype("float32")

    def log_unnormalized(self, v):
        return v @ self.b + softplus(self.c + v @ self.w).sum(axis=1)

    def path(self):
        return bernoulli_rbm_path(
            self.w, self.b, self.c, self.samples.mean(axis=0)
        )


@pytest.fixture(scope="module")
def machine():
    return Machine()


@pytest.fixture(scope="module")
def log_partition(machine):
    return annealed_log_partition(
        machine.path(), betas=piecewise_schedule((50, 400, 1000))
    )


def test_annealing_is_within_a_twentieth_of_a_nat_of_enumeration(
    machine, log_partition
):
    assert log_partition.value == pytest.approx(machine.log_z, abs=0.05)
    assert log_partition.kind == "lower_bound"
    low, high = log_partition.interval()
    assert low <= machine.log_z <= high
    assert 80 < log_partition.effective_sample_size <= 100
    assert log_partition.settings["num_temperatures"] == 1450


def test_log_probabilities_are_those_of_enumeration(machine, log_partition):
    v = machine.samples[:50]
    result = normalized_log_prob(machine.log_unnormalized(v), log_partition)
    exact = machine.log_unnormalized(v) - machine.log_z
    np.testing.assert_allclose(result.value, exact, atol=0.05)
    np.testing.assert_array_equal(
        result.standard_error, np.full(50, log_partition.standard_error)
    )
    assert result.kind == "estimate" and result.discrete
    assert np.all(result.bits_per_dim((4, 5, 1)) > 0)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_weights_are_unbiased_with_few_temperatures(machine, direction):
    samples = machine.samples if direction == "reverse" else None
    result = annealed_log_partition(
        machine.path(),
        samples=samples,
        num_chains=20_000,
        betas=sigmoid_schedule(20),
    )
    assert 0 < result.standard_error < 0.05
    error = result.value - machine.log_z
    assert abs(error) < 4 * result.standard_error
    assert result.settings["direction"] == direction


def test_short_annealing_errs_below_forwards_and_above_in_reverse(machine):
    path = bernoulli_rbm_path(machine.w, machine.b, machine.c)
    forward = annealed_log_partition(path, num_chains=10, betas=[0, 0.5, 1])
    reverse = annealed_log_partition(
        path, samples=machine.samples[:10], betas=[0, 0.5, 1]
    )
    assert forward.kind == "lower_bound" and reverse.kind == "upper_bound"
    assert forward.value < machine.log_z - 0.5
    assert reverse.value > machine.log_z + 0.5
    assert forward.effective_sample_size < 5


def test_log_probabilities_with_a_reverse_partition_are_lower_bounds():
    log_z = Estimate(3.0, "upper_bound", discrete=False)
    assert normalized_log_prob([-1.0], log_z).kind == "lower_bound"
    log_z = Estimate(3.0, "exact", discrete=False)
    exact = normalized_log_prob([-1.0], log_z)
    assert exact.kind == "exact" and exact.value == -4


def test_log_probabilities_above_zero_by_rounding_are_zero():
    log_z = Estimate(3.0, "exact", discrete=False)
    assert normalized_log_prob([3.0005], log_z).value == 0
    with pytest.raises(ValueError, match="got 1 of 2 above 0"):
        normalized_log_prob([3.0005, 3.002], log_z)


def test_the_path_starts_at_the_base_and_ends_at_the_machine(machine):
    path = machine.path()
    rates = np.clip(machine.samples.mean(axis=0), 0.001, 0.999)
    v = machine.samples[:10]
    base = path.log_unnormalized(v, 0.0) - path.log_partition
    np.testing.assert_allclose(
        base,
        v @ np.log(rates) + (1 - v) @ np.log(1 - rates),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        path.log_unnormalized(v, 1.0), machine.log_unnormalized(v), rtol=1e-5
    )
    start = path.initial(20_000, (0, 1))
    np.testing.assert_allclose(np.mean(start, axis=0), rates, atol=0.02)


def test_a_base_alone_needs_no_annealing():
    path = bernoulli_rbm_path(np.zeros((3, 2)), np.zeros(3), np.zeros(2))
    result = annealed_log_partition(path, num_chains=3, betas=[0, 1])
    assert result.value == pytest.approx(5 * np.log(2))
    assert result.standard_error == pytest.approx(0, abs=1e-6)


def test_rates_of_zero_and_one_are_kept_from_the_base():
    path = bernoulli_rbm_path(np.zeros((2, 1)), [3.0, -3.0], [0.0], [0, 1])
    result = annealed_log_partition(
        path, num_chains=200, betas=sigmoid_schedule(500)
    )
    exact = np.log(2) + softplus(3.0) + softplus(-3.0)
    assert result.value == pytest.approx(exact, abs=0.05)


def test_chains_end_as_samples_of_the_machine(machine):
    # One Gibbs sweep leaves exact samples distributed as they were.
    moved = machine.path().transition(machine.samples, 1.0, (0, 1))
    np.testing.assert_allclose(
        np.mean(moved, axis=0), machine.samples.mean(axis=0), atol=0.02
    )
    np.testing.assert_allclose(
        np.cov(np.transpose(moved)), np.cov(machine.samples.T), atol=0.02
    )


def test_other_machines_bring_their_own_path():
    # A deep Boltzmann machine annealed over its middle layer, others summed.
    rng = np.random.default_rng(0)
    w1 = rng.normal(0, 1, (6, 5)).astype("float32")
    w2 = rng.normal(0, 1, (5, 4)).astype("float32")

    def log_unnormalized(h, beta):
        v = tf.nn.softplus(beta * tf.matmul(h, w1, transpose_b=True))
        top = tf.nn.softplus(beta * tf.matmul(h, w2))
        return tf.reduce_sum(v, axis=1) + tf.reduce_sum(top, axis=1)

    def transition(h, beta, seed):
        seeds = tf.unstack(tf.random.split(seed, 3))
        logits = beta * tf.matmul(h, w1, transpose_b=True)
        v = sample_bernoulli(logits, seeds[0])
        top = sample_bernoulli(beta * tf.matmul(h, w2), seeds[1])
        logits = tf.matmul(v, w1) + tf.matmul(top, w2, transpose_b=True)
        return sample_bernoulli(beta * logits, seeds[2])

    path = AnnealingPath(
        lambda num_chains, seed: sample_bernoulli(
            tf.zeros((num_chains, 5)), seed
        ),
        15 * np.log(2),
        log_unnormalized,
        transition,
    )
    result = annealed_log_partition(path, betas=sigmoid_schedule(1000))
    exact = logsumexp(log_unnormalized(states(5).astype("float32"), 1.0))
    assert result.value == pytest.approx(exact, abs=0.05)


def test_too_short_an_annealing_is_refused_not_reported():
    # Two deep modes that one jump from the base hardly ever meets.
    machine = Machine(num_visible=30, num_hidden=5, scale=8.0)
    path = bernoulli_rbm_path(machine.w, machine.b, machine.c)
    log_z = annealed_log_partition(path, num_chains=5, betas=[0, 1])
    best = machine.log_unnormalized(machine.samples)
    with pytest.raises(ValueError, match="annealing was too short"):
        normalized_log_prob(best, log_z)
    longer = annealed_log_partition(path, betas=sigmoid_schedule(1000))
    assert np.all(normalized_log_prob(best, longer).value <= 0)


def test_the_same_seed_gives_the_same_value_and_another_does_not(machine):
    first, second, other = (
        annealed_log_partition(
            machine.path(), betas=sigmoid_schedule(10), seed=seed
        ).value
        for seed in (3, 3, 4)
    )
    assert first == second != other


def test_progress_counts_temperatures(machine):
    done = []
    annealed_log_partition(
        machine.path(),
        num_chains=2,
        betas=sigmoid_schedule(250),
        progress=lambda *numbers: done.append(numbers),
    )
    assert done == [(100, 249), (200, 249), (249, 249)]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((np.zeros((3, 2)), np.zeros(2), np.zeros(2)), "`weights` must be"),
        ((np.zeros(3), np.zeros(3), np.zeros(2)), "`weights` must be"),
        (
            (np.zeros((3, 2)), np.zeros(3), np.zeros(2), np.full(2, 0.5)),
            r"shape \(3,\) and in \[0, 1\], got shape \(2,\)",
        ),
        (
            (np.zeros((3, 2)), np.zeros(3), np.zeros(2), np.full(3, 1.5)),
            "`base_rates` must be probabilities",
        ),
    ],
)
def test_machines_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        bernoulli_rbm_path(*arguments)


def test_arguments_that_do_not_fit_are_refused(machine):
    path = machine.path()
    for change, message in (
        ({"path": None}, "`path` must be an `AnnealingPath`"),
        ({"num_chains": 0}, "`num_chains` must be"),
        ({"betas": [0, 0.5]}, "`betas` must be"),
        ({"seed": -1}, "`seed` must be"),
        ({"progress": 3}, "`progress` must be a function"),
    ):
        with pytest.raises(ValueError, match=message):
            annealed_log_partition(**{"path": path, **change})
    summed = path._replace(log_unnormalized=lambda v, beta: tf.reduce_sum(v))
    with pytest.raises(ValueError, match=r"each of the 100 chains, got shape"):
        annealed_log_partition(summed)
