"""Invertible layers between couplings: normalizations and mixed channels."""

import tensorflow as tf
from keras import initializers, saving

from keras_gen import inputs, randomness
from keras_gen.layers.invertible import InvertibleLayer


@saving.register_keras_serializable(package="keras_gen")
class ActivationNormalization(InvertibleLayer):
    """Shifts and scales each channel, at first to mean 0 and variance 1.

    `y = (x + bias) * exp(log_scale)`, with a weight of each for each channel,
    and `log_det = height * width * sum(log_scale)`. The first batch of
    training (of all replicas together) sets them by its mean and variance;
    from then on they train. On vectors it is the diagonal scaling of NICE.

    Args:
        epsilon: Positive number, added to the variance of the first batch.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        started: A weight, 0 until a batch has set the others.

    Raises:
        ValueError: If `epsilon` is not positive.

    Example:

    >>> y, log_det = ActivationNormalization()(x, training=True)

    Reference:
        - [Glow](https://arxiv.org/abs/1807.03039)
    """

    def __init__(self, epsilon=1e-6, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = inputs.check_number(
            epsilon, "epsilon", minimum=0, exclusive=True
        )

    def build(self, input_shape):
        super().build(input_shape)
        shape = self.event_shape[-1:]
        self.bias, self.log_scale = (
            self.add_weight(
                name=name, shape=shape, initializer="zeros", autocast=False
            )
            for name in ("bias", "log_scale")
        )
        self.started = self.add_weight(
            name="started",
            shape=(),
            dtype="int64",
            initializer="zeros",
            trainable=False,
        )

    def forward(self, x, training=False):
        if training:
            self._start_from(x)
        y = (x + self.bias) * tf.exp(self.log_scale)
        log_det = self._num_pixels * tf.reduce_sum(self.log_scale)
        return y, tf.fill(tf.shape(x)[:1], log_det)

    def _start_from(self, x):
        # Each time: replicas may not meet in a branch, and beside a network
        # it costs next to nothing.
        mean, variance = _moments(tf.stop_gradient(x))
        is_first = tf.equal(self.started, 0)
        is_first &= tf.math.is_finite(tf.reduce_sum(mean + variance))
        log_scale = -0.5 * tf.math.log(variance + self.epsilon)
        for weight, start in (
            (self.bias, -mean),
            (self.log_scale, log_scale),
            (self.started, tf.constant(1, "int64")),
        ):
            weight.assign(tf.where(is_first, start, weight))

    def inverse(self, y):
        return y * tf.exp(-self.log_scale) - self.bias

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}


@saving.register_keras_serializable(package="keras_gen")
class InvertibleBatchNormalization(InvertibleLayer):
    """Brings each channel of a batch to mean 0 and variance 1.

    `y = (x - mean) / sqrt(variance + epsilon)` and `log_det = -height * width
    * sum(log(variance + epsilon)) / 2`. In training mean and variance are
    those of the batch (of all replicas together), else their moving averages;
    those of the first batches are plain averages, so that they hold from the
    first step on. A batch that is not finite leaves them alone.

    Args:
        momentum: Number in [0, 1], how much of the averages a batch keeps; with
            1 they are means over all batches.
        epsilon: Positive number, added to the variance.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If an argument is not as above.

    Example:

    >>> y, log_det = InvertibleBatchNormalization()(x, training=True)

    Reference:
        - [Density Estimation Using Real NVP](
          https://arxiv.org/abs/1605.08803), section 3.7, where training also
          normalizes by averages over batches.
    """

    def __init__(self, momentum=0.99, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.momentum = inputs.check_number(momentum, "momentum", 0, 1)
        self.epsilon = inputs.check_number(
            epsilon, "epsilon", minimum=0, exclusive=True
        )

    def build(self, input_shape):
        super().build(input_shape)
        self.moving_mean, self.moving_variance, self.num_batches = (
            self.add_weight(
                name=name,
                shape=shape,
                initializer=initializer,
                trainable=False,
                autocast=False,
            )
            for name, shape, initializer in (
                ("moving_mean", self.event_shape[-1:], "zeros"),
                ("moving_variance", self.event_shape[-1:], "ones"),
                ("num_batches", (), "zeros"),
            )
        )

    def forward(self, x, training=False):
        mean, variance = self.moving_mean, self.moving_variance
        if training:
            mean, variance = _moments(x)
            self._average(mean, variance)
        variance = variance + self.epsilon
        log_det = -0.5 * self._num_pixels * tf.reduce_sum(tf.math.log(variance))
        y = (x - mean) * tf.math.rsqrt(variance)
        return y, tf.fill(tf.shape(x)[:1], log_det)

    def _average(self, mean, variance):
        finite = tf.math.is_finite(tf.reduce_sum(mean + variance))
        count = self.num_batches + tf.cast(finite, mean.dtype)
        share = tf.maximum(1.0 - self.momentum, 1.0 / tf.maximum(count, 1.0))
        for average, value in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            moved = average + share * (value - average)
            average.assign(tf.where(finite, moved, average))
        self.num_batches.assign(count)

    def inverse(self, y):
        return y * tf.sqrt(self.moving_variance + self.epsilon) + (
            self.moving_mean
        )

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }


@saving.register_keras_serializable(package="keras_gen")
class InvertibleConv1x1(InvertibleLayer):
    """Mixes the channels of each pixel by an invertible matrix.

    `y = x @ W` at each pixel, `log_det = height * width * log(abs(det(W)))`.
    W is kept as `P @ L @ (U + diag(sign * exp(log_diagonal)))`: a permutation
    P and signs that stay as they are, L lower triangular with ones, and U
    above the diagonal. `log(abs(det(W)))` is then `sum(log_diagonal)`. At
    first W is a random rotation.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    >>> y, log_det = InvertibleConv1x1()(x)  # x: (batch, 14, 14, 4)

    Reference:
        - [Glow](https://arxiv.org/abs/1807.03039)
    """

    def build(self, input_shape):
        super().build(input_shape)
        channels, dtype = self.event_shape[-1], self.variable_dtype
        with tf.init_scope():
            rotation = initializers.Orthogonal()((channels, channels), dtype)
            parts, order = tf.linalg.lu(rotation)
            diagonal = tf.linalg.diag_part(parts)
            permutation = tf.one_hot(order, channels, axis=0, dtype=dtype)
        for name, value, trainable in (
            ("permutation", permutation, False),
            ("sign", tf.sign(diagonal), False),
            ("lower", tf.linalg.band_part(parts, -1, 0), True),
            ("upper", tf.linalg.band_part(parts, 0, -1), True),
            ("log_diagonal", tf.math.log(tf.abs(diagonal)), True),
        ):
            weight = self.add_weight(
                name=name,
                shape=value.shape,
                initializer=lambda shape, dtype, value=value: value,
                trainable=trainable,
                autocast=False,
            )
            setattr(self, name, weight)

    @property
    def matrix(self):
        """W, `(channels, channels)`, in the dtype of the weights."""
        diagonal = self.sign * tf.exp(self.log_diagonal)
        lower = tf.linalg.band_part(tf.convert_to_tensor(self.lower), -1, 0)
        upper = tf.linalg.band_part(tf.convert_to_tensor(self.upper), 0, -1)
        lower = tf.linalg.set_diag(lower, tf.ones_like(diagonal))
        upper = tf.linalg.set_diag(upper, diagonal)
        return self.permutation @ lower @ upper

    def forward(self, x, training=False):
        log_det = self._num_pixels * tf.reduce_sum(self.log_diagonal)
        y = tf.tensordot(x, self.matrix, axes=1)
        return y, tf.fill(tf.shape(x)[:1], log_det)

    def inverse(self, y):
        # In double precision, where it costs nothing: the matrix is small.
        matrix = self.matrix
        inverse = tf.linalg.inv(tf.cast(matrix, "float64"))
        return tf.tensordot(y, tf.cast(inverse, matrix.dtype), axes=1)


def _moments(x):
    """Mean and variance of each channel, over the batches of all replicas."""
    axes = [*range(len(x.shape) - 1)]
    mean = _over_replicas(tf.reduce_mean(x, axes))
    return mean, _over_replicas(tf.reduce_mean(tf.square(x - mean), axes))


def _over_replicas(value):
    if randomness.replica_position()[1] == 1:
        return value
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, value)
