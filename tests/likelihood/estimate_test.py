import math

import numpy as np
import pytest

from keras_gen.likelihood.annealing import (
    anneal,
    check_betas,
    piecewise_schedule,
    sigmoid_schedule,
    sum_weights,
)
from keras_gen.likelihood.estimate import Estimate, log_mean
from keras_gen.randomness import seed_pair

# Estimates


def test_bits_per_dim_of_uniform_noise_is_eight():
    estimate = Estimate([-12 * math.log(256)] * 2, "exact")
    np.testing.assert_allclose(estimate.bits_per_dim((2, 2, 3)), [8, 8])


def test_interval_is_three_standard_errors_to_each_side():
    low, high = Estimate([-5.0, -6.0], "estimate", [0.5, 1.0]).interval()
    np.testing.assert_allclose(low, [-6.5, -9])
    np.testing.assert_allclose(high, [-3.5, -3])


def test_an_exact_value_has_no_error():
    estimate = Estimate([-1.0, -2.0], "exact")
    np.testing.assert_array_equal(estimate.standard_error, [0, 0])
    assert estimate.effective_sample_size is None


def test_positive_log_probabilities_of_discrete_data_are_refused():
    with pytest.raises(ValueError, match=r"1 of 2 above 0, up to 0\.5 nats"):
        Estimate([-1.0, 0.5], "lower_bound")
    assert Estimate([0.5], "lower_bound", discrete=False).value == 0.5


def test_rounding_above_zero_is_cut():
    assert Estimate([1e-6], "exact").value == 0


def test_densities_have_no_bits():
    with pytest.raises(ValueError, match="dequantize=True"):
        Estimate([-1.0], "estimate", discrete=False).bits_per_dim((1, 1, 1))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"`kind` must be one of .*'bound'"):
        Estimate([-1.0], "bound")


def test_log_mean_is_that_of_the_weights():
    weights = np.random.default_rng(0).gamma(2.0, size=(50, 3))
    value, error, size = log_mean(*sum_weights(np.log(weights)))
    np.testing.assert_allclose(np.exp(value), weights.mean(axis=0))
    np.testing.assert_allclose(
        error,
        weights.std(axis=0, ddof=1) / np.sqrt(50) / weights.mean(axis=0),
    )
    np.testing.assert_allclose(
        size, weights.sum(axis=0) ** 2 / (weights**2).sum(axis=0)
    )


def test_equal_weights_are_all_effective_and_one_large_weight_alone_is():
    _, error, size = log_mean(*sum_weights([[-900.0, 0], [-900.0, -800]]))
    np.testing.assert_allclose(size, [2, 1])
    np.testing.assert_allclose(error, [0, 1], atol=1e-6)
    assert np.isnan(log_mean(*sum_weights([[1.0]]))[1])


# Schedules


def test_sigmoid_schedule_is_the_rescaled_sigmoid():
    t = np.linspace(-4, 4, 1000)
    sigmoid = 1 / (1 + np.exp(-t))
    expected = (sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])
    np.testing.assert_allclose(sigmoid_schedule(1000), expected, atol=1e-12)


@pytest.mark.parametrize("num_temperatures", [2, 3, 10_000])
def test_sigmoid_schedule_starts_at_zero_and_ends_at_one(num_temperatures):
    betas = sigmoid_schedule(num_temperatures)
    assert len(betas) == num_temperatures
    assert betas[0] == 0 and betas[-1] == 1
    # In float32, too, which the chains use.
    assert np.all(np.diff(betas.astype("float32")) > 0)


def test_piecewise_schedule_has_the_published_temperatures():
    betas = piecewise_schedule()
    assert len(betas) == 14_500
    assert betas[0] == 0 and betas[-1] == 1
    assert np.sum(betas < 0.5) == 500
    assert np.sum((betas >= 0.5) & (betas < 0.9)) == 4000
    assert np.all(np.diff(betas.astype("float32")) > 0)


def test_piecewise_schedule_is_even_in_each_piece():
    np.testing.assert_allclose(
        piecewise_schedule((2, 3), (0.5, 1.0)), [0, 0.25, 0.5, 0.75, 1]
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (((1, 2), (1.0,)), "`counts` and `ends` must be of one length"),
        (((1, 2), (0.5, 0.9)), "the last end 1"),
        (((2, 1), (0.5, 1.0)), "the last count at least 2"),
        (((2, 2, 2), (0.6, 0.5, 1.0)), "`ends` must increase"),
        (((2, 2), (0.0, 1.0)), "`ends` must increase"),
        (((0, 2), (0.5, 1.0)), "`counts` must be a positive integer"),
    ],
)
def test_impossible_pieces_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        piecewise_schedule(*arguments)


@pytest.mark.parametrize(
    "betas", [[0.0], [0.1, 1.0], [0, 0.9], [0, 0.5, 0.5, 1], [[0, 1]]]
)
def test_temperatures_that_do_not_rise_from_zero_to_one_are_refused(betas):
    with pytest.raises(ValueError, match="`betas` must be inverse"):
        check_betas(betas)


def test_a_schedule_needs_two_temperatures():
    with pytest.raises(ValueError, match="`num_temperatures` must be"):
        sigmoid_schedule(1)
    with pytest.raises(ValueError, match="`sharpness` must be"):
        sigmoid_schedule(10, sharpness=0)


# The loop


def test_weights_of_chains_that_stay_are_the_ratio_of_the_densities():
    done = []
    state = np.array([1.0, -2.0], "float32")
    log_weights, last = anneal(
        sigmoid_schedule(1234),
        state,
        lambda v, beta, next_beta: (next_beta - beta) * v,
        lambda v, beta, seed: v,
        seed_pair(0),
        done.append,
    )
    np.testing.assert_allclose(log_weights, state, rtol=1e-6)
    np.testing.assert_array_equal(last, state)
    assert done[-1] == 1233 and len(done) == 13


@pytest.mark.parametrize("jit_compile", [False, True])
def test_each_transition_follows_the_weight_it_is_named_for(jit_compile):
    # The state counts, so that the k-th ratio is that at k transitions.
    betas = sigmoid_schedule(5).astype("float32")
    log_weights, last = anneal(
        betas,
        np.zeros(1, "float32"),
        lambda v, beta, next_beta: (next_beta - beta) * v,
        lambda v, beta, seed: v + 10 * beta,
        seed_pair(0),
        jit_compile=jit_compile,
    )
    states = 10 * np.cumsum(betas)
    np.testing.assert_allclose(
        log_weights, [np.sum(np.diff(betas) * states[:-1])], rtol=1e-5
    )
    np.testing.assert_allclose(last, [states[-1]], rtol=1e-6)
