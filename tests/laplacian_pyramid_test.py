"""The pyramid against SciPy, and its inverse."""

import numpy as np
import pytest
import scipy.ndimage

from keras_gen.laplacian_pyramid import (
    collapse,
    expand,
    low_passes_and_bands,
    pyramid,
    reduce,
)

KERNEL = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256


def images(height, width, channels=1, seed=0):
    shape = (2, height, width, channels)
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype("float32")


def blur_by_scipy(plane):
    return scipy.ndimage.correlate(plane, KERNEL, mode="mirror")


@pytest.mark.parametrize(
    "shape, num_levels",
    [((28, 28, 1), 3), ((8, 12, 3), 2), ((7, 9, 2), 3), ((4, 4, 1), 1)],
)
def test_collapse_inverts_the_pyramid(shape, num_levels):
    x = images(*shape)
    bands = pyramid(x, num_levels)
    assert len(bands) == num_levels
    assert bands[0].shape == x.shape
    np.testing.assert_allclose(collapse(bands), x, atol=1e-6)


def test_reduce_and_expand_are_blurs_of_scipy():
    x = images(8, 12, 2)
    smaller = reduce(x)
    larger = expand(smaller, (8, 12))
    assert smaller.shape == (2, 4, 6, 2)
    for i in range(2):
        for channel in range(2):
            plane = x[i, ..., channel].astype("float64")
            found = smaller[i, ..., channel]
            np.testing.assert_allclose(
                found, blur_by_scipy(plane)[::2, ::2], atol=1e-6
            )
            spread = np.zeros((8, 12))
            spread[::2, ::2] = found
            np.testing.assert_allclose(
                larger[i, ..., channel], 4 * blur_by_scipy(spread), atol=1e-6
            )


def test_grey_images_have_no_bands_but_the_last():
    x = np.full((1, 12, 8, 3), 0.7, "float32")
    *bands, last = pyramid(x, 3)
    for band in bands:
        np.testing.assert_allclose(band, 0, atol=1e-6)
    assert last.shape == (1, 3, 2, 3)
    np.testing.assert_allclose(last, 0.7, atol=1e-6)


def test_pixels_of_any_dtype_become_float32():
    x = np.random.default_rng(0).integers(0, 256, (2, 8, 6, 3))
    expected = pyramid(x.astype("float32"), 3)
    for dtype in ("uint8", "float64"):
        bands = pyramid(x.astype(dtype), 3)
        for band, other in zip(bands, expected, strict=True):
            np.testing.assert_array_equal(band, other)
        restored = collapse([np.asarray(band, "float64") for band in bands])
        assert restored.dtype == "float32"
        np.testing.assert_allclose(restored, x, atol=1e-4)


@pytest.mark.parametrize(
    "num_levels, message",
    [
        (4, r"`num_levels` must be at most 3 .*\(2, 9, 5, 1\), got 4"),
        (0, "`num_levels`"),
    ],
)
def test_more_levels_than_there_are_halves_are_refused(num_levels, message):
    x = images(9, 5)
    assert pyramid(x, 3)[-1].shape == (2, 3, 2, 1)
    with pytest.raises(ValueError, match=message) as error:
        pyramid(x, num_levels)
    assert len(str(error.value)) <= 600


def test_low_pass_and_band_make_the_image_of_each_level():
    x = images(16, 8, 3)
    pairs = low_passes_and_bands(x, 3)
    gaussians = [x, reduce(x), reduce(reduce(x))]
    for (low, band), image in zip(pairs, gaussians, strict=True):
        assert low.shape == band.shape
        np.testing.assert_allclose(low + band, image, atol=1e-6)
    for (low, _), smaller in zip(pairs[:-1], gaussians[1:], strict=True):
        np.testing.assert_allclose(
            low, expand(smaller, low.shape[1:3]), atol=1e-6
        )
    np.testing.assert_array_equal(pairs[-1][0], np.zeros((2, 4, 2, 3)))
