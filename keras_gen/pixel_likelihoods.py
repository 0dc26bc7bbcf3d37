"""Likelihoods of pixels: a decoder's output as a distribution over images.

Each class holds no weights and tells how many numbers a pixel needs (`maps`),
which distribution they make (`distribution`), and what an image costs under
it (`log_prob`), in nats of the 8-bit (Bernoulli: binary) image, so that the
values of different likelihoods compare. `get` finds them by name.
"""

import math

import tensorflow as tf
import tensorflow_probability as tfp

from keras_gen import distributions

tfd = tfp.distributions


class Bernoulli:
    """Binary pixels; a grey value counts as the probability of white.

    `log p(x) = sum(x * h - softplus(h))` over pixels, for logits h.

    Reference:
        - [Auto-Encoding Variational Bayes](https://arxiv.org/abs/1312.6114)
    """

    name = "bernoulli"
    needs_noise = False

    def maps(self, channels):
        """Output channels of the decoder: one logit per channel."""
        return channels

    def distribution(self, h):
        """p(x given h), a `tfd.Distribution` over images of 0 and 1.

        Args:
            h: Decoder output, `(..., height, width, maps)`.
        """
        # Of integers, it would cut the grey values of an array to 0.
        pixels = tfd.Bernoulli(logits=tf.cast(h, "float32"), dtype=tf.float32)
        return tfd.Independent(pixels, 3)

    def log_prob(self, h, x, noise=0.0):
        """Log-probability of images.

        Args:
            h: Decoder output, `(..., height, width, maps)`.
            x: Images in [0, 1], broadcast against the leading axes of `h`.
            noise: Unused.

        Returns:
            `(...)` nats.
        """
        h = tf.cast(h, "float32")
        # Half the work of the distribution, which has one log-probability
        # for black and one for white.
        return _sum_pixels(tf.cast(x, "float32") * h - tf.nn.softplus(h))


class Gaussian:
    """Gaussian pixels with a location and a standard deviation each.

    A density over images dequantized by uniform noise: level k stands for
    `(k + noise) / 256`, and `log p(k) >= E[log density] - num_dims * log(256)`,
    the right side being what `log_prob` draws once. The decoder gives the
    location minus 0.5 and the unconstrained scale.

    Reference:
        - [A Note on the Evaluation of Generative Models](
          https://arxiv.org/abs/1511.01844), on dequantization.
    """

    name = "gaussian"
    needs_noise = True

    def maps(self, channels):
        """Output channels of the decoder: location and scale."""
        return 2 * channels

    def distribution(self, h):
        """p(x given h), a density over dequantized images.

        Args:
            h: Decoder output, `(..., height, width, maps)`.

        Returns:
            A `tfd.Distribution` whose samples are clipped to [0, 1].
        """
        return tfd.Independent(_ClippedNormal(*_loc_and_scale(h)), 3)

    def log_prob(self, h, x, noise):
        """Log-probability of 8-bit images, by one draw of the dequantization.

        Args:
            h: Decoder output, `(..., height, width, maps)`.
            x: Images in [0, 1], broadcast against the leading axes of `h`.
            noise: Uniform in [0, 1), broadcast in the same way.

        Returns:
            `(...)` nats.
        """
        x = (tf.round(tf.cast(x, "float32") * 255.0) + noise) / 256.0
        pixels = tfd.Normal(*_loc_and_scale(h))
        return _sum_pixels(pixels.log_prob(x) - math.log(256))


class DiscretizedLogistic:
    """Logistic distributions rounded to the 256 levels of 8-bit images.

    See `distributions.DiscretizedLogistic`. The decoder gives the location
    minus 0.5 and the unconstrained scale.

    Reference:
        - [PixelCNN++](https://arxiv.org/abs/1701.05517)
    """

    name = "discretized_logistic"
    needs_noise = False

    def maps(self, channels):
        """Output channels of the decoder: location and scale."""
        return 2 * channels

    def distribution(self, h):
        """p(x given h), a `tfd.Distribution` over the levels in [0, 1].

        Args:
            h: Decoder output, `(..., height, width, maps)`.
        """
        pixels = distributions.DiscretizedLogistic(*_loc_and_scale(h))
        return tfd.Independent(pixels, 3)

    def log_prob(self, h, x, noise=0.0):
        """Log-probability of 8-bit images.

        Args:
            h: Decoder output, `(..., height, width, maps)`.
            x: Images in [0, 1], broadcast against the leading axes of `h`.
            noise: Unused.

        Returns:
            `(...)` nats.
        """
        return self.distribution(h).log_prob(x)


class Categorical:
    """A free probability for each of the 256 levels of every pixel.

    The decoder gives 256 logits per channel, the levels of the first channel
    first.

    Reference:
        - [Pixel Recurrent Neural Networks](https://arxiv.org/abs/1601.06759),
          on softmax outputs of grey levels.
    """

    name = "categorical"
    needs_noise = False

    def maps(self, channels):
        """Output channels of the decoder: 256 logits per channel."""
        return 256 * channels

    def distribution(self, h):
        """p(x given h), a `tfd.Distribution` over the levels in [0, 1].

        Args:
            h: Decoder output, `(..., height, width, maps)`.
        """
        h = tf.cast(h, "float32")
        shape = tf.concat([tf.shape(h)[:-1], [h.shape[-1] // 256, 256]], axis=0)
        return tfd.Independent(GreyLevels(tf.reshape(h, shape)), 3)

    def log_prob(self, h, x, noise=0.0):
        """Log-probability of 8-bit images.

        Args:
            h: Decoder output, `(..., height, width, maps)`.
            x: Images in [0, 1], broadcast against the leading axes of `h`.
            noise: Unused.

        Returns:
            `(...)` nats.
        """
        return self.distribution(h).log_prob(x)


def get(likelihood):
    """A pixel likelihood by its name.

    Args:
        likelihood: `"bernoulli"`, `"gaussian"`, `"discretized_logistic"`,
            `"categorical"`, or an object with the methods `maps`,
            `distribution` and `log_prob` and the attribute `needs_noise`,
            which is returned as it is.

    Returns:
        An object with these methods.

    Raises:
        ValueError: If it is neither.

    Example:

    >>> get("gaussian").maps(channels=3)  # 6
    """
    if isinstance(likelihood, str) and likelihood in _LIKELIHOODS:
        return _LIKELIHOODS[likelihood]()
    methods = ("maps", "distribution", "log_prob", "needs_noise")
    is_class = isinstance(likelihood, type)
    if not is_class and all(hasattr(likelihood, name) for name in methods):
        return likelihood
    raise ValueError(
        f"`likelihood` must be one of {sorted(_LIKELIHOODS)}, or an object of "
        f"`keras_gen.pixel_likelihoods`, got {str(likelihood)[:100]!r}. Pass "
        'for example `likelihood="bernoulli"`.'
    )


def name_of(likelihood):
    """The name that `get` knows an object by, or `None`."""
    name = getattr(likelihood, "name", None)
    return name if _LIKELIHOODS.get(name) is type(likelihood) else None


class GreyLevels(tfd.Distribution):
    """Categorical distribution over the 256 levels `k / 255` in [0, 1].

    `p(k / 255) = softmax(logits)[k]`; between levels, `log_prob` rounds to
    the nearest one. `tfd.Categorical` is over integers, and has no mean.

    Args:
        logits: Float tensor `(..., 256)`.
        validate_args: Boolean, see `tfd.Distribution`.
        allow_nan_stats: Boolean, see `tfd.Distribution`.
        name: Name of the distribution.

    Example:

    >>> GreyLevels(tf.zeros((28, 28, 1, 256))).mean()  # 0.5 everywhere
    """

    def __init__(
        self,
        logits,
        validate_args=False,
        allow_nan_stats=True,
        name="GreyLevels",
    ):
        parameters = dict(locals())
        self.logits = tf.cast(logits, tf.float32)
        super().__init__(
            dtype=tf.float32,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=validate_args,
            allow_nan_stats=allow_nan_stats,
            parameters=parameters,
            name=name,
        )

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {"logits": tfp.util.ParameterProperties(event_ndims=1)}

    def _event_shape(self):
        return tf.TensorShape([])

    def _event_shape_tensor(self):
        return tf.constant([], tf.int32)

    def _log_prob(self, x):
        x = tf.clip_by_value(tf.cast(x, tf.float32), 0.0, 1.0)
        level = tf.cast(tf.round(255 * x), tf.int32)
        return tfd.Categorical(self.logits).log_prob(level)

    def _probabilities(self):
        # `tf.nn.softmax` of oneDNN refuses more than five axes.
        total = tf.reduce_logsumexp(self.logits, axis=-1, keepdims=True)
        return tf.exp(self.logits - total)

    def _sample_n(self, n, seed=None):
        # One uniform number per pixel through the inverse of the distribution
        # function, where `tfd.Categorical` draws one for each level.
        cumulative = tf.cumsum(self._probabilities(), axis=-1)
        uniform = tfd.Sample(tfd.Uniform(), tf.shape(self.logits)[:-1]).sample(
            n, seed=seed
        )
        below = tf.cast(cumulative <= uniform[..., tf.newaxis], tf.float32)
        # Rounding may leave the last sum under one.
        return tf.minimum(tf.reduce_sum(below, axis=-1), 255.0) / 255

    def _mean(self):
        levels = tf.range(256, dtype=tf.float32) / 255
        return tf.linalg.matvec(self._probabilities(), levels)


class _ClippedNormal(tfd.Normal):
    """A normal whose samples are images: clipped to [0, 1]."""

    def _sample_n(self, n, seed=None):
        return tf.clip_by_value(super()._sample_n(n, seed), 0.0, 1.0)


def _loc_and_scale(h):
    loc, scale = tf.split(tf.cast(h, "float32"), 2, axis=-1)
    return loc + 0.5, tf.nn.softplus(scale) + 1e-3


def _sum_pixels(values):
    return tf.reduce_sum(values, axis=(-3, -2, -1))


_LIKELIHOODS = {
    kind.name: kind
    for kind in (Bernoulli, Gaussian, DiscretizedLogistic, Categorical)
}
