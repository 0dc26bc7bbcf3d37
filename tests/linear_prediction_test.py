import numpy as np
import pytest

from keras_gen import audio
from keras_gen.linear_prediction import LinearPredictor


def ar2(count, num_samples=400, seed=0):
    x = np.random.default_rng(seed).normal(0, 0.06, (count, num_samples + 100))
    for t in range(2, x.shape[1]):
        x[:, t] += 1.5 * x[:, t - 1] - 0.8 * x[:, t - 2]
    return x[:, 100:].astype("float32")


def test_coefficients_of_an_autoregressive_source_are_found():
    predictor = LinearPredictor(4).fit(ar2(50))
    np.testing.assert_allclose(
        predictor.coefficients, [1.5, -0.8, 0, 0], atol=0.05
    )


def test_probabilities_of_all_continuations_sum_to_one():
    levels = 16
    predictor = LinearPredictor(2, levels).fit(ar2(10))
    x = audio.mu_law_decode(audio.mu_law_encode(ar2(1)[:, :6], levels), levels)
    x = np.repeat(x, levels, axis=0)
    x[:, 5] = audio.mu_law_decode(np.arange(levels), levels)
    before = predictor.log_prob(x[:, :5])
    np.testing.assert_allclose(
        np.exp(predictor.log_prob(x) - before).sum(), 1, rtol=1e-9
    )


def test_it_costs_little_more_than_the_entropy():
    predictor = LinearPredictor(4).fit(ar2(50))
    bits = -predictor.log_prob(ar2(50, seed=1)).mean() / 400 / np.log(2)
    # 5.79 by the true distribution, see benchmarks/wavenet_ar2.py; a logistic
    # distribution of a scale that is guessed does not do as well.
    assert 5.79 < bits < 6.0


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`num_taps`"):
        LinearPredictor(0)
    with pytest.raises(ValueError, match="`levels`"):
        LinearPredictor(2, levels=1)
    for bad in (ar2(1)[0], 9 * ar2(2), None):
        with pytest.raises(ValueError, match="`x`"):
            LinearPredictor(2).fit(bad)
    with pytest.raises(ValueError, match="Call `fit` first"):
        LinearPredictor(2).log_prob(ar2(2))
