"""One map that tells a discriminator how much images of a batch differ."""

import keras
import tensorflow as tf

from keras_gen import inputs


@keras.saving.register_keras_serializable(package="keras_gen")
class MinibatchStdDev(keras.layers.Layer):
    """Puts the standard deviation over a group of images beside their maps.

    The batch falls into groups; those of image i of n are the images i,
    i + n / g, i + 2 * n / g, ..., g in all. Of each group it adds one number
    as one more map,

        mean(sqrt(mean((x - mean(x))**2) + 1e-8))

    with the inner means over the group and the outer one over pixels and
    maps. A generator that gives the same image over and over is found out by
    it. It is computed in float32 under every dtype policy, and over the
    images of one replica.

    Args:
        group_size: Integer, g. Where it does not divide the batch, groups are
            as large as the largest smaller number that does.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        x: `(batch, height, width, maps)`.

    Returns:
        `(batch, height, width, maps + 1)`.

    Raises:
        ValueError: If `group_size` is not a positive integer.

    Example:

    >>> MinibatchStdDev()(keras.ops.ones((8, 4, 4, 512)))  # (8, 4, 4, 513)

    Reference:
        - [Progressive Growing of GANs](https://arxiv.org/abs/1710.10196)
    """

    def __init__(self, group_size=4, **kwargs):
        super().__init__(**kwargs)
        self.group_size = inputs.check_positive_integer(
            group_size, "group_size"
        )

    def call(self, x):
        shape = tf.shape(x)
        size = self._largest_divisor(x.shape[0] or shape[0])
        groups = tf.reshape(
            tf.cast(x, "float32"), tf.concat([[size, -1], shape[1:]], 0)
        )
        deviation = groups - tf.reduce_mean(groups, axis=0)
        variance = tf.reduce_mean(tf.square(deviation), axis=0)
        # One number a group: (batch / size,)
        std = tf.reduce_mean(tf.sqrt(variance + 1e-8), axis=(1, 2, 3))
        std = tf.reshape(tf.tile(std, [size]), (-1, 1, 1, 1))
        ones = tf.ones_like(x[..., :1])
        return tf.concat([x, ones * tf.cast(std, x.dtype)], axis=-1)

    def _largest_divisor(self, batch):
        if isinstance(batch, int):
            sizes = range(1, self.group_size + 1)
            return max(size for size in sizes if batch % size == 0)
        sizes = tf.range(1, self.group_size + 1)
        return tf.reduce_max(tf.where(batch % sizes == 0, sizes, 1))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] + 1)

    def get_config(self):
        return {**super().get_config(), "group_size": self.group_size}
