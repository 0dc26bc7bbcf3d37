"""Data as a likelihood p(x given z) takes it, and what its values mean."""

import math
import typing

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from keras_gen import randomness

tfd = tfp.distributions


class Observations(typing.NamedTuple):
    """Checked data.

    `x` is float32 `(batch, *event_shape)`. With `dequantize`, the likelihood
    is to see `spread(x, noise)`, and `log_volume`, the logarithm of a level's
    size, is added to its density. `discrete` is whether the result is the
    log-probability of discrete data.
    """

    x: np.ndarray
    dequantize: bool
    discrete: bool
    log_volume: float


def spread(x, noise):
    """8-bit images as `(k + noise) / 256`: uniform within their levels."""
    return (tf.round(x * 255.0) + noise) / 256.0


def observe(x, prior, likelihood, dequantize):
    """Checks data against a likelihood.

    Args:
        x: Array `(batch, *event_shape)`, as the caller got it.
        prior: `tfd.Distribution` over latents.
        likelihood: Function of latents.
        dequantize: Boolean or `None`.

    Returns:
        `Observations`.

    Raises:
        ValueError: If the shapes differ, or `x` is not finite, or not in
            [0, 1] where it must be images.
    """
    check_parts(prior, likelihood)
    distribution = likelihood(prior.sample(1, seed=randomness.seed_pair(0)))
    event_shape = tuple(distribution.event_shape)
    x = np.asarray(x)
    if x.shape[1:] != event_shape or not len(x):
        raise ValueError(
            "`x` must be data that `likelihood(z)` is a distribution of, of "
            f"shape (batch, {', '.join(map(str, event_shape))}), got shape "
            f"{x.shape}."
        )
    is_density = is_reparameterized(distribution)
    if dequantize is None:
        dequantize = is_density
    if np.issubdtype(x.dtype, np.integer):
        x = x / 255.0
    x = x.astype("float32")
    if not np.isfinite(x).all():
        raise ValueError("`x` must be finite, got NaN or infinite values.")
    discrete = dequantize or not is_density
    if discrete and not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(
            "`x` must be images in [0, 1] (or uint8), got values from "
            f"{x.min():.4g} to {x.max():.4g}. Scale them, or pass "
            "`dequantize=False` for the density of continuous data."
        )
    num_dims = math.prod(event_shape)
    log_volume = -num_dims * math.log(256) if dequantize else 0.0
    return Observations(x, dequantize, discrete, log_volume)


def is_reparameterized(distribution):
    """Whether its samples have gradients: true of densities alone."""
    return distribution.reparameterization_type == tfd.FULLY_REPARAMETERIZED


def check_parts(prior, likelihood, posterior=None):
    """Raises ValueError unless the parts of a model are what they must be."""
    if not isinstance(prior, tfd.Distribution):
        raise ValueError(
            "`prior` must be a `tfd.Distribution` over latents, got an object "
            f"of type {type(prior).__name__}. Pass for example `model.prior`."
        )
    functions = {"likelihood": likelihood, "posterior": posterior}
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise ValueError(
                f"`{name}` must be a function that gives a distribution, got "
                f"an object of type {type(function).__name__}. Pass for "
                f"example `model.{name}`."
            )
