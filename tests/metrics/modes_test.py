import keras
import numpy as np
import pytest

from keras_gen.datasets import toys
from keras_gen.metrics.modes import ModeCoverage


def ring():
    return ModeCoverage(toys.centers("ring"), toys.std("ring"))


def around(center, std, distance, count):
    """`count` points `distance` deviations from a centre, along an axis."""
    return np.tile(center + np.array([distance * std, 0.0]), (count, 1))


def test_all_modes_of_the_mixture_itself_are_found():
    for name in ("ring", "grid"):
        metric = ModeCoverage(toys.centers(name), toys.std(name))
        images, _ = toys.generate(name, 50_000)
        metric.update_state(None, images)
        result = metric.result()
        assert result["modes"] == len(toys.centers(name))
        # P(chi-square of two degrees of freedom <= 9), +- 4 standard errors.
        assert result["high_quality"] == pytest.approx(
            1 - np.exp(-4.5), abs=0.002
        )


def test_a_mode_is_found_with_20_of_2500_samples():
    centers, std = np.array([[0.2, 0.2], [0.8, 0.8]]), 0.01
    for count, modes in ((20, 2.0), (19, 1.0)):
        metric = ModeCoverage(centers, std)
        metric.update_state(None, around(centers[0], std, 1, 2500 - count))
        metric.update_state(None, around(centers[1], std, 1, count))
        assert metric.result() == {"modes": modes, "high_quality": 1.0}


def test_threshold_scales_with_the_number_of_samples():
    centers, std = np.array([[0.2, 0.2], [0.8, 0.8]]), 0.01
    for count, modes in ((80, 2.0), (79, 1.0)):
        metric = ModeCoverage(centers, std)
        metric.update_state(None, around(centers[0], std, 1, 10_000 - count))
        metric.update_state(None, around(centers[1], std, 1, count))
        assert metric.result()["modes"] == modes


def test_quality_ends_at_three_deviations():
    metric = ModeCoverage([[0.5, 0.5]], 0.1)
    metric.update_state(None, around([0.5, 0.5], 0.1, 2.999, 3))
    metric.update_state(None, around([0.5, 0.5], 0.1, 3.001, 1))
    assert metric.result() == {"modes": 1.0, "high_quality": 0.75}


def test_a_sample_counts_for_the_nearest_of_close_centres():
    metric = ModeCoverage([[0.0], [0.1]], 0.1)  # both within 3 deviations
    metric.update_state(None, np.full((10, 1), 0.04))
    assert metric.result() == {"modes": 1.0, "high_quality": 1.0}


def test_batches_are_the_whole_and_integers_are_0_to_255():
    images = np.rint(255 * toys.generate("ring", 1000)[0]).astype("uint8")
    whole, parts = ring(), ring()
    whole.update_state(None, images / 255)
    for start in range(0, 1000, 300):
        parts.update_state(images[start:], images[start : start + 300])
        parts.update_state(images[:5], None)  # real images do not count
    assert parts.result() == whole.result()
    assert 0 < whole.result()["high_quality"] < 1


def test_no_sample_is_an_error_also_after_a_reset():
    metric = ring()
    metric.update_state(None, toys.centers("ring"))
    assert metric.result()["modes"] == 8
    metric.reset_state()
    with pytest.raises(ValueError, match="at least 1 sample, got 0"):
        metric.result()


def test_config_makes_the_same_metric():
    metric = ring()
    other = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(metric)
    )
    for m in (metric, other):
        m.update_state(None, toys.generate("ring", 100)[0])
    assert other.result() == metric.result() and other.name == metric.name


@pytest.mark.parametrize(
    "make, argument",
    [
        (lambda: ModeCoverage([0.1, 0.2], 0.1), "`centers`"),
        (lambda: ModeCoverage([[0.1, 0.2]], 0.0), "`std`"),
        (
            lambda: ring().update_state(None, np.zeros((4, 8, 8, 1))),
            "`generated`",
        ),
        (lambda: ring().update_state(None, np.zeros(2)), "`generated`"),
    ],
)
def test_what_it_cannot_count_is_refused(make, argument):
    with pytest.raises(ValueError, match=argument) as error:
        make()
    assert len(str(error.value)) <= 600
