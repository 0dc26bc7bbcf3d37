"""Checks of the waveforms that models of audio are given.

What `inputs` is for images: everything runs eagerly, before the first training
step, and raises a `ValueError` of at most 600 characters that names the
argument, says what was expected and what came, and gives a remedy.
"""

import os
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from keras_gen import inputs


def check_waveforms(x, num_samples, argument="x"):
    """Checks a batch of waveforms.

    Of a symbolic tensor only the shape and the dtype are checked.

    Args:
        x: Finite floats `(batch, num_samples)` in [-1, 1]: a NumPy array, a
            `tf.Tensor` or what NumPy can read.
        num_samples: Integer, length of a waveform.
        argument: String, the name of the argument in error messages.

    Returns:
        float32 tensor of the shape of `x`.

    Raises:
        ValueError: If `x` is anything else, or empty.

    Example:

    >>> check_waveforms(np.zeros((8, 4096)), 4096).dtype  # float32
    """
    return _check(x, num_samples, f"`{argument}`")


def check_data(x, y=None, *, num_samples, check_condition=None, argument="x"):
    """Checks what `fit` and `evaluate` are given: all of an array, or a batch.

    Args:
        x: Waveforms as in `check_waveforms`, or a `tf.data.Dataset` or
            `keras.utils.PyDataset` whose batches are `x` or `(x, y)`.
        y: Conditions beside an array `x`.
        num_samples: Integer, length of a waveform.
        check_condition: Function of `(y, batch)` that raises a `ValueError`
            about what is no condition, for a model that takes one. Others
            ignore `y`.
        argument: String, the name of `x` in error messages.

    Raises:
        ValueError: If a model cannot be trained on `x` and `y`.

    Example:

    >>> dataset = tf.data.Dataset.from_tensor_slices(waveforms).batch(32)
    >>> check_data(dataset, num_samples=4096)
    """
    name = f"`{argument}`"
    if isinstance(x, tf.data.Dataset | keras.utils.PyDataset):
        if y is not None:
            raise ValueError(
                f"`y` must be `None` beside a dataset. {name} must yield `(x, "
                "y)` itself: `tf.data.Dataset.zip(x, y).batch(n)`."
            )
        x, y = _first_batch(x, name)
        name = f"The first batch of {name}"
    x = _check(x, num_samples, name)
    if check_condition is not None:
        check_condition(y, x.shape[0])
    elif tuple(getattr(y, "shape", ()))[:1] not in ((), (x.shape[0],)):
        raise ValueError(
            f"`y` must have one entry per waveform, got {y.shape[0]} for "
            f"{x.shape[0]} waveforms. Leave it out: the model has no condition."
        )


def check_frames(frames, batch, shape, argument="condition"):
    """Checks conditions that change over time.

    Of a symbolic tensor only the shape and the dtype are checked.

    Args:
        frames: Finite numbers `(batch, num_frames, condition_dim)`.
        batch: Integer or `None` (any), how many there must be.
        shape: `(num_frames, condition_dim)`.
        argument: String, the name of the argument in error messages.

    Returns:
        float32 tensor of the shape of `frames`.

    Raises:
        ValueError: If `frames` is anything else.

    Example:

    >>> check_frames(np.zeros((8, 51, 4)), 8, (51, 4)).dtype  # float32
    """
    name = f"`{argument}`"
    expected = f"float frames ({batch or 'batch'}, {shape[0]}, {shape[1]})"
    if frames is None:
        raise ValueError(
            f"{name} must be {expected}, got `None`. Pass the frames, to "
            "`fit` as a dataset of `(x, y)`."
        )
    if not isinstance(frames, tf.Tensor | tf.Variable):
        try:
            frames = np.asarray(frames)
        except ValueError as error:
            raise ValueError(
                f"{name} must be {expected}, got lists of different lengths. "
                "Cut or pad them."
            ) from error
    got = tf.TensorShape(frames.shape)
    if not got.is_compatible_with((batch, *shape)):
        raise ValueError(
            f"{name} must be {expected}, got the shape {_show(frames.shape)}. "
            "Each frame is for the samples of `frame_length`."
        )
    dtype = frames.dtype
    if not (inputs._is_float(dtype) or inputs._is_integer(dtype)):
        raise ValueError(
            f"{name} must be {expected}, got the dtype "
            f"{inputs._dtype_name(dtype)}. Convert it: "
            '`frames.astype("float32")`.'
        )
    symbolic = tf.is_symbolic_tensor(frames)
    frames = tf.cast(frames, "float32")
    if not symbolic and not np.isfinite(np.asarray(frames)).all():
        raise ValueError(
            f"{name} must be finite in float32, got NaN or infinite values. "
            "Replace or drop these frames."
        )
    return frames


def _first_batch(dataset, name):
    """`(x, y)` of the first batch of a dataset; `y` may be `None`."""
    if isinstance(dataset, keras.utils.PyDataset):
        batch = None if dataset.num_batches == 0 else dataset[0]
    else:
        try:
            batch = next(iter(dataset.take(1)), None)
        except tf.errors.InvalidArgumentError as error:
            reason = error.message.split("}} ")[-1][:200]
            raise ValueError(
                f"The first batch of {name} must be readable, got the error "
                f"{reason}. If the waveforms differ in length, cut or pad them "
                "before `.batch(n)`."
            ) from error
    if batch is None:
        raise ValueError(
            f"{name} must yield at least one batch, got an empty dataset. "
            "`drop_remainder=True` drops all if there are fewer waveforms "
            "than one batch."
        )
    x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
    if weights is not None:
        raise ValueError(
            f"{name} must yield `x` or `(x, y)`, got sample weights too, which "
            "generative models do not use. Drop them: `.map(lambda x, y, w: "
            "(x, y))`."
        )
    return x, y


def _check(x, num_samples, name):
    expected = f"{name} must be waveforms, floats (batch, {num_samples})"
    if not isinstance(x, tf.Tensor | tf.Variable):
        if not hasattr(x, "__array__"):
            raise ValueError(f"{expected}, got {_about(x)}")
        x = np.asarray(x)
    shape, dtype = tf.TensorShape(x.shape), x.dtype
    if not shape.is_compatible_with((None, num_samples)) or 0 in (shape or ()):
        remedy = _shape_remedy(shape, num_samples)
        raise ValueError(f"{expected}, got the shape {_show(shape)}. {remedy}")
    if not inputs._is_float(dtype):
        raise ValueError(
            f"{expected} in [-1, 1], got the dtype "
            f"{inputs._dtype_name(dtype)}. Divide samples of 16 bits by 32768: "
            "`x / np.float32(32768)`."
        )
    if not tf.is_symbolic_tensor(x):
        _check_values(np.asarray(x), f"{expected} in [-1, 1]")
    return tf.ensure_shape(tf.cast(x, "float32"), (None, num_samples))


def _check_values(x, expected):
    # The extremes show NaN and infinite values, with no copy of the array.
    low, high = float(x.min()), float(x.max())
    if not np.isfinite([low, high]).all():
        num_bad = int(np.count_nonzero(~np.isfinite(x)))
        kind = "NaN" if np.isnan(x).any() else "infinite"
        raise ValueError(
            f"{expected}, got {num_bad} values that are not finite ({kind}). "
            "Drop these waveforms: `x[np.isfinite(x).all(axis=1)]`."
        )
    peak = max(-low, high)
    if peak > 1:
        remedy = "Divide by the largest value that there can be."
        if peak <= 1.1:
            remedy = "Filters overshoot a little: `np.clip(x, -1, 1)`."
        elif 2 < peak <= 32768:
            remedy = "Divide samples of 16 bits by 32768: `x / 32768`."
        raise ValueError(
            f"{expected}, got values in [{low:.9g}, {high:.9g}]. {remedy}"
        )


def _shape_remedy(shape, num_samples):
    if 0 in shape:
        return "Pass at least one waveform."
    if shape.is_compatible_with((num_samples,)):
        return (
            "The batch axis is missing: `x[None]`, or `.batch(n)` of a dataset."
        )
    if shape.is_compatible_with((None, num_samples, 1)):
        return "Leave out the axis of the channel: `x[..., 0]`."
    if shape.rank == 3:
        return "Waveforms have one channel: take one, or the mean of several."
    return (
        f"Cut or pad the waveforms to {num_samples} samples, or build the "
        "model with `num_samples` of theirs."
    )


def _about(x):
    """What came in place of an array, and what to pass."""
    if x is None:
        return "`None`. Pass an array or a dataset."
    kind = type(x).__name__[:40]
    if isinstance(x, str | bytes | os.PathLike):
        return (
            f"the path or name {str(x)[:100]!r}. Load it: use "
            "`keras_gen.datasets.load_audio(path, num_samples=...)`."
        )
    if isinstance(x, Mapping):
        return (
            f"a {kind} with the keys {str(list(x))[:100]}. Take the waveforms "
            "out of it, in a dataset by `.map(lambda x: x[key])`."
        )
    return f'a {kind}. Make one array of it: `np.asarray(x, dtype="float32")`.'


def _show(shape):
    return str(tuple(tf.TensorShape(shape).as_list()))[:100]
