"""Waveforms: the mu-law that rounds them to levels, and a WAV file."""

import math
import wave

import numpy as np
import tensorflow as tf

from keras_gen import files, inputs


def mu_law_encode(x, levels=256):
    """Rounds a waveform to levels that lie dense where it is quiet.

    For `mu = levels - 1` the levels 0, ..., mu are equally spaced in
    `f(x) = sign(x) * log(1 + mu * abs(x)) / log(1 + mu)`, -1 to 1, and `x`
    gets the nearest one there.

    Args:
        x: Float tensor or array in [-1, 1]; beyond, the outermost levels.
        levels: Integer of at least 2, how many there are.

    Returns:
        int32 tensor of the shape of `x`, in [0, levels - 1].

    Raises:
        ValueError: If `levels` is not such an integer.

    Example:

    >>> mu_law_encode([-1.0, 0.01, 1.0])  # [0, 157, 255]

    Reference:
        - ITU-T Recommendation G.711, of which this is the smooth curve.
        - [WaveNet](https://arxiv.org/abs/1609.03499)
    """
    return tf.cast(mu_law_round(x, levels), "int32")


def mu_law_round(x, levels=256):
    """`mu_law_encode` as float32, where NaN remains NaN."""
    mu = check_levels(levels) - 1
    x = tf.clip_by_value(tf.cast(x, "float32"), -1.0, 1.0)
    f = tf.sign(x) * tf.math.log1p(mu * tf.abs(x)) / math.log1p(mu)
    return tf.round((f + 1.0) / 2.0 * mu)


def mu_law_decode(level, levels=256):
    """The amplitudes of levels: `sign(f) * ((1 + mu)**abs(f) - 1) / mu`.

    For `mu = levels - 1` level k is at `f = 2 * k / mu - 1`, see
    `mu_law_encode`, which gives back each level that was decoded.

    Args:
        level: Integer tensor or array in [0, levels - 1].
        levels: Integer of at least 2, how many there are.

    Returns:
        float32 tensor of the shape of `level`, in [-1, 1].

    Raises:
        ValueError: If `levels` is not such an integer.

    Example:

    >>> mu_law_decode([0, 157, 255])  # [-1, 0.0102, 1]
    """
    mu = check_levels(levels) - 1
    f = 2.0 * tf.cast(level, "float32") / mu - 1.0
    x = tf.sign(f) * tf.math.expm1(tf.abs(f) * math.log1p(mu)) / mu
    return tf.clip_by_value(x, -1.0, 1.0)  # rounding goes beyond


def check_levels(levels):
    """Checks how many levels of amplitude there are to be.

    Args:
        levels: The value to check.

    Returns:
        `levels` as a Python integer.

    Raises:
        ValueError: If it is not an integer of at least 2.

    Example:

    >>> check_levels(256)  # 256
    """
    if inputs.check_positive_integer(levels, "levels") == 1:
        raise ValueError(
            "`levels` must be at least 2, got 1: a waveform of one level "
            "carries nothing. Pass for example `levels=256`."
        )
    return int(levels)


def write_wav(path, x, sample_rate):
    """Writes a waveform as a WAV file of 16 bits and one channel.

    Args:
        path: Path of the file; an existing one is replaced.
        x: Floats `(num_samples,)`, clipped to [-1, 1].
        sample_rate: Integer, samples per second.

    Raises:
        ValueError: If `x` is not a finite waveform, or the rate not a positive
            integer.

    Example:

    >>> write_wav("run/speech.wav", model.sample(1)[0], sample_rate=8000)
    """
    sample_rate = inputs.check_positive_integer(sample_rate, "sample_rate")
    x = np.asarray(x)
    if x.ndim != 1 or x.dtype.kind != "f" or not np.isfinite(x).all():
        raise ValueError(
            "`x` must be one waveform, finite floats (num_samples,), got "
            f"shape {x.shape} and dtype {x.dtype}. Of a batch pass `x[0]`, or "
            "`np.concatenate(x)` for one after the other."
        )
    pcm = np.rint(np.clip(x, -1.0, 1.0) * 32767).astype("<i2")
    with files.replacing(path) as part, wave.open(part, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(pcm.tobytes())
