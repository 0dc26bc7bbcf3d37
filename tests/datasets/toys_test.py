import math

import numpy as np
import pytest
import scipy.stats

from keras_gen.datasets import image_shape, load, toys


def points_of(name, num_samples=20_000, seed=3):
    images, labels = toys.generate(name, num_samples, seed)
    return toys.to_points(images, name), labels


def is_standard_normal(values):
    return scipy.stats.kstest(np.ravel(values), "norm").pvalue > 0.01


@pytest.mark.parametrize("name", toys.TOYS)
def test_splits_are_images_of_one_pixel_and_two_channels_in_0_1(name):
    train = load(name, batch_size=500)
    assert train.cardinality() == 100
    assert train.element_spec.shape == (500, 1, 1, 2)
    assert image_shape(train) == (1, 1, 2)
    x = np.concatenate(list(load(name, "test", batch_size=500)))
    assert x.shape == (10_000, 1, 1, 2) and x.dtype == "float32"
    assert 0 < x.min() and x.max() < 1
    assert len(np.unique(x.reshape(-1, 2), axis=0)) > 9990  # no 8-bit levels


def test_train_and_test_are_the_points_of_two_seeds():
    x, y = next(iter(load("ring", "test", batch_size=10_000, labels=True)))
    images, labels = toys.generate("ring", 10_000, seed=1)
    np.testing.assert_array_equal(x, images)
    np.testing.assert_array_equal(y, labels)
    train = np.concatenate(list(load("ring", batch_size=50_000)))
    images, _ = toys.generate("ring", 50_000, seed=0)
    np.testing.assert_array_equal(
        np.sort(train[:, 0, 0, 0]), np.sort(images[:, 0, 0, 0])
    )


def test_part_of_a_split_is_its_points_in_order():
    part = np.stack(list(load("grid", "test[:10]")))
    np.testing.assert_array_equal(
        part, toys.generate("grid", 10_000, 1)[0][:10]
    )


@pytest.mark.parametrize("cache", [False, "folder"])
def test_points_are_the_same_however_they_are_kept(cache, tmp_path):
    cache = cache and tmp_path
    kept = np.stack(list(load("ring", "test[:20]", cache=cache)))
    np.testing.assert_array_equal(
        kept, toys.generate("ring", 10_000, 1)[0][:20]
    )


def test_seeds_give_the_same_points_and_others():
    same = [toys.generate("two_moons", 100, seed=5)[0] for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert not np.array_equal(same[0], toys.generate("two_moons", 100)[0])


@pytest.mark.parametrize(
    "name, num_modes, deviation", [("ring", 8, 0.02), ("grid", 25, 0.05)]
)
def test_modes_are_gaussians_of_the_published_deviation(
    name, num_modes, deviation
):
    points, labels = points_of(name)
    centers = toys.to_points(toys.centers(name), name)
    assert centers.shape == (num_modes, 2)
    assert is_standard_normal((points - centers[labels]) / deviation)
    counts = np.bincount(labels, minlength=num_modes)
    assert scipy.stats.chisquare(counts).pvalue > 0.01
    side = deviation / toys.std(name)
    np.testing.assert_allclose(
        toys.to_images([[0.0, 0.0], [side / 4, 0.0]], name)[:, 0, 0],
        [[0.5, 0.5], [0.75, 0.5]],
    )


def test_centres_lie_where_they_were_published():
    ring = toys.to_points(toys.centers("ring"), "ring")
    np.testing.assert_allclose(np.hypot(*ring.T), 2.0)
    angles = np.sort(np.arctan2(ring[:, 1], ring[:, 0]))
    np.testing.assert_allclose(np.diff(angles), math.pi / 4)
    grid = {
        tuple(np.round(p, 9))
        for p in toys.to_points(toys.centers("grid"), "grid")
    }
    steps = (-4, -2, 0, 2, 4)
    assert grid == {(a, b) for a in steps for b in steps}


def test_swiss_roll_is_a_spiral_with_noise():
    points, labels = points_of("swiss_roll")
    assert set(labels) == {-1}
    points = points * 7.5
    t = np.linspace(1.5 * math.pi, 4.5 * math.pi, 2000)
    spiral = np.stack([t * np.cos(t), t * np.sin(t)], axis=-1)
    distances = np.linalg.norm(points[:3000, None] - spiral, axis=-1)
    nearest = distances.argmin(axis=-1)
    inside = (nearest > 20) & (nearest < 1980)  # off the ends, the noise across
    across = distances.min(axis=-1)[inside]
    assert np.sqrt(np.mean(across**2)) == pytest.approx(0.25, rel=0.05)
    assert scipy.stats.kstest(nearest[inside] / 2000, "uniform").pvalue > 0.01


def test_moons_are_half_circles_with_noise():
    points, labels = points_of("two_moons")
    upper, lower = points[labels == 0], points[labels == 1]
    for moon in (upper, [1, 0.5] - lower):  # turned, the lower is the upper
        angle = np.arctan2(moon[:, 1], moon[:, 0])
        arc = (angle > 0.2) & (angle < math.pi - 0.2)
        radial = np.hypot(*moon[arc].T) - 1
        assert radial.std() == pytest.approx(0.05, rel=0.05)
        assert abs(radial.mean()) < 0.005
    assert abs(len(upper) - len(lower)) < 500


def test_points_and_images_are_inverse():
    points = np.random.default_rng(0).uniform(-1, 2, size=(50, 2))
    for name in toys.TOYS:
        images = toys.to_images(points, name)
        np.testing.assert_allclose(
            toys.to_points(images, name), points, atol=1e-6
        )


@pytest.mark.parametrize(
    "arguments, argument",
    [
        ({"image_size": 8}, "`image_size`"),
        ({"binarize": "static"}, "`binarize`"),
        ({"split": "validation"}, "`split`"),
    ],
)
def test_what_points_cannot_be_is_refused(arguments, argument):
    with pytest.raises(ValueError, match=argument) as error:
        load("ring", **arguments)
    assert len(str(error.value)) <= 600


def test_swiss_roll_has_no_labels_and_no_centres():
    with pytest.raises(ValueError, match="`labels=True`"):
        load("swiss_roll", labels=True)
    with pytest.raises(ValueError, match="'ring' or 'grid'"):
        toys.centers("swiss_roll")


@pytest.mark.parametrize(
    "call",
    [
        lambda: toys.generate("circle", 10),
        lambda: toys.std("circle"),
        lambda: toys.to_images([[0, 0]], "circle"),
    ],
)
def test_an_unknown_name_is_refused(call):
    with pytest.raises(ValueError, match="`name` must be one of"):
        call()


def test_origin_says_which_images_these_are():
    origin = load("ring", "test[:50%]").origin
    assert origin["name"] == "ring" and origin["split"] == "test[:50%]"
    origin = load("digits", "test", image_size=4, binarize="static").origin
    assert origin["image_size"] == (4, 4) and origin["binarize"] == "static"
    assert "area" in origin["resizer"]
