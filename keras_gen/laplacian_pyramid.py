"""Laplacian pyramids: what each halving of the size takes from images.

A pyramid of an image `x` has the bands

    band[i] = gaussian[i] - expand(gaussian[i + 1])
    gaussian[i + 1] = reduce(gaussian[i])

where `gaussian[0]` is `x`, and the last band is the last `gaussian`, a small
image. `expand(gaussian[i + 1])` is the low-pass image of level `i`: sharpened
by the band, it is the image of that level. So every band can be made, or
measured, by itself.

Reference:
    - [The Laplacian Pyramid as a Compact Image Code](
      https://doi.org/10.1109/TCOM.1983.1095851)
"""

import numpy as np
import tensorflow as tf

from keras_gen import inputs


def pyramid(images, num_levels):
    """The bands of images, the largest first.

    Args:
        images: `(batch, height, width, channels)` of any dtype, of a known
            shape but for the batch.
        num_levels: Python integer, at least 1. All levels but the last must
            have sides of at least 3 pixels.

    Returns:
        List of `num_levels` float32 tensors. The half of an odd side is
        rounded up: 7 pixels become 4.

    Raises:
        ValueError: If `num_levels` is not as above.

    Example:

    >>> bands = pyramid(images, 3)  # of 28x28: 28x28, 14x14, 7x7
    >>> collapse(bands)  # the images
    """
    return [band for _, band in low_passes_and_bands(images, num_levels)]


def low_passes_and_bands(images, num_levels):
    """Pairs `(low, band)`, whose sum is the image of each level.

    Args:
        images, num_levels: As of `pyramid`.

    Returns:
        List of `num_levels` pairs of tensors of one shape, the largest first.
        The low-pass image of the last level is black, that is 0.

    Raises:
        ValueError: As `pyramid`.
    """
    images = tf.cast(images, "float32")
    _check_num_levels(num_levels, images.shape)
    pairs = []
    for _ in range(num_levels - 1):
        smaller = reduce(images)
        low = expand(smaller, images.shape[1:3])
        pairs.append((low, images - low))
        images = smaller
    return [*pairs, (tf.zeros_like(images), images)]


def collapse(bands):
    """The images whose pyramid the bands are, to float precision.

    Args:
        bands: List of tensors `(batch, height, width, channels)`, as `pyramid`
            gives them, of any dtype.

    Returns:
        float32 tensor of the shape of the first.
    """
    *bands, images = [tf.cast(band, "float32") for band in bands]
    for band in reversed(bands):
        images = band + expand(images, band.shape[1:3])
    return images


def reduce(images):
    """Images of half the size: blurred, then every other pixel.

    The blur is the binomial kernel `outer(k, k)`, `k = [1, 4, 6, 4, 1] / 16`,
    with borders reflected without repeating the edge.

    Args:
        images: float32 `(batch, height, width, channels)`, sides of at least 3
            pixels.

    Returns:
        float32 `(batch, ceil(height / 2), ceil(width / 2), channels)`.
    """
    return _blur(images, stride=2)


def expand(images, size):
    """Images of twice the size: zeros between the pixels, then a blur.

    The blur is that of `reduce`, times four, so that grey stays
    grey.

    Args:
        images: float32 `(batch, height, width, channels)`.
        size: `(height, width)` of the result, each side of at least 3 pixels,
            and twice that of the images or one less.

    Returns:
        float32 `(batch, *size, channels)`.
    """
    height, width, channels = images.shape[1:]
    # (batch, height, 2, width, 2, channels), the new places zero
    images = tf.pad(
        images[:, :, None, :, None],
        [[0, 0], [0, 0], [0, 1], [0, 0], [0, 1], [0, 0]],
    )
    images = tf.reshape(images, (-1, 2 * height, 2 * width, channels))
    return 4 * _blur(images[:, : size[0], : size[1]])


def _check_num_levels(num_levels, shape):
    inputs.check_positive_integer(num_levels, "num_levels")
    side, most = min(shape[1:3]), 1
    while side >= 3:
        side, most = -(-side // 2), most + 1
    if num_levels > most:
        raise ValueError(
            f"`num_levels` must be at most {most} for `images` of shape "
            f"{tuple(shape)}, got {num_levels}: a level that is halved must "
            "have sides of at least 3 pixels. Have fewer levels."
        )


def _blur(images, stride=1):
    """Binomial 5x5 blur with reflected borders, of every `stride`-th pixel."""
    kernel = np.array([1, 4, 6, 4, 1], "float32") / 16
    kernel = np.outer(kernel, kernel)[:, :, None, None]
    kernel = np.repeat(kernel, images.shape[-1], axis=2)
    images = tf.pad(images, [[0, 0], [2, 2], [2, 2], [0, 0]], "REFLECT")
    strides = (1, stride, stride, 1)
    return tf.nn.depthwise_conv2d(images, kernel, strides, "VALID")
