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


class DiscretizedLogisticMixture(tfd.Distribution):
    """Mixture of logistics over the channels of a pixel, on 256 levels.

    With `DL` a `DiscretizedLogistic`, K components and C channels,

        p(x) = sum_k softmax(logits)[k] * prod_c DL(x[c]; m[c, k], scale[c, k])
        m[c, k] = loc[c, k] + sum_{d < c} coefficients[(c, d), k] (x[d] - 1/2)

    so that within a component each channel is linear in those before it.

    In the reference x is in [-1, 1], where `loc` and `scale` are twice as
    large and coefficients are the same. There the channels before are not
    rounded when images are drawn; here they are, and draws follow p(x).

    Args:
        logits: Float tensor `(..., K)`, of the components.
        loc: Float tensor `(..., C, K)`; 0 is black and 1 is white.
        scale: Positive float tensor `(..., C, K)`.
        coefficients: Float tensor `(..., C * (C - 1) / 2, K)`, of the pairs
            (1, 0), (2, 0), (2, 1), (3, 0), ... of a channel and one before it.
            `None` if channels are independent within a component.
        validate_args: Boolean, see `tfd.Distribution`.
        allow_nan_stats: Boolean, see `tfd.Distribution`.
        name: Name of the distribution.

    Raises:
        ValueError: If the parameters have another K than one another, or
            there is not a row of `coefficients` for each pair of channels.

    Example:

    >>> pixels = DiscretizedLogisticMixture(logits, loc, scale, coefficients)
    >>> pixels.log_prob(x)  # (batch, height, width) nats of images x

    Reference:
        - [PixelCNN++](https://arxiv.org/abs/1701.05517)
    """

    def __init__(
        self,
        logits,
        loc,
        scale,
        coefficients=None,
        validate_args=False,
        allow_nan_stats=True,
        name="DiscretizedLogisticMixture",
    ):
        parameters = dict(locals())
        self.logits = tf.cast(logits, tf.float32)
        self.loc = tf.cast(loc, tf.float32)
        self.scale = tf.cast(scale, tf.float32)
        self.coefficients = coefficients
        if coefficients is not None:
            self.coefficients = tf.cast(coefficients, tf.float32)
        self._check_shapes()
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
            "logits": properties(event_ndims=1),
            "loc": properties(event_ndims=2),
            "scale": properties(
                event_ndims=2,
                default_constraining_bijector_fn=tfp.bijectors.Softplus,
            ),
            "coefficients": properties(event_ndims=2),
        }

    def _event_shape(self):
        return tf.TensorShape(self.loc.shape[-2:-1])

    def _event_shape_tensor(self):
        return tf.shape(self.loc)[-2:-1]

    def _check_shapes(self):
        """Refuses sizes that do not fit, where they are known already.

        Some of them would broadcast, to another distribution.
        """
        named = {
            "logits": self.logits,
            "loc": self.loc,
            "scale": self.scale,
            "coefficients": self.coefficients,
        }
        sizes = {
            name: _size(value, -1)
            for name, value in named.items()
            if value is not None
        }
        if len({*sizes.values()} - {None}) > 1:
            got = ", ".join(f"{size} of `{key}`" for key, size in sizes.items())
            raise ValueError(
                f"{', '.join(f'`{name}`' for name in sizes)} must have the "
                "same last axis, the K components of the mixture, got "
                f"{got}. Split the output of the network into equal parts."
            )
        if self.coefficients is None:
            return
        num_channels = _size(self.loc, -2)
        num_pairs = _size(self.coefficients, -2)
        if None in (num_channels, num_pairs):
            return
        expected = num_channels * (num_channels - 1) // 2
        if num_pairs != expected:
            raise ValueError(
                "`coefficients` must have the shape (..., C * (C - 1) / 2, K),"
                f" {expected} rows for the {num_channels} channels of `loc`, "
                f"got {num_pairs}. Pass one for each pair of a channel and one "
                "before it, or `None`."
            )

    def _loc_given(self, x):
        """Centers given the channels before, `(..., C, K)`."""
        if self.coefficients is None:
            return self.loc
        x = x[..., tf.newaxis] - 0.5
        centers, start = [], 0
        for c in range(self.loc.shape[-2]):
            slopes = self.coefficients[..., start : start + c, :]
            shift = tf.reduce_sum(slopes * x[..., :c, :], axis=-2)
            centers.append(self.loc[..., c, :] + shift)
            start += c
        return tf.stack(centers, axis=-2)

    def _component_log_probs(self, x):
        """Of each channel under each component, `(..., C, K)`, and centers."""
        loc = self._loc_given(x)
        component = DiscretizedLogistic(loc, self.scale)
        return component.log_prob(x[..., tf.newaxis]), loc

    def _log_prob(self, x):
        x = _nearest_level(tf.cast(x, tf.float32))
        of_channels, _ = self._component_log_probs(x)
        of_components = tf.reduce_sum(of_channels, axis=-2)
        shares = tf.nn.log_softmax(self.logits)
        return tf.reduce_logsumexp(shares + of_components, axis=-1)

    def conditionals(self, x):
        """Each channel given those before it in `x`.

        Args:
            x: Pixels `(..., C)` in [0, 1]; the last channel does not count.

        Returns:
            A `tfd.MixtureSameFamily` of K `DiscretizedLogistic`s and batch
            shape `(..., C)`. Its log-probabilities of `x` sum to `log_prob(x)`
            over the channels.
        """
        x = _nearest_level(tf.cast(x, tf.float32))
        of_channels, loc = self._component_log_probs(x)
        # What the earlier channels say of the component.
        known = tf.cumsum(of_channels, axis=-2, exclusive=True)
        logits = tf.nn.log_softmax(self.logits)[..., tf.newaxis, :] + known
        return tfd.MixtureSameFamily(
            tfd.Categorical(logits), DiscretizedLogistic(loc, self.scale)
        )

    def _sample_n(self, n, seed=None):
        seeds = tfp.random.split_seed(seed, n=2)
        shape = tf.concat([[n], self.batch_shape_tensor()], axis=0)
        chosen = tfd.Categorical(
            tf.broadcast_to(
                self.logits,
                tf.concat([shape[1:], tf.shape(self.logits)[-1:]], axis=0),
            )
        ).sample(n, seed=seeds[0])
        chosen = tf.one_hot(chosen, self.logits.shape[-1])[..., tf.newaxis, :]

        def of_chosen(values):
            return tf.reduce_sum(chosen * values, axis=-1)

        num_channels = self.loc.shape[-2]
        noise = tfd.Logistic(0.0, 1.0).sample(
            tf.concat([shape, [num_channels]], axis=0), seed=seeds[1]
        )
        x = of_chosen(self.loc) + of_chosen(self.scale) * noise
        if self.coefficients is None:
            return _nearest_level(x)
        slopes = of_chosen(self.coefficients)
        channels, start = [], 0
        for c in range(num_channels):
            shift = 0.0
            for d in range(c):
                shift += slopes[..., start + d] * (channels[d] - 0.5)
            channels.append(_nearest_level(x[..., c] + shift))
            start += c
        return tf.stack(channels, axis=-1)

    def _mean(self):
        if self.coefficients is not None and self.loc.shape[-2] > 1:
            raise NotImplementedError(
                "`mean` has no closed form where channels depend on each "
                "other. Take `conditionals(x).mean()`, or a mean of draws."
            )
        shares = tf.nn.softmax(self.logits)[..., tf.newaxis, :]
        means = DiscretizedLogistic(self.loc, self.scale).mean()
        return tf.reduce_sum(shares * means, axis=-1)


def _size(tensor, axis):
    """Static size of an axis counted from the end, `None` if not known."""
    rank = tensor.shape.rank
    return tensor.shape[axis] if rank is not None and rank >= -axis else None


def _nearest_level(x):
    return tf.round(255 * tf.clip_by_value(x, 0.0, 1.0)) / 255
