"""Points in the plane whose distribution is known: sets for a first look.

A point is an image of one pixel and two channels, `(1, 1, 2)` in [0, 1], so
that every model takes it as it is. A square around the published distribution
becomes [0, 1]: `image = (point - centre) / side + 0.5`.

| name | published coordinates | centre | side |
| --- | --- | --- | --- |
| `"ring"` | 8 Gaussians on a circle of radius 2, deviation 0.02 | (0, 0) | 4.5 |
| `"grid"` | 25 Gaussians on {-4, -2, 0, 2, 4}^2, deviation 0.05 | (0, 0) | 9 |
| `"swiss_roll"` | `t (cos t, sin t)`, t uniform in [1.5 pi, 4.5 pi], plus noise of deviation 0.25, all divided by 7.5 | (0, 0) | 4.5 |
| `"two_moons"` | `(cos t, sin t)` and `(1 - cos t, 0.5 - sin t)`, t uniform in [0, pi], plus noise of deviation 0.05 | (0.5, 0.25) | 4 |

The borders are 10 deviations away at least. As 8-bit images, which is how
likelihoods count, a deviation of ring and grid is about 1.1 and 1.4 levels.
"""

import math

import numpy as np
import tensorflow as tf

from keras_gen.datasets.source import Source, order, parse_split

# (centre, side) of the square that becomes [0, 1], and deviation of the noise.
_SQUARES = {
    "ring": ((0.0, 0.0), 4.5),
    "grid": ((0.0, 0.0), 9.0),
    "swiss_roll": ((0.0, 0.0), 4.5),
    "two_moons": ((0.5, 0.25), 4.0),
}
_NOISE = {
    "ring": 0.02,
    "grid": 0.05,
    "swiss_roll": 0.25 / 7.5,
    "two_moons": 0.05,
}
_SPLITS = {"train": (50_000, 0), "test": (10_000, 1)}  # size, seed

TOYS = tuple(_SQUARES)


def generate(name, num_samples, seed=0):
    """Draws points of a toy set.

    The class of a point is uniform: the Gaussian of `centers(name)` it comes
    from, or the moon. On the swiss roll all have the label -1.

    Args:
        name: `"ring"`, `"grid"`, `"swiss_roll"` or `"two_moons"`.
        num_samples: Integer, how many.
        seed: Integer, for the same points each time.

    Returns:
        `(images, labels)`: float32 `(num_samples, 1, 1, 2)` in [0, 1], and
        int32 `(num_samples,)`.

    Raises:
        ValueError: If `name` is another one.

    Example:

    >>> images, labels = generate("ring", 1000)
    """
    _check(name)
    random = np.random.default_rng([TOYS.index(name), seed])
    if name in ("ring", "grid"):
        modes = _published_centers(name)
        labels = random.integers(len(modes), size=num_samples)
        points = modes[labels]
    elif name == "swiss_roll":
        labels = np.full(num_samples, -1)
        t = 1.5 * math.pi * (1 + 2 * random.random(num_samples))
        points = np.stack([t * np.cos(t), t * np.sin(t)], axis=-1) / 7.5
    else:
        labels = random.integers(2, size=num_samples)
        t = math.pi * random.random(num_samples)
        upper = np.stack([np.cos(t), np.sin(t)], axis=-1)
        points = np.where(labels[:, None] == 0, upper, [1, 0.5] - upper)
    points = points + _NOISE[name] * random.standard_normal(points.shape)
    return to_images(points, name), labels.astype("int32")


def to_images(points, name):
    """Images in [0, 1] of points in published coordinates.

    Args:
        points: `(batch, 2)`.
        name: `"ring"`, `"grid"`, `"swiss_roll"` or `"two_moons"`.

    Returns:
        float32 `(batch, 1, 1, 2)`.

    Example:

    >>> to_images([[0.0, 2.0]], "ring")[0, 0, 0]
    array([0.5      , 0.9444444], dtype=float32)
    """
    centre, side = _SQUARES[_check(name)]
    images = (np.asarray(points) - centre) / side + 0.5
    return images.astype("float32")[:, None, None]


def to_points(images, name):
    """Points in published coordinates: the inverse of `to_images`.

    Args:
        images: float `(batch, 1, 1, 2)` in [0, 1].
        name: `"ring"`, `"grid"`, `"swiss_roll"` or `"two_moons"`.

    Returns:
        float64 `(batch, 2)`.

    Example:

    >>> points = to_points(model.sample(1000, seed=0), "ring")
    """
    centre, side = _SQUARES[_check(name)]
    points = np.asarray(images, "float64").reshape(-1, 2)
    return (points - 0.5) * side + centre


def centers(name):
    """Means of the Gaussians of `"ring"` or `"grid"`, in [0, 1].

    Args:
        name: `"ring"` or `"grid"`.

    Returns:
        float64 `(8, 2)` or `(25, 2)`; row `k` belongs to the label `k`.

    Raises:
        ValueError: If `name` is another set, which has no such modes.

    Example:

    >>> metrics.ModeCoverage(toys.centers("ring"), toys.std("ring"))
    """
    if name not in ("ring", "grid"):
        raise ValueError(
            f"`name` must be 'ring' or 'grid', got {name!r}: the other sets "
            "are no mixtures of Gaussians, so there are no centres to give."
        )
    centre, side = _SQUARES[name]
    return (_published_centers(name) - centre) / side + 0.5


def std(name):
    """Standard deviation of a set's noise in each coordinate, in [0, 1].

    Args:
        name: `"ring"`, `"grid"`, `"swiss_roll"` or `"two_moons"`.

    Returns:
        Float.

    Example:

    >>> std("two_moons")
    0.0125
    """
    return _NOISE[_check(name)] / _SQUARES[name][1]


def toy_source(name, split, size, labels):
    """The `Source` of a toy set; its images are float32 in [0, 1]."""
    if size is not None:
        raise ValueError(
            f"`image_size` must be `None` for {name!r}, whose images are "
            f"points, one pixel each, got {size}."
        )
    if labels and name == "swiss_roll":
        raise ValueError(
            "`labels=True`, but 'swiss_roll' has no classes. Use "
            "`labels=False`, or 'ring', 'grid' or 'two_moons'."
        )
    base, to_slice = parse_split(split)
    if base not in _SPLITS:
        raise ValueError(
            f"`split` of {name!r} must be 'train' or 'test', or a part such "
            f"as 'train[:90%]', got {split!r}."
        )
    x, y = generate(name, *_SPLITS[base])
    part = to_slice(len(x))
    with tf.device("CPU:0"):  # where tf.data works
        x, y = tf.constant(x[part]), tf.constant(y[part])

    def elements(seed):
        if seed is None:  # many small steps less
            return tf.data.Dataset.from_tensor_slices((x, y))
        return order(len(x), seed).map(
            lambda index: (x[index], y[index]), num_parallel_calls=2
        )

    return Source(
        name=name,
        identity=f"{name} {split}",
        image_shape=(1, 1, 2),
        num_images=len(x),
        elements=elements,
    )


def _published_centers(name):
    if name == "ring":
        angles = 2 * math.pi * np.arange(8) / 8
        return 2 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    steps = np.arange(-4.0, 5.0, 2.0)
    return np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)


def _check(name):
    if name not in TOYS:
        raise ValueError(f"`name` must be one of {TOYS}, got {name!r}.")
    return name
