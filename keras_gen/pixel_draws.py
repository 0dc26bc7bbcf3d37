"""Likelihoods of pixels that are drawn one after the other.

To what `pixel_likelihoods` have, they add the draw of one channel of a pixel
given the channels before it. The numbers that a network gives for a pixel, its
`maps`, are in as many groups as channels, if each group may depend on the
channels before its own; else they are one group, for all channels at once.
`get` finds the classes by name.
"""

import math

import numpy as np
import tensorflow as tf

from keras_gen import distributions, inputs, pixel_likelihoods


class Bernoulli(pixel_likelihoods.Bernoulli):
    """Binary pixels; a grey value counts as the probability of white."""

    def num_groups(self, channels):
        """Groups of maps: one for each channel."""
        return channels

    def noise_dim(self, channels):
        """Uniform numbers that the draw of a pixel takes."""
        return channels

    def observed(self, x):
        """Images in [0, 1] as the network is to see them: as they are."""
        return x

    def mean(self, h, x):
        """Mean of each channel given those before it, float32 in [0, 1].

        Args:
            h: Output of the network, `(batch, height, width, maps)`.
            x: Images in [0, 1].
        """
        return tf.sigmoid(tf.cast(h, "float32"))

    def draw(self, h, uniform, x, channel):
        """Draws a channel of one pixel of each image.

        Args:
            h: Its group of maps, `(batch, maps / num_groups)` float32.
            uniform: Noise in [0, 1), `(batch, noise_dim)` float32.
            x: The pixels `(batch, channels)`, of which the channels before
                this one count.
            channel: Python integer.

        Returns:
            `(batch,)` float32 in [0, 1].
        """
        white = uniform[:, channel] < tf.sigmoid(h[:, 0])
        return tf.cast(white, "float32")


class Categorical(pixel_likelihoods.Categorical):
    """A free probability for each of the 256 levels of every channel."""

    def num_groups(self, channels):
        """Groups of maps: one for each channel."""
        return channels

    def noise_dim(self, channels):
        """Uniform numbers that the draw of a pixel takes."""
        return channels

    def observed(self, x):
        """Images in [0, 1] as the network is to see them: on 256 levels."""
        return _nearest_level(x)

    def log_prob(self, h, x, noise=0.0):
        """Log-probability of 8-bit images.

        Args:
            h: Output of the network, `(batch, height, width, maps)`.
            x: Images in [0, 1], `(batch, height, width, channels)`.
            noise: Unused.

        Returns:
            `(batch,)` nats.
        """
        # The fused kernel takes a fourth of the time of the distribution.
        shape = tf.concat([tf.shape(x), [256]], axis=0)
        logits = tf.reshape(tf.cast(h, "float32"), shape)
        x = tf.cast(x, "float32")
        # The kernel needs a level where a pixel is not a number, too.
        levels = tf.clip_by_value(tf.cast(tf.round(255 * x), "int32"), 0, 255)
        cost = tf.nn.sparse_softmax_cross_entropy_with_logits(levels, logits)
        # NaN in the gradient too, for the update to be skipped: no logits tell
        # of the last pixel.
        cost *= tf.where(tf.math.is_nan(x), math.nan, 1.0)
        return -tf.reduce_sum(cost, axis=(1, 2, 3))

    def mean(self, h, x):
        """Mean of each channel given those before it; see `Bernoulli`."""
        return self.distribution(h).mean()

    def draw(self, h, uniform, x, channel):
        """Draws a channel of one pixel of each image; see `Bernoulli`."""
        return choose(tf.nn.softmax(h), uniform[:, channel]) / 255


class DiscretizedLogisticMixture:
    """Mixture of logistics, of channels that depend on each other.

    See `distributions.DiscretizedLogisticMixture`. The maps are the logits of
    the components; locations and logarithms of scales of each channel, in
    units in which images are in [-1, 1], at least -7; and the coefficients
    before `tanh`.

    Args:
        num_components: Integer.

    Reference:
        - [PixelCNN++](https://arxiv.org/abs/1701.05517)
    """

    name = "discretized_logistic"
    needs_noise = False

    def __init__(self, num_components=10):
        self.num_components = inputs.check_positive_integer(
            num_components, "num_components"
        )

    def maps(self, channels):
        """Output channels of the network: of one channel 3 a component."""
        num_pairs = channels * (channels - 1) // 2
        return self.num_components * (1 + 2 * channels + num_pairs)

    def num_groups(self, channels):
        """Groups of maps: one, for the channels are coupled by themselves."""
        return 1

    def noise_dim(self, channels):
        """Uniform numbers that the draw of a pixel takes."""
        return 2 * channels

    def observed(self, x):
        """Images in [0, 1] as the network is to see them: on 256 levels."""
        return _nearest_level(x)

    def _pixels(self, h):
        """The mixture of each pixel, of batch shape `h.shape[:-1]`."""
        h, num = tf.cast(h, "float32"), self.num_components
        rows = h.shape[-1] // num
        shape = tf.concat([tf.shape(h)[:-1], [rows, num]], axis=0)
        h = tf.ensure_shape(tf.reshape(h, shape), (*h.shape[:-1], rows, num))
        channels = {self.maps(c) // num: c for c in range(1, 5)}[rows]
        sizes = [1, channels, channels, rows - 1 - 2 * channels]
        logits, loc, log_scale, slopes = tf.split(h, sizes, axis=-2)
        return distributions.DiscretizedLogisticMixture(
            logits[..., 0, :],
            0.5 + 0.5 * loc,
            0.5 * tf.exp(tf.maximum(log_scale, -7.0)),
            tf.tanh(slopes) if channels > 1 else None,
        )

    def distribution(self, h):
        """p(x given h), a `tfd.Distribution` over the levels in [0, 1].

        Args:
            h: Output of the network, `(..., height, width, maps)`.
        """
        return pixel_likelihoods.tfd.Independent(self._pixels(h), 2)

    def log_prob(self, h, x, noise=0.0):
        """Log-probability of 8-bit images.

        Args:
            h: Output of the network, `(..., height, width, maps)`.
            x: Images in [0, 1], broadcast against the leading axes of `h`.
            noise: Unused.

        Returns:
            `(...)` nats.
        """
        return self.distribution(h).log_prob(x)

    def mean(self, h, x):
        """Mean of each channel given those before it; see `Bernoulli`."""
        return self._pixels(h).conditionals(x).mean()

    def draw(self, h, uniform, x, channel):
        """Draws a channel of one pixel of each image; see `Bernoulli`."""
        given = self._pixels(h).conditionals(x)
        shares = given.mixture_distribution.probs_parameter()[:, channel]
        logistic = given.components_distribution
        chosen = choose(shares, uniform[:, 2 * channel])
        chosen = tf.one_hot(tf.cast(chosen, "int32"), self.num_components)
        loc, scale = (
            tf.reduce_sum(chosen * values[:, channel], axis=1)
            for values in (logistic.loc, logistic.scale)
        )
        u = uniform[:, 2 * channel + 1]
        noise = tf.math.log(u) - tf.math.log1p(-u)
        return _nearest_level(loc + scale * noise)


def get(likelihood, num_components=10):
    """A likelihood of pixels that are drawn in turn, by its name.

    Args:
        likelihood: `"bernoulli"`, `"categorical"` or
            `"discretized_logistic"`.
        num_components: Integer, of `"discretized_logistic"`.

    Returns:
        An object of a class above.

    Raises:
        ValueError: If it is another one.

    Example:

    >>> get("categorical").maps(channels=3)  # 768
    """
    if likelihood == "bernoulli":
        return Bernoulli()
    if likelihood == "categorical":
        return Categorical()
    if likelihood == "discretized_logistic":
        return DiscretizedLogisticMixture(num_components)
    raise ValueError(
        "`likelihood` must be 'bernoulli' for binary images, or 'categorical' "
        "or 'discretized_logistic' for those of 256 levels, got "
        f"{str(likelihood)[:100]!r}."
    )


def choose(probabilities, uniform):
    """Inverse of a distribution function: draws by uniform numbers.

    Args:
        probabilities: `(batch, n)` float32.
        uniform: `(batch,)` float32 in [0, 1).

    Returns:
        The k of `cumulative[k - 1] <= uniform < cumulative[k]`, `(batch,)`
        whole float32 numbers.
    """
    # In XLA a cumulative sum takes n**2 steps on a CPU; this is a product,
    # and of n = 256 in blocks of 16 a small one.
    n = probabilities.shape[-1]
    size = math.gcd(n, 16)
    blocks = tf.reshape(probabilities, (-1, n // size, size))
    within = tf.linalg.matmul(blocks, np.tri(size, dtype="float32").T)
    before = tf.matmul(
        within[..., -1], np.tri(n // size, k=-1, dtype="float32").T
    )
    cumulative = within + before[..., tf.newaxis]
    below = cumulative <= uniform[:, tf.newaxis, tf.newaxis]
    chosen = tf.reduce_sum(tf.cast(below, "float32"), axis=(1, 2))
    # Rounding may leave the last sum under one.
    return tf.minimum(chosen, n - 1.0)


def _nearest_level(x):
    return tf.round(255 * tf.clip_by_value(x, 0.0, 1.0)) / 255
