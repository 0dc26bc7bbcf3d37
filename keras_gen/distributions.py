"""Distributions that TensorFlow Probability lacks, and their units."""

import math

import tensorflow as tf
import tensorflow_probability as tfp

tfd = tfp.distributions


def bits_per_dim(log_prob, image_shape):
    """Bits that an image costs per dimension: `-log2(p(x)) / num_dims`.

    Args:
        log_prob: Log-probabilities of 8-bit images, nats, of any shape.
        image_shape: `(height, width, channels)`.

    Returns:
        Bits per dimension, in the shape and type of `log_prob`. An image of
        uniform noise costs 8.

    Example:

    >>> bits_per_dim(-784 * math.log(256), (28, 28, 1))  # 8.0
    """
    return -log_prob / (math.prod(image_shape) * math.log(2))


class DiscretizedLogistic(tfd.Distribution):
    """Logistic distribution rounded to the 256 levels of 8-bit images.

    A value is `k / 255`, `k` in 0..255, of probability `sigmoid((k / 255 +
    1 / 510 - loc) / scale) - sigmoid((k / 255 - 1 / 510 - loc) / scale)`: what
    the logistic density has within half a level. The first and last level
    also take all that lies beyond them, so that the 256 probabilities sum to
    one for any `loc`.

    The reference works on [-1, 1], where all widths double, and replaces
    small probabilities by the density; here they are exact.

    Args:
        loc: Float tensor, center of the logistic; 0 is black and 1 is white.
        scale: Positive float tensor, broadcast against `loc`. The standard
            deviation is `scale * pi / sqrt(3)`; a level is 1/255 wide.
        validate_args: Boolean, whether to check that `scale` is positive.
        allow_nan_stats: Boolean, see `tfd.Distribution`.
        name: Name of the distribution.

    Example:

    >>> pixels = DiscretizedLogistic(loc, scale)  # (batch, *image_shape)
    >>> tfd.Independent(pixels, 3).log_prob(x)  # (batch,), nats

    Reference:
        - [PixelCNN++](https://arxiv.org/abs/1701.05517)
    """

    def __init__(
        self,
        loc,
        scale,
        validate_args=False,
        allow_nan_stats=True,
        name="DiscretizedLogistic",
    ):
        parameters = dict(locals())
        # Half precision cannot tell neighbouring levels apart.
        self.loc = tf.cast(loc, tf.float32)
        self.scale = tf.cast(scale, tf.float32)
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
        properties = tfp.util.ParameterProperties
        return {
            "loc": properties(),
            "scale": properties(
                default_constraining_bijector_fn=tfp.bijectors.Softplus
            ),
        }

    def _event_shape(self):
        return tf.TensorShape([])

    def _event_shape_tensor(self):
        return tf.constant([], tf.int32)

    def _parameter_control_dependencies(self, is_init):
        if not self.validate_args:
            return []
        return [tf.debugging.assert_positive(self.scale, "`scale` <= 0")]

    def _log_prob(self, x):
        level = _nearest_level(tf.cast(x, tf.float32))
        above = (level + 1 / 510 - self.loc) / self.scale
        below = (level - 1 / 510 - self.loc) / self.scale
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)),
        # whose factors neither cancel nor vanish, nor do their gradients.
        up_to = tf.math.log_sigmoid(above)
        from_on = tf.math.log_sigmoid(-below)
        inside = tf.math.log(-tf.math.expm1(-1 / (255 * self.scale)))
        return tf.where(
            level < 0.5 / 255,
            up_to,
            tf.where(level > 254.5 / 255, from_on, up_to + from_on + inside),
        )

    def _sample_n(self, n, seed=None):
        logistic = tfd.Logistic(self.loc, self.scale)
        return _nearest_level(logistic.sample(n, seed=seed))

    def _mean(self):
        # The mean of the logistic clipped to [0, 1] by the integral of its
        # distribution function. Rounding moves it by less than half a level.
        mean = self.scale * (
            tf.math.softplus(self.loc / self.scale)
            - tf.math.softplus((self.loc - 1) / self.scale)
        )
        return tf.clip_by_value(mean, 0.0, 1.0)


def _nearest_level(x):
    return tf.round(255 * tf.clip_by_value(x, 0.0, 1.0)) / 255
