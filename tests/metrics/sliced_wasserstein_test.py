import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from keras_gen.laplacian_pyramid import pyramid
from keras_gen.metrics.sliced_wasserstein import SlicedWassersteinDistance

KERNEL = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256


def images(batch, *shape, seed=0, noise=0.0):
    """uint8 images of smooth random blobs, and noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(batch, *shape))
    x = scipy.ndimage.gaussian_filter(x, (0, 3, 3, 0.5))
    x = 128 + 300 * x + 255 * noise * rng.normal(size=x.shape)
    return np.clip(np.rint(x), 0, 255).astype("uint8")


@pytest.fixture
def few_directions(monkeypatch):
    """64 of them, where their number is not the subject."""
    monkeypatch.setattr(
        "keras_gen.metrics.sliced_wasserstein._NUM_DIRECTIONS", 64
    )


def distances(real, generated, **kwargs):
    metric = SlicedWassersteinDistance(**kwargs)
    metric.update_state(real, generated)
    return metric.result()


# The published recipe, step by step in float64.


def expand(x, size):
    zeros = np.zeros((len(x), 2 * x.shape[1], 2 * x.shape[2], x.shape[3]))
    zeros[:, ::2, ::2] = x
    zeros = zeros[:, : size[0], : size[1]]
    kernel = 4 * KERNEL[None, :, :, None]
    return scipy.ndimage.convolve(zeros, kernel, mode="mirror")


def reference_pyramid(x, num_levels):
    levels = [x.astype("float64")]
    for _ in range(num_levels - 1):
        kernel = KERNEL[None, :, :, None]
        x = scipy.ndimage.convolve(levels[-1], kernel, mode="mirror")
        levels.append(x[:, ::2, ::2])
        levels[-2] = levels[-2] - expand(levels[-1], levels[-2].shape[1:3])
    return levels


def reference_descriptors(level, rng):
    batch, height, width, _ = level.shape
    positions = rng.integers(0, (height - 6, width - 6), (batch, 128, 2))
    patches = [
        image[y : y + 7, x : x + 7]
        for image, corners in zip(level, positions, strict=True)
        for y, x in corners
    ]
    patches = np.stack(patches)  # (batch * 128, 7, 7, channels)
    patches -= patches.mean((0, 1, 2))
    patches /= patches.std((0, 1, 2))
    return patches.reshape(len(patches), -1)


def reference(real, generated, num_levels, seed=0):
    sides = []
    for side, x in enumerate((real, generated)):
        if x.shape[-1] == 1:
            x = np.tile(x, 3)
        pyramid = reference_pyramid(x, num_levels)
        sides.append(
            [
                reference_descriptors(level, np.random.default_rng(seeds))
                for level, seeds in zip(
                    pyramid,
                    [(seed, side, i) for i in range(num_levels)],
                    strict=True,
                )
            ]
        )
    rng = np.random.default_rng((seed, 2))
    found = []
    for a, b in zip(*sides, strict=True):
        w = rng.standard_normal((512, a.shape[1]))
        w /= np.linalg.norm(w, axis=1, keepdims=True)
        a, b = (np.sort(x @ w.T, axis=0) for x in (a, b))
        found.append(1000 * np.abs(a - b).mean())
    return [*found, np.mean(found)]


@pytest.mark.parametrize(
    ("shape", "names", "noise"),
    [
        ((64, 64, 3), ["64", "32", "16", "mean"], 0.02),
        ((32, 32, 1), ["32", "16", "mean"], 0.0),
        ((35, 46, 2), ["35x46", "18x23", "mean"], 0.02),
        ((28, 28, 1), ["28", "mean"], 0.0),
    ],
)
def test_it_is_the_published_recipe(shape, names, noise):
    real = images(20, *shape, seed=1)
    generated = images(20, *shape, seed=2, noise=noise)
    found = distances(real, generated, seed=3)
    expected = reference(real, generated, len(names) - 1, seed=3)
    assert list(found) == names
    assert all(isinstance(value, float) for value in found.values())
    np.testing.assert_allclose([*found.values()], expected, rtol=1e-4)


def test_small_differences_keep_their_digits():
    real, generated = images(256, 16, 16, 1), images(256, 16, 16, 1, seed=1)
    expected = reference(real, generated, 1)
    assert expected[-1] < 60  # near the floor, where rounding would show
    np.testing.assert_allclose(
        [*distances(real, generated).values()], expected, rtol=1e-4
    )


@pytest.mark.parametrize("shape", [(64, 64, 3), (33, 47, 2)])
def test_pyramid_is_the_reference_and_collapses_to_the_images(shape):
    x = images(3, *shape).astype("float32")
    levels = [band.numpy() for band in pyramid(x, 3)]
    for level, expected in zip(levels, reference_pyramid(x, 3), strict=True):
        np.testing.assert_allclose(level, expected, atol=1e-3)
    collapsed = levels[2]
    for level in levels[1::-1]:
        collapsed = level + expand(collapsed, level.shape[1:3])
    np.testing.assert_allclose(collapsed, x, atol=1e-3)


@pytest.mark.usefixtures("few_directions")
def test_parts_of_any_size_give_what_all_images_at_once_give():
    real, generated = images(30, 32, 32, 3), images(30, 32, 32, 3, seed=1)
    parts = SlicedWassersteinDistance()
    for begin, end in ((0, 1), (1, 14), (14, 30)):
        parts.update_state(real[begin:end], None)
    for begin in range(0, 30, 5):
        parts.update_state(None, generated[begin : begin + 5])
    np.testing.assert_allclose(
        [*parts.result().values()],
        [*distances(real, generated).values()],
        rtol=1e-6,
    )


@pytest.mark.usefixtures("few_directions")
def test_only_the_first_images_count():
    real, generated = images(12, 16, 16, 1), images(12, 16, 16, 1, seed=1)
    metric = SlicedWassersteinDistance(max_images=8)
    for begin in range(0, 12, 3):
        batch = slice(begin, begin + 3)
        metric.update_state(real[batch], generated[batch])
    assert metric.details()["num_real"] == 8
    assert metric.result() == distances(real[:8], generated[:8])


def test_more_images_on_one_side_weigh_less_each():
    real, generated = images(8, 16, 16, 1), images(4, 16, 16, 1, seed=1)
    metric = SlicedWassersteinDistance()
    metric.update_state(real, generated)
    # Every value of the smaller side stands for two.
    sides = metric.real, metric.generated
    patches = [
        side.levels[0].reshape(-1, 49).astype("float64") for side in sides
    ]
    patches = [(x - x.mean()) / x.std() for x in patches]
    w = np.random.default_rng((0, 2)).standard_normal((512, 49, 3))
    w /= np.sqrt((w**2).sum((1, 2), keepdims=True))
    a, b = (np.sort(x @ w.sum(-1).T, axis=0) for x in patches)
    expected = 1000 * np.abs(a - np.repeat(b, 2, axis=0)).mean()
    np.testing.assert_allclose(metric.result()["16"], expected, rtol=1e-4)


@pytest.mark.usefixtures("few_directions")
def test_images_resampled_are_at_the_floor_and_noise_rises_above_it():
    first, second = images(256, 24, 24, 1)[::2], images(256, 24, 24, 1)[1::2]
    floor = distances(first, second)["24"]
    assert 0 < distances(first, first)["24"] < 1.1 * floor  # other patches
    faint, strong = (
        distances(first, images(256, 24, 24, 1, noise=noise)[1::2])["24"]
        for noise in (0.02, 0.05)
    )
    assert 1.1 * floor < faint < 0.6 * strong


@pytest.mark.usefixtures("few_directions")
def test_floor_sinks_with_the_number_of_images():
    everything = images(512, 16, 16, 1)
    few = distances(everything[:32], everything[32:64])["mean"]
    many = distances(everything[::2], everything[1::2])["mean"]
    assert many < 0.6 * few  # 1 / sqrt(8) in expectation


@pytest.mark.usefixtures("few_directions")
def test_seed_chooses_patches_and_directions():
    real, generated = images(8, 16, 16, 1), images(8, 16, 16, 1, seed=1)
    first = distances(real, generated)
    assert distances(real, generated) == first
    assert distances(real, generated, seed=1) != first


@pytest.mark.usefixtures("few_directions")
def test_grey_images_are_what_they_are_in_three_channels():
    real, generated = images(8, 32, 32, 1), images(8, 32, 32, 1, seed=1)
    tiled = distances(np.tile(real, 3), np.tile(generated, 3))
    grey = distances(real, generated)
    np.testing.assert_allclose([*grey.values()], [*tiled.values()], rtol=1e-4)


@pytest.mark.usefixtures("few_directions")
def test_brightness_and_contrast_of_a_channel_do_not_matter():
    real, generated = images(8, 16, 16, 3) // 2, images(8, 16, 16, 3, seed=1)
    scaled = real.copy()
    scaled[..., 1] = 2 * real[..., 1] + 5
    np.testing.assert_allclose(
        distances(scaled, generated)["mean"],
        distances(real, generated)["mean"],
        rtol=1e-4,
    )


@pytest.mark.usefixtures("few_directions")
@pytest.mark.parametrize("convert", [np.asarray, tf.constant])
def test_floats_count_as_their_8_bits(convert):
    real, generated = images(8, 16, 16, 3), images(8, 16, 16, 3, seed=1)
    floats = convert((generated / 255 + 0.0015).clip(0, 1).astype("float32"))
    assert distances(real, floats) == distances(real, generated)


@pytest.mark.usefixtures("few_directions")
def test_constant_channels_have_no_distance():
    black = np.zeros((4, 32, 32, 3), "uint8")
    assert distances(black, black + 37)["mean"] == 0.0
    assert np.isfinite(distances(black, images(4, 32, 32, 3))["mean"])


@pytest.mark.usefixtures("few_directions")
def test_reset_forgets_images_and_repeats_the_patches():
    real, generated = images(4, 16, 16, 1), images(4, 16, 16, 1, seed=1)
    metric = SlicedWassersteinDistance()
    metric.update_state(real, generated)
    first = metric.result()
    assert metric.result() == first  # reading changes nothing
    metric.reset_state()
    with pytest.raises(ValueError, match="at least 1 real"):
        metric.result()
    metric.update_state(real, generated)
    assert metric.result() == first


@pytest.mark.usefixtures("few_directions")
def test_config_makes_the_same_metric():
    metric = SlicedWassersteinDistance(max_images=5, seed=7, name="swd")
    config = keras.saving.serialize_keras_object(metric)
    twin = keras.saving.deserialize_keras_object(config)
    assert (twin.max_images, twin.seed, twin.name) == (5, 7, "swd")
    real, generated = images(6, 16, 16, 1), images(6, 16, 16, 1, seed=1)
    metric.update_state(real, generated)
    twin.update_state(real, generated)
    assert twin.result() == metric.result()


def test_errors_say_what_is_wrong():
    metric = SlicedWassersteinDistance()
    with pytest.raises(ValueError, match="at least 1 real images, got 0"):
        metric.result()
    with pytest.raises(
        ValueError, match="`real` must be images of at least 16"
    ):
        metric.update_state(np.zeros((2, 15, 20, 1), "uint8"), None)
    metric.update_state(None, images(2, 16, 16, 1))
    with pytest.raises(ValueError, match="at least 1 real images, got 0"):
        metric.result()
    with pytest.raises(ValueError, match="`real` must have the shape"):
        metric.update_state(images(2, 32, 32, 1), None)
    with pytest.raises(ValueError, match="`max_images` must be a positive"):
        SlicedWassersteinDistance(max_images=0)
    with pytest.raises(ValueError, match="`seed` must be an integer"):
        SlicedWassersteinDistance(seed=-1)
