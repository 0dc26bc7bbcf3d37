"""Sliced Wasserstein distance of the patches of Laplacian pyramids."""

import itertools

import numpy as np
import tensorflow as tf
from keras import saving

from keras_gen import inputs
from keras_gen.laplacian_pyramid import pyramid
from keras_gen.metrics.features import FeatureMetric

_SMALLEST_LEVEL = 16
_PATCH_SIZE = 7
_PATCHES_PER_IMAGE = 128
_BATCH_SIZE = 128
_NUM_DIRECTIONS = 4 * 128
_DIRECTIONS_AT_A_TIME = 64
# Grey levels. Less than what one pixel in a million makes.
_MIN_STD = 1e-3
# The bits of the finite float16, which are their own order but for the sign,
# and the steps from each of these numbers to the next.
_NEGATIVE, _POSITIVE = slice(0xFBFF, 0x7FFF, -1), slice(0x0000, 0x7C00)
_FLOAT16_STEPS = np.diff(
    np.r_[_NEGATIVE, _POSITIVE].astype("uint16").view("float16"),
    append=np.float16(np.finfo("float16").max),
).astype("float64")


@saving.register_keras_serializable(package="keras_gen")
class SlicedWassersteinDistance(FeatureMetric):
    """How different small patches are, at every scale of the images.

    Each image becomes a Laplacian pyramid, from its full size down to the
    last level whose shorter side is at least 16 pixels. From every level come
    128 patches of 7x7 pixels, `channels` numbers each, at uniform positions.
    The patches of a level and side are standardized,

        patches = (patches - mean) / std    # of each channel

    over all patches and positions, for real and generated images separately,
    and flattened. The distance at a level is the mean over 4 x 128 random
    directions `w` of unit length of

        1000 * mean(abs(sort(real @ w) - sort(generated @ w))),

    or, if one side has more images, of the area between the distribution
    functions of the projections, which is the same for equally many.

    The result is a dict of one float a level, named by its size (`"64"`,
    `"32"`, `"16"`; `"48x32"` where height and width differ), and `"mean"`,
    the mean of the levels. Images of 28x28 have one level, themselves; padded
    to 32x32 they have two.

    Two samples of the same images have a distance above 0, the less the more
    images: read a value beside that of real images against other real ones,
    as many. The distance is blind to where in the image a patch lies, and to
    whatever is larger than a patch of the last level.

    The patches of an image take `12.5 kB * channels` a level: 230 MB for each
    side of 2,048 images of 64x64x3. `result` takes some 600 MB besides.

    As in the paper, floats are rounded to 8 bits first, and one channel is
    tiled to three; two and four channels stay. Departures from the paper:
    2,048 images by default, not 16,384; patches and projections are kept in
    float16, which leaves distances right to a relative 1e-4; the half of an
    odd size is rounded up; a channel that never changes is 0.

    Args:
        max_images: Integer, images of each side that are used.
        seed: Integer, of the positions and of the directions.
        name: String.

    Raises:
        ValueError: If an argument is not as above; from `update_state`, if
            images are smaller than 16 pixels or no images; from `result`, if
            one side has none.

    Example:

    >>> metric = SlicedWassersteinDistance()
    >>> metric.update_state(real, model.sample(2048, seed=0))
    >>> metric.result()  # of 32x32 images: {"32": 4.1, "16": 6.3, "mean": 5.2}

    Reference:
        - [Progressive Growing of GANs](https://arxiv.org/abs/1710.10196)
    """

    _direction = "down"  # where Keras looks for what is better

    def __init__(
        self,
        *,
        max_images=2048,
        seed=0,
        name="sliced_wasserstein_distance",
    ):
        max_images = inputs.check_positive_integer(max_images, "max_images")
        seed = inputs.check_seed(seed)
        # Other positions on the two sides, the same ones after a reset.
        sides = itertools.cycle([(seed, 0), (seed, 1)])
        super().__init__(None, lambda: Patches(max_images, next(sides)), name)
        self.max_images = max_images
        self.seed = seed

    def features(self, images, argument="images"):
        """The images themselves, checked: uint8, or float32 in [0, 1]."""
        shape = tuple(getattr(images, "shape", ()))
        if len(shape) == 4 and min(shape[1:3]) < _SMALLEST_LEVEL:
            raise ValueError(
                f"`{argument}` must be images of at least {_SMALLEST_LEVEL} "
                f"pixels in height and width, got shape {shape}. Pad them, or "
                "measure with `metrics.FrechetDistance()`."
            )
        return self._check_images(images, argument)

    def result(self):
        """Dict of floats: the distance at each level, and `"mean"`."""
        self.require(1)
        rng = np.random.default_rng((self.seed, 2))
        distances = {
            name: 1000.0 * _distance(real, generated, rng)
            for name, real, generated in zip(
                _level_names(self.image_shape),
                self.real.levels,
                self.generated.levels,
                strict=True,
            )
        }
        return {**distances, "mean": sum(distances.values()) / len(distances)}

    def get_config(self):
        return {
            "max_images": self.max_images,
            "seed": self.seed,
            **super().get_config(),
        }


class Patches:
    """Accumulator of patches of the first images.

    Args:
        max_images: Integer.
        seed: Sequence of integers, of the positions.
    """

    def __init__(self, max_images, seed):
        self._max_images = max_images
        self._seed = seed
        self._levels = None
        self.count = 0

    @property
    def full(self):
        return self.count == self._max_images

    def add(self, images):
        """Takes patches of `(batch, height, width, channels)`."""
        if self._levels is None:
            self._prepare(images.shape[1:])
        images = images[: self._max_images - self.count]
        for begin in range(0, len(images), _BATCH_SIZE):
            batch = _to_grey_levels(images[begin : begin + _BATCH_SIZE])
            bands = pyramid(batch, len(self._levels))
            rows = slice(self.count, self.count + len(batch))
            for patches, level, rng in zip(
                self._levels, bands, self._positions, strict=True
            ):
                level = tf.cast(level, "float16").numpy()
                patches[rows] = _random_patches(level, rng)
            self.count = rows.stop

    @property
    def levels(self):
        """A float16 array `(count, 128, 7, 7 * channels)` for each level."""
        return [patches[: self.count] for patches in self._levels]

    def _prepare(self, image_shape):
        size = (_PATCH_SIZE, _PATCH_SIZE * image_shape[-1])
        shape = (self._max_images, _PATCHES_PER_IMAGE, *size)
        num_levels = len(_level_names(image_shape))
        # Rows only take memory once something is in them.
        self._levels = [np.empty(shape, "float16") for _ in range(num_levels)]
        # One stream a level, so that it does not matter how images come.
        self._positions = [
            np.random.default_rng((*self._seed, i)) for i in range(num_levels)
        ]


def _to_grey_levels(images):
    """float32 in [-127.5, 127.5], rounded to 8 bits: small in float16."""
    if images.dtype != "uint8":
        images = tf.round(255.0 * images)
    return tf.cast(images, "float32") - 127.5


def _level_names(image_shape):
    """The sizes of the levels, the largest first, as text."""
    height, width, _ = image_shape
    names = []
    while min(height, width) >= _SMALLEST_LEVEL:
        square = height == width
        names.append(f"{height}" if square else f"{height}x{width}")
        height, width = -(-height // 2), -(-width // 2)
    return names


def _random_patches(images, rng):
    """`(batch, 128, 7, 7 * channels)` of `(batch, height, width, channels)`."""
    batch, height, width, channels = images.shape
    positions = rng.integers(
        0,
        (height - _PATCH_SIZE + 1, width - _PATCH_SIZE + 1),
        (batch, _PATCHES_PER_IMAGE, 2),
    )
    # Rows of pixels and channels together are contiguous: the copy of a patch
    # is seven short ones.
    patches = np.lib.stride_tricks.sliding_window_view(
        images.reshape(batch, height, width * channels),
        (_PATCH_SIZE, _PATCH_SIZE * channels),
        axis=(1, 2),
    )
    image = np.arange(batch)[:, None]
    return patches[image, positions[..., 0], positions[..., 1] * channels]


def _distance(real, generated, rng):
    """Mean over random directions of the distance of the projections.

    For equally many it is `mean(abs(sort(a) - sort(b)))`, and for any numbers
    the area between the two distribution functions. Rounded to float16 the
    projections have so few values that counting them takes the place of
    sorting, and takes less time.
    """
    channels = real.shape[-1] // _PATCH_SIZE
    directions = rng.standard_normal(
        (_NUM_DIRECTIONS, _PATCH_SIZE**2, 3 if channels == 1 else channels)
    )
    directions /= np.sqrt(np.sum(directions**2, axis=(1, 2), keepdims=True))
    if channels == 1:
        # Three equal channels meet the sum of their weights.
        directions = directions.sum(axis=-1)
    directions = directions.reshape(_NUM_DIRECTIONS, -1).astype("float32")
    sides = [
        _standardize(patches.reshape(-1, directions.shape[1]), channels)
        for patches in (real, generated)
    ]
    total = 0.0
    for begin in range(0, _NUM_DIRECTIONS, _DIRECTIONS_AT_A_TIME):
        block = directions[begin : begin + _DIRECTIONS_AT_A_TIME]
        area, generated = (
            _distribution(block * scale, patches) for patches, scale in sides
        )
        area -= generated
        total += float(np.sum(np.abs(area, out=area) @ _FLOAT16_STEPS))
    return total / _NUM_DIRECTIONS


def _distribution(directions, patches):
    """Shares of projections up to each float16, `(directions, values)`."""
    counts = np.asarray(_count_projections(directions, patches))
    # Bits in the order of the numbers, the largest negative one first.
    counts = [counts[:, _NEGATIVE], counts[:, _POSITIVE]]
    counts = np.cumsum(np.concatenate(counts, 1), axis=1, dtype="int32")
    return counts / patches.shape[1]


def _standardize(patches, channels):
    """Patches with the mean 0, and what gives them the deviation 1.

    Args:
        patches: float16 `(num, dim)`.
        channels: Integer, which divides `dim`.

    Returns:
        Tuple: the patches less the mean of each channel, float32 `(dim, num)`;
        and `1 / std` of the channels, float32 `(dim,)`.
    """
    pixels = patches.shape[1] // channels
    x = tf.cast(tf.transpose(patches), "float32")
    mean = np.reshape(tf.reduce_mean(x, axis=1), (pixels, channels)).mean(0)
    x = x - np.tile(mean, pixels)[:, None]
    # Unlike `einsum`, BLAS keeps the digits of long sums.
    squares = np.vecdot(np.asarray(x), np.asarray(x)) / len(patches)
    std = np.sqrt(squares.reshape(pixels, channels).mean(0))
    # A channel that never changes has nothing to compare.
    varies = std > _MIN_STD
    scale = np.where(varies, 1 / np.where(varies, std, 1), 0)
    return x, np.tile(scale, pixels).astype("float32")


def _count_projections(directions, patches):
    """How often a projection has the bits: `(directions, 2**16)`, int32."""
    projections = tf.cast(tf.matmul(directions, patches), "float16")
    return tf.raw_ops.DenseBincount(
        input=tf.cast(tf.bitcast(projections, "uint16"), "int32"),
        size=2**16,
        weights=tf.zeros([0], "int32"),
        binary_output=False,
    )
