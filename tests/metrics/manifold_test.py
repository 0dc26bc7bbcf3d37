import keras
import numpy as np
import pytest
import scipy.spatial

from keras_gen.metrics.manifold import DensityCoverage, PrecisionRecall

METRICS = [PrecisionRecall, DensityCoverage]


def images(batch, modes=(0, 1, 2, 3), dim=4, seed=0):
    """Clusters around corners of the unit square, in `dim` pixels."""
    rng = np.random.default_rng(seed)
    corners = np.array([[0.2, 0.2], [0.2, 0.8], [0.8, 0.2], [0.8, 0.8]])
    x = rng.normal(0.5, 0.03, (batch, dim))
    x[:, :2] += corners[rng.choice(modes, batch)] - 0.5
    return np.clip(x, 0, 1).astype("float32").reshape(batch, dim, 1, 1)


def rows(x):
    return x.reshape(len(x), -1).astype("float64")


def balls(x, k):
    """Distances between all, and those to the k-th nearest other one."""
    pairs = scipy.spatial.distance.cdist(x, x)
    return np.sort(pairs, axis=1)[:, k]


def reference(real, generated, k):
    real, generated = rows(real), rows(generated)
    pairs = scipy.spatial.distance.cdist(real, generated)
    in_real = pairs <= balls(real, k)[:, None]
    in_generated = pairs <= balls(generated, k)[None]
    return {
        "precision": in_real.any(axis=0).mean(),
        "recall": in_generated.any(axis=1).mean(),
        "density": in_real.sum() / (k * len(generated)),
        "coverage": in_real.any(axis=1).mean(),
    }


def scores(real, generated, metrics=METRICS, **arguments):
    results = {}
    for metric in metrics:
        metric = metric(**arguments)
        metric.update_state(real, generated)
        results |= metric.result()
    return results


@pytest.mark.parametrize("dim, sizes", [(4, (200, 150)), (50, (30, 40))])
def test_scores_are_those_of_all_pairs(dim, sizes):
    real, generated = (
        images(sizes[0], dim=dim),
        images(sizes[1], dim=dim, seed=1),
    )
    result = scores(real, generated, [PrecisionRecall])
    expected = reference(real, generated, k=3)
    assert result == {key: pytest.approx(expected[key]) for key in result}
    result = scores(real, generated, [DensityCoverage])
    expected = reference(real, generated, k=5)
    assert result == {key: pytest.approx(expected[key]) for key in result}
    assert 0 < expected["precision"] < 1


@pytest.mark.parametrize("metric", METRICS)
def test_odd_batches_give_what_all_images_at_once_give(metric):
    real, generated = images(100), images(90, seed=1)
    whole, parts = metric(), metric()
    whole.update_state(real, generated)
    for start in range(0, 100, 7):
        parts.update_state(real[start : start + 7], None)
    for start in range(0, 90, 11):
        parts.update_state(None, generated[start : start + 11])
    assert parts.result() == whole.result()


def test_standard_errors_are_those_of_the_means_over_images():
    real, generated = images(200), images(150, seed=1)
    pairs = scipy.spatial.distance.cdist(rows(real), rows(generated))
    in_real = pairs <= balls(rows(real), 5)[:, None]
    metric = DensityCoverage()
    metric.update_state(real, generated)
    details = metric.details()
    values = {
        "density": in_real.sum(axis=0) / 5,
        "coverage": in_real.any(axis=1),
    }
    for name, value in values.items():
        assert details[name] == pytest.approx(value.mean())
        assert details[f"{name}_standard_error"] == pytest.approx(
            value.std() / np.sqrt(len(value))
        )
    metric = PrecisionRecall()
    metric.update_state(real, generated)
    details = metric.details()
    for name, count in (("precision", 150), ("recall", 200)):
        share = details[name]
        assert details[f"{name}_standard_error"] == pytest.approx(
            np.sqrt(share * (1 - share) / count)
        )


def test_equal_distributions_have_the_expected_coverage_and_density():
    result = scores(images(2000), images(2000, seed=1), [DensityCoverage])
    assert result["coverage"] == pytest.approx(1 - 2**-5, abs=0.01)
    assert result["density"] == pytest.approx(1.0, abs=0.05)


def test_a_copy_is_perfect():
    x = images(100)
    assert scores(x, x[::-1]) == {
        "precision": 1.0,
        "recall": 1.0,
        # Each ball holds its centre and the five nearest others, at k = 5.
        "density": pytest.approx(6 / 5),
        "coverage": 1.0,
    }


def test_a_dropped_mode_lowers_recall_and_coverage_but_not_precision():
    real = images(1000)
    full = scores(real, images(1000, seed=1))
    dropped = scores(real, images(1000, modes=(0, 1, 2), seed=1))
    assert dropped["precision"] > full["precision"] - 0.02
    assert dropped["density"] > full["density"] - 0.05
    assert dropped["recall"] == pytest.approx(0.75 * full["recall"], abs=0.03)
    assert dropped["coverage"] == pytest.approx(
        0.75 * full["coverage"], abs=0.03
    )


def test_an_invented_mode_lowers_precision_and_density_but_not_recall():
    real = images(1000, modes=(0, 1, 2))
    full = scores(real, images(1000, modes=(0, 1, 2), seed=1))
    invented = scores(real, images(1333, seed=1))
    assert invented["recall"] > full["recall"] - 0.02
    for key in ("precision", "density"):
        assert invented[key] == pytest.approx(0.75 * full[key], abs=0.05)


def test_one_outlier_misleads_precision_but_not_density():
    real = images(300, modes=(0,))
    real[0] = 1.0  # its ball reaches to the cluster, over all that is between
    generated = images(300, modes=(3,), seed=1)
    result = scores(real, generated)
    assert result["precision"] > 0.95
    assert result["density"] < 0.25 and result["coverage"] < 0.01


def test_binary_images_that_tie_lie_on_the_surface():
    real, generated = (
        np.random.default_rng(seed).integers(2, size=(60, 3, 3, 1)) * 1.0
        for seed in (0, 1)
    )
    result = scores(real, generated, k=3)
    expected = reference(real, generated, k=3)
    assert result == {key: pytest.approx(expected[key]) for key in expected}


@pytest.mark.parametrize("metric", METRICS)
def test_config_makes_the_same_metric(metric):
    metric = metric(k=2, max_samples=30, name="mine")
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(metric)
    )
    assert type(copy) is type(metric)
    assert copy.get_config() == metric.get_config()
    for each in (metric, copy):
        each.update_state(images(40), images(40, seed=1))
    assert copy.real.count == 30 and copy.result() == metric.result()


def test_too_few_images_are_refused():
    metric = PrecisionRecall()
    metric.update_state(images(4), images(3))
    with pytest.raises(ValueError, match="at least 4 generated images, got 3"):
        metric.result()
    metric = DensityCoverage()
    metric.update_state(images(5), images(1))
    with pytest.raises(ValueError, match="at least 6 real images, got 5"):
        metric.result()
    metric = DensityCoverage()
    metric.update_state(images(6), None)
    with pytest.raises(ValueError, match="at least 1 generated images, got 0"):
        metric.result()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("argument", ["k", "max_samples"])
def test_counts_that_are_none_are_refused(metric, argument):
    with pytest.raises(ValueError, match=f"`{argument}`.*got 0"):
        metric(**{argument: 0})
    with pytest.raises(ValueError, match=r"`max_samples`.*got 4.*at least 5"):
        metric(k=4, max_samples=4)
