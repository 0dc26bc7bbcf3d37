import keras
import numpy as np
import pytest
import scipy.linalg

from keras_gen.metrics import frechet
from keras_gen.metrics.frechet import (
    FrechetDistance,
    Moments,
    frechet_distance,
)


def images(batch, *shape, seed=0):
    """Images of correlated pixels whose brightness depends on the seed."""
    rng = np.random.default_rng(seed)
    dim = int(np.prod(shape))
    x = rng.normal(size=(batch, dim)) @ rng.normal(size=(dim, dim))
    x = 1 / (1 + np.exp(-0.1 * x - 0.2 * seed))
    return x.reshape(batch, *shape).astype("float32")


def reference(real, generated):
    """The published recipe, on rows of float64 features."""
    real, generated = (
        np.reshape(x, (len(x), -1)).astype("float64") for x in (real, generated)
    )
    difference = real.mean(0) - generated.mean(0)
    a, b = np.cov(real, rowvar=False), np.cov(generated, rowvar=False)
    root = scipy.linalg.sqrtm(a @ b)
    return difference @ difference + np.trace(a + b - 2 * root.real)


def covariance(dim, rank, seed):
    """A random one of the given rank."""
    factor = np.random.default_rng(seed).normal(size=(dim, rank))
    return factor @ factor.T


def test_it_is_the_published_recipe():
    real, generated = images(300, 4, 4, 1), images(200, 4, 4, 1, seed=1)
    metric = FrechetDistance()
    metric.update_state(real, generated)
    np.testing.assert_allclose(
        metric.result(), reference(real, generated), rtol=1e-9
    )


def test_odd_batches_give_what_all_images_at_once_give():
    real, generated = images(101, 3, 3, 1), images(83, 3, 3, 1, seed=1)
    whole, parts = FrechetDistance(), FrechetDistance()
    whole.update_state(real, generated)
    for start in range(0, 101, 7):
        parts.update_state(real[start : start + 7], None)
    for start in range(0, 83, 1):
        parts.update_state(None, generated[start : start + 1])
    np.testing.assert_allclose(parts.result(), whole.result(), rtol=1e-11)


def test_moments_far_from_zero_keep_their_digits():
    x = 1e7 + np.random.default_rng(0).normal(size=(100, 4))
    moments = Moments()
    for start in range(0, 100, 9):
        moments.add(x[start : start + 9])
    np.testing.assert_allclose(moments.mean, x.mean(0), rtol=1e-15)
    np.testing.assert_allclose(
        moments.covariance, np.cov(x, rowvar=False), rtol=1e-8, atol=1e-9
    )


def test_diagonal_gaussians_have_a_closed_form():
    a, b = np.array([1.0, 4.0, 9.0]), np.array([4.0, 4.0, 0.25])
    mean = np.array([1.0, -2.0, 2.0])
    np.testing.assert_allclose(
        frechet_distance(mean, np.diag(a), np.zeros(3), np.diag(b)),
        9.0 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum(),
        rtol=1e-14,
    )


def test_turning_both_gaussians_changes_nothing():
    a, b = covariance(6, 9, seed=0), covariance(6, 9, seed=1)
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))
    mean = np.arange(6.0)
    np.testing.assert_allclose(
        frechet_distance(
            turn @ mean, turn @ a @ turn.T, np.zeros(6), turn @ b @ turn.T
        ),
        frechet_distance(mean, a, np.zeros(6), b),
        rtol=1e-12,
    )


def test_samples_of_gaussians_come_near_their_closed_form():
    rng = np.random.default_rng(0)
    shape = (20_000, 2, 1, 1)
    real = np.clip(rng.normal([0.4, 0.5], [0.05, 0.08], (20_000, 2)), 0, 1)
    generated = np.clip(rng.normal([0.5, 0.6], [0.1, 0.02], (20_000, 2)), 0, 1)
    metric = FrechetDistance()
    metric.update_state(real.reshape(shape), generated.reshape(shape))
    expected = 0.1**2 + 0.1**2 + 0.05**2 + 0.06**2
    np.testing.assert_allclose(metric.result(), expected, rtol=0.02)


@pytest.mark.parametrize("ranks", [(12, 12), (5, 12), (12, 5), (5, 7), (1, 1)])
def test_singular_covariances_are_no_less_precise(ranks):
    a, b = (covariance(12, rank, seed) for seed, rank in enumerate(ranks))
    # trace(sqrt(a b)) is the sum of the singular values of the factors.
    factors = [
        np.random.default_rng(seed).normal(size=(12, rank))
        for seed, rank in enumerate(ranks)
    ]
    nuclear = scipy.linalg.svdvals(factors[0].T @ factors[1]).sum()
    expected = np.trace(a) + np.trace(b) - 2 * nuclear
    value = frechet_distance(np.zeros(12), a, np.zeros(12), b)
    np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_both_ways_to_the_root_agree(monkeypatch):
    a, b = covariance(20, 40, seed=0), covariance(20, 40, seed=1)
    fast = frechet_distance(np.zeros(20), a, np.zeros(20), b)

    def fail(_):
        raise np.linalg.LinAlgError

    monkeypatch.setattr(frechet.np.linalg, "cholesky", fail)
    slow = frechet_distance(np.zeros(20), a, np.zeros(20), b)
    np.testing.assert_allclose(fast, slow, rtol=1e-13)


def test_fewer_images_than_pixels_and_constant_pixels_are_fine():
    real, generated = images(10, 5, 5, 1), images(12, 5, 5, 1, seed=1)
    real[:, 0] = generated[:, 0] = 0.5
    metric = FrechetDistance()
    metric.update_state(real, generated)
    factors = [
        (x - x.mean(0)).reshape(len(x), -1) / np.sqrt(len(x) - 1)
        for x in (real.astype("float64"), generated.astype("float64"))
    ]
    nuclear = scipy.linalg.svdvals(factors[0] @ factors[1].T).sum()
    difference = (
        real.astype("float64").mean(0) - generated.mean(0, "float64")
    ).ravel()
    expected = (
        difference @ difference
        + sum(np.square(factor).sum() for factor in factors)
        - 2 * nuclear
    )
    np.testing.assert_allclose(metric.result(), expected, rtol=1e-9)


def test_a_set_is_at_no_distance_from_itself():
    x = images(50, 4, 4, 1)
    metric = FrechetDistance()
    metric.update_state(x, x[::-1])
    assert 0 <= metric.result() < 1e-12
    black = np.zeros((4, 2, 2, 1), "uint8")
    metric = FrechetDistance()
    metric.update_state(black, black)
    assert metric.result() == 0


def test_details_cancel_the_scale_of_the_features():
    real, generated = images(300, 2, 2, 1), images(200, 2, 2, 1, seed=1)

    def scaled(factor):
        return keras.Sequential(
            [
                keras.Input((2, 2, 1)),
                keras.layers.Flatten(),
                keras.layers.Rescaling(factor),
            ]
        )

    details = []
    for factor in (1.0, 8.0):
        metric = FrechetDistance(scaled(factor))
        metric.update_state(real, generated)
        details.append(metric.details())
    assert details[1]["frechet_distance"] == pytest.approx(
        64 * details[0]["frechet_distance"]
    )
    relative = details[0]["relative_to_real_variance"]
    assert details[1]["relative_to_real_variance"] == pytest.approx(relative)
    x, y = real.reshape(300, 4), generated.reshape(200, 4)
    assert relative == pytest.approx(
        reference(real, generated) / x.var(axis=0, ddof=1).sum(), rel=1e-6
    )
    difference = x.mean(0, "float64") - y.mean(0, "float64")
    assert details[0]["mean_term"] == pytest.approx(difference @ difference)


@pytest.mark.parametrize("sizes", [(400, 400), (2000, 100), (100, 2000)])
def test_the_standard_error_is_the_spread_of_the_distance(sizes):
    dim, rng = 3, np.random.default_rng(0)
    root = 0.1 * rng.normal(size=(dim, dim))

    def draw(count, factor, mean):
        x = mean + factor * rng.normal(size=(count, dim)) @ root
        return np.clip(x, 0, 1).astype("float32").reshape(count, dim, 1, 1)

    distances, errors = [], []
    for _ in range(300):
        metric = FrechetDistance()
        metric.update_state(draw(sizes[0], 1.0, 0.5), draw(sizes[1], 0.6, 0.6))
        distances.append(metric.result())
        errors.append(metric.details()["standard_error"])
    # The spread of 300 draws is known to 1 in sqrt(2 * 300).
    assert np.mean(errors) == pytest.approx(np.std(distances), rel=0.15)


def test_a_standard_error_takes_singular_covariances():
    metric = FrechetDistance()
    metric.update_state(images(5, 4, 4, 1), images(7, 4, 4, 1, seed=1))
    assert 0 < metric.standard_error() < np.inf
    same = FrechetDistance()
    same.update_state(images(9, 2, 2, 1), images(9, 2, 2, 1))
    assert same.standard_error() < 1e-6


def test_images_of_one_colour_have_no_scale():
    metric = FrechetDistance()
    metric.update_state(np.zeros((4, 2, 2, 1)), images(4, 2, 2, 1))
    assert metric.details()["relative_to_real_variance"] == np.inf


def test_config_makes_the_same_metric():
    metric = FrechetDistance(name="pixel_frechet")
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(metric)
    )
    assert type(copy) is FrechetDistance and copy.name == "pixel_frechet"


def test_too_few_images_are_refused():
    metric = FrechetDistance()
    with pytest.raises(ValueError, match="at least 2 real images, got 0"):
        metric.result()
    metric.update_state(images(2, 2, 2, 1), images(1, 2, 2, 1))
    with pytest.raises(ValueError, match="at least 2 generated images, got 1"):
        metric.result()


def test_covariances_beyond_memory_are_refused():
    with pytest.raises(ValueError, match=r"at most 16384.*got 16900"):
        FrechetDistance().update_state(np.zeros((1, 130, 130, 1)))


def test_moments_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"`real_mean`.*\(2,\), \(3,\)"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3))
    with pytest.raises(ValueError, match="`real_mean`"):
        frechet_distance(0.0, 1.0, 0.0, 1.0)
