"""Paths through a latent space and latents near its middle."""

import math

import numpy as np
import tensorflow as tf


def interpolate(a, b, num_steps, method="spherical"):
    """Walks from one latent vector to another.

    With `t = i / (num_steps - 1)`, step `i` is, for `"linear"`,
    `(1 - t) * a + t * b`, and for `"spherical"`, where `angle` lies between
    `a` and `b`,

        (sin((1 - t) * angle) * a + sin(t * angle) * b) / sin(angle).

    A straight line between two samples of a normal prior of many dimensions
    passes through lengths that the prior hardly ever has; the arc keeps to
    them. Vectors that are parallel (or opposite, or zero) span no arc and are
    joined by a line.

    Args:
        a: Start, `(latent_dim,)` or `(batch, latent_dim)`.
        b: End, of the shape of `a`; each row is joined to its own.
        num_steps: Integer of at least 2, both ends included.
        method: `"spherical"` or `"linear"`.

    Returns:
        float32 array `(num_steps, *a.shape)` from exactly `a` to exactly `b`.

    Raises:
        ValueError: If the shapes differ or are not as above, if a value is
            not finite, or if another argument is none of those allowed.

    Example:

    >>> path = interpolate(z[0], z[1], num_steps=8)  # (8, latent_dim)
    >>> images = model.decode(path)

    Reference:
        - [Sampling Generative Networks](https://arxiv.org/abs/1609.04468)
    """
    a, b = _as_latents(a, "a"), _as_latents(b, "b")
    if a.shape != b.shape:
        raise ValueError(
            f"`a` and `b` must have the same shape, got {a.shape} and "
            f"{b.shape}. Repeat the smaller one, e.g. with `np.broadcast_to`."
        )
    if not _is_integer(num_steps) or num_steps < 2:
        raise ValueError(
            "`num_steps` must be an integer of at least 2, since it counts "
            f"both ends, got {num_steps!r}."
        )
    if method not in ("spherical", "linear"):
        raise ValueError(
            f"`method` must be 'spherical' or 'linear', got {method!r}."
        )

    t = np.linspace(0.0, 1.0, num_steps).reshape(-1, *[1] * a.ndim)
    path = (1 - t) * a + t * b
    if method == "spherical":
        angle = _angle(a, b)[..., None]
        is_arc = np.sin(angle) > 1e-6
        angle = np.where(is_arc, angle, 1.0)
        arc = np.sin((1 - t) * angle) * a + np.sin(t * angle) * b
        path = np.where(is_arc, arc / np.sin(angle), path)
    path[0], path[-1] = a, b
    return path.astype("float32")


def check_path(a, b, num_steps, method, latent_dim):
    """`interpolate` between batches of the latents of a model.

    Returns:
        float32 array `(num_steps, batch, latent_dim)`.

    Raises:
        ValueError: As `interpolate`, or if the latents are no such batches.
    """
    path = interpolate(a, b, num_steps, method)
    if path.ndim != 3 or path.shape[-1] != latent_dim:
        raise ValueError(
            f"`a` and `b` must be latents of shape (batch, {latent_dim}), got "
            f"{path.shape[1:]}."
        )
    return path


def traverse(z, dim, values):
    """Moves one latent dimension and leaves the others.

    Step `i` is `z` with `z[..., dim] = values[i]`.

    Args:
        z: `(latent_dim,)` or `(batch, latent_dim)`.
        dim: Integer, which dimension; negative ones count from the end.
        values: Sequence of `num_steps` numbers.

    Returns:
        float32 array `(num_steps, *z.shape)`.

    Raises:
        ValueError: If `z` is of another shape, `dim` is not one of its
            dimensions, or a value is not finite.

    Example:

    >>> path = traverse(z[0], dim=3, values=np.linspace(-3, 3, 7))
    >>> images = model.decode(path)  # (7, *image_shape)
    """
    z = _as_latents(z, "z")
    if not _is_integer(dim) or not -z.shape[-1] <= dim < z.shape[-1]:
        raise ValueError(
            f"`dim` must be one of the {z.shape[-1]} latent dimensions, an "
            f"integer below {z.shape[-1]}, got {dim!r}."
        )
    values = np.asarray(values, dtype="float64")
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(
            "`values` must be a non-empty sequence of finite numbers, got "
            f"shape {values.shape}, {np.isfinite(values).sum()} of "
            f"{values.size} finite. Use e.g. `np.linspace(-3, 3, 7)`."
        )
    path = np.repeat(z[None], len(values), axis=0)
    path[..., dim] = values.reshape(-1, *[1] * (z.ndim - 1))
    return path.astype("float32")


def truncated_normal(shape, bound, seed):
    """Standard normal numbers, each cut to [-bound, bound].

    They are drawn by inversion, so that a smaller bound moves the numbers of
    a seed inwards and keeps their order.

    Args:
        shape: Integer tensor, the shape to draw.
        bound: Positive float32 scalar.
        seed: Two integers, as in `tf.random.stateless_uniform`.

    Returns:
        float32 tensor of that shape.
    """
    uniform = tf.random.stateless_uniform(
        shape, seed, minval=-1.0, alg="philox"
    )
    mass = tf.math.erf(bound / math.sqrt(2.0))
    z = math.sqrt(2.0) * tf.math.erfinv(mass * uniform)
    return tf.clip_by_value(z, -bound, bound)


def _angle(a, b):
    """Angle between the rows of `a` and `b`, 0 where one has no length."""
    lengths = [np.linalg.norm(v, axis=-1, keepdims=True) for v in (a, b)]
    a, b = (
        v / np.where(length > 0, length, 1.0)
        for v, length in zip((a, b), lengths, strict=True)
    )
    # Unlike arccos, precise for small angles, and pi for opposite vectors.
    angle = 2 * np.arctan2(
        np.linalg.norm(a - b, axis=-1), np.linalg.norm(a + b, axis=-1)
    )
    return np.where((lengths[0] * lengths[1] > 0)[..., 0], angle, 0.0)


def _as_latents(z, argument):
    """`z` as a checked float64 array."""
    z = np.asarray(z)
    if z.ndim not in (1, 2) or 0 in z.shape:
        raise ValueError(
            f"`{argument}` must have shape (latent_dim,) or (batch, "
            f"latent_dim), none of them 0, got {z.shape}."
        )
    try:
        z = z.astype("float64")
    except (TypeError, ValueError):
        raise ValueError(
            f"`{argument}` must hold numbers, got dtype {z.dtype}."
        ) from None
    if not np.isfinite(z).all():
        raise ValueError(
            f"`{argument}` must be finite, got NaN or infinity in "
            f"{(~np.isfinite(z)).sum()} of {z.size} values. Look for the "
            "step that made them."
        )
    return z


def _is_integer(value):
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
