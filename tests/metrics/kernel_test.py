import keras
import numpy as np
import pytest

from keras_gen.metrics.kernel import KernelDistance, squared_mmd


def images(batch, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    x = np.clip(rng.normal(0.5 + shift, 0.1, (batch, 2, 3, 1)), 0, 1)
    return x.astype("float32")


def reference_mmd(x, y):
    """By loops over all pairs."""

    def kernel(a, b):
        return (sum(a * b) / len(a) + 1) ** 3

    def mean_of_pairs(x):
        n = len(x)
        pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
        return np.mean([kernel(x[i], x[j]) for i, j in pairs])

    between = np.mean([[kernel(a, b) for a in x] for b in y])
    return mean_of_pairs(x) + mean_of_pairs(y) - 2 * between


def reference(real, generated, block_size):
    """Blocks, standardization and error as the docstring says."""
    real = real.reshape(len(real), -1).astype("float64")
    generated = generated.reshape(len(generated), -1).astype("float64")
    mean, scale = real.mean(0), real.std(0)
    real, generated = (
        ((x - mean) / scale)[np.random.default_rng(0).permutation(len(x))]
        for x in (real, generated)
    )
    starts = range(0, min(len(real), len(generated)), block_size)
    values = [
        reference_mmd(real[i : i + block_size], generated[i : i + block_size])
        for i in starts
        if i + block_size <= min(len(real), len(generated))
    ]
    return np.mean(values), np.std(values, ddof=1) / np.sqrt(len(values))


def test_mmd_is_the_sum_over_all_pairs():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 4)), rng.normal(1.0, 2.0, size=(9, 4))
    np.testing.assert_allclose(
        squared_mmd(x, y), reference_mmd(x, y), rtol=1e-12
    )


def test_mmd_of_numbers_is_worked_by_hand():
    assert squared_mmd([[0.0], [0.0]], [[1.0], [1.0]]) == 1 + 8 - 2
    assert squared_mmd([[1.0], [-1.0]], [[1.0], [-1.0]]) == -8


@pytest.mark.parametrize("block_size, used", [(8, 8), (1000, 10)])
def test_the_score_is_the_mean_over_blocks_of_standardized_features(
    block_size, used
):
    real, generated = images(120), images(105, seed=1, shift=0.05)
    metric = KernelDistance(block_size=block_size)
    metric.update_state(real, generated)
    mean, error = reference(real, generated, used)
    assert metric.result() == {
        "kernel_distance": pytest.approx(mean, rel=1e-9),
        "standard_error": pytest.approx(error, rel=1e-9),
    }


def test_odd_batches_give_what_all_images_at_once_give():
    real, generated = images(110), images(95, seed=1, shift=0.1)
    whole, parts = KernelDistance(), KernelDistance()
    whole.update_state(real, generated)
    for start in range(0, 110, 7):
        parts.update_state(real[start : start + 7], None)
    for start in range(0, 95, 11):
        parts.update_state(None, generated[start : start + 11])
    assert parts.result() == whole.result()


def test_real_against_real_is_within_two_standard_errors_of_zero():
    metric = KernelDistance()
    metric.update_state(images(2000), images(2000, seed=1))
    result = metric.result()
    assert abs(result["kernel_distance"]) < 2 * result["standard_error"]
    metric = KernelDistance()
    metric.update_state(images(2000), images(2000, seed=1, shift=0.05))
    result = metric.result()
    assert result["kernel_distance"] > 20 * result["standard_error"]


def test_the_standard_error_is_that_of_repetitions():
    results = []
    for repetition in range(100):
        metric = KernelDistance()
        metric.update_state(
            images(200, seed=2 * repetition),
            images(200, seed=2 * repetition + 1, shift=0.05),
        )
        results.append(metric.result())
    spread = np.std([result["kernel_distance"] for result in results])
    error = np.mean([result["standard_error"] for result in results])
    # Standardization by the real set, shared by all blocks, adds a little.
    assert 0.7 < error / spread < 1.2


def test_images_sorted_by_class_are_no_worse():
    classes = np.repeat(np.arange(10), 100) / 20
    real = images(1000) / 2 + classes[:, None, None, None]
    generated = images(1000, seed=1) / 2 + classes[:, None, None, None]
    order = np.random.default_rng(2).permutation(1000)
    results = []
    for index in (np.arange(1000), order):
        metric = KernelDistance()
        metric.update_state(real[index], generated[index][::-1])
        results.append(metric.result()["standard_error"])
    assert 0.5 < results[0] / results[1] < 2


def test_constant_real_features_are_only_centred():
    real, generated = images(100), images(100, seed=1)
    real[:, 0, 0] = 0.5
    metric = KernelDistance()
    metric.update_state(real, generated)
    assert np.isfinite(metric.result()["kernel_distance"])


def test_config_makes_the_same_metric():
    metric = KernelDistance(block_size=50, max_samples=200, name="kid")
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(metric)
    )
    assert copy.get_config() == metric.get_config()
    for each in (metric, copy):
        each.update_state(images(250), images(250, seed=1))
    assert copy.real.count == 200 and copy.result() == metric.result()


def test_too_few_images_are_refused():
    metric = KernelDistance()
    metric.update_state(images(30), images(19))
    with pytest.raises(
        ValueError, match="at least 20 generated images, got 19"
    ):
        metric.result()


@pytest.mark.parametrize(
    "argument, least", [("block_size", 2), ("max_samples", 20)]
)
def test_counts_that_give_no_blocks_are_refused(argument, least):
    KernelDistance(**{argument: least})
    for count in (0, least - 1):
        message = f"`{argument}`.*got {count}.*at least {least}"
        with pytest.raises(ValueError, match=message):
            KernelDistance(**{argument: count})
